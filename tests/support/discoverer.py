"""A process that announces a node and prints whom it sees, and the tests' hold on it.

    python -m tests.support.discoverer NODE PORT [--run R] [--cluster C] [--interface NAME]…
                                        [--ask-every SECONDS]

prints JSON lines: {"ready": true}, {"seen": {…}}, {"gone": "id"} and, after SIGTERM, what is left
in the process: {"left": {"tasks": 0, "threads": 0, "sockets": 0}}. Its log goes to stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import uvloop

from container_manager.cluster.discovery import ASK_EVERY, Discovery
from container_manager.cluster.interfaces import UnknownInterface
from container_manager.log import log_to_stderr
from tests.support.daemon import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.netns import Host

LIMIT = 15.0


def node_id(number: int) -> str:
    """An id for the tests' nodes."""
    return f"{number:032x}"


@dataclass
class Line:
    """One line of JSON that the process has printed."""

    at: float
    """On the monotonic clock."""

    said: dict[str, Any]


class Discoverer:
    """The process, as a test sees it."""

    def __init__(self, number: int, port: int = 4001, *flags: str) -> None:
        self.node = node_id(number)
        self.argv = [sys.executable, "-m", "tests.support.discoverer", self.node, str(port), *flags]
        self.lines: list[Line] = []
        self.log: list[dict[str, Any]] = []
        self.process: asyncio.subprocess.Process
        self._news = asyncio.Condition()
        self._readers: list[asyncio.Task[None]] = []
        self._reading = 2

    async def start(self, host: Host) -> Discoverer:
        """Start it on this host; it is ready when it has begun to announce itself."""
        pipe = asyncio.subprocess.PIPE
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = await host.start(*self.argv, stdout=pipe, stderr=pipe, env=env, cwd=ROOT)
        self._readers = [
            asyncio.create_task(self._read(self.process.stdout, self._said)),
            asyncio.create_task(self._read(self.process.stderr, self.log.append)),
        ]
        await self.until(lambda: any("ready" in line.said for line in self.lines))
        return self

    async def stop(self) -> dict[str, int]:
        """End it by SIGTERM, and say what was left in it."""
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(LIMIT):
            await asyncio.gather(self.process.wait(), *self._readers)
        assert self.process.returncode == 0, self.log
        left: dict[str, int] = self.lines[-1].said["left"]
        return left

    async def kill(self) -> None:
        self.process.kill()
        async with asyncio.timeout(LIMIT):
            await asyncio.gather(self.process.wait(), *self._readers)

    def sightings(self, number: int) -> list[dict[str, Any]]:
        """What it has seen of this node, so far."""
        seen = (line.said.get("seen", {}) for line in self.lines)
        return [one for one in seen if one.get("node") == node_id(number)]

    def lost(self, number: int) -> bool:
        """Whether it said that this node is gone, so far."""
        return any(line.said.get("gone") == node_id(number) for line in self.lines)

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in self.log if entry["event"] == event]

    async def sees(
        self, number: int, where: Callable[[list[str]], bool] = bool, *, limit: float = LIMIT
    ) -> float:
        """Wait until it has seen this node, the last time at hosts that are as `where` says.

        Gives back when (monotonic).
        """

        def found() -> bool:
            seen = self.sightings(number)
            return bool(seen) and where([host for host, _ in seen[-1]["addresses"]])

        await self.until(found, limit)
        return max(line.at for line in self.lines if line.said.get("seen", {}).get("node"))

    async def loses(self, number: int) -> None:
        """Wait until it says that this node is gone."""
        await self.until(lambda: self.lost(number))

    async def warns(self) -> str:
        """Wait for its warning that mDNS does not work, and give the reason."""
        await self.until(lambda: bool(self.logged("mDNS does not work")))
        return str(self.logged("mDNS does not work")[0]["reason"])

    async def until(self, done: Callable[[], bool], limit: float = LIMIT) -> None:
        """Wait until something holds, looking again at each line that it prints."""
        try:
            async with asyncio.timeout(limit), self._news:
                await self._news.wait_for(lambda: done() or not self._reading)
        except TimeoutError:
            self._fail(f"not within {limit} s")
        if not done():
            self._fail("it ended")

    def _fail(self, why: str) -> None:
        said = "\n".join([str(line.said) for line in self.lines[-20:]])
        logged = "\n".join(str(entry) for entry in self.log[-20:])
        raise AssertionError(f"{self.node[-4:]}: {why}; it said\n{said}\nand logged\n{logged}")

    def _said(self, said: dict[str, Any]) -> None:
        self.lines.append(Line(time.monotonic(), said))

    async def _read(
        self, stream: asyncio.StreamReader | None, take: Callable[[dict[str, Any]], None]
    ) -> None:
        assert stream is not None
        async for raw in stream:
            try:
                said = json.loads(raw)
            except ValueError:  # a traceback, say
                said = {"event": raw.decode(errors="replace").rstrip()}
            async with self._news:
                take(said)
                self._news.notify_all()
        async with self._news:
            self._reading -= 1
            self._news.notify_all()


# The process itself


def _say(**said: Any) -> None:
    print(json.dumps(said), flush=True)


def _sockets() -> int:
    count = 0
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:")
        except OSError:  # that of the listing itself
            continue
    return count


async def _main(options: argparse.Namespace) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    before = _sockets(), threading.active_count()
    discovery = Discovery(
        options.node,
        run=options.run,
        version="1.0",
        cluster=options.cluster,
        port=options.port,
        interfaces=options.interface,
        ask_every=options.ask_every,
        seen=lambda sighting: _say(seen=asdict(sighting)),
        gone=lambda node: _say(gone=node),
    )
    running = asyncio.create_task(discovery.run())
    _say(ready=True)
    waiting = asyncio.create_task(stopped.wait())
    await asyncio.wait((running, waiting), return_when=asyncio.FIRST_COMPLETED)
    running.cancel()
    waiting.cancel()
    try:
        await running
    except asyncio.CancelledError:
        pass
    except UnknownInterface as error:
        sys.exit(str(error))
    await asyncio.sleep(0)  # closed sockets are gone one turn of the loop later
    left = {
        "tasks": len(asyncio.all_tasks()) - 1,
        "threads": threading.active_count() - before[1],
        "sockets": _sockets() - before[0],
    }
    _say(left=left)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("node")
    parser.add_argument("port", type=int)
    parser.add_argument("--run", default="")
    parser.add_argument("--cluster", default="")
    parser.add_argument("--ask-every", type=float, default=ASK_EVERY)
    parser.add_argument("--interface", action="append", default=[])
    options = parser.parse_args()
    log_to_stderr("info")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(options))


if __name__ == "__main__":
    main()
