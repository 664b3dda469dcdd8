"""Fixtures for all tests: an engine, a registry, an image, daemons; and what cleans up after them.

`CONTAINER_MANAGER_TEST_ENGINE` and `CONTAINER_MANAGER_TEST_REGISTRY` name what already runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import aiodocker
import pytest
import pytest_asyncio

from tests.support.daemon import COMMAND, Daemon
from tests.support.dockerd import PrivateDockerd
from tests.support.engine import IMAGE, Engine, busybox
from tests.support.engine_proxy import EngineProxy
from tests.support.netns import Network, unavailable
from tests.support.registry import PrivateRegistry, running
from tests.support.registry_proxy import RegistryProxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator, Mapping, Sequence

DEFAULT_ENGINE = "unix:///var/run/docker.sock"
DOCKER_ONLY = "with Docker only: "


# A skip is a failure where nobody reads the reasons


def _skips_fail() -> bool:
    return os.environ.get("CI", "").lower() in {"1", "true"}


def _fail_if_skipped(report: Any) -> None:
    if _skips_fail() and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        if DOCKER_ONLY in str(reason):
            return  # known, and told to people in docs/podman.md
        report.outcome = "failed"
        report.longrepr = f"with CI=true a skip is a failure: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_skipped(report)
    return report


# The engine and what is in it


@pytest.fixture(scope="session")
def engine_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the tests' engine listens; at the end nothing that tests deployed is left on it."""
    named = os.environ.get("CONTAINER_MANAGER_TEST_ENGINE") or os.environ.get("DOCKER_HOST")
    engine = Engine(named or DEFAULT_ENGINE)
    if not engine.answers():
        if named:
            pytest.fail(f"no engine answers at {named}")
        pytest.skip(f"no engine at {engine.url}, and CONTAINER_MANAGER_TEST_ENGINE names none")
    yield engine.url
    engine.remove_containers_below(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def engine(engine_url: str) -> Engine:
    """A few plain synchronous calls to the engine."""
    return Engine(engine_url)


@pytest.fixture(autouse=True)
def docker_only(request: pytest.FixtureRequest) -> None:
    """Skip a test that is marked as `docker_only(reason)` where the engine is Podman."""
    marker = request.node.get_closest_marker("docker_only")
    if marker is not None and request.getfixturevalue("engine").podman:
        pytest.skip(DOCKER_ONLY + marker.args[0])


@pytest.fixture(scope="session")
def image(engine: Engine) -> Iterator[str]:
    """A small image which sleeps for ever and ends at once on SIGTERM.

    Two runs of the tests may share an engine: each holds a shared lock, and only the last one,
    which gets the lock for itself, removes the image.
    """
    if busybox() is None:
        pytest.skip("no busybox to make an image of (Debian: busybox-static)")
    path = Path(tempfile.gettempdir()) / f"container-manager-test-{os.getuid()}.lock"
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        engine.import_busybox(IMAGE)
        yield IMAGE
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            engine.remove_image(IMAGE)


@pytest_asyncio.fixture
async def docker(engine_url: str) -> AsyncIterator[aiodocker.Docker]:
    """A client of the test's own, to look at the engine past the daemon."""
    client = aiodocker.Docker(engine_url)
    try:
        yield client
    finally:
        await client.close()


@pytest_asyncio.fixture
async def engine_proxy(engine_url: str) -> AsyncIterator[EngineProxy]:
    """A proxy in front of the engine, with hooks before and after each call."""
    async with EngineProxy(engine_url) as proxy:
        yield proxy


@pytest_asyncio.fixture
async def private_dockerd(tmp_path: Path) -> AsyncIterator[PrivateDockerd]:
    """An engine of the test's own, started, to be killed and restarted."""
    if os.geteuid() != 0 or not (shutil.which("dockerd") and shutil.which("unshare")):
        pytest.skip("an engine of the test's own needs root, dockerd and unshare (util-linux)")
    async with PrivateDockerd(tmp_path) as dockerd:
        yield dockerd


# The registry


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of a registry on loopback, to which everybody may push."""
    named = os.environ.get("CONTAINER_MANAGER_TEST_REGISTRY")
    if named:
        yield named
        return
    with running(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture(scope="session")
def private_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRegistry]:
    """A registry on loopback that wants a login for everything."""
    with running(tmp_path_factory.mktemp("private-registry"), private=True) as address:
        yield PrivateRegistry(address)


@pytest_asyncio.fixture
async def registry_proxy(registry: str) -> AsyncIterator[RegistryProxy]:
    """A proxy in front of the registry, which slows, refuses and breaks off as a test says."""
    async with RegistryProxy(registry) as proxy:
        yield proxy


# Daemons


class MakeDaemon(Protocol):
    """What the `daemon` fixture gives: a maker of daemons."""

    async def __call__(
        self,
        *flags: str,
        name: str = ...,
        docker_host: str | None = ...,
        command: Sequence[str] = ...,
        env: Mapping[str, str] | None = ...,
        start: bool = ...,
        wait_ready: bool = ...,
    ) -> Daemon:
        """Make a daemon, start it, and end it with the test."""


@pytest_asyncio.fixture
async def daemon(tmp_path: Path, engine_url: str, engine: Engine) -> AsyncIterator[MakeDaemon]:
    """Make daemons, each with a data directory of its own: `node = await daemon("--settle", "0")`.

    They are killed at the end, and then their containers, known by the label that names the data
    directory, are removed.
    """
    made: list[Daemon] = []

    async def make(
        *flags: str,
        name: str = "node",
        docker_host: str | None = None,
        command: Sequence[str] = COMMAND,
        env: Mapping[str, str] | None = None,
        start: bool = True,
        wait_ready: bool = True,
    ) -> Daemon:
        directory = tmp_path / name
        one = Daemon(directory, docker_host or engine_url, flags, command=command, env=env)
        made.append(one)
        return await one.start(wait_ready=wait_ready) if start else one

    try:
        yield make
    finally:
        for one in made:
            await one.close()
        engine.remove_containers_below(tmp_path)


# Networks


class MakeNetwork(Protocol):
    """What the `network` fixture gives: a maker of networks."""

    async def __call__(self, hosts: int | Sequence[str]) -> Network:
        """Make a network of so many hosts, or of hosts with these names."""


@pytest_asyncio.fixture
async def network() -> AsyncIterator[MakeNetwork]:
    """Make networks of hosts on this machine: `net = await network(5)`."""
    if reason := unavailable():
        pytest.skip(reason)
    async with contextlib.AsyncExitStack() as stack:

        async def make(hosts: int | Sequence[str]) -> Network:
            return await stack.enter_async_context(Network(hosts))

        yield make
