"""Slots: never more than the limit, none lost, and a limit that finds its number."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from container_manager.work.limit import FIRST, FLOOR, PROBE_AFTER, ConcurrencyLimit
from container_manager.work.slots import Slot, Slots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


# The limit


def settled(takes: Callable[[int], float], most: int, rounds: int = 3000) -> list[int]:
    """The limits that are found under full load, by what deployments at a time take."""
    limit, rng = ConcurrencyLimit(most), random.Random(1)
    found = []
    for _ in range(rounds):
        under_way = limit.value
        seconds = takes(under_way) * rng.uniform(0.8, 1.2)
        limit.sample(seconds, alone=under_way == 1, contended=True)
        assert 1 <= limit.value <= most
        found.append(limit.value)
    return found[rounds // 2 :]


def saturating(knee: float) -> Callable[[int], float]:
    """An engine that gains nothing from more than `knee` deployments at a time."""
    return lambda under_way: 0.25 * max(1.0, under_way / knee)


@pytest.mark.parametrize(("knee", "low", "high"), [(1.0, 2, 5), (2.0, 4, 7), (4.0, 6, 9)])
def test_an_engine_gets_what_keeps_it_busy_and_a_few_more(knee: float, low: int, high: int) -> None:
    found = sorted(settled(saturating(knee), most=50))
    typical = found[len(found) // 20 : -len(found) // 20]
    assert low <= typical[0]
    assert typical[-1] <= high


def test_an_engine_that_gains_from_all_gets_all() -> None:
    found = sorted(settled(lambda _: 0.25, most=20))
    assert found[len(found) // 4] >= 15


def test_the_limit_follows_an_engine_that_becomes_slower_or_faster() -> None:
    limit = ConcurrencyLimit(50)

    def load(takes: Callable[[int], float]) -> int:
        for _ in range(8 * PROBE_AFTER):
            under_way = limit.value
            limit.sample(takes(under_way), alone=under_way == 1, contended=True)
        return limit.value

    assert load(saturating(2)) <= 7
    assert load(lambda under_way: 4 * saturating(2)(under_way)) <= 7
    assert load(saturating(8)) >= 9


def test_without_load_nothing_is_learned_but_what_one_takes_alone() -> None:
    limit = ConcurrencyLimit(10)
    for _ in range(100):
        limit.sample(0.25, alone=True, contended=False)
        limit.sample(5.0, alone=False, contended=False)
    assert limit.value == FIRST


@pytest.mark.parametrize("most", [1, 2, 3])
def test_the_limit_is_never_above_what_is_allowed(most: int) -> None:
    assert max(settled(lambda _: 0.1, most)) <= most
    assert max(settled(saturating(1), most)) <= most


samples = st.tuples(st.floats(1e-6, 1e4), st.booleans(), st.booleans())


@given(st.integers(1, 20), st.lists(samples, max_size=300))
def test_the_limit_stays_within_its_bounds(most: int, told: list[tuple[float, bool, bool]]) -> None:
    limit = ConcurrencyLimit(most)
    for seconds, alone, contended in told:
        limit.sample(seconds, alone=alone, contended=contended)
        assert limit.value == 1 or min(FLOOR, most) <= limit.value <= most


# The slots


async def test_no_more_than_the_limit_at_a_time_in_the_order_of_coming() -> None:
    slots = Slots(2)
    first, second = await slots.take(), await slots.take()
    order: list[str] = []

    async def take(name: str) -> None:
        slot = await slots.take()
        order.append(name)
        slot.free()

    takers = [asyncio.create_task(take(name)) for name in "ab"]
    await asyncio.sleep(0)
    assert (slots.used, order) == (2, [])
    first.free()
    first.free()  # once is enough
    async with asyncio.timeout(5):
        await asyncio.gather(*takers)
    assert (slots.used, order) == (1, ["a", "b"])
    second.free()
    assert slots.used == 0


async def test_who_comes_back_goes_before_who_comes_new() -> None:
    slots = Slots(1)
    order: list[str] = []
    back = asyncio.Event()

    async def leaves() -> None:
        slot = await slots.take()
        async with slot.left():
            assert not slot.held
            await back.wait()
        assert slot.held
        order.append("back")
        slot.free()

    async def comes(name: str) -> None:
        slot = await slots.take()
        order.append(name)
        await asyncio.sleep(0)
        slot.free()

    leaver = asyncio.create_task(leaves())
    await asyncio.sleep(0)
    holder = await slots.take()  # which the other has left
    new = asyncio.create_task(comes("new"))
    await asyncio.sleep(0)
    back.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    holder.free()
    async with asyncio.timeout(5):
        await asyncio.gather(leaver, new)
    assert order == ["back", "new"]


async def test_who_fails_outside_does_not_take_the_slot_again() -> None:
    slots = Slots(1)
    slot = await slots.take()
    with pytest.raises(ZeroDivisionError):
        async with slot.left():
            raise ZeroDivisionError
    assert (slot.held, slots.used) == (False, 0)
    await slot.take_again()
    await slot.take_again()
    assert (slot.held, slots.used) == (True, 1)


class Race:
    """Takers that come, are cancelled, and free what they have, at any moment."""

    def __init__(self) -> None:
        self.slots = Slots(3)
        self.takers: list[asyncio.Task[Slot]] = []
        self.held: list[Slot] = []

    async def move(self, what: str, number: int) -> None:
        match what:
            case "take":
                self.takers.append(asyncio.create_task(self.slots.take()))
            case "cancel" if self.takers:
                self.takers[number % len(self.takers)].cancel()
            case "free" if self.held:
                self.held.pop(number % len(self.held)).free()
            case "turn":
                await asyncio.sleep(0)
        self.gather()
        assert self.slots.used <= 3

    def gather(self) -> None:
        for taker in [one for one in self.takers if one.done()]:
            self.takers.remove(taker)
            if not taker.cancelled():
                self.held.append(taker.result())

    async def end(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        self.gather()
        # Nobody waits while there is a slot: none was given to a taker that was gone.
        assert self.slots.used == len(self.held)
        assert not self.takers or self.slots.used == 3
        for taker in self.takers:
            taker.cancel()
        await asyncio.gather(*self.takers, return_exceptions=True)
        for slot in self.held:
            slot.free()
        assert self.slots.used == 0


async def race(moves: Iterable[tuple[str, int]]) -> None:
    running = Race()
    for what, number in moves:
        await running.move(what, number)
    await running.end()


@given(
    st.lists(
        st.tuples(st.sampled_from(["take", "cancel", "free", "turn"]), st.integers(0, 9)),
        max_size=60,
    )
)
def test_no_slot_is_lost_or_given_twice(moves: list[tuple[str, int]]) -> None:
    asyncio.run(race(moves))


async def test_what_the_engine_takes_is_learned_only_from_what_went_well() -> None:
    slots = Slots(10)
    slot = await slots.take()
    slot.begin()
    slot.begin()  # once more from the start
    async with slot.left():
        pass
    slot.finish()  # of nothing
    slot.begin()
    slot.finish()
    slot.free()
    assert (slots.used, slots.limit) == (0, FIRST)
