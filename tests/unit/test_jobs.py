"""The jobs' table: rows that give back their job, pages that show every job once, older tables."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from container_manager.job import BATCH_KEEP, Phase, Port, Status
from container_manager.spec import Spec
from container_manager.store import jobs
from container_manager.store.database import Database
from container_manager.store.directory import DataDirectory
from container_manager.store.document import Document, document
from container_manager.store.jobs import Filter, row
from container_manager.store.schema import MIGRATIONS
from tests.unit.builders import (
    NODE,
    NOW,
    Clock,
    Rooms,
    bring,
    container,
    create,
    job_in,
    new_job,
    opened,
    ports,
)

if TYPE_CHECKING:
    from container_manager.job import Job
    from container_manager.store.database import Connection

NGINX = Spec(image="nginx")


async def listed(rooms: Rooms, wanted: Filter, limit: int) -> list[Document]:
    """All pages one after the other."""
    found: list[Document] = []
    cursor = None
    for _ in range(100):
        page = await rooms.ledger.page(wanted, limit, cursor)
        assert len(page.jobs) <= limit
        found += page.jobs
        if (cursor := page.next_cursor) is None:
            return found
    raise AssertionError("the pages have no end")


async def page_through(
    made: list[tuple[Status, bool]], wanted: frozenset[Status], limit: int
) -> None:
    clock = Clock()
    with tempfile.TemporaryDirectory() as directory:
        async with opened(Path(directory), clock) as rooms:
            jobs = []
            plain: dict[str, Document] = {}
            for status, labelled in made:
                spec = Spec(image="nginx", labels={"team": "a"} if labelled else {})
                job = await create(rooms.ledger, spec)
                jobs.append(await bring(rooms.ledger, job, status))
                plain[job.id] = document(row(jobs[-1]))
                clock.advance(0.0007)  # some share a millisecond
            newest_first = [job for job in reversed(jobs) if not wanted or job.status in wanted]
            assert await listed(rooms, Filter(status=wanted), limit) == [
                plain[job.id] for job in newest_first
            ]
            labels = (("team", "a"),)
            assert await listed(rooms, Filter(status=wanted, labels=labels), limit) == [
                plain[job.id] for job in newest_first if job.spec.labels
            ]
            for since in {job.created_at for job in jobs}:
                assert await listed(rooms, Filter(status=wanted, since=since), limit) == [
                    plain[job.id] for job in newest_first if job.created_at >= since
                ]


@settings(max_examples=20)
@given(
    st.lists(st.tuples(st.sampled_from(Status), st.booleans()), max_size=12),
    st.frozensets(st.sampled_from(Status)),
    st.integers(1, 5),
)
def test_the_pages_show_every_job_once_newest_first(
    made: list[tuple[Status, bool]], wanted: frozenset[Status], limit: int
) -> None:
    asyncio.run(page_through(made, wanted, limit))


async def test_a_job_that_comes_meanwhile_does_not_shift_the_pages(rooms: Rooms) -> None:
    old = [await create(rooms.ledger, NGINX) for _ in range(4)]
    first = await rooms.ledger.page(Filter(), 2, None)
    await create(rooms.ledger, NGINX)
    second = await rooms.ledger.page(Filter(), 2, first.next_cursor)
    assert [job["id"] for job in first.jobs + second.jobs] == [job.id for job in reversed(old)]


# Rows


async def stored(job: Job) -> Job | None:
    with tempfile.TemporaryDirectory() as directory:
        async with opened(Path(directory), Clock()) as rooms:
            await rooms.database.write(lambda c: jobs.insert(c, jobs.row(job)))
            return rooms.database.read(lambda c: jobs.get(c, job.id))


@settings(max_examples=20)
@given(st.lists(ports, max_size=4))
def test_a_row_gives_back_all_of_a_container(published: list[Port]) -> None:
    seen = container(
        "restarting",
        exit_code=137,
        oom_killed=True,
        health="unhealthy",
        health_output="said “no”",
        restarts=3,
        ports=tuple(published),
        error="words",
        finished_at=NOW,
    )
    job = job_in(Status.COMPLETE).observed(seen, NOW)
    found = asyncio.run(stored(job))
    assert found == job
    assert found is not None
    assert found.container == seen


# A table of the first schema

OLD_COLUMNS = (
    "id, node, epoch, revision, status, phase, followed, created_at, updated_at, spec, sealed_env,"
    " body"
)
"""As the first schema had them."""


def old_row(job: Job) -> tuple[object, ...]:
    """The job as it was written with the first schema: only live containers were followed."""
    values = list(jobs.row(job)[:12])
    alive = job.container is not None and job.container.live
    values[6] = int(job.followed if job.status is Status.RUNNING else job.status.final and alive)
    return tuple(values)


def older_jobs() -> dict[str, Job]:
    """Jobs of all kinds, by what they are."""
    ended = container("exited", exit_code=0, finished_at=NOW)

    def run() -> Job:
        return new_job(type="batch").claimed(NOW).entered(Phase.RUNNING, NOW, container())

    return {
        "pending": new_job(),
        "creating": new_job().claimed(NOW),
        "verifying": job_in(Status.RUNNING),
        "cancelled before it began": new_job().cancelling(NOW),
        "service that runs": job_in(Status.COMPLETE),
        "service that has ended": job_in(Status.COMPLETE).observed(ended, NOW),
        "service that was removed": job_in(Status.COMPLETE).observed(container("removed"), NOW),
        "failed service": job_in(Status.FAILED).observed(container("removed"), NOW),
        "batch that runs": run(),
        "batch that has ended": run().completed(ended, NOW + 5),
        "batch that has failed": run().failed("no", container("dead", exit_code=1), NOW + 6),
        "batch that was removed": run().completed(ended, NOW).observed(ended.removed(NOW), NOW),
        "lost batch": run().lost(container("removed"), NOW),
    }


async def test_rows_of_the_first_schema_come_out_as_the_jobs_that_they_are(tmp_path: Path) -> None:
    data = DataDirectory(tmp_path)
    first = Database(data.database, MIGRATIONS[:1])
    older = older_jobs()

    def insert(connection: Connection) -> None:
        marks = ",".join("?" * 12)
        for job in older.values():
            connection.execute(f"INSERT INTO job ({OLD_COLUMNS}) VALUES ({marks})", old_row(job))

    await first.write(insert)
    await first.close()
    data.close()

    def columns(connection: Connection) -> dict[bytes, tuple[int, int | None]]:
        rows = connection.execute("SELECT id, followed, removal_due FROM job")
        return {key: (followed, due) for key, followed, due in rows}

    async with opened(tmp_path, Clock()) as rooms:
        found = rooms.database.read(columns)
        for kind, job in older.items():
            assert rooms.ledger.get(job.id) == job, kind
            key = jobs.row(job)[0]
            assert found[key] == (int(job.followed), job.removal_due), kind
        assert set(await rooms.ledger.followed_ids()) == {
            job.id for job in older.values() if job.followed
        }
        batch = older["batch that has ended"]
        assert batch.removal_due == NOW + 5 + int(BATCH_KEEP * 1e6)
        due = rooms.database.read(lambda c: jobs.due_removals(c, NODE, batch.removal_due or 0, 10))
        assert due == [batch]
        assert rooms.database.read(lambda c: jobs.output(c, batch.id)) is None
        done = rooms.database.read(
            lambda c: jobs.outdated(c, NODE, now=NOW, before=NOW + 10, most=0, limit=100)
        )
        assert set(done) == {
            jobs.row(job)[0] for job in older.values() if job.status.final and not job.followed
        }
        assert rooms.database.read(lambda c: c.pragma("user_version")) == len(MIGRATIONS)
