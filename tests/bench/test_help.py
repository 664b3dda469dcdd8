"""How long a person waits for `container-manager --help`."""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median
from typing import TYPE_CHECKING

import pytest

from tests.bench.figures import Row
from tests.support.daemon import COMMAND, ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.conftest import Report

pytestmark = pytest.mark.bench

RUNS = 20
BOUND_MS = 150.0


def test_help(report: Report) -> None:
    ours: list[float] = []
    bare: list[float] = []
    for number in range(-1, RUNS):
        took = _run([*COMMAND, "--help"]), _run([sys.executable, "-c", "pass"])
        if number >= 0:  # the first one compiles what was not compiled yet
            for side, seconds in zip((ours, bare), took, strict=True):
                side.append(1000 * seconds)
    p50 = median(ours)
    report(
        Row(
            f"`container-manager --help`, p50 of {RUNS}",
            f"{p50:.0f} ms (worst {max(ours):.0f})",
            f"{median(bare):.0f} ms (`python -c pass`)",
            f"≤ {BOUND_MS:g} ms",
            p50 <= BOUND_MS,
        )
    )


def _run(command: Sequence[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began
