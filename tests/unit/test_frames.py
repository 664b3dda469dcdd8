"""Frames: what was encoded is decoded however it is cut, and garbage is refused in words."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from container_manager.cluster.frames import MAX_FRAME, Decoder, FrameError, encode

if TYPE_CHECKING:
    from collections.abc import Sequence

kinds = st.integers(0, 255)
texts = st.text(st.characters(exclude_categories=["Cs"]))
contents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | texts
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
)


def decoded(stream: bytes, cuts: Sequence[int] = (), limit: int = MAX_FRAME) -> list[Any]:
    decoder, places = Decoder(limit), [0, *sorted(cuts), len(stream)]
    return [frame for start, end in pairwise(places) for frame in decoder.feed(stream[start:end])]


@given(st.lists(st.tuples(kinds, contents)), st.data())
def test_any_split_of_the_stream_gives_the_same_frames(
    sent: list[tuple[int, Any]], data: st.DataObject
) -> None:
    frames = [encode(kind, content) for kind, content in sent]
    stream = b"".join(frames)
    cuts = data.draw(st.lists(st.integers(0, len(stream))))
    got = decoded(stream, cuts)
    assert [(kind, content) for kind, content, _ in got] == sent
    assert [size for *_, size in got] == [len(frame) for frame in frames]


@given(st.lists(st.binary(), max_size=20), st.integers(1, 1000))
def test_garbage_gives_frames_or_a_frame_error_and_nothing_else(
    chunks: list[bytes], limit: int
) -> None:
    decoder = Decoder(limit)
    with suppress(FrameError):
        for chunk in chunks:
            for frame in decoder.feed(chunk):
                assert frame.size <= limit + 4


@given(kinds, st.binary(max_size=200))
def test_a_body_that_is_garbage_is_refused_or_read(kind: int, body: bytes) -> None:
    stream = (1 + len(body)).to_bytes(4, "big") + bytes([kind]) + body
    with suppress(FrameError):
        assert [frame.kind for frame in decoded(stream)] == [kind]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",  # never used
        b"\xdd\xff\xff\xff\xff",  # a list that is said to be huge
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 100_000,  # lists in lists
        b"\xd4\x01\x02",  # an extension
        b"\x81\x01\x02",  # a key that is no text
        b"\xa1\xff",  # no UTF-8
    ],
)
def test_malformed_content_is_refused(body: bytes) -> None:
    with pytest.raises(FrameError, match="MessagePack"):
        decoded((1 + len(body)).to_bytes(4, "big") + b"\x10" + body)


def test_a_frame_without_a_kind_is_refused() -> None:
    with pytest.raises(FrameError, match="no kind"):
        decoded(bytes(4))


def test_the_limit_counts_for_both_sides_and_is_known_from_the_first_bytes() -> None:
    content = b"x" * 100
    size = len(encode(16, content)) - 4
    assert len(decoded(encode(16, content, size), limit=size)) == 1
    with pytest.raises(FrameError, match=f"{size} bytes is larger than the limit of {size - 1}"):
        encode(16, content, size - 1)
    with pytest.raises(FrameError, match=f"{size} bytes is larger than the limit of {size - 1}"):
        decoded(encode(16, content)[:4], limit=size - 1)
    with pytest.raises(FrameError, match="larger than the limit"):
        decoded(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(FrameError):
        encode(16, bytes(MAX_FRAME))


def test_what_came_before_what_is_broken_is_given() -> None:
    frames = Decoder().feed(encode(16, 1) + encode(17, 2) + bytes(4))
    assert [next(frames).content, next(frames).content] == [1, 2]
    with pytest.raises(FrameError):
        next(frames)


@pytest.mark.parametrize("content", [object(), {1: 2}, {"a": {3}}, 2**64, "\ud800"])
def test_what_cannot_be_written_is_refused(content: object) -> None:
    with pytest.raises(FrameError, match="cannot be written"):
        encode(16, content)


def test_no_more_is_kept_than_what_is_not_whole() -> None:
    decoder, frame = Decoder(), encode(16, b"x" * 1000)
    for _ in range(100):
        assert len(list(decoder.feed(frame * 10 + frame[:500]))) == 10
        assert len(list(decoder.feed(frame[500:]))) == 1
        assert len(decoder._buffer) == 0
