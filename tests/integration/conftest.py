"""Fixtures of the tests on a real engine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest_asyncio

from container_manager.cluster.secret import ClusterSecret
from tests.integration.resources import Resources
from tests.support.cluster import NO_ENGINE
from tests.support.daemon import Daemon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiodocker

    from tests.support.engine import Engine
    from tests.support.netns import Host

SYSTEMD = Path("/run/systemd/system").is_dir()


@pytest_asyncio.fixture
async def resources(
    engine: Engine, docker: aiodocker.Docker, image: str
) -> AsyncIterator[Resources]:
    """Names for networks and volumes, and containers that use them."""
    made = Resources(engine, docker, image)
    try:
        yield made
    finally:
        made.remove_all()


@pytest_asyncio.fixture
async def health_timers(engine: Engine) -> AsyncIterator[None]:
    """Have health checks run where nobody does: Podman leaves that to timers of systemd's."""
    if not engine.podman or SYSTEMD:
        yield
        return

    async def tick() -> None:
        while True:
            await asyncio.to_thread(engine.check_health)
            await asyncio.sleep(0.2)

    ticking = asyncio.create_task(tick())
    try:
        yield
        assert not ticking.done(), ticking.exception()
    finally:
        ticking.cancel()


class MakeNode(Protocol):
    """What the `node` fixture gives."""

    async def __call__(
        self, host: Host | None, *flags: str, name: str = ..., start: bool = ...
    ) -> Daemon:
        """Make a daemon on a host, or on this machine; all that a test makes share a secret."""


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[MakeNode]:
    """Make daemons of one cluster, without an engine, on hosts of a network of the test's own."""
    secret = ClusterSecret.new_text()
    made: list[Daemon] = []

    async def make(host: Host | None, *flags: str, name: str = "", start: bool = True) -> Daemon:
        one = Daemon(
            tmp_path / (name or (host.name if host else "node")),
            NO_ENGINE,
            ("--listen-address", "0.0.0.0", "--queue-size", "1000000", *flags),
            env={"CONTAINER_MANAGER_SECRET": secret},
            host=host,
        )
        made.append(one)
        return await one.start(wait_ready=False) if start else one

    yield make
    for one in made:
        await one.close()
