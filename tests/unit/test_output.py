"""The last lines of a container's output, out of the engine's log stream."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from container_manager.engine.output import MAX_BYTES, MAX_LINES, last_lines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence


def frame(content: bytes, stream: int = 1) -> bytes:
    """A frame as the engine writes it."""
    return bytes([stream, 0, 0, 0]) + len(content).to_bytes(4, "big") + content


def read(*chunks: bytes) -> list[str]:
    async def stream() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return asyncio.run(last_lines(stream()))


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """The data in pieces, cut at these places; some pieces may be empty."""
    ends = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(ends)]


contents = st.lists(st.binary(max_size=40) | st.sampled_from([b"line\n", b"\n", b"\r\n"]))
cuts = st.lists(st.integers(0, 10_000), max_size=20)


@given(contents, cuts)
def test_the_lines_are_the_same_wherever_the_stream_is_cut(
    written: list[bytes], places: list[int]
) -> None:
    stream = b"".join(
        frame(content, stream=1 + number % 2) for number, content in enumerate(written)
    )
    whole = b"".join(written)
    lines = whole.decode("utf-8", "replace").split("\n")
    expected = [line.rstrip("\r") for line in lines[: -1 if lines[-1] == "" else None]]
    assert read(*cut(stream, places)) == expected[-MAX_LINES:]
    assert read(*(bytes([byte]) for byte in stream)) == expected[-MAX_LINES:]


@settings(max_examples=50)
@given(
    st.lists(st.sampled_from([0, 9, 700, 2500]), min_size=1, max_size=120)
    | st.lists(st.sampled_from([9, MAX_BYTES - 1, MAX_BYTES]), min_size=1, max_size=3),
    st.sampled_from([100, 4096, 100_000]),
)
def test_only_so_many_lines_and_bytes_are_kept_and_all_but_one_of_them_whole(
    lengths: Sequence[int], size: int
) -> None:
    lines = [f"{number:03} ".ljust(length, "x") for number, length in enumerate(lengths)]
    written = "".join(f"{line}\n" for line in lines).encode()
    stream = frame(written)
    kept = read(*(stream[at : at + size] for at in range(0, len(stream), size)))
    assert len(kept) <= MAX_LINES
    assert sum(map(len, kept)) <= MAX_BYTES
    assert kept
    if len(lines[-1]) >= MAX_BYTES:
        assert kept == [lines[-1][-MAX_BYTES + 1 :]]  # there is nothing but its end
    else:
        assert kept == lines[-len(kept) :]
    # No more is left out than the bounds ask for, give or take the line at the bound.
    if len(kept) < min(MAX_LINES, len(lines)):
        assert sum(len(line) + 1 for line in lines[-len(kept) - 1 :]) >= MAX_BYTES


@pytest.mark.parametrize("chunks", [(), (b"",), (frame(b""),), (frame(b""), b"", frame(b"", 2))])
def test_no_output_is_no_lines(chunks: tuple[bytes, ...]) -> None:
    assert read(*chunks) == []


@pytest.mark.parametrize(
    ("written", "lines"),
    [
        (b"\n", [""]),
        (b"one\n\n", ["one", ""]),
        (b"no end", ["no end"]),
        (b"dos\r\nunix\n", ["dos", "unix"]),
        (b"10 %\r20 %\r\n", ["10 %\r20 %"]),
        (b"\xff\xfe\n", ["\ufffd\ufffd"]),
        ("grün".encode("latin-1"), ["gr\ufffdn"]),
        ("日本".encode()[:-1], ["日\ufffd"]),
        ("two\u2028of\x0bone\x0cline\n".encode(), ["two\u2028of\x0bone\x0cline"]),
        (b"nul\0\n", ["nul\0"]),
    ],
)
def test_lines_end_with_a_newline_and_nothing_else(written: bytes, lines: list[str]) -> None:
    assert read(frame(written)) == lines


def test_a_character_that_two_frames_share_is_whole() -> None:
    character = "ü".encode()
    assert read(frame(character[:1]), frame(character[1:])) == ["ü"]


def test_a_character_that_the_bound_cuts_does_no_harm() -> None:
    (kept,) = read(frame(("日" * MAX_BYTES).encode()))
    assert kept.lstrip("\ufffd").strip("日") == ""
    assert len(kept.encode()) <= MAX_BYTES + 6


def test_a_stream_that_is_cut_within_a_frame_gives_what_has_come() -> None:
    stream = frame(b"one\n") + frame(b"two\nthree\n")
    assert read(stream[:-7]) == ["one", "two"]
    assert read(frame(b"one\n") + frame(b"two\n")[:5]) == ["one"]
