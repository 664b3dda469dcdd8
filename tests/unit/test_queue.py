"""The queue: the order of its jobs, its bound, and that no job is lost in it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from container_manager.errors import QueueFull
from container_manager.work.queue import JobQueue
from tests.unit.builders import take

if TYPE_CHECKING:
    pass


async def take_all(queue: JobQueue) -> list[str | None]:
    """Everything that waits, in order."""
    taken: list[str | None] = []
    async with asyncio.timeout(5):
        while len(queue):
            taken.append(await take(queue))
    return taken


async def nothing_to_take(queue: JobQueue) -> bool:
    """Whether a taker has to wait."""
    assert queue.take() is None
    taker = asyncio.create_task(queue.ready())
    await asyncio.sleep(0)  # a taker that has what it wants ends in its first step
    waits = not taker.done()
    taker.cancel()
    await asyncio.gather(taker, return_exceptions=True)
    return waits


async def test_jobs_are_taken_in_the_order_of_their_coming() -> None:
    queue = JobQueue(10)
    for job_id in "abc":
        queue.add(job_id)
    assert await take_all(queue) == ["a", "b", "c"]
    assert await nothing_to_take(queue)


async def test_a_taker_that_waits_gets_what_comes() -> None:
    queue = JobQueue(10)
    taker = asyncio.create_task(take(queue))
    await asyncio.sleep(0)
    queue.add("a")
    async with asyncio.timeout(5):
        assert await taker == "a"


async def test_the_bound_holds_for_new_jobs_and_says_when_to_come_back() -> None:
    queue = JobQueue(2)
    queue.admit("a")
    queue.admit("b")
    with pytest.raises(QueueFull) as full:
        queue.admit("c")
    assert full.value.data["queue_size"] == 2
    assert 1 <= full.value.data["retry_after"] <= 600
    with pytest.raises(QueueFull):
        queue.check_room()
    queue.discard("a")
    queue.check_room()
    queue.admit("c")


async def test_a_job_that_comes_back_is_let_in_beyond_the_bound() -> None:
    queue = JobQueue(1)
    queue.add("a")
    queue.add("b")
    queue.add("c", 60)
    assert len(queue) == 3
    with pytest.raises(QueueFull):
        queue.admit("d")


async def test_an_admitted_job_holds_a_place_and_is_taken_only_once_it_is_added() -> None:
    queue = JobQueue(10)
    queue.admit("a")
    assert len(queue) == 1
    assert await nothing_to_take(queue)
    queue.add("a")
    assert len(queue) == 1
    assert await take_all(queue) == ["a"]
    assert len(queue) == 0


async def test_a_job_that_is_added_twice_is_taken_once() -> None:
    queue = JobQueue(10)
    for job_id in ("a", "b", "a"):
        queue.add(job_id)
    assert len(queue) == 2
    assert sorted(await take_all(queue)) == ["a", "b"]
    assert await nothing_to_take(queue)


async def test_delayed_jobs_come_when_they_are_due() -> None:
    queue, loop = JobQueue(10), asyncio.get_running_loop()
    begun = loop.time()
    queue.add("late", 0.1)
    queue.add("soon", 0.01)
    queue.add("now")
    assert len(queue) == 3
    assert await take(queue) == "now"
    assert await nothing_to_take(queue)
    async with asyncio.timeout(5):
        assert await take(queue) == "soon"
        assert loop.time() - begun >= 0.009
        assert await take(queue) == "late"
        assert loop.time() - begun >= 0.099


async def test_a_new_delay_replaces_the_old_one() -> None:
    queue = JobQueue(10)
    queue.add("a", 0.001)
    queue.add("a", 60)
    queue.add("b", 0.005)
    async with asyncio.timeout(5):
        assert await take(queue) == "b"
    assert await nothing_to_take(queue)
    queue.add("a")
    assert await take_all(queue) == ["a"]


async def test_a_ready_job_that_is_put_off_is_not_taken_meanwhile() -> None:
    queue = JobQueue(10)
    queue.add("a")
    queue.add("a", 60)
    queue.add("b")
    assert await take(queue) == "b"
    assert await nothing_to_take(queue)
    assert len(queue) == 1


async def test_what_is_discarded_is_not_taken() -> None:
    queue = JobQueue(10)
    queue.add("ready")
    queue.add("delayed", 0.001)
    queue.add("kept", 0.005)
    queue.discard("ready")
    queue.discard("delayed")
    queue.discard("never seen")
    assert len(queue) == 1
    assert await take_all(queue) == ["kept"]
    assert await nothing_to_take(queue)


async def test_what_waits_outside_counts_as_waiting() -> None:
    queue = JobQueue(2)
    queue.add("a")
    assert await take(queue) == "a"
    with queue.outside():
        queue.admit("b")
        assert len(queue) == 2
        with pytest.raises(QueueFull):
            queue.admit("c")
    queue.admit("c")
