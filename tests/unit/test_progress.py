"""How far a pull is, by the messages of real pulls and by any others."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from container_manager.engine.progress import PERIOD, Progress, PullProgress

Message = dict[str, Any]


def of(layer: str, status: str, current: int | None = None, total: int | None = None) -> Message:
    """A message about a layer."""
    detail = {"current": current, "total": total}
    return {
        "id": layer,
        "status": status,
        "progressDetail": {name: value for name, value in detail.items() if value is not None},
    }


# Docker 20.10's messages about an image of three layers, one of which it has already; a download
# breaks once and begins anew. Those of one layer are in this order, those of several are mixed.
A, B, C = "31b3f1ad4ce1", "fd42b079d0f8", "8da0aee6fc6c"
PULL: list[tuple[Message, Progress]] = [
    (
        {"status": "Pulling from team/app", "id": "latest"},
        Progress(),
    ),
    (of(A, "Pulling fs layer"), Progress(layers=1)),
    (of(B, "Pulling fs layer"), Progress(layers=2)),
    (of(C, "Already exists"), Progress(layers=3, layers_done=1)),
    (of(B, "Waiting"), Progress(layers=3, layers_done=1)),
    (
        of(A, "Downloading", 500_000, 2_000_000),
        Progress(layers=3, layers_done=1, bytes=500_000, bytes_total=2_000_000),
    ),
    (
        of(B, "Downloading", 10_000, 1_000_000),
        Progress(layers=3, layers_done=1, bytes=510_000, bytes_total=3_000_000),
    ),
    (
        of(B, "Retrying in 5 seconds"),
        Progress(layers=3, layers_done=1, bytes=500_000, bytes_total=3_000_000),
    ),
    (
        of(A, "Verifying Checksum"),
        Progress(layers=3, layers_done=1, bytes=2_000_000, bytes_total=3_000_000),
    ),
    (
        of(A, "Download complete"),
        Progress(layers=3, layers_done=1, bytes=2_000_000, bytes_total=3_000_000),
    ),
    (
        of(A, "Extracting", 65_536, 2_000_000),
        Progress(layers=3, layers_done=1, bytes=2_000_000, bytes_total=3_000_000),
    ),
    (
        of(A, "Pull complete"),
        Progress(layers=3, layers_done=2, bytes=2_000_000, bytes_total=3_000_000),
    ),
    (
        of(B, "Downloading", 900_000, 1_000_000),
        Progress(layers=3, layers_done=2, bytes=2_900_000, bytes_total=3_000_000),
    ),
    (
        of(B, "Pull complete"),
        Progress(layers=3, layers_done=3, bytes=3_000_000, bytes_total=3_000_000),
    ),
    (
        {"status": f"Digest: sha256:{'0a' * 32}"},
        Progress(layers=3, layers_done=3, bytes=3_000_000, bytes_total=3_000_000),
    ),
    (
        {"status": "Status: Downloaded newer image for registry/team/app:latest"},
        Progress(layers=3, layers_done=3, bytes=3_000_000, bytes_total=3_000_000),
    ),
]


def counts(progress: Progress) -> tuple[int, int, int, int]:
    return progress.layers, progress.layers_done, progress.bytes, progress.bytes_total


def test_the_messages_of_a_pull_add_up() -> None:
    pull = PullProgress(now=0)
    for number, (message, expected) in enumerate(PULL, start=1):
        pull.note(message, number)
        if "progressDetail" in message:  # the others tell nothing, and make no new state
            assert counts(pull.state) == counts(expected), message


def test_what_is_not_about_a_layer_is_left_out() -> None:
    pull = PullProgress(now=0)
    for message in ({}, {"status": "Status: up to date"}, {"status": "Pulling from x", "id": "1"}):
        pull.note(message, 10)
    assert pull.state == Progress()


def test_a_layer_of_unknown_size_counts_with_what_has_come() -> None:
    pull = PullProgress(now=0)
    pull.note(of(A, "Downloading", 300), PERIOD)
    assert counts(pull.state) == (1, 0, 300, 300)
    pull.note({"id": A, "status": "Downloading", "progressDetail": None}, 2 * PERIOD)
    pull.note(of(B, "Downloading", 300, -1), 3 * PERIOD)
    pull.note(of(A, "Downloading", 500), 4 * PERIOD)
    pull.note(of(A, "Download complete"), 5 * PERIOD + 1)
    pull.note(of(B, "Pull complete"), 6 * PERIOD + 2)
    assert counts(pull.state) == (2, 1, 800, 800)


def test_the_rate_follows_what_comes_and_is_smoothed() -> None:
    pull = PullProgress(now=100)
    pull.note(of(A, "Downloading", 1_000_000, 9_000_000), 101)
    assert pull.state.bytes_per_second == pytest.approx(1_000_000)
    pull.note(of(A, "Downloading", 3_000_000, 9_000_000), 102)
    assert pull.state.bytes_per_second == pytest.approx(1_300_000)
    pull.note(of(A, "Retrying in 1 second"), 103)
    assert pull.state.bytes_per_second == pytest.approx(910_000)


@pytest.mark.parametrize(
    ("progress", "words"),
    [
        (Progress(), "asking the registry"),
        (Progress(layers=3, layers_done=1), "1 of 3 layers"),
        (
            Progress(
                layers=3,
                layers_done=2,
                bytes=1_540_000,
                bytes_total=4_000_000,
                bytes_per_second=960_000.0,
            ),
            "2 of 3 layers, 1.5 of 4.0 MB, 1.0 MB/s",
        ),
        (
            Progress(layers=1, bytes_total=12_345_678_901),
            "0 of 1 layers, 0.0 of 12345.7 MB, 0.0 MB/s",
        ),
    ],
)
def test_it_is_told_in_words(progress: Progress, words: str) -> None:
    assert str(progress) == words


sizes = st.none() | st.integers(0, 2**53)
messages = st.builds(
    of,
    st.sampled_from([A, B, C]),
    st.sampled_from(
        [
            *("Pulling fs layer", "Waiting", "Downloading", "Downloading", "Verifying Checksum"),
            *("Download complete", "Extracting", "Pull complete", "Already exists"),
            *("Retrying in 5 seconds", "Pulling from a/b", "something new"),
        ]
    ),
    sizes,
    sizes | st.just(-1),
)


@given(st.lists(st.tuples(messages, st.floats(0, 1))))
def test_no_more_is_done_than_there_is_and_no_state_follows_too_soon(
    told: list[tuple[Message, float]],
) -> None:
    now = made_at = 50.0
    pull = PullProgress(now)
    before = pull.state
    for message, later in told:
        now += later
        pull.note(message, now)
        state = pull.state
        assert 0 <= state.layers_done <= state.layers <= 3
        assert 0 <= state.bytes <= state.bytes_total
        assert state.bytes_per_second >= 0
        assert str(state)
        if state is not before:
            assert now - made_at >= PERIOD
            before, made_at = state, now
