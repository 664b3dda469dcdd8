"""The daemon under a service manager: a socket that hears what systemd would."""

from __future__ import annotations

import asyncio
import itertools
import re
import socket
import statistics
import tempfile
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import apsw
import pytest

from tests.integration.test_disk import create_until_full, fill, small_disk
from tests.support.daemon import COMMAND

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.conftest import MakeDaemon

AWAY = "unix:///nonexistent.sock"


class Listener:
    """What is sent to a socket of systemd's kind."""

    def __init__(self, receiver: socket.socket) -> None:
        self._receiver = receiver

    @property
    def variables(self) -> dict[str, str]:
        """For the environment of a daemon."""
        name = self._receiver.getsockname()
        abstract = isinstance(name, bytes)
        return {"NOTIFY_SOCKET": "@" + name[1:].decode() if abstract else name}

    async def next(self) -> dict[str, str]:
        """The next message."""
        message = await asyncio.get_running_loop().sock_recv(self._receiver, 4096)
        return dict(line.split("=", 1) for line in message.decode().split("\n"))

    async def hear(self, key: str, timeout: float = 20) -> str:
        """The value of the next message that says this."""
        async with asyncio.timeout(timeout):
            while key not in (message := await self.next()):
                pass
        return message[key]

    async def said_already(self) -> list[dict[str, str]]:
        """All messages that wait to be received."""
        found = []
        while True:
            try:
                async with asyncio.timeout(0):
                    found.append(await self.next())
            except TimeoutError:
                return found


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest) -> Iterator[Listener]:
    """A service manager's ear; the path is short, since a socket's may not be long."""
    with (
        tempfile.TemporaryDirectory(prefix="cm-test-") as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as receiver,
    ):
        path = f"{directory}/notify"
        receiver.bind(path if request.param == "path" else f"\0{path}")
        yield Listener(receiver)


on_a_path = pytest.mark.parametrize("listener", ["path"], indirect=True)


async def test_ready_is_said_once_the_port_answers(daemon: MakeDaemon, listener: Listener) -> None:
    node = await daemon(docker_host=AWAY, env=listener.variables, start=False)
    starting = asyncio.create_task(node.start(wait_ready=False))
    async with asyncio.timeout(20):
        first = await listener.next()
    # No wait: it listens already, though no engine is there.
    _, writer = await asyncio.open_connection("127.0.0.1", node.port)
    writer.close()
    assert first["READY"] == "1"
    assert first["STATUS"] == (
        "engine unavailable: it has not been reached yet; 0 waiting, 0 deploying"
    )
    await starting


@on_a_path
async def test_the_status_tells_how_things_stand(daemon: MakeDaemon, listener: Listener) -> None:
    node = await daemon(docker_host=AWAY, env=listener.variables, wait_ready=False)
    await node.create("nginx")
    expected = re.compile(
        r"engine unavailable: .*/nonexistent\.sock.*; (1 waiting, 0|0 waiting, 1) deploying"
    )
    async with asyncio.timeout(20):
        while not expected.fullmatch(await listener.hear("STATUS")):
            pass


@pytest.mark.engine
@on_a_path
async def test_with_an_engine_the_status_is_the_counts(
    daemon: MakeDaemon, listener: Listener
) -> None:
    await daemon(env=listener.variables)
    async with asyncio.timeout(20):
        while await listener.hear("STATUS") != "0 waiting, 0 deploying":
            pass


@on_a_path
async def test_the_end_is_announced_before_it(daemon: MakeDaemon, listener: Listener) -> None:
    node = await daemon(docker_host=AWAY, env=listener.variables, wait_ready=False)
    await listener.hear("READY")
    assert await node.terminate() == 0
    messages = await listener.said_already()
    (stopping,) = [message for message in messages if "STOPPING" in message]
    assert stopping == {"STOPPING": "1", "STATUS": "stopping: 0 waiting, 0 deploying"}


def watched(listener: Listener, seconds: float) -> dict[str, str]:
    return {**listener.variables, "WATCHDOG_USEC": str(int(seconds * 1e6))}


async def test_signs_of_life_come_twice_in_the_time_allowed(
    daemon: MakeDaemon, listener: Listener
) -> None:
    command = ("sh", "-c", 'WATCHDOG_PID=$$ exec "$@"', "sh", *COMMAND)  # as systemd sets it
    env = watched(listener, 4)
    await daemon(docker_host=AWAY, env=env, command=command, wait_ready=False)
    heard = []
    for _ in range(4):
        await listener.hear("WATCHDOG")
        heard.append(time.monotonic())
    gaps = [b - a for a, b in itertools.pairwise(heard)]
    assert statistics.median(gaps) == pytest.approx(2, abs=0.5)


@on_a_path
async def test_a_watchdog_over_another_process_is_not_ours(
    daemon: MakeDaemon, listener: Listener
) -> None:
    env = {**watched(listener, 0.1), "WATCHDOG_PID": "1"}
    node = await daemon(docker_host=AWAY, env=env, wait_ready=False)
    await listener.hear("READY")
    # The first would be sent at once.
    await node.create("nginx")
    assert await node.terminate() == 0
    assert not [one for one in await listener.said_already() if "WATCHDOG" in one]


@asynccontextmanager
async def locked(database: Path) -> AsyncIterator[None]:
    """The database in somebody else's hands: who wants to write, waits, for up to 5 seconds."""
    connection = apsw.Connection(str(database))
    try:
        connection.set_busy_timeout(5000)
        await asyncio.to_thread(connection.execute, "BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


@on_a_path
async def test_no_sign_of_life_while_the_writer_hangs(
    daemon: MakeDaemon, listener: Listener
) -> None:
    node = await daemon(docker_host=AWAY, env=watched(listener, 0.2), wait_ready=False)
    await listener.hear("WATCHDOG")
    async with locked(node.data_dir / "jobs.sqlite"):
        await listener.said_already()
        with suppress(TimeoutError):
            await listener.hear("WATCHDOG", timeout=1.5)  # one may have been on its way
        with pytest.raises(TimeoutError):
            await listener.hear("WATCHDOG", timeout=1.5)
        # All else is alive.
        assert (await node.get("/livez"))[0] == 200
    for _ in range(3):
        await listener.hear("WATCHDOG")


@on_a_path
async def test_a_full_disk_is_no_reason_to_be_killed(
    daemon: MakeDaemon, listener: Listener, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "node"):
        env = watched(listener, 0.2)
        node = await daemon("--queue-size", "100000", docker_host=AWAY, env=env, wait_ready=False)
        fill(node.data_dir, leave=300_000)
        await create_until_full(node, 20)
        await listener.said_already()
        for _ in range(5):
            await listener.hear("WATCHDOG")
        await node.close()
