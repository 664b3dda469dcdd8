"""A start with a long past: a million jobs that have ended, and a thousand that wait.

Against the start of the same daemon with no past at all, so that what is measured is the past.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import time
from dataclasses import replace
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

import pytest

from container_manager import node as identity
from container_manager.job import Container, Job, Phase
from container_manager.spec import Spec
from container_manager.store import jobs
from container_manager.store.database import Database
from container_manager.store.directory import DataDirectory
from container_manager.work.ids import JobIds
from tests.bench.figures import Row
from tests.bench.processes import resident_mb

if TYPE_CHECKING:
    from pathlib import Path

    from container_manager.store.database import Connection
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
NO_ENGINE = "unix:///nonexistent.sock"
QUEUE = ("--queue-size", "10000")

CHUNK = 20_000
"""Jobs in one transaction while the store is filled."""


async def test_start_with_a_million_finished_jobs(
    daemon: MakeDaemon, report: Report, tmp_path: Path
) -> None:
    node = await daemon(*QUEUE, docker_host=NO_ENGINE, start=False)
    empty = await daemon(*QUEUE, name="empty", docker_host=NO_ENGINE, start=False)
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


# The past


async def fill(data_dir: Path, finished: int, waiting: int) -> list[str]:
    """Fill a data directory's store by the store's own code; the ids of the finished jobs.

    Their rows are as long as real ones: the pattern of the finished jobs went through a job's real
    steps, and each is encoded by itself as the daemon does it.
    """
    directory = DataDirectory(data_dir)
    key = directory.secret("node.key", identity.new_key)
    past = _Past(identity.Node.from_key(key, directory.home).id, finished + waiting)
    database = Database(directory.database, jobs.MIGRATIONS)
    ids: list[str] = []
    try:
        for done in range(0, finished, CHUNK):
            made = [past.finished() for _ in range(min(CHUNK, finished - done))]
            ids += [job.id for job in made]
            await database.write(partial(_insert, made))
        await database.write(partial(_insert, [past.waiting() for _ in range(waiting)]))
    finally:
        await database.close()
        directory.close()
    return ids


def _insert(made: list[Job], connection: Connection) -> None:
    for job in made:
        assert jobs.insert(connection, jobs.row(job))


class _Past:
    """Jobs of one node, a tenth of a second apart, the last of them made just now."""

    STEP = 100_000

    def __init__(self, node: str, count: int) -> None:
        self._node = node
        self._ids = JobIds()
        self._now = time.time_ns() // 1000 - count * self.STEP
        self._pattern: Job | None = None
        self._spec = Spec(image="registry.example/team/service:1.2", labels={"team": "a"})

    def waiting(self) -> Job:
        """A job that nobody has taken up."""
        self._now += self.STEP
        job_id = self._ids.new(self._now)
        return Job.new(id=job_id, node=self._node, spec=self._spec, sealed_env=None, now=self._now)

    def finished(self) -> Job:
        """A job that was deployed, and whose container is gone by now."""
        new = self.waiting()
        if self._pattern is None:
            self._pattern = self._deployed(new)
        return replace(self._pattern, id=new.id, created_at=self._now, updated_at=self._now)

    def _deployed(self, job: Job) -> Job:
        now = self._now
        container = Container(
            id=hashlib.sha256(job.id.encode()).hexdigest(),
            name=job.container_name,
            state="running",
            started_at=now,
            seen_at=now,
        )
        job = job.claimed(now).entered(Phase.STARTING, now, container).completed(container, now)
        return job.observed(container.removed(now), now)
