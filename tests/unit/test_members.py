"""How a node stands, by when it was last heard of and what it has said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from container_manager.cluster.members import (
    ALIVE,
    GONE,
    GONE_AFTER,
    LEFT,
    SUSPECT,
    SUSPECT_AFTER,
    UNTRUSTED,
    Member,
)

NOW = 1000.0


@pytest.mark.parametrize(
    ("silent", "state"),
    [
        (-1.0, ALIVE),  # heard of between the look at the clock and this one
        (0.0, ALIVE),
        (3.0, ALIVE),  # a pause that is no reason for an alarm
        (SUSPECT_AFTER - 0.01, ALIVE),
        (SUSPECT_AFTER, SUSPECT),
        (GONE_AFTER - 0.01, SUSPECT),
        (GONE_AFTER, GONE),
        (1e6, GONE),
    ],
)
def test_a_node_is_alive_then_suspect_then_gone_as_it_keeps_silent(
    silent: float, state: str
) -> None:
    assert Member("a", trusted=True, heard=NOW - silent).state(NOW) == state


def test_a_death_is_noticed_within_twenty_seconds() -> None:
    assert 3.0 < SUSPECT_AFTER < GONE_AFTER < 20.0


def test_a_member_from_before_the_start_is_gone_until_it_is_heard_of() -> None:
    assert Member("a", trusted=True).state(NOW) == GONE


def test_who_never_showed_the_secret_is_untrusted_whatever_was_heard() -> None:
    assert Member("a").state(NOW) == UNTRUSTED
    assert Member("a", heard=NOW).state(NOW) == UNTRUSTED


@given(st.none() | st.floats(0, NOW), st.booleans())
def test_a_goodbye_is_the_last_word(heard: float | None, trusted: bool) -> None:
    assert Member("a", left=True, heard=heard, trusted=trusted).state(NOW) == LEFT


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_silence_never_makes_a_node_better(earlier: float, later: float) -> None:
    order = [ALIVE, SUSPECT, GONE]
    member = Member("a", trusted=True, heard=0.0)
    earlier, later = sorted((earlier, later))
    assert order.index(member.state(earlier)) <= order.index(member.state(later))
