"""Listing the jobs' table: filters, and pages that show every job once."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from container_manager.job import Status
from container_manager.spec import Spec
from container_manager.store.document import Document, document
from container_manager.store.jobs import Filter, row
from tests.unit.builders import Clock, Rooms, bring, create, opened

if TYPE_CHECKING:
    pass

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
