"""The daemon as its users meet it: a process, a port, a data directory, a log."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.support.netns import Host

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "container_manager")
CRASHING = (sys.executable, "-m", "tests.support.crashing", "--")
FINAL = frozenset({"complete", "failed", "cancelled", "lost"})


class RpcError(Exception):
    """The daemon answered a call with a JSON-RPC error."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(f"{code} {message} {data!r}")
        self.code = code
        self.message = message
        self.data = data


class DaemonError(Exception):
    """The daemon didn't do what the test waits for; the message ends with its log."""


def free_port() -> int:
    """A loopback port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Daemon:
    """One daemon: started, killed and started again on the same data directory and port."""

    def __init__(
        self,
        data_dir: Path,
        docker_host: str,
        flags: Sequence[str] = (),
        *,
        command: Sequence[str] = COMMAND,
        env: Mapping[str, str] | None = None,
        port: int | None = None,
        host: Host | None = None,
    ) -> None:
        """Describe it; `host` is where it runs, of a network of the test's own."""
        self.data_dir = data_dir
        self.docker_host = docker_host
        self.flags = list(flags)
        self.command = list(command)
        self.env = dict(env or {})
        self.port = port or free_port()
        self.host = host
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = data_dir.parent / f"{data_dir.name}.log"
        self.process: asyncio.subprocess.Process | None = None
        self._session: aiohttp.ClientSession | None = None
        self._ids = itertools.count(1)

    # The process

    @property
    def running(self) -> bool:
        """Whether the process lives, as far as the event loop has heard."""
        return self.process is not None and self.process.returncode is None

    @property
    def log(self) -> str:
        """All that the daemon has printed so far, over all its starts."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    async def start(self, *, wait_ready: bool = True, timeout: float = 20.0) -> Daemon:
        """Start the process; return once it answers, and, with `wait_ready`, has its engine."""
        if self.running:
            raise DaemonError("already running")
        await self._close_session()
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self._command_line(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.log_path.parent,
                env=self._environment(),
            )
        connector = None if self.host is None else self.host.connector()
        self._session = aiohttp.ClientSession(self.url, connector=connector)
        try:
            await eventually(lambda: self._answers("/livez"), timeout)
            if wait_ready:
                await eventually(lambda: self._answers("/readyz"), timeout)
        except AssertionError as error:
            raise self._failure(f"no answer within {timeout} s") from error
        return self

    async def kill(self) -> None:
        """End it as a power cut would (SIGKILL); returns once it is gone."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
        await self.ended()

    async def terminate(self, timeout: float = 30.0) -> int:
        """Ask it to end (SIGTERM); the exit code."""
        assert self.process is not None
        if self.running:
            self.process.send_signal(signal.SIGTERM)
        return await self.ended(timeout)

    async def ended(self, timeout: float = 30.0) -> int:
        """Wait until the process ends by itself, as one with a crash point does; the exit code."""
        if self.process is None:
            return 0
        try:
            return await asyncio.wait_for(self.process.wait(), timeout)
        except TimeoutError:
            raise self._failure(f"still running after {timeout} s") from None

    async def restart(self, *, wait_ready: bool = True, timeout: float = 20.0) -> Daemon:
        """Kill it and start it again on the same data directory and port."""
        await self.kill()
        return await self.start(wait_ready=wait_ready, timeout=timeout)

    async def close(self) -> None:
        """Leave no process and no connection behind."""
        await self.kill()
        await self._close_session()

    # Calls

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Status and text of a plain GET, such as /metrics."""
        async with self._http.get(path, headers=headers) as answer:
            return answer.status, await answer.text()

    async def post(
        self, body: bytes, headers: Mapping[str, str] | None = None, path: str = "/jrpc"
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send these very bytes; JSON by its Content-Type unless `headers` say otherwise."""
        named = {"Content-Type": "application/json", **(headers or {})}
        async with self._http.post(path, data=body, headers=named) as answer:
            return answer.status, answer.headers, await answer.read()

    async def call(self, method: str, params: Mapping[str, Any] | None = None) -> Any:
        """The result of one JSON-RPC call, or `RpcError`."""
        request = {"jsonrpc": "2.0", "id": next(self._ids), "method": method}
        if params is not None:
            request["params"] = [dict(params)]
        status, _, body = await self.post(orjson.dumps(request))
        if status != 200:
            raise self._failure(f"{method}: HTTP {status}: {body[:500].decode(errors='replace')}")
        answer = orjson.loads(body)
        assert answer["jsonrpc"] == "2.0"
        assert answer["id"] == request["id"]
        if error := answer.get("error"):
            raise RpcError(error["code"], error["message"], error.get("data"))
        return answer["result"]

    async def create(self, image: str, **spec: Any) -> str:
        """Queue a container; its job id."""
        created = await self.call("ContainerService.Create", {"image": image, **spec})
        return str(created["job_id"])

    async def status(self, job_id: str) -> dict[str, Any]:
        """What `ContainerService.Status` says of the job."""
        found: dict[str, Any] = await self.call("ContainerService.Status", {"job_id": job_id})
        return found

    async def wait(self, job_id: str, timeout: float = 30.0) -> dict[str, Any]:
        """The job's status once it is final."""
        deadline = time.monotonic() + timeout
        seen: dict[str, Any] = {}
        while (left := deadline - time.monotonic()) > 0:
            params = {"job_id": job_id, "timeout": round(left, 3)}
            try:
                # The margin makes a daemon that never answers fail the test, with its log.
                async with asyncio.timeout(left + 5):
                    seen = await self.call("ContainerService.Wait", params)
            except (TimeoutError, aiohttp.ClientError) as error:
                raise self._failure(f"Wait of {job_id}: {error!r}; last seen {seen}") from error
            if seen["status"] in FINAL:
                return seen
        raise self._failure(f"job {job_id} not final within {timeout} s; last seen {seen}")

    # Within

    @property
    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise DaemonError("never started")
        return self._session

    def _command_line(self) -> list[str]:
        # It becomes the daemon, so that signals reach that.
        there = () if self.host is None else ("ip", "netns", "exec", self.host.namespace)
        return [
            *there,
            *self.command,
            *("--listen-address", "127.0.0.1", "--port", str(self.port)),
            *("--data-dir", str(self.data_dir), "--docker-host", self.docker_host),
            *self.flags,
        ]

    def _environment(self) -> dict[str, str]:
        # Settings of whoever runs the tests must not reach the daemon by its environment.
        kept = {k: v for k, v in os.environ.items() if not k.startswith("CONTAINER_MANAGER_")}
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {**kept, "PYTHONPATH": os.pathsep.join(paths), **self.env}

    async def _answers(self, path: str) -> bool:
        if not self.running:
            assert self.process is not None
            raise self._failure(f"ended with {self.process.returncode} while starting")
        try:
            async with self._http.get(path, timeout=aiohttp.ClientTimeout(total=5)) as answer:
                assert answer.status == 200, f"{path}: {answer.status} {await answer.text()}"
                return True
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def _close_session(self) -> None:
        # A session of its own for each start: a connection to the process before would fail.
        if self._session is not None:
            await self._session.close()

    def _failure(self, what: str) -> DaemonError:
        return DaemonError(f"{what}\n--- {self.log_path.name}, its end ---\n{self.log[-6000:]}")
