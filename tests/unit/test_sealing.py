"""Sealing: what is closed for one job with one key opens for no other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from container_manager.store.sealing import Seal, SealBroken
from tests.unit.builders import CANARY, texts, words

KEY = bytes(range(32))
environments = st.dictionaries(words, texts, min_size=1, max_size=5)


@given(environments, words)
def test_what_was_sealed_opens_again(env: dict[str, str], job_id: str) -> None:
    sealed = Seal(KEY).close(env, job_id)
    assert Seal(KEY).open(sealed, job_id) == env


def test_no_environment_needs_no_seal() -> None:
    assert Seal(KEY).close({}, "a") is None
    assert Seal(KEY).open(None, "a") == {}


def test_it_opens_neither_for_another_job_nor_with_another_key() -> None:
    sealed = Seal(KEY).close({"A": CANARY}, "a")
    with pytest.raises(SealBroken) as broken:
        Seal(KEY).open(sealed, "b")
    assert CANARY not in str(broken.value)
    with pytest.raises(SealBroken):
        Seal(bytes(32)).open(sealed, "a")


@given(st.integers(0), st.integers(0, 7))
def test_a_single_changed_bit_breaks_the_seal(place: int, bit: int) -> None:
    sealed = bytearray(Seal(KEY).close({"A": CANARY}, "a") or b"")
    sealed[place % len(sealed)] ^= 1 << bit
    with pytest.raises(SealBroken):
        Seal(KEY).open(bytes(sealed), "a")


def test_nothing_of_the_environment_shows_and_no_two_seals_are_the_same() -> None:
    seal = Seal(KEY)
    one, other = (seal.close({"PASSWORD": CANARY}, "a") or b"" for _ in range(2))
    assert CANARY.encode() not in one
    assert b"PASSWORD" not in one
    assert one != other


def test_fingerprints_tell_sameness_to_holders_of_the_key_alone() -> None:
    assert Seal(KEY).fingerprint(b"x") == Seal(KEY).fingerprint(b"x")
    assert len(Seal(KEY).fingerprint(b"x")) == 32
    assert Seal(KEY).fingerprint(b"x") != Seal(KEY).fingerprint(b"y")
    assert Seal(KEY).fingerprint(b"x") != Seal(bytes(32)).fingerprint(b"x")


def test_credentials_open_with_their_key_alone_and_are_no_environment() -> None:
    sealed = Seal(KEY).close_credentials(CANARY.encode())
    assert CANARY.encode() not in sealed
    assert Seal(KEY).open_credentials(sealed) == CANARY.encode()
    for seal, content in ((Seal(bytes(32)), sealed), (Seal(KEY), sealed[:-1]), (Seal(KEY), b"")):
        with pytest.raises(SealBroken):
            seal.open_credentials(content)
    with pytest.raises(SealBroken):
        Seal(KEY).open(sealed, "")


# With a key that all members of a cluster have

CLUSTER = bytes(reversed(range(32)))


@given(environments, words)
def test_what_one_member_closes_all_members_open_and_nobody_else(
    env: dict[str, str], job_id: str
) -> None:
    sealed = Seal(KEY, CLUSTER).close(env, job_id)
    assert Seal(bytes(32), CLUSTER).open(sealed, job_id) == env
    for stranger in (Seal(KEY), Seal(bytes(32), KEY), Seal(KEY, bytes(32))):
        with pytest.raises(SealBroken):
            stranger.open(sealed, job_id)


def test_output_goes_by_the_clusters_key_as_well() -> None:
    sealed = Seal(KEY, CLUSTER).close_output(["line"], "a")
    assert Seal(bytes(32), CLUSTER).open_output(sealed, "a") == ["line"]
    with pytest.raises(SealBroken):
        Seal(KEY).open_output(sealed, "a")


def test_what_was_closed_before_the_node_was_a_member_opens_still() -> None:
    alone, member = Seal(KEY), Seal(KEY, CLUSTER)
    assert member.open(alone.close({"A": CANARY}, "a"), "a") == {"A": CANARY}
    assert member.open_output(alone.close_output([CANARY], "a"), "a") == [CANARY]
    with pytest.raises(SealBroken):
        Seal(bytes(32), CLUSTER).open(alone.close({"A": CANARY}, "a"), "a")


def test_credentials_and_fingerprints_stay_the_nodes_own() -> None:
    alone, member = Seal(KEY), Seal(KEY, CLUSTER)
    assert alone.open_credentials(member.close_credentials(b"x")) == b"x"
    assert member.fingerprint(b"x") == alone.fingerprint(b"x")
    with pytest.raises(SealBroken):
        Seal(bytes(32), CLUSTER).open_credentials(member.close_credentials(b"x"))
