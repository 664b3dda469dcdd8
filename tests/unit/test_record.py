"""Records: which telling counts, what their writers sign, and who can change it unnoticed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from container_manager.cluster.signing import Signer, is_genuine
from container_manager.node import Node, new_key
from container_manager.record import Record

KEY = new_key()
WRITER = Node.from_key(KEY, "").id

records = st.builds(
    Record,
    st.just("thing"),
    st.just(b"1"),
    st.integers(0, 2),
    st.integers(1, 3),
    st.sampled_from(["a" * 32, "b" * 32]),
    st.none() | st.integers(0, 2),
    st.sampled_from([b"", b"one", b"two"]),
)
"""Tellings of one thing, few enough that many are of one rank or nearly so."""


def record(**fields: Any) -> Record:
    said = {"kind": "job", "id": b"id", "epoch": 1, "revision": 2, "writer": WRITER}
    return Record(**{**said, "expires_at": 5, "body": b"body", **fields})


# Which of two counts


@given(records, records)
def test_one_of_two_tellings_counts_unless_both_say_the_same(one: Record, other: Record) -> None:
    assert (one.rank < other.rank) + (one.rank > other.rank) + (one.rank == other.rank) == 1
    assert (one.rank == other.rank) == (one.signed_content() == other.signed_content())


@given(st.lists(records, min_size=1), st.randoms())
def test_the_highest_of_many_is_the_same_in_whatever_order(told: list[Record], rng: Any) -> None:
    highest = max(told, key=lambda one: one.rank)
    rng.shuffle(told)
    assert max(told, key=lambda one: one.rank) == highest


def test_epoch_comes_before_revision_before_writer_before_what_it_says() -> None:
    rising = [
        record(),
        record(expires_at=6),
        record(expires_at=None),
        record(body=b"v", expires_at=0),  # of a higher digest than b"body"
        record(writer="f" * 32, body=b"body", expires_at=0),
        record(revision=3, writer="0" * 32, expires_at=0),
        record(epoch=2, revision=1, writer="0" * 32, expires_at=0),
    ]
    assert rising[3].digest > rising[0].digest
    assert sorted(rising, key=lambda one: one.rank) == rising


# What is left of it


@given(records)
def test_what_was_dropped_has_the_rank_of_what_it_was(told: Record) -> None:
    left = told.dropped()
    assert left.body is None
    assert (left.rank, left.signed_content()) == (told.rank, told.signed_content())
    assert left.dropped() == left


def test_it_has_had_its_time_when_that_has_come_and_never_without_one() -> None:
    assert [record(expires_at=5).expired(now) for now in (4, 5, 6)] == [False, True, True]
    assert not record(expires_at=None).expired(1 << 62)


# Signatures

CHANGES: dict[str, Any] = {
    "kind": "node",
    "id": b"other",
    "epoch": 2,
    "revision": 3,
    "writer": "0" * 32,
    "expires_at": None,
    "body": b"other",
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_field_is_signed(name: str) -> None:
    signed = Signer(KEY).signed(record())
    assert is_genuine(signed)
    changed = replace(signed, **{name: CHANGES[name]})
    assert changed.signed_content() != signed.signed_content()
    assert not is_genuine(changed)


def test_all_fields_but_the_signature_itself_are_tried() -> None:
    untried = set(Record.__slots__) - CHANGES.keys()
    assert untried == {"signature", "digest_of_dropped"}


def test_what_was_dropped_is_still_signed_and_only_as_what_it_was() -> None:
    dropped = Signer(KEY).signed(record()).dropped()
    assert is_genuine(dropped)
    assert not is_genuine(replace(dropped, digest_of_dropped=bytes(32)))
    assert not is_genuine(replace(dropped, expires_at=6))


def test_nobody_signs_for_another() -> None:
    other = Signer(new_key())
    mine = Signer(KEY).signed(record())
    assert other.signed(record()).signature is None
    assert other.signed(mine) is mine
    theirs = other._public + other._key.sign(record().signed_content())
    assert not is_genuine(replace(mine, signature=theirs))
    # Their key with a signature of mine, and the other way about.
    assert mine.signature is not None
    assert not is_genuine(replace(mine, signature=theirs[:32] + mine.signature[32:]))
    assert not is_genuine(replace(mine, signature=mine.signature[:32] + theirs[32:]))


@given(st.binary(max_size=100) | st.binary(min_size=96, max_size=96))
def test_garbage_is_no_signature(garbage: bytes) -> None:
    assert not is_genuine(record(signature=garbage))


def test_what_bears_no_signature_is_not_genuine() -> None:
    assert not is_genuine(record())
