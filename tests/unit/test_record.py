"""Records: which telling counts, what their writers sign, and who can change it unnoticed."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from container_manager.cluster.signing import KEY as KEY_SIZE
from container_manager.cluster.signing import (
    LONGEST,
    SIGNED,
    STEP,
    TREE,
    Signer,
    is_genuine,
    is_proof,
)
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


def signed(told: Record, key: bytes = KEY) -> Record:
    (found,) = Signer(key).signed([told])
    return found


@pytest.mark.parametrize("name", CHANGES)
def test_each_field_is_signed(name: str) -> None:
    genuine = signed(record())
    assert is_genuine(genuine)
    changed = replace(genuine, **{name: CHANGES[name]})
    assert changed.signed_content() != genuine.signed_content()
    assert not is_genuine(changed)


def test_all_fields_but_the_signature_itself_are_tried() -> None:
    untried = set(Record.__slots__) - CHANGES.keys()
    assert untried == {"signature", "digest_of_dropped"}


def test_what_was_dropped_is_still_signed_and_only_as_what_it_was() -> None:
    dropped = signed(record()).dropped()
    assert is_genuine(dropped)
    assert not is_genuine(replace(dropped, digest_of_dropped=bytes(32)))
    assert not is_genuine(replace(dropped, expires_at=6))


def test_nobody_signs_for_another() -> None:
    other = new_key()
    mine = signed(record())
    assert signed(record(), other).signature is None
    assert signed(mine, other) is mine
    named = record(writer=Node.from_key(other, "").id)
    ours, theirs = mine.signature, signed(named, other).signature
    assert ours is not None
    assert theirs is not None
    assert is_genuine(replace(named, signature=theirs))
    # Their proof, their key with a signature of mine, and the other way about.
    for proof in (theirs, theirs[:KEY_SIZE] + ours[KEY_SIZE:], ours[:KEY_SIZE] + theirs[KEY_SIZE:]):
        assert not is_genuine(replace(mine, signature=proof))


@pytest.mark.parametrize("number", [1, 2, 3, 5, 63, 64, 65, 130])
def test_of_many_that_are_signed_together_each_is_genuine_by_itself(number: int) -> None:
    many = Signer(KEY).signed([record(id=b"%d" % one) for one in range(number)])
    assert all(is_genuine(one) and is_proof(one.signature or b"") for one in many)
    assert len({(one.signature or b"")[:SIGNED] for one in many}) == -(-number // TREE)
    for one, other in pairwise(many):
        assert not is_genuine(replace(one, signature=other.signature))


def test_what_is_not_its_own_or_signed_already_stays_as_it_was() -> None:
    others, before = record(writer="0" * 32), signed(record(id=b"before"))
    told = [others, record(id=b"1"), before, record(id=b"2"), others]
    found = Signer(KEY).signed(told)
    assert (found[0], found[2], found[4]) == (others, before, others)
    assert [one.id for one in found] == [one.id for one in told]
    assert all(is_genuine(found[place]) for place in (1, 2, 3))
    assert Signer(KEY).signed([]) == []


@given(st.integers(0), st.integers(0, 7))
def test_a_single_changed_bit_breaks_a_proof(place: int, bit: int) -> None:
    first, _ = Signer(KEY).signed([record(), record(id=b"2")])
    proof = bytearray(first.signature or b"")
    assert len(proof) == SIGNED + STEP
    proof[place % len(proof)] ^= 1 << bit
    assert not is_genuine(replace(first, signature=bytes(proof)))


@given(
    st.binary(max_size=400)
    | st.sampled_from([SIGNED, SIGNED + 33, LONGEST, LONGEST + 33]).map(bytes)
)
def test_garbage_is_no_proof(garbage: bytes) -> None:
    assert not is_genuine(record(signature=garbage))
    longer = (signed(record()).signature or b"") + garbage
    assert is_genuine(record(signature=longer)) == (garbage == b"")


def test_what_bears_no_proof_is_not_genuine() -> None:
    assert not is_genuine(record())
