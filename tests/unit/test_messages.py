"""What nodes say of feeds: it comes out as it went in, and what is malformed is refused."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from container_manager.cluster import frames, messages
from container_manager.cluster.frames import Decoder, FrameError
from container_manager.cluster.messages import BATCH, HELD, OFFER, RECEIVED, SUBSCRIBE, UNSUBSCRIBE
from container_manager.cluster.signing import LONGEST, SIGNED, STEP
from container_manager.cluster.sync import Batch, Held, Offer, Received, Subscribe, Unsubscribe
from container_manager.record import Entry, Record
from tests.unit.test_frames import contents

NODE = "0123456789abcdef" * 2
FEED = f"{NODE}.0123456789abcdef"
SIGNATURE, DIGEST = bytes(range(96)), bytes(range(32))
KINDS = range(BATCH, HELD + 1)

counts = st.integers(0, 2**63 - 1)
numbers = st.integers(1, 2**63 - 1)
digits = st.characters(codec="ascii", categories=["Nd"]) | st.sampled_from("abcdef")
nodes = st.text(digits, min_size=32, max_size=32)
feeds = st.builds("{}.{}".format, nodes, st.text(digits, min_size=16, max_size=16))
vectors = st.dictionaries(feeds, counts, max_size=5)
full = st.builds(
    Record,
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=64),
    st.binary(min_size=1, max_size=255),
    counts,
    numbers,
    nodes,
    st.none() | counts,
    st.binary(),
    st.integers(0, 6).map(lambda steps: bytes(SIGNED + steps * STEP)),
)
homes = st.none() | st.tuples(feeds, counts)
entries = st.builds(Entry, numbers, full | full.map(Record.dropped), homes)
said = st.one_of(
    st.builds(Subscribe, feeds, counts, counts),
    st.builds(Unsubscribe, feeds),
    st.builds(Offer, vectors),
    st.builds(Held, vectors),
    st.builds(Received, feeds, counts, counts),
    st.builds(Batch, feeds, counts, counts, counts, counts, st.lists(entries, max_size=3)),
)


def over_the_wire(kind: int, content: Any) -> tuple[int, Any]:
    (frame,) = Decoder().feed(frames.encode(kind, content))
    return frame.kind, frame.content


@given(said, st.lists(contents, max_size=2))
def test_each_message_comes_out_as_it_went_in_whatever_later_versions_add(
    message: messages.Message, more: list[Any]
) -> None:
    kind, content = messages.encode(message)
    assert messages.decode(*over_the_wire(kind, content)) == message
    assert messages.decode(*over_the_wire(kind, [*content, *more])) == message


@given(entries, st.lists(contents, min_size=1, max_size=2))
def test_what_later_versions_add_to_an_entry_is_ignored(entry: Entry, more: list[Any]) -> None:
    batch = Batch(FEED, 0, 0, 1, 1, [entry])
    kind, content = messages.encode(batch)
    content = [*content[:5], [[*content[5][0], *more]]]
    assert messages.decode(*over_the_wire(kind, content)) == batch


@given(st.sampled_from(KINDS), contents)
def test_garbage_is_refused_or_read_and_nothing_else(kind: int, content: Any) -> None:
    kind, content = over_the_wire(kind, content)
    with suppress(FrameError):
        assert messages.decode(kind, content) is not None


@given(said, st.data())
def test_a_message_with_something_else_at_any_place_is_refused_or_read(
    message: messages.Message, data: st.DataObject
) -> None:
    kind, content = over_the_wire(*messages.encode(message))
    place = data.draw(st.integers(0, len(content) - 1))
    if kind == BATCH and content[5] and data.draw(st.booleans()):
        entry = content[5][0]
        entry[data.draw(st.integers(0, len(entry) - 1))] = data.draw(contents)
    else:
        content[place] = data.draw(contents)
    with suppress(FrameError):
        assert messages.decode(kind, content) is not None


@given(st.integers(0, 255).filter(lambda kind: kind not in KINDS), contents)
def test_kinds_that_are_not_known_say_nothing_here(kind: int, content: Any) -> None:
    assert messages.decode(kind, content) is None


# What is malformed

NO_COUNTS: list[Any] = [-1, 2**63, 1.0, True, "1", None, b"1", [1]]
NO_FEEDS: list[Any] = [
    *("", ".", NODE, f"{NODE}.", f"{NODE}.0123", FEED + "\n", FEED.upper(), " " + FEED),
    *(f"{FEED}.{FEED}", "٣" + FEED[1:], None, 1, FEED.encode(), [FEED]),
]


def parametrized(cases: dict[int, list[tuple[int, list[Any]]]]) -> list[tuple[int, int, Any]]:
    return [
        (kind, place, value)
        for kind, places in cases.items()
        for place, values in places
        for value in values
    ]


GOOD: dict[int, list[Any]] = {
    BATCH: [FEED, 1, 2, 3, 4, []],
    RECEIVED: [FEED, 1, 2],
    SUBSCRIBE: [FEED, 1, 2],
    UNSUBSCRIBE: [FEED],
    OFFER: [{FEED: 1}],
    HELD: [{FEED: 1}],
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_without_its_last_element_is_refused(kind: int) -> None:
    assert messages.decode(kind, GOOD[kind]) is not None
    with pytest.raises(FrameError, match=f"kind {kind}"):
        messages.decode(kind, GOOD[kind][:-1])


@pytest.mark.parametrize(
    ("kind", "place", "value"),
    parametrized(
        {
            BATCH: [
                (0, NO_FEEDS),
                *((place, NO_COUNTS) for place in (1, 2, 3, 4)),
                (5, [None, 1, {}, "x", b"x", [1], [[]], [None]]),
            ],
            RECEIVED: [(0, NO_FEEDS), (1, NO_COUNTS), (2, NO_COUNTS)],
            SUBSCRIBE: [(0, NO_FEEDS), (1, NO_COUNTS), (2, NO_COUNTS)],
            UNSUBSCRIBE: [(0, NO_FEEDS)],
            OFFER: [(0, [None, 1, [], "x", *({FEED: value} for value in NO_COUNTS)])],
            HELD: [(0, [None, 1, [], "x", *({FEED: value} for value in NO_COUNTS)])],
        }
    ),
)
def test_a_malformed_field_is_refused(kind: int, place: int, value: Any) -> None:
    content = list(GOOD[kind])
    content[place] = value
    with pytest.raises(FrameError, match=f"kind {kind}"):
        messages.decode(kind, content)


RECORD = Record("job", bytes(16), 1, 2, NODE, 3, b"body", SIGNATURE)
SEQ, KIND, ID, EPOCH, REVISION, WRITER, EXPIRES_AT, BODY, PROOF, DROPPED, HOME = range(11)


@pytest.mark.parametrize(
    ("record", "place", "value"),
    [
        *((RECORD, place, value) for place in (SEQ, EPOCH, REVISION) for value in NO_COUNTS),
        *((RECORD, place, 0) for place in (SEQ, REVISION)),
        *((RECORD, KIND, value) for value in ("", "x" * 65, b"job", None, 1)),
        *((RECORD, ID, value) for value in (b"", bytes(256), "id", None, 1)),
        *((RECORD, WRITER, value) for value in ("", NODE[1:], NODE.upper(), FEED, NODE + "\n")),
        *((RECORD, WRITER, value) for value in (None, 1, NODE.encode(), [NODE])),
        *((RECORD, EXPIRES_AT, value) for value in NO_COUNTS if value is not None),
        *((RECORD, BODY, value) for value in (None, "body", 1, [])),
        *((RECORD, PROOF, value) for value in (None, b"", bytes(95), bytes(97), "x" * 96)),
        (RECORD, PROOF, bytes(LONGEST + STEP)),
        *((RECORD, HOME, value) for value in (1, "", "ab", {}, [], [FEED])),
        *((RECORD, HOME, [name, 1]) for name in NO_FEEDS),
        *((RECORD, HOME, [FEED, value]) for value in NO_COUNTS),
        (RECORD, DROPPED, DIGEST),
        (RECORD.dropped(), BODY, b""),
        *((RECORD.dropped(), DROPPED, value) for value in (None, b"", bytes(31), "x" * 32)),
    ],
)
def test_a_malformed_record_is_refused(record: Record, place: int, value: Any) -> None:
    kind, content = over_the_wire(*messages.encode(Batch(FEED, 0, 0, 1, 1, [Entry(1, record)])))
    assert messages.decode(kind, content) is not None
    content[5][0][place] = value
    with pytest.raises(FrameError, match=f"kind {BATCH}"):
        messages.decode(kind, content)


def test_an_entry_of_an_earlier_version_stands_where_it_is_told() -> None:
    entry = Entry(1, RECORD)
    kind, content = over_the_wire(*messages.encode(Batch(FEED, 0, 0, 1, 1, [entry])))
    del content[5][0][HOME:]
    assert messages.decode(kind, content) == Batch(FEED, 0, 0, 1, 1, [entry])


def test_a_record_that_was_never_signed_is_refused() -> None:
    batch = Batch(FEED, 0, 0, 1, 1, [Entry(1, replace(RECORD, signature=None))])
    with pytest.raises(FrameError):
        messages.decode(*over_the_wire(*messages.encode(batch)))


def test_of_a_vector_what_names_no_feed_is_left_out() -> None:
    strange = {name: 1 for name in NO_FEEDS if type(name) is str}
    assert messages.vector({**strange, FEED: 5}) == {FEED: 5}


def test_a_vector_has_an_end() -> None:
    many = {f"{number:032x}.{'0' * 16}": 1 for number in range(messages.MAX_FEEDS)}
    assert messages.vector(many) == many
    with pytest.raises(FrameError):
        messages.vector({**many, FEED: 1})


def test_a_refusal_repeats_nothing_of_what_came() -> None:
    with pytest.raises(FrameError) as refused:
        messages.decode(UNSUBSCRIBE, ["canary-c0ffee"])
    assert "canary" not in str(refused.value)
