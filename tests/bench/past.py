"""A data directory with a long past: jobs that have ended, and jobs that wait."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from container_manager import node as identity
from container_manager.job import Container, Job, Phase
from container_manager.spec import Spec
from container_manager.store import feeds, jobs
from container_manager.store.database import Database
from container_manager.store.directory import DataDirectory
from container_manager.store.schema import MIGRATIONS
from container_manager.work.ids import JobIds

if TYPE_CHECKING:
    from pathlib import Path

    from container_manager.store.database import Connection
    from container_manager.store.feeds import OwnFeed

NO_ENGINE = "unix:///nonexistent.sock"
KEEP_ALL = ("--retain-jobs", "10000000", "--retain-age", "10y")
"""Flags by which the daemon deletes nothing of such a past."""

TEN_YEARS = 10 * 365 * 86_400 * 1_000_000
"""As `KEEP_ALL` has it, in microseconds."""

CHUNK = 20_000
"""Jobs in one transaction while the store is filled."""


async def fill(data_dir: Path, finished: int, waiting: int) -> list[str]:
    """Fill a data directory's store by the store's own code; the ids of the finished jobs.

    Their rows are as long as real ones: the pattern of the finished jobs went through a job's real
    steps, and each is encoded by itself as the daemon does it.
    """
    directory = DataDirectory(data_dir)
    key = directory.secret("node.key", identity.new_key)
    node = identity.Node.from_key(key, directory.home).id
    past = _Past(node, finished + waiting)
    database = Database(directory.database, MIGRATIONS)
    feed = database.read(lambda connection: feeds.own_feed(connection, node, "0" * 16))
    database.begin_with(lambda connection: feeds.begin_own(connection, feed))
    ids: list[str] = []
    try:
        for done in range(0, finished, CHUNK):
            made = [past.finished() for _ in range(min(CHUNK, finished - done))]
            ids += [job.id for job in made]
            await database.write(partial(_insert, feed, made))
        await database.write(partial(_insert, feed, [past.waiting() for _ in range(waiting)]))
    finally:
        await database.close()
        directory.close()
    return ids


def _insert(feed: OwnFeed, made: list[Job], connection: Connection) -> None:
    for job in made:
        expires_at = job.updated_at + TEN_YEARS if job.done else None
        assert jobs.insert(connection, jobs.row(job, feed.next_place(), expires_at))


class _Past:
    """Jobs of one node, a tenth of a second apart, the last of them made just now."""

    STEP = 100_000
    AFTER = (900, 120_000, 1_290_000, 60_000_000)
    """When a job was claimed, starting, complete and without its container, in microseconds."""

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
        pattern, later = self._pattern, self._now - self._pattern.created_at
        return replace(
            pattern,
            id=new.id,
            created_at=self._now,
            updated_at=pattern.updated_at + later,
            history=tuple(replace(entry, at=entry.at + later) for entry in pattern.history),
        )

    def _deployed(self, job: Job) -> Job:
        claimed, starting, complete, removed = (self._now + after for after in self.AFTER)
        container = Container(
            id=hashlib.sha256(job.id.encode()).hexdigest(),
            name=job.container_name,
            state="running",
            started_at=starting,
            seen_at=complete,
        )
        job = job.claimed(claimed).entered(Phase.STARTING, starting, container)
        job = job.completed(container, complete)
        return job.observed(container.removed(removed), removed)
