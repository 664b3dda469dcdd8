"""What the measurements are summed up by, and the table that they end in. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HEADINGS = ("what", "ours", "the other side, same run", "bound", "met")


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that `share` of all values don't exceed (nearest rank).

    Always a value that was measured: an interpolated one would flatter a tail of few samples.
    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values to take a percentile of")
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours less theirs, pair by pair.

    Drift of the machine hits both sides of a pair alike, so it cancels here, where it would not
    in the difference of two medians.
    """
    return [a - b for a, b in zip(ours, theirs, strict=True)]


def median_interval(values: Iterable[float]) -> tuple[float, float]:
    """Between what the true median lies with 95 % confidence, however the values are spread.

    By their order alone: how many of n fall below the median is binomial, which is near enough to
    normal from some thirty values on.
    """
    ordered = sorted(values)
    reach = 0.98 * math.sqrt(len(ordered))
    low = math.floor(len(ordered) / 2 - reach)
    return ordered[max(0, low)], ordered[min(len(ordered) - 1, len(ordered) - 1 - low)]


def overlap(intervals: Iterable[tuple[float, float]], began: float, ended: float) -> float:
    """How much of the time from `began` to `ended` lies within any of the intervals."""
    covered = 0.0
    reached = began
    for first, last in sorted(intervals):
        covered += max(0.0, min(last, ended) - max(first, reached))
        reached = max(reached, min(last, ended))
    return covered


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    what: str
    ours: str
    other: str
    bound: str = "-"
    met: bool | None = None
    """None where nothing is promised: a figure that explains another one."""

    @property
    def cells(self) -> tuple[str, ...]:
        """As the table shows it."""
        met = {None: "-", True: "met", False: "NOT MET"}[self.met]
        return self.what, self.ours, self.other, self.bound, met


def line(row: Row) -> str:
    """A row on a line of its own, as it is printed when it has been measured."""
    what, ours, other, bound, met = row.cells
    return f"{what}: {ours}; other side: {other}; bound: {bound}; {met}"


def table(rows: Iterable[Row]) -> str:
    """All rows as a Markdown table, its columns aligned so that it reads as plain text too."""
    lines = [HEADINGS, *(row.cells for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def joined(cells: Sequence[str]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width for width in widths]
    return "\n".join(map(joined, [lines[0], rule, *lines[1:]]))
