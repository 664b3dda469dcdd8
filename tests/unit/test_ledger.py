"""The ledger: jobs come to be, change and are told of, on a real database."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from container_manager.errors import Conflict, JobNotFound, QueueFull, StorageUnavailable
from container_manager.job import BATCH_KEEP, Job, Phase, Status
from container_manager.spec import Spec
from container_manager.store.jobs import Filter
from tests.unit.builders import (
    CANARY,
    NODE,
    NOW,
    Clock,
    Rooms,
    bring,
    container,
    create,
    new_job,
    opened,
    take,
)

if TYPE_CHECKING:
    from pathlib import Path


NGINX = Spec(image="nginx")
UNKNOWN = "01ba60d3-3800-7000-a117-c343e06ae86f"


async def test_a_created_job_is_kept_and_waits_for_a_worker(rooms: Rooms) -> None:
    job = await create(rooms.ledger, NGINX)
    assert rooms.ledger.get(job.id) == job
    assert (job.status, job.node, job.spec) == (Status.PENDING, NODE, NGINX)
    assert rooms.ledger.created == 1
    assert await take(rooms.queue) == job.id


async def test_the_environment_is_kept_sealed(rooms: Rooms) -> None:
    job = await create(rooms.ledger, Spec(image="nginx", env={"PASSWORD": CANARY}))
    assert CANARY not in repr(rooms.ledger.get(job.id))
    assert rooms.ledger.get(job.id).sealed_env is not None
    dump = rooms.database.read(lambda c: list(c.execute("SELECT * FROM job")))
    assert CANARY not in repr(dump)


async def test_a_created_job_is_a_new_one_in_every_field(rooms: Rooms) -> None:
    """Create writes the row of a new job without making the job: both must say the same."""
    for spec in (NGINX, Spec(image="redis", labels={"a": "b"}, type="batch", run_timeout=3)):
        job = await create(rooms.ledger, spec)
        assert job == Job.new(id=job.id, node=NODE, spec=spec, sealed_env=None, now=job.created_at)


async def test_what_is_not_there_is_not_found(rooms: Rooms) -> None:
    for job_id in (UNKNOWN, "", "x", "0" * 32):
        assert rooms.ledger.find(job_id) is None
        with pytest.raises(JobNotFound):
            rooms.ledger.get(job_id)
        with pytest.raises(JobNotFound):
            await rooms.ledger.change(job_id, lambda j: j)
        with pytest.raises(JobNotFound):
            await rooms.ledger.retry(job_id)
        with pytest.raises(JobNotFound):
            await rooms.ledger.wait(job_id, 0)


async def test_a_step_that_refuses_changes_nothing(rooms: Rooms) -> None:
    job = await create(rooms.ledger, NGINX)
    with pytest.raises(Conflict):
        await rooms.ledger.change(job.id, lambda j: j.retried(rooms.ledger.now()))
    assert rooms.ledger.get(job.id) == job
    assert await rooms.ledger.change(job.id, lambda j: j) == job
    assert len(rooms.queue) == 1


async def test_changes_at_the_same_time_follow_each_other(rooms: Rooms) -> None:
    job = await bring(rooms.ledger, await create(rooms.ledger, NGINX), Status.RUNNING)
    now = rooms.ledger.now()
    changes = [
        rooms.ledger.change(job.id, lambda j, n=n: j.entered(Phase.PULLING, now + n))
        for n in range(20)
    ]
    revisions = [after.revision for after in await asyncio.gather(*changes)]
    assert revisions == [job.revision + n for n in range(1, 21)]


async def test_a_change_is_made_though_its_caller_has_gone(rooms: Rooms) -> None:
    job = await create(rooms.ledger, NGINX)
    rooms.ledger.change(job.id, lambda j: j.cancelling(rooms.ledger.now())).cancel()
    creating = asyncio.create_task(create(rooms.ledger, NGINX))
    await asyncio.sleep(0)  # it has handed in its write, and is cancelled while it waits for it
    creating.cancel()
    await asyncio.gather(creating, return_exceptions=True)
    await rooms.database.write(lambda c: None)
    assert rooms.ledger.get(job.id).status is Status.CANCELLED
    page = await rooms.ledger.page(Filter(), 10, None)
    assert [one["status"] for one in page.jobs] == [Status.PENDING, Status.CANCELLED]
    assert await take(rooms.queue) == page.jobs[0]["id"]


async def test_a_full_queue_refuses_and_keeps_nothing(tmp_path: Path, clock: Clock) -> None:
    async with opened(tmp_path, clock, queue_size=3) as rooms:
        made = await asyncio.gather(
            *(create(rooms.ledger, NGINX) for _ in range(5)), return_exceptions=True
        )
        assert [type(one) for one in made] == [Job] * 3 + [QueueFull] * 2
        assert len((await rooms.ledger.page(Filter(), 10, None)).jobs) == 3
        await take(rooms.queue)
        await create(rooms.ledger, NGINX)


async def test_a_store_that_is_full_gives_the_place_back(rooms: Rooms) -> None:
    pages = await rooms.database.write(lambda c: c.pragma("page_count"))
    await rooms.database.write(lambda c: c.pragma("max_page_count", pages))
    large = Spec(image="nginx", arguments=["x" * 20_000])
    for key in (None, "key"):
        with pytest.raises(StorageUnavailable):
            await create(rooms.ledger, large, key)
        assert len(rooms.queue) == 0
    await rooms.database.write(lambda c: c.pragma("max_page_count", 10_000))
    job = await create(rooms.ledger, large, "key")
    assert rooms.ledger.created == 1
    assert await take(rooms.queue) == job.id


# Retrying


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED, Status.LOST])
async def test_what_has_ended_badly_is_tried_again(rooms: Rooms, status: Status) -> None:
    job = await bring(rooms.ledger, await create(rooms.ledger, NGINX), status)
    assert len(rooms.queue) == 0
    assert (await rooms.ledger.retry(job.id)).status is Status.PENDING
    assert await take(rooms.queue) == job.id


@pytest.mark.parametrize("status", [Status.PENDING, Status.RUNNING, Status.COMPLETE])
async def test_what_runs_or_is_complete_is_not_tried_again(rooms: Rooms, status: Status) -> None:
    job = await bring(rooms.ledger, await create(rooms.ledger, NGINX), status)
    with pytest.raises(Conflict):
        await rooms.ledger.retry(job.id)
    assert rooms.ledger.get(job.id) == job


async def test_retrying_needs_a_place_in_the_queue_and_refuses_first(
    tmp_path: Path, clock: Clock
) -> None:
    async with opened(tmp_path, clock, queue_size=1) as rooms:
        failed = await bring(rooms.ledger, await create(rooms.ledger, NGINX), Status.FAILED)
        waiting = await create(rooms.ledger, NGINX)
        with pytest.raises(QueueFull):
            await rooms.ledger.retry(failed.id)
        with pytest.raises(Conflict):
            await rooms.ledger.retry(waiting.id)


async def test_a_failed_attempt_is_taken_up_again_when_it_is_due(
    rooms: Rooms, clock: Clock
) -> None:
    job = await bring(rooms.ledger, await create(rooms.ledger, NGINX), Status.RUNNING)
    due_at = clock() + 20_000
    await rooms.ledger.change(
        job.id, lambda j: j.retrying("no", None, clock(), due_at, counts=True)
    )
    assert len(rooms.queue) == 1
    begun = asyncio.get_running_loop().time()
    async with asyncio.timeout(5):
        assert await take(rooms.queue) == job.id
    assert asyncio.get_running_loop().time() - begun >= 0.015


# Waiting


async def test_waiting_ends_when_the_job_does(rooms: Rooms) -> None:
    job = await create(rooms.ledger, NGINX)
    waiting = [asyncio.create_task(rooms.ledger.wait(job.id, 30)) for _ in range(3)]
    await bring(rooms.ledger, job, Status.RUNNING)
    assert not any(waiter.done() for waiter in waiting)
    ended = await rooms.ledger.change(job.id, lambda j: j.failed("no", None, rooms.ledger.now()))
    async with asyncio.timeout(5):
        assert await asyncio.gather(*waiting) == [ended] * 3
    assert await rooms.ledger.wait(job.id, 30) == ended
    assert rooms.ledger.outcomes == {Status.FAILED: 1}


async def test_waiting_ends_after_its_time_with_the_job_as_it_is(rooms: Rooms) -> None:
    job = await create(rooms.ledger, NGINX)
    async with asyncio.timeout(5):
        assert await rooms.ledger.wait(job.id, 0) == job
        assert await rooms.ledger.wait(job.id, 0.01) == job


async def test_one_who_waits_no_more_does_not_disturb_the_others(rooms: Rooms) -> None:
    job = await create(rooms.ledger, NGINX)
    gone, stays = (asyncio.create_task(rooms.ledger.wait(job.id, 30)) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    await rooms.ledger.change(job.id, lambda j: j.cancelling(rooms.ledger.now()))
    async with asyncio.timeout(5):
        assert (await stays).status is Status.CANCELLED


# Coming back


async def test_after_reopening_what_was_cut_short_comes_first_then_by_age(
    tmp_path: Path, clock: Clock
) -> None:
    async with opened(tmp_path, clock) as rooms:
        ledger = rooms.ledger
        jobs = [await create(ledger, NGINX) for _ in range(7)]
        waits, later, interrupted, followed, ended, failed, last = jobs
        await bring(ledger, later, Status.RUNNING)
        due_at = clock() + 60_010_000
        await ledger.change(
            later.id, lambda j: j.retrying("no", None, clock(), due_at, counts=True)
        )
        await bring(ledger, interrupted, Status.RUNNING)
        await bring(ledger, followed, Status.RUNNING)
        seen = container("running")
        followed = await ledger.change(
            followed.id, lambda j: j.entered(Phase.VERIFYING, clock(), seen)
        )
        await bring(ledger, ended, Status.COMPLETE)
        await bring(ledger, failed, Status.FAILED)
    clock.advance(60)
    async with opened(tmp_path, clock) as rooms:
        rooms.ledger.enqueue_waiting()
        assert len(rooms.queue) == 4
        async with asyncio.timeout(5):
            taken = [await take(rooms.queue) for _ in range(4)]
        assert taken == [interrupted.id, waits.id, last.id, later.id]
        assert followed.id in await rooms.ledger.followed_ids()


async def test_a_job_is_followed_while_its_container_is_there(rooms: Rooms) -> None:
    job = await bring(rooms.ledger, await create(rooms.ledger, NGINX), Status.RUNNING)
    assert await rooms.ledger.followed_ids() == []
    up = container("running")
    await rooms.ledger.change(job.id, lambda j: j.completed(up, rooms.ledger.now()))
    assert await rooms.ledger.followed_ids() == [job.id]
    for state, followed in (("exited", [job.id]), ("removed", [])):
        seen = container(state)
        await rooms.ledger.change(job.id, partial(Job.observed, container=seen, now=NOW))
        assert await rooms.ledger.followed_ids() == followed


# Output


async def test_output_is_kept_sealed_and_the_newest_replaces_it(rooms: Rooms) -> None:
    job = await bring(rooms.ledger, await create(rooms.ledger, NGINX), Status.RUNNING)
    assert rooms.ledger.output(job) is None
    for lines in (["first", CANARY], ["second"]):
        seen = container("exited", exit_code=len(lines))
        step = partial(Job.observed, container=seen, now=NOW)
        await rooms.ledger.change(job.id, step, lines)
        assert rooms.ledger.output(job) == lines
    await rooms.ledger.change(job.id, lambda j: j, ["nothing has changed"])
    assert rooms.ledger.output(job) == ["second"]
    content = b"".join(file.read_bytes() for file in rooms.directory.path.iterdir())
    assert CANARY.encode() not in content


# What has had its time


async def ended(rooms: Rooms, clock: Clock, **spec: Any) -> Job:
    """A batch job whose container has ended."""
    job = await create(rooms.ledger, Spec(image="nginx", type="batch", **spec))
    await bring(rooms.ledger, job, Status.RUNNING)
    exited = container("exited", exit_code=0)
    return await rooms.ledger.change(job.id, lambda j: j.completed(exited, clock()))


async def test_ended_containers_come_to_be_removed(rooms: Rooms, clock: Clock) -> None:
    told = []
    rooms.ledger.when_removal_due = lambda: told.append(clock())
    at_once = await ended(rooms, clock, remove_on_exit=True)
    later = await ended(rooms, clock, keep=60)
    next_day = await ended(rooms, clock)
    assert len(told) == 3
    assert await rooms.ledger.due_removals(10) == [at_once]
    assert await rooms.ledger.seconds_to_next_removal() == 60
    clock.advance(60)
    assert await rooms.ledger.due_removals(10) == [at_once, later]
    assert await rooms.ledger.due_removals(1) == [at_once]
    assert await rooms.ledger.seconds_to_next_removal() == BATCH_KEEP - 60
    clock.advance(BATCH_KEEP)
    assert next_day in await rooms.ledger.due_removals(10)
    assert await rooms.ledger.seconds_to_next_removal() is None


async def test_jobs_are_forgotten_by_age_and_number_once_their_containers_are_gone(
    rooms: Rooms, clock: Clock
) -> None:
    ledger = rooms.ledger
    waits = await create(ledger, NGINX)
    kept = await ended(rooms, clock)
    gone = []
    for _ in range(5):
        job = await ended(rooms, clock)
        left = container("removed")
        await ledger.change(job.id, partial(Job.observed, container=left, now=clock()), ["out"])
        gone.append(job)
        clock.advance(10)
    # Ages are 50 to 10 seconds now.
    assert await ledger.forget(age=100, most=10, limit=100) == 0
    assert await ledger.forget(age=35, most=10, limit=1) == 1
    assert await ledger.forget(age=35, most=10, limit=100) == 1
    assert ledger.output(gone[1]) is None
    assert await ledger.forget(age=100, most=1, limit=100) == 2
    left_over = [waits.id, kept.id, gone[4].id]
    assert [ledger.find(job.id) is not None for job in (waits, kept, *gone)] == [
        job.id in left_over for job in (waits, kept, *gone)
    ]
    assert await ledger.forget(age=0, most=0, limit=100) == 1
    assert ledger.find(kept.id) is not None


async def test_a_job_that_was_found_by_its_labels_is_kept_unless_it_is_known(rooms: Rooms) -> None:
    found = new_job(env={"A": CANARY}).claimed(rooms.ledger.now())
    await rooms.ledger.restore(found)
    kept = rooms.ledger.get(found.id)
    assert (kept.status, kept.attempts, kept.spec.env) == (Status.RUNNING, 1, {})
    assert kept.sealed_env is not None
    assert await take(rooms.queue) == found.id
    known = await bring(rooms.ledger, await create(rooms.ledger, NGINX), Status.COMPLETE)
    await rooms.ledger.restore(replace(found, id=known.id))
    assert rooms.ledger.get(known.id) == known
    assert len(rooms.queue) == 0
