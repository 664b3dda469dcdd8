"""Many deployments: how many a second, and how long one takes, against the engine's own calls.

The engine gains nothing from more than a few at a time: what more are asked of it only wait in it.
A round of ours is one batch of Create and one batch of Wait; its times are those of the jobs'
histories. Rounds of both sides alternate, and what was deployed is removed in between.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest

from container_manager.api.views import parse_time
from tests.bench.deployments import Raw, no_collections
from tests.bench.figures import Row
from tests.bench.plain import plain_client
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    import aiodocker

    from tests.bench.conftest import Report
    from tests.conftest import MakeDaemon
    from tests.support.daemon import Daemon

pytestmark = pytest.mark.bench

ROUNDS = 4
ROUND = 50
SAME = 4
"""Deployments at a time on both sides."""
SAME_SHARE = 0.97

AT_ONCE = 100
AT_ONCE_ROUNDS = 2
RAW_AT_ONCE = 10
"""As many at a time as a worker pool of the usual size would ask of the engine."""
TIME_SHARE = 0.7
RATE_SHARE = 0.95
ROOM = ("--queue-size", "1000")
SETTLE_OFF = ("--settle", "0")
PATIENCE = 600


async def test_throughput_at_the_same_concurrency(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str, report: Report, tmp_path: Path
) -> None:
    node = await daemon(*ROOM, *SETTLE_OFF, "--worker-count", str(SAME))
    raw = Raw(docker, image, home=f"bench:{tmp_path / 'raw'}")
    await _ours(node, raw, SAME)
    await _raw(raw, SAME, SAME)
    ours: list[_Round] = []
    theirs: list[_Round] = []
    for number in range(ROUNDS):
        if number % 2:
            ours.append(await _ours(node, raw, ROUND))
            theirs.append(await _raw(raw, ROUND, SAME))
        else:
            theirs.append(await _raw(raw, ROUND, SAME))
            ours.append(await _ours(node, raw, ROUND))
    mine, other = _rate(ours), _rate(theirs)
    report(
        Row(
            f"{ROUNDS * ROUND} deployments, {SAME} at a time, a second",
            f"{mine:.2f}",
            f"{other:.2f} (raw aiodocker, {SAME} at a time)",
        ),
        Row(
            "the same: share of the raw throughput",
            f"{mine / other:.3f}",
            "1",
            f"≥ {SAME_SHARE:g}",
            mine / other >= SAME_SHARE,
        ),
    )


async def test_a_hundred_at_once(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str, report: Report, tmp_path: Path
) -> None:
    default = await daemon(*ROOM, name="default")
    unsettled = await daemon(*ROOM, *SETTLE_OFF, name="unsettled")
    raw = Raw(docker, image, home=f"bench:{tmp_path / 'raw'}")
    for node in (default, unsettled):
        await _ours(node, raw, RAW_AT_ONCE)
    settled: list[_Round] = []
    mine: list[_Round] = []
    theirs: list[_Round] = []
    for number in range(AT_ONCE_ROUNDS):
        sides = [("raw", theirs), ("unsettled", mine), ("default", settled)]
        for name, rounds in reversed(sides) if number % 2 else sides:
            if name == "raw":
                rounds.append(await _raw(raw, AT_ONCE, RAW_AT_ONCE))
            else:
                node = unsettled if name == "unsettled" else default
                rounds.append(await _ours(node, raw, AT_ONCE))
    report(
        *_rows(f"{AT_ONCE} at once, settle time off", mine, theirs),
        *_rows(f"{AT_ONCE} at once, default settings", settled, theirs),
    )


def _rows(what: str, ours: list[_Round], theirs: list[_Round]) -> list[Row]:
    mine, other = (1000 * median(_times(side, "deploying")) for side in (ours, theirs))
    our_rate, raw_rate = _rate(ours), _rate(theirs)
    our_wait, raw_wait = (median(_times(side, "waited")) for side in (ours, theirs))
    complete = median(_times(ours, "completed"))
    return [
        Row(
            f"{what}: one deployment, from its turn until it is up, p50",
            f"{mine:.0f} ms",
            f"{other:.0f} ms (raw aiodocker, {RAW_AT_ONCE} at a time)",
            f"≤ {TIME_SHARE:g} of the raw",
            mine <= TIME_SHARE * other,
        ),
        Row(
            f"{what}: up, a second",
            f"{our_rate:.2f}",
            f"{raw_rate:.2f}",
            f"≥ {RATE_SHARE:g} of the raw",
            our_rate >= RATE_SHARE * raw_rate,
        ),
        Row(
            f"{what}: from Create until up, waiting for its turn included, p50",
            f"{our_wait:.2f} s; until `complete` {complete:.2f} s",
            f"{raw_wait:.2f} s (from the common start)",
        ),
    ]


# The rounds


@dataclass(frozen=True, slots=True)
class _Round:
    """Seconds, for all together and for each one."""

    took: float
    """From the common start until the last container was up."""
    deploying: list[float]
    """From a deployment's turn until its container was up."""
    waited: list[float]
    """From the common start until its container was up."""
    completed: list[float]
    """From the common start until its job was complete."""


def _rate(rounds: list[_Round]) -> float:
    return sum(len(one.deploying) for one in rounds) / sum(one.took for one in rounds)


def _times(rounds: list[_Round], name: str) -> list[float]:
    return [seconds for one in rounds for seconds in getattr(one, name)]


async def _ours(node: Daemon, raw: Raw, count: int) -> _Round:
    image = raw.spec.image
    async with plain_client(node.port) as client:
        began = time.time()
        created = await client.batch("ContainerService.Create", [{"image": image}] * count)
        asked = [{"job_id": one["job_id"], "timeout": PATIENCE} for one in created]
        jobs = await client.batch("ContainerService.Wait", asked)
        assert all(job["status"] == "complete" for job in jobs), jobs
        await raw.remove_all(job["container"]["id"] for job in jobs)

        async def noticed() -> bool:
            asked = [{"job_id": job["job_id"]} for job in jobs]
            found = await client.batch("ContainerService.Status", asked)
            return all(job["container"]["state"] == "removed" for job in found)

        # Now, and not while the next round is measured.
        await eventually(noticed, 60)
    up = [_at(job, "verifying") or _at(job, "complete") for job in jobs]
    return _Round(
        max(up) - began,
        [end - _at(job, "creating") for job, end in zip(jobs, up, strict=True)],
        [end - began for end in up],
        [_at(job, "complete") - began for job in jobs],
    )


def _at(job: dict[str, Any], what: str) -> float:
    """When its history first says so; 0 where it never does."""
    found = [one["at"] for one in job["history"] if what in (one["status"], one["phase"])]
    return parse_time(found[0]) / 1e6 if found else 0.0


async def _raw(raw: Raw, count: int, at_once: int) -> _Round:
    with no_collections():
        began = time.perf_counter()
        deployed = await raw.deploy_all(range(count), at_once)
    await raw.remove_all(one.container for one in deployed)
    waited = [one.ended - began for one in deployed]
    return _Round(max(waited), [one.seconds for one in deployed], waited, waited)
