"""Collects what the benches measure; at the end all of it stands in one table."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from tests.bench.figures import Row, line, percentile, table

_ROWS = pytest.StashKey[list[Row]]()
_NOTES = pytest.StashKey[list[str]]()
_CPU = pytest.StashKey["_CpuTime"]()


class Report(Protocol):
    """What the `report` fixture gives."""

    def __call__(self, *rows: Row) -> None:
        """Print the rows, keep them for the table, and fail if a bound is not met."""


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_ROWS] = []
    config.stash[_NOTES] = []
    config.stash[_CPU] = _CpuTime.read()


@pytest.fixture
def report(pytestconfig: pytest.Config) -> Report:
    """Tell what was measured."""

    def tell(*rows: Row) -> None:
        pytestconfig.stash[_ROWS].extend(rows)
        print()
        for row in rows:
            print(line(row), flush=True)
        missed = [line(row) for row in rows if row.met is False]
        assert not missed, "\n".join(missed)

    return tell


@pytest.fixture(scope="session", autouse=True)
def _surroundings(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Note what else was going on, and what a synced write costs where the data is kept.

    Where a sync takes no time at all, nothing that is said of synced writes means anything.
    """
    busy = os.getloadavg()[0]
    sync = 1e6 * _sync_seconds(tmp_path_factory.mktemp("sync") / "probe")
    pytestconfig.stash[_NOTES] += [
        f"load average before {busy:.1f}",
        f"a synced write of 4 KiB {sync:.0f} µs (p50 of 200)",
    ]


@dataclass(frozen=True, slots=True)
class _CpuTime:
    """What the machine's CPUs have spent since its boot, in ticks; see proc(5)."""

    all: int
    stolen: int

    @classmethod
    def read(cls) -> _CpuTime:
        fields = [int(ticks) for ticks in Path("/proc/stat").read_text().split(maxsplit=9)[1:9]]
        return cls(sum(fields), fields[7])

    def stolen_since(self, before: _CpuTime) -> float:
        """The share that a hypervisor gave to others although there was work for it here."""
        return (self.stolen - before.stolen) / max(1, self.all - before.all)


def _sync_seconds(path: Path) -> float:
    block = os.urandom(4096)
    took = []
    with path.open("wb", buffering=0) as file:
        for _ in range(200):
            began = time.perf_counter()
            file.write(block)
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    return percentile(took, 0.5)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    rows = config.stash[_ROWS]
    if not rows:
        return
    stolen = _CpuTime.read().stolen_since(config.stash[_CPU])
    facts = [
        f"Python {platform.python_version()}",
        f"{os.cpu_count()} CPUs ({platform.machine()})",
        *config.stash[_NOTES],
        f"{stolen:.1%} of the CPU time stolen by the host",
    ]
    command = " ".join(["python -m pytest", *config.invocation_params.args])
    terminalreporter.section("benchmarks")
    terminalreporter.write_line(f"`{command}`: {', '.join(facts)}.\n\n{table(rows)}\n")
