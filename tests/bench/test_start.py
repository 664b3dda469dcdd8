"""A start with a long past: a million jobs that have ended, and a thousand that wait.

Against the start of the same daemon with no past at all, so that what is measured is the past.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from statistics import median
from typing import TYPE_CHECKING

import pytest

from tests.bench.figures import Row
from tests.bench.past import KEEP_ALL, NO_ENGINE, fill
from tests.bench.processes import resident_mb

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.conftest import Report
    from tests.conftest import MakeDaemon
    from tests.support.daemon import Daemon

pytestmark = pytest.mark.bench

FINISHED = 1_000_000
WAITING = 1_000
STARTS = 3
ASKED = 1_000
READY_SECONDS = 1.5
MEMORY_MB = 120.0
QUEUE = ("--queue-size", "10000")


async def test_start_with_a_million_finished_jobs(
    daemon: MakeDaemon, report: Report, tmp_path: Path
) -> None:
    node = await daemon(*QUEUE, *KEEP_ALL, docker_host=NO_ENGINE, start=False)
    empty = await daemon(*QUEUE, *KEEP_ALL, name="empty", docker_host=NO_ENGINE, start=False)
    ids = await fill(node.data_dir, FINISHED, WAITING)
    size = sum(file.stat().st_size for file in node.data_dir.iterdir())

    _forget(node.data_dir)
    cold = await _start(node)
    ready: list[float] = []
    bare: list[float] = []
    for _ in range(STARTS):
        bare.append(await _start(empty))
        bare_memory = resident_mb(_pid(empty))
        await empty.kill()
        await node.kill()
        ready.append(await _start(node))
    memory = resident_mb(_pid(node))
    for job_id in random.sample(ids, ASKED):
        assert (await node.status(job_id))["job_id"] == job_id
    memory_later = resident_mb(_pid(node))
    listed = await node.call("ContainerService.List", {"status": "pending", "limit": 1})
    assert len(listed["jobs"]) == 1
    await node.kill()
    shutil.rmtree(node.data_dir)

    what = f"start with {FINISHED:,} finished and {WAITING:,} waiting jobs"
    nothing = f"{median(bare):.2f} s (no jobs)"
    report(
        Row(
            f"{what}, ready",
            f"{median(ready):.2f} s",
            nothing,
            f"≤ {READY_SECONDS:g} s",
            median(ready) <= READY_SECONDS,
        ),
        Row(
            f"the same with nothing of the {size / 1e6:,.0f} MB of data in the page cache",
            f"{cold:.2f} s",
            nothing,
            f"≤ {READY_SECONDS:g} s",
            cold <= READY_SECONDS,
        ),
        Row(
            "memory when ready",
            f"{memory:.0f} MB",
            f"{bare_memory:.0f} MB (no jobs)",
            f"≤ {MEMORY_MB:g} MB",
            memory <= MEMORY_MB,
        ),
        Row(
            f"memory after the status of {ASKED:,} random jobs",
            f"{memory_later:.0f} MB",
            f"{bare_memory:.0f} MB (no jobs)",
            f"≤ {MEMORY_MB:g} MB",
            memory_later <= MEMORY_MB,
        ),
    )


async def _start(node: Daemon) -> float:
    """Seconds from the start of the process until it is alive and says how it stands."""
    began = time.perf_counter()
    await node.start(wait_ready=False)
    status, text = await node.get("/readyz")
    took = time.perf_counter() - began
    assert status == 503, text  # it has no engine, and says so
    return took


def _pid(node: Daemon) -> int:
    assert node.process is not None
    return node.process.pid


def _forget(data_dir: Path) -> None:
    """Drop the files from the page cache, as after a boot."""
    for file in data_dir.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
