"""Idempotency keys: the same call twice makes one job."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from container_manager.errors import Conflict
from container_manager.job import Job
from container_manager.spec import Spec
from tests.unit.builders import CANARY, Clock, Rooms, create, opened

if TYPE_CHECKING:
    from pathlib import Path

NGINX = Spec(image="nginx")


async def test_the_same_key_gives_the_same_job_for_a_day(rooms: Rooms, clock: Clock) -> None:
    spec = Spec(image="nginx", env={"A": "1"}, labels={"b": "2", "a": "1"})
    first = await create(rooms.ledger, spec, "key")
    clock.advance(24 * 3600 - 0.000_001)
    again = Spec(image="nginx", labels={"a": "1", "b": "2"}, env={"A": "1"})
    assert (await create(rooms.ledger, again, "key")).id == first.id
    assert len(rooms.queue) == 1
    clock.advance(0.000_001)
    assert (await create(rooms.ledger, spec, "key")).id != first.id
    assert rooms.ledger.created == 2


@pytest.mark.parametrize("other", [{"image": "redis"}, {"env": {"A": CANARY}}, {"name": "web"}])
async def test_the_same_key_with_another_spec_is_a_conflict(
    rooms: Rooms, other: dict[str, object]
) -> None:
    first = await create(rooms.ledger, Spec(image="nginx", env={"A": "1"}), "key")
    spec = Spec.model_validate({"image": "nginx", "env": {"A": "1"}, **other})
    with pytest.raises(Conflict) as conflict:
        await create(rooms.ledger, spec, "key")
    assert conflict.value.data["job_id"] == first.id
    assert CANARY not in str(conflict.value.data)
    assert (await create(rooms.ledger, spec, "another key")).id != first.id


async def test_creates_with_one_key_at_the_same_time_make_one_job(rooms: Rooms) -> None:
    made = await asyncio.gather(*(create(rooms.ledger, NGINX, "key") for _ in range(8)))
    assert len({job.id for job in made}) == 1
    assert (rooms.ledger.created, len(rooms.queue)) == (1, 1)
    answers = await asyncio.gather(
        create(rooms.ledger, NGINX, "other"),
        create(rooms.ledger, Spec(image="redis"), "other"),
        return_exceptions=True,
    )
    assert [type(one) for one in answers] == [Job, Conflict]
    assert len(rooms.queue) == 2


async def test_a_known_key_is_answered_when_the_queue_is_full(tmp_path: Path, clock: Clock) -> None:
    async with opened(tmp_path, clock, queue_size=1) as rooms:
        first = await create(rooms.ledger, NGINX, "key")
        assert (await create(rooms.ledger, NGINX, "key")).id == first.id
