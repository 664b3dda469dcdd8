"""The tests' own tools, tried: a tool that lies would make every test that stands on it lie."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiodocker
import aiohttp
import apsw
import pytest

from tests.support.daemon import ROOT
from tests.support.dockerd import PrivateDockerd
from tests.support.engine import HOME_LABEL, Engine
from tests.support.engine_proxy import EngineProxy
from tests.support.hooks import CUT, Answer
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

pytestmark = pytest.mark.engine

PING = "GET /_ping"
FAILS = (aiohttp.ClientError, aiodocker.DockerError)


# Waiting


async def test_eventually_gives_what_it_found_and_says_what_it_saw_last() -> None:
    numbers = iter(range(5))
    assert await eventually(lambda: next(numbers) >= 3) is True
    with pytest.raises(AssertionError, match="last seen: 0"):
        await eventually(lambda: 0, timeout=0.05)


# The engine, the registry and what is left on them


async def start(container: aiodocker.containers.DockerContainer) -> None:
    """Start it, and return when it listens for SIGTERM."""

    async def starts() -> int:
        return (await container.log(stdout=True)).count("ready\n")

    before = await starts()
    await container.start()

    async def ready() -> bool:
        return await starts() > before

    await eventually(ready)


async def test_image_starts_and_ends_at_once_on_sigterm(
    docker: aiodocker.Docker, engine: Engine, image: str, tmp_path: Path
) -> None:
    labels = {HOME_LABEL: f"here:{tmp_path / 'node'}"}
    config: dict[str, Any] = {
        "Image": image,
        "Labels": labels,
        "HostConfig": {"NetworkMode": "none"},
    }
    container = await docker.containers.create(config)
    try:
        await start(container)
        began = time.monotonic()
        await container.stop(timeout=10)
        assert time.monotonic() - began < 5
        assert (await container.show())["State"]["ExitCode"] == 0
        assert engine.remove_containers_below(tmp_path / "nod") == 0
    finally:
        assert engine.remove_containers_below(tmp_path) == 1
    assert container.id not in engine.homes()


@pytest.mark.registry
async def test_registry_takes_a_push_and_gives_it_back(
    docker: aiodocker.Docker, image: str, registry: str
) -> None:
    name = f"{registry}/container-manager-test/pushed"
    await docker.images.tag(image, repo=name, tag="1")
    try:
        await docker.images.push(name, tag="1")
        await docker.images.delete(f"{name}:1")
        await docker.images.pull(name, tag="1")
        assert await docker.images.inspect(f"{name}:1")
    finally:
        await docker.images.delete(f"{name}:1")


# The proxy


@asynccontextmanager
async def through(proxy: EngineProxy) -> AsyncIterator[aiodocker.Docker]:
    client = aiodocker.Docker(proxy.url)
    try:
        yield client
    finally:
        await client.close()


async def ping(client: aiodocker.Docker) -> str:
    async with client._query("_ping") as answer:
        return str(await answer.text())


async def test_proxy_passes_everything_on(
    engine_proxy: EngineProxy, engine: Engine, image: str, tmp_path: Path
) -> None:
    config: dict[str, Any] = {
        "Image": image,
        "Cmd": ["sh", "-c", "echo spoken; exit 3"],
        "Labels": {HOME_LABEL: f"here:{tmp_path}"},
        "HostConfig": {"NetworkMode": "none"},
    }
    try:
        async with through(engine_proxy) as client:
            events = client.events.subscribe()  # type: ignore[no-untyped-call]
            container = await client.containers.create(config, name=f"cm-test-{tmp_path.name}")
            await container.start()
            assert (await container.wait())["StatusCode"] == 3
            assert await container.log(stdout=True) == ["spoken\n"]
            assert [line async for line in container.log(stdout=True, follow=True)] == ["spoken\n"]
            async with asyncio.timeout(5):
                while (await events.get())["Action"] != "die":
                    pass
            await container.delete(force=True)
            with pytest.raises(aiodocker.DockerError) as caught:
                await container.show()
            assert caught.value.status == 404
    finally:
        engine.remove_containers_below(tmp_path)
    calls = [name.partition("?")[0] for name in engine_proxy.requests]
    id_ = container.id
    assert f"POST /containers/create?name=cm-test-{tmp_path.name}" in engine_proxy.requests
    for call in (f"POST /containers/{id_}/start", f"DELETE /containers/{id_}", "GET /events"):
        assert call in calls
    assert calls.count(f"GET /containers/{id_}/logs") == 2


async def test_proxy_acts_before_and_after(engine_proxy: EngineProxy) -> None:
    statuses: list[int | None] = []
    async with through(engine_proxy) as client:
        await ping(client)
        engine_proxy.before(PING, lambda exchange: statuses.append(exchange.status))
        engine_proxy.after(PING, lambda exchange: statuses.append(exchange.status))
        engine_proxy.after(PING, Answer(503, {"message": "canned"}), times=2)
        for _ in range(2):
            with pytest.raises(aiodocker.DockerError, match="canned"):
                await ping(client)
        assert statuses == [None, 200]
        # Twice: aiohttp itself repeats a GET on a connection that was in use before.
        engine_proxy.before(PING, CUT)
        engine_proxy.after(PING, CUT)
        with pytest.raises(FAILS):
            await ping(client)
        assert await ping(client) == "OK"


async def test_proxy_holds_a_request_until_released(engine_proxy: EngineProxy) -> None:
    gate = engine_proxy.hold(PING)
    async with through(engine_proxy) as client:
        waiting = asyncio.create_task(ping(client))
        await gate.reached()
        assert not waiting.done()
        assert await client.version()  # others go on
        gate.release()
        assert await waiting == "OK"


async def test_proxy_does_not_pass_on_what_a_dead_client_had_asked(
    engine_proxy: EngineProxy, engine: Engine, tmp_path: Path
) -> None:
    """The client is a process; it is killed within the action, as crash tests do with a daemon."""
    script = (
        "import http.client, socket, sys\n"
        "c = http.client.HTTPConnection('x'); c.sock = socket.socket(socket.AF_UNIX)\n"
        "c.sock.connect(sys.argv[1]); c.request('POST', '/volumes/create', sys.argv[2],\n"
        "{'Content-Type': 'application/json'}); c.getresponse().read()"
    )
    name = f"cm-test-{os.getpid()}"
    path = engine_proxy.url.removeprefix("unix://")
    command = (sys.executable, "-c", script, path, f'{{"Name": "{name}"}}')

    async def kill() -> None:
        child.kill()
        await child.wait()

    killed = engine_proxy.before("POST /volumes/create", kill)
    child = await asyncio.create_subprocess_exec(*command)
    await engine_proxy.seen("POST /volumes/create")
    await eventually(lambda: killed.fired and not engine_proxy.open)
    assert engine.request("GET", f"/volumes/{name}")[0] == 404


async def test_proxy_goes_away_and_comes_back(engine_proxy: EngineProxy) -> None:
    async def break_stream(client: aiodocker.Docker, how: Callable[[], Any]) -> None:
        async with asyncio.timeout(10), client._query("events") as events:
            await how()
            await events.read()

    async def cut() -> None:
        assert engine_proxy.cut("GET /events") == 1

    async with through(engine_proxy) as client:
        for how in (cut, engine_proxy.go_away):
            with pytest.raises(aiohttp.ClientError):
                await break_stream(client, how)
        with pytest.raises(FAILS):
            await ping(client)
        await engine_proxy.come_back()
        assert await ping(client) == "OK"
        engine_proxy.before(PING, engine_proxy.go_away)
        with pytest.raises(FAILS):
            await ping(client)


async def test_proxy_tells_of_actions_that_fail(engine_url: str) -> None:
    async def stumble() -> None:
        raise LookupError("stumbled")

    async def use() -> None:
        async with EngineProxy(engine_url) as proxy, through(proxy) as client:
            proxy.before(PING, stumble, times=None)
            with pytest.raises(FAILS):
                await ping(client)

    with pytest.raises(BaseExceptionGroup, match="actions") as caught:
        await use()
    assert caught.value.subgroup(LookupError)


# A private engine


def interfaces() -> set[str]:
    return {name for _, name in socket.if_nameindex() if not name.startswith("veth")}


async def test_private_engine_leaves_the_network_of_others_alone(tmp_path: Path) -> None:
    before = interfaces()
    async with PrivateDockerd(tmp_path) as private:
        await private.restart()
        assert interfaces() == before
    assert interfaces() == before


async def test_private_engine_is_killed_and_restarted(private_dockerd: PrivateDockerd) -> None:
    image = await private_dockerd.import_busybox()
    client = aiodocker.Docker(private_dockerd.url)
    try:
        config: dict[str, Any] = {"Image": image, "HostConfig": {"NetworkMode": "none"}}
        container = await client.containers.create(config)
        await start(container)
        for _ in range(2):
            began = time.monotonic()
            await private_dockerd.restart()
            assert time.monotonic() - began < 8
            assert (await container.show())["State"]["Status"] == "exited"
            await start(container)
        await private_dockerd.stop()
        await private_dockerd.start()
        assert (await container.show())["State"]["ExitCode"] == 0
    finally:
        await client.close()
    home = private_dockerd.home
    await private_dockerd.restart()
    await private_dockerd.close()
    assert not home.exists()


# Crashes at commits

WRITER = """
import sys, pathlib, apsw
from tests.support.crashing import install
files = install()
db = apsw.Connection(sys.argv[1])
db.pragma("journal_mode", "wal"); db.pragma("synchronous", 2); db.pragma("wal_autocheckpoint", 7)
db.execute("create table t (n integer primary key, filler)")
pathlib.Path(sys.argv[2]).touch()
for n in range(1, 31):
    with db:
        db.execute("insert into t values (?, randomblob(20000))", (n,))
print("not crashed")
"""


def write(database: Path, arm: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the writer until it ends or kills itself."""
    command = [sys.executable, "-c", WRITER, str(database), str(arm)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize(
    ("number", "when"), [(n, w) for n in (1, 2, 9, 30) for w in ("before", "after")]
)
def test_crash_point_kills_at_the_commit_it_names(tmp_path: Path, number: int, when: str) -> None:
    database, arm = tmp_path / "db", tmp_path / "arm"
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "CRASH_AT": f"commit:{number}:{when}",
        "CRASH_ARM": str(arm),
    }
    ended = write(database, arm, env)
    assert ended.returncode == -signal.SIGKILL, ended.stdout + ended.stderr
    db = apsw.Connection(str(database))
    found = [row[0] for row in db.execute("select n from t order by n")]
    integrity = db.pragma("integrity_check")
    db.close()
    assert found == list(range(1, number + (when == "after")))
    assert integrity == "ok"


def test_without_a_crash_point_nothing_happens(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "CRASH_AT": "commit:31:before"}
    env["CRASH_ARM"] = str(tmp_path / "never")
    ended = write(tmp_path / "db", tmp_path / "arm", env)
    assert ended.stdout == "not crashed\n", ended.stderr
