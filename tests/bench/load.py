"""The load: connections that each send a request, await its answer and send the next one.

It runs as a process of its own, so that it takes the second core and not the server's, and on bare
protocols, so that it costs a fraction of what it measures. Its own share of a core is in the
result: near 1 it would have measured itself.

    python -m tests.bench.load --port 8080 --connections 32 --seconds 5 --body-file create.jsonl

The loop is closed: a server that stalls gets fewer requests meanwhile. That stall is not lost, as
each request's time runs until its answer, also past the end of the run.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import random
import re
import time
from array import array
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop

from tests.bench.figures import percentile

PATIENCE = 10.0
"""Seconds that unanswered requests are waited for after the run; then they count as errors."""
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a run measured."""

    requests: int
    seconds: float
    rate: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    errors: int
    first_error: str
    cpu: float
    """The share of a core that the load itself took."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to send, and for how long."""

    host: str
    port: int
    sends: tuple[bytes, ...]
    """Sent in turn by whichever connection is free, and from the first again after the last."""
    marker: bytes
    connections: int
    warm_up: float
    seconds: float | None
    requests: int | None


class Run:
    """One run: warming up, measuring, and awaiting the last answers."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.errors = 0
        self.first_error = ""
        self._latencies = array("d")
        self._limit = plan.requests
        self.next_request = itertools.cycle(plan.sends).__next__
        self._began = 0.0
        self._began_cpu = 0.0
        self._seconds = 0.0
        self._cpu = 0.0
        self._counted = 0
        self._measuring = False
        self._ending = False
        self._open = 0
        self._last_answer = asyncio.Event()

    async def measure(self) -> Result:
        """Do the run."""
        loop = asyncio.get_running_loop()
        plan = self.plan
        made = []
        for _ in range(plan.connections):
            _, connection = await loop.create_connection(
                lambda: _Connection(self), plan.host, plan.port
            )
            made.append(connection)
        self._open = len(made)
        # A collection in the midst of it would be measured as the server's.
        gc.collect()
        gc.disable()
        for connection in made:
            connection.send()
        loop.call_later(plan.warm_up, self._begin)
        await self._last_answer.wait()
        for connection in made:
            connection.close()
        return self._result()

    def answered(self, connection: _Connection, latency: float, wrong: bytes | None) -> None:
        """An answer has come; `wrong` is the one that isn't right."""
        if wrong is not None:
            self._count_error(wrong[:500].decode(errors="replace"))
        if self._measuring:
            self._latencies.append(latency)
            if len(self._latencies) == self._limit:
                self._end()
        if self._ending:
            self._close_one()
        else:
            connection.send()

    def lost(self) -> None:
        """A connection was ended by the server; it is not made again."""
        self._count_error("the server closed a connection")
        self._close_one()

    def _count_error(self, what: str) -> None:
        self.errors += 1
        self.first_error = self.first_error or what

    def _close_one(self) -> None:
        self._open -= 1
        if self._open == 0:
            self._last_answer.set()

    def _begin(self) -> None:
        self._measuring = True
        self._began, self._began_cpu = time.perf_counter(), time.process_time()
        if self.plan.seconds is not None:
            asyncio.get_running_loop().call_later(self.plan.seconds, self._end)

    def _end(self) -> None:
        self._ending = True
        self._seconds = time.perf_counter() - self._began
        self._cpu = time.process_time() - self._began_cpu
        self._counted = len(self._latencies)
        asyncio.get_running_loop().call_later(PATIENCE, self._give_up)

    def _give_up(self) -> None:
        if self._open:
            self._count_error(f"no answer within {PATIENCE:g} s after the run")
            self.errors += self._open - 1
        self._last_answer.set()

    def _result(self) -> Result:
        if not self._counted:
            raise SystemExit(f"nothing was measured; the first error: {self.first_error}")
        return Result(
            requests=self._counted,
            seconds=round(self._seconds, 3),
            rate=round(self._counted / self._seconds, 1),
            p50_ms=round(1000 * percentile(self._latencies, 0.5), 3),
            p99_ms=round(1000 * percentile(self._latencies, 0.99), 3),
            max_ms=round(1000 * max(self._latencies), 3),
            errors=self.errors,
            first_error=self.first_error,
            cpu=round(self._cpu / self._seconds, 3),
        )


class _Connection(asyncio.Protocol):
    """One keep-alive connection with one request on its way."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._next_request = run.next_request
        self._marker = run.plan.marker
        self._transport: asyncio.Transport
        self._buffer = b""
        self._sent = 0.0
        self._closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]

    def send(self) -> None:
        """Send the next request."""
        request_ = self._next_request()
        self._sent = time.perf_counter()
        self._transport.write(request_)

    def close(self) -> None:
        """Close the connection; that is no error."""
        self._closed = True
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        head = data.find(b"\r\n\r\n")
        length = _LENGTH.search(data, 0, head + 2) if head >= 0 else None
        if head < 0 or (length is not None and len(data) < head + 4 + int(length[1])):
            self._buffer = data
            return
        now = time.perf_counter()
        self._buffer = b""
        right = (
            length is not None
            and len(data) == head + 4 + int(length[1])
            and data.startswith(b"HTTP/1.1 200 ")
            and data.find(self._marker, head) >= 0
        )
        self._run.answered(self, now - self._sent, None if right else data)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if not self._closed:
            self._closed = True
            self._run.lost()


def request(host: str, port: int, body: bytes) -> bytes:
    """The bytes of a call."""
    head = (
        f"POST /jrpc HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _plan() -> Plan:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--warm-up", type=float, default=1.0, help="seconds, not measured")
    parser.add_argument(
        "--body-file", type=Path, required=True, help="a body on each line, sent in random order"
    )
    parser.add_argument("--marker", default='"result"', help="what a right answer contains")
    until = parser.add_mutually_exclusive_group(required=True)
    until.add_argument("--seconds", type=float)
    until.add_argument("--requests", type=int)
    options = parser.parse_args()
    bodies = options.body_file.read_bytes().splitlines()
    random.shuffle(bodies)
    return Plan(
        host=options.host,
        port=options.port,
        sends=tuple(request(options.host, options.port, body) for body in bodies),
        marker=options.marker.encode(),
        connections=options.connections,
        warm_up=options.warm_up,
        seconds=options.seconds,
        requests=options.requests,
    )


async def _measure(plan: Plan) -> Result:
    return await Run(plan).measure()


def main() -> None:
    """Run the load and print the result as JSON."""
    plan = _plan()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(asdict(runner.run(_measure(plan)))))


if __name__ == "__main__":
    main()
