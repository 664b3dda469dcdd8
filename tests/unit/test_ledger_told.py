"""What other nodes tell: who waits for their jobs is answered, and own jobs are taken up again."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from container_manager.errors import NodeUnreachable
from container_manager.job import Status
from container_manager.record import Entry, Record
from container_manager.spec import Spec
from container_manager.store import feeds, job_records, jobs
from container_manager.store.records import Place
from tests.unit.builders import NODE, Clock, Rooms, bring, container, create, job_in, new_job, take

if TYPE_CHECKING:
    from container_manager.job import Job

OTHER = "f" * 32
FEED = feeds.feed_name(OTHER, "0123456789abcdef")
LIMIT = 5.0


def record(job: Job) -> Record:
    """The job as its writer tells it."""
    return job_records.record((*jobs.row(job, Place(1, 1)), bytes(96), None, None))


async def told(rooms: Rooms, *tellings: Record) -> list[Record]:
    """What a peer tells is merged, and the ledger hears of what counts."""
    seq = 1 + rooms.database.read(feeds.vector).get(FEED, 0)
    entries = [Entry(seq + number, one) for number, one in enumerate(tellings)]
    taken = await rooms.database.write(
        lambda c: feeds.merge(c, FEED, entries, entries[-1].seq, rooms.ledger.now())
    )
    rooms.ledger.told(taken)
    return taken


def theirs(status: Status = Status.PENDING) -> Job:
    return replace(job_in(status), node=OTHER)


async def test_who_waits_for_another_nodes_job_is_answered_when_it_ends(rooms: Rooms) -> None:
    job = theirs(Status.RUNNING)
    await told(rooms, record(job))
    waiting = [asyncio.create_task(rooms.ledger.wait(job.id, 30)) for _ in range(2)]
    await asyncio.sleep(0)
    entered = job.observed(container("running", restarts=1), rooms.ledger.now())
    await told(rooms, record(entered))
    await asyncio.sleep(0)
    assert not any(one.done() for one in waiting)
    ended = entered.failed("no luck", None, rooms.ledger.now())
    await told(rooms, record(ended))
    async with asyncio.timeout(LIMIT):
        assert await asyncio.gather(*waiting) == [ended] * 2
    assert rooms.ledger.outcomes.total() == 0  # which counts what this node has done


async def test_another_nodes_job_waits_for_no_worker_here_and_is_not_changed(rooms: Rooms) -> None:
    job = theirs()
    await told(rooms, record(job))
    assert len(rooms.queue) == 0
    rooms.ledger.enqueue_waiting()
    assert len(rooms.queue) == 0
    with pytest.raises(NodeUnreachable):
        await rooms.ledger.change(job.id, lambda j: j.claimed(rooms.ledger.now()))
    assert rooms.ledger.get(job.id) == job
    assert await rooms.ledger.followed_ids() == []


async def test_an_own_job_that_was_lost_here_is_queued_again_at_once(rooms: Rooms) -> None:
    job = new_job()
    back: list[Job] = []
    rooms.ledger.when_brought_back = back.append
    await told(rooms, record(job))
    assert back == [job]
    async with asyncio.timeout(LIMIT):
        assert await take(rooms.queue) == job.id


async def test_an_own_job_that_has_to_wait_is_queued_for_then(rooms: Rooms, clock: Clock) -> None:
    due_at = clock() + 3_600_000_000
    job = new_job().claimed(clock()).retrying("no", None, clock(), due_at, counts=True)
    await told(rooms, record(job))
    assert len(rooms.queue) == 1
    assert rooms.queue.take() is None


async def test_an_own_job_that_others_know_has_ended_is_not_begun_again(rooms: Rooms) -> None:
    job = await create(rooms.ledger, Spec(image="nginx"))
    waiting = asyncio.create_task(rooms.ledger.wait(job.id, 30))
    await asyncio.sleep(0)
    assert len(rooms.queue) == 1
    ended = job.claimed(1).completed(container("exited", exit_code=0), 2)
    await told(rooms, record(ended))
    assert len(rooms.queue) == 0
    async with asyncio.timeout(LIMIT):
        assert await waiting == ended
    assert rooms.ledger.get(job.id) == ended


async def test_what_counts_less_than_what_is_known_changes_nothing(rooms: Rooms) -> None:
    job = await create(rooms.ledger, Spec(image="nginx"))
    await bring(rooms.ledger, job, Status.COMPLETE)
    assert await told(rooms, record(job)) == []
    assert rooms.ledger.get(job.id).status is Status.COMPLETE
    assert len(rooms.queue) == 0


async def test_what_cannot_be_read_what_was_dropped_and_other_kinds_disturb_nobody(
    rooms: Rooms,
) -> None:
    job, strange = theirs(Status.RUNNING), theirs()
    await told(rooms, record(job))
    waiting = asyncio.create_task(rooms.ledger.wait(job.id, 30))
    await asyncio.sleep(0)
    ended = job.failed("no", None, rooms.ledger.now())
    await told(
        rooms,
        Record("node", b"1", 1, 1, NODE, None, b"{}", bytes(96)),
        replace(record(strange), body=b"of a later version"),
        record(new_job()).dropped(),
        replace(record(new_job()), body=b"own, of a later version"),
        record(ended),
    )
    async with asyncio.timeout(LIMIT):
        assert await waiting == ended
    assert rooms.ledger.find(strange.id) is None
    assert len(rooms.queue) == 0


async def test_the_output_of_another_nodes_job_comes_with_it(rooms: Rooms) -> None:
    job = theirs(Status.FAILED)
    seal = rooms.ledger._seal
    sealed = seal.close_output(["last words"], job.id)
    row = (*jobs.row(job, Place(1, 1)), bytes(96), None, sealed)
    await told(rooms, job_records.record(row))
    assert rooms.ledger.output(job) == ["last words"]
    document, lines = rooms.ledger.look_up(job.id)
    assert (document["node"], lines) == (OTHER, ["last words"])
