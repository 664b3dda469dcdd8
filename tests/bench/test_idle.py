"""What the daemon takes while there is nothing to do, its engine connected."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from tests.bench.figures import Row
from tests.bench.processes import cpu_seconds, echo, resident_mb

if TYPE_CHECKING:
    from tests.bench.conftest import Report
    from tests.conftest import MakeDaemon

pytestmark = pytest.mark.bench

WINDOW = 35.0
"""Seconds: longer than the daemon's period of looking at everything, so that one look is in it."""
CPU_SHARE = 0.005
MEMORY_MB = 90.0


async def test_idle(daemon: MakeDaemon, report: Report) -> None:
    node = await daemon()
    assert node.process is not None
    pid = node.process.pid
    # Once asked, so that the first call's one-time costs are not counted as idling.
    await node.call("ContainerService.List", {})
    async with echo() as (_, echo_pid):
        began = time.perf_counter()
        ours, theirs = cpu_seconds(pid), cpu_seconds(echo_pid)
        await asyncio.sleep(WINDOW)
        took = time.perf_counter() - began
        share = (cpu_seconds(pid) - ours) / took
        echo_share = (cpu_seconds(echo_pid) - theirs) / took
        memory, echo_memory = resident_mb(pid), resident_mb(echo_pid)
    report(
        Row(
            f"idle for {WINDOW:g} s, share of a core",
            f"{share:.2%}",
            f"{echo_share:.2%} (bare echo, idle)",
            f"< {CPU_SHARE:.1%}",
            share < CPU_SHARE,
        ),
        Row(
            "idle, memory",
            f"{memory:.0f} MB",
            f"{echo_memory:.0f} MB (bare echo, idle)",
            f"≤ {MEMORY_MB:g} MB",
            memory <= MEMORY_MB,
        ),
    )
