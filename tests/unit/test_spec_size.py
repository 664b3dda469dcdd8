"""Sizes, as Docker's flags read them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from container_manager.spec.size import MIN_MEMORY, parse_size
from tests.unit.spec_forms import accepted, places, refused, sizes, why

KIB, MIB, GIB = 1024, 1024**2, 1024**3


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (32, 32),
        ("32", 32),
        ("32b", 32),
        ("32B", 32),
        ("32k", 32 * KIB),
        ("32K", 32 * KIB),
        ("32kb", 32 * KIB),
        ("32Kb", 32 * KIB),
        ("32KiB", 32 * KIB),
        ("32m", 32 * MIB),
        ("32Mb", 32 * MIB),
        ("1g", GIB),
        ("1.5g", 3 * GIB // 2),
        ("1.5 gib", 3 * GIB // 2),
        (".5g", GIB // 2),
        ("1.g", GIB),
        ("2t", 2048 * GIB),
        ("1p", 1024**5),
        ("1.7", 1),
        (2**63 - 1, 2**63 - 1),
    ],
)
def test_sizes_are_read_as_docker_reads_them(text: Any, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "m",
            "hello",
            "-1m",
            "+1m",
            "1 000",
            "1  k",
            " 1k",
            "1k ",
            "1kk",
            "1ki",
            "1bb",
            "1mi",
        ),
        *("1.2.3k", "1e3", "0x10", "1k\n", "٣m", "1_000", "9" * 33, "9999999p", "inf", "nan"),
        *("0", 0, -1, 1.5, True, None, [], {}, 2**63),
    ],
)
def test_what_is_no_size_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(text)
    if text is not None:
        assert places(refused(shm_size=text)) == [("shm_size",)]


@given(sizes)
def test_a_size_is_whole_bytes(text: Any) -> None:
    size = accepted(shm_size=text).shm_size
    assert type(size) is int
    assert size > 0
    assert parse_size(str(size)) == parse_size(size) == size


def test_memory_is_at_least_what_the_engine_takes() -> None:
    assert accepted(memory=MIN_MEMORY).memory == accepted(memory="6m").memory == 6 * MIB
    for plain in (512, "512", MIN_MEMORY - 1):
        assert "6 MiB" in why(memory=plain)
        assert 'a plain number is bytes: write "512m"' in why(memory=plain)
    for clear in ("5m", "512b", "1k", "5.99m"):
        assert "6 MiB" in why(memory=clear)
        assert "plain" not in why(memory=clear)


@given(st.integers(MIN_MEMORY, 2**63 - 1))
def test_memory_in_bytes_is_as_given(size: int) -> None:
    assert accepted(memory=size).memory == size
