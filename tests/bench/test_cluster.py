"""What it costs that nodes know of each other's jobs: how soon, how many, and when all is quiet."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from container_manager.cluster.secret import ClusterSecret
from tests.bench.figures import Row, percentile
from tests.bench.past import KEEP_ALL, fill
from tests.bench.plain import plain_client
from tests.bench.processes import cpu_seconds
from tests.support.cluster import NO_ENGINE, linked
from tests.support.daemon import free_port

if TYPE_CHECKING:
    from tests.bench.conftest import Report
    from tests.conftest import MakeDaemon
    from tests.support.daemon import Daemon

pytestmark = pytest.mark.bench

RATE = 500
"""Creates a second."""
CREATES = 3000
CALLERS = 8
LATE = 100_000
"""Jobs that a node is told of which joins late."""
CATCH_UP = 8.0
FROM_WRITER, RELAYED = 15_000, 6_000
"""Records a second."""
ANSWER_MS = 250.0
"""In which a node answers that is catching up."""
PEERS = 10
WINDOW = 30.0
LINKED = 30.0
CPU_SHARE = 0.01


class Members:
    """Daemons of one cluster, each of which dials those before it."""

    def __init__(self, daemon: MakeDaemon) -> None:
        self._daemon = daemon
        self._secret = ClusterSecret.new_text()
        self._ports: list[int] = []

    async def add(self, name: str, *flags: str, start: bool = True) -> Daemon:
        port = free_port()
        peers = [word for known in self._ports for word in ("--peer", f"127.0.0.1:{known}")]
        self._ports.append(port)
        return await self._daemon(
            *("--no-mdns", "--p2p-port", str(port), "--listen-address", "127.0.0.1"),
            *(*peers, *flags),
            name=name,
            env={"CONTAINER_MANAGER_SECRET": self._secret},
            docker_host=NO_ENGINE,
            wait_ready=False,
            start=start,
        )


async def test_acknowledged_at_one_answered_at_another(daemon: MakeDaemon, report: Report) -> None:
    members = Members(daemon)
    a = await members.add("a", "--queue-size", str(2 * CREATES))
    b = await members.add("b")
    await linked(a, b, within=LINKED)
    took: list[float] = []

    async def some(first: int, began: float) -> None:
        async with plain_client(a.port) as here, plain_client(b.port) as there:
            for number in range(first, CREATES, CALLERS):
                await asyncio.sleep(max(0.0, began + number / RATE - time.perf_counter()))
                job_id = (await here.call("ContainerService.Create", image="busybox"))["job_id"]
                acknowledged = time.perf_counter()
                job = await there.call("ContainerService.Status", job_id=job_id)
                took.append(1000 * (time.perf_counter() - acknowledged))
                assert job["status"] == "pending"

    began = time.perf_counter() + 0.5
    await asyncio.gather(*(some(first, began) for first in range(CALLERS)))
    p50, p99 = percentile(took, 0.5), percentile(took, 0.99)
    what = f"acknowledged at A until answered at B, {RATE} creates/s"
    report(
        Row(f"{what}, p50", f"{p50:.2f} ms", "-", "≤ 2 ms", p50 <= 2),
        Row(f"{what}, p99", f"{p99:.2f} ms", "-", "≤ 15 ms", p99 <= 15),
    )


async def test_a_node_that_joins_late(daemon: MakeDaemon, report: Report) -> None:
    members = Members(daemon)
    a = await members.add("a", *KEEP_ALL, start=False)
    ids = await fill(a.data_dir, LATE, 0)
    await a.start(wait_ready=False)
    b = await members.add("b", *KEEP_ALL, start=False)
    from_writer, slowest = await _caught_up(b, ids[-1])
    await a.kill()
    c = await members.add("c", *KEEP_ALL, start=False)
    relayed, _ = await _caught_up(c, ids[-1])
    report(
        Row(
            f"a node that joins {LATE:,} jobs late has caught up",
            f"{from_writer:.1f} s",
            "-",
            f"≤ {CATCH_UP:g} s",
            from_writer <= CATCH_UP,
        ),
        Row(
            "the same: its slowest answer meanwhile",
            f"{slowest:.0f} ms",
            "-",
            f"≤ {ANSWER_MS:g} ms",
            slowest <= ANSWER_MS,
        ),
        Row(
            "records a second from their writer",
            f"{LATE / from_writer:,.0f}",
            "-",
            f"≥ {FROM_WRITER:,}",
            LATE / from_writer >= FROM_WRITER,
        ),
        Row(
            "records a second relayed, signatures checked",
            f"{LATE / relayed:,.0f}",
            "-",
            f"≥ {RELAYED:,}",
            LATE / relayed >= RELAYED,
        ),
    )


async def _caught_up(node: Daemon, last: str) -> tuple[float, float]:
    """Start a node; seconds from its first record until it has the last, and its slowest answer."""
    await node.start(wait_ready=False)
    began, slowest = 0.0, 0.0
    while True:
        asked = time.perf_counter()
        jobs = (await node.call("ContainerService.List", {"limit": 1}))["jobs"]
        answered = time.perf_counter()
        if not jobs:
            began = answered
        elif began:
            slowest = max(slowest, 1000 * (answered - asked))
        if jobs and jobs[0]["job_id"] == last:
            return answered - began, slowest
        await asyncio.sleep(0.02)


async def test_idle_with_ten_peers(daemon: MakeDaemon, report: Report) -> None:
    members = Members(daemon)
    nodes = [await members.add(f"n{number}") for number in range(PEERS + 1)]
    await linked(*nodes, within=LINKED)
    assert nodes[0].process is not None
    pid = nodes[0].process.pid
    began, before = time.perf_counter(), cpu_seconds(pid)
    await asyncio.sleep(WINDOW)
    share = (cpu_seconds(pid) - before) / (time.perf_counter() - began)
    what = f"idle, {PEERS} peers, share of a core"
    report(Row(what, f"{share:.2%}", "-", f"< {CPU_SHARE:.0%}", share < CPU_SHARE))
