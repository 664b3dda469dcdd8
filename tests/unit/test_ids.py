"""Job ids: UUIDs of version 7 that only ever rise."""

from __future__ import annotations

from uuid import RFC_4122, UUID

from hypothesis import given
from hypothesis import strategies as st

from container_manager.work.ids import JobIds
from tests.unit.builders import NOW

moments = st.integers(0, 2**47 * 1000)


@given(moments)
def test_an_id_is_a_uuid_of_version_7_in_canonical_form(now: int) -> None:
    text = JobIds().new(now)
    parsed = UUID(text)
    assert str(parsed) == text
    assert parsed.version == 7
    assert parsed.variant == RFC_4122


@given(st.integers(1000, 2**47 * 1000))
def test_an_id_begins_with_the_milliseconds_of_its_making(now: int) -> None:
    assert UUID(JobIds().new(now)).int >> 80 == now // 1000


@given(st.lists(st.integers(0, 50_000), min_size=2, max_size=60))
def test_ids_rise_also_when_the_clock_steps_back(moments: list[int]) -> None:
    ids = JobIds()
    made = [ids.new(NOW + moment) for moment in moments]
    assert made == sorted(set(made))
    assert [UUID(one).bytes for one in made] == sorted(UUID(one).bytes for one in made)


def test_a_hundred_thousand_ids_of_one_moment_are_unique_and_rise() -> None:
    ids = JobIds()
    made = [ids.new(NOW) for _ in range(100_000)]
    assert len(set(made)) == len(made)
    assert made == sorted(made)
    assert {UUID(one).version for one in made[::997]} == {7}
    # The counter of 12 bits spills over into the milliseconds, by no more than it has to.
    assert (UUID(made[-1]).int >> 80) - NOW // 1000 == 100_000 // 4096


def test_ids_of_different_nodes_differ_in_the_same_moment() -> None:
    made = {JobIds().new(NOW) for _ in range(1000)}
    assert len(made) == 1000
    assert len({one[-12:] for one in made}) == 1000  # what names a container
