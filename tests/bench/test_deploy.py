"""From Create until the container is up, against the engine's own calls without us.

A deployment takes a hundred milliseconds and more, and the engine's own time varies by more than
what we may add. So both sides deploy the same document in pairs, back to back, now the one first
and now the other, and what counts is the median of the pairs' differences.

Where even that is too rough to tell, the second bench takes the engine's time out: a proxy before
the engine, which both sides go through, notes when the engine is at work. It has no bound, because
the proxy itself takes part of the two cores from whoever is measured.
"""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING

import aiodocker
import pytest

from tests.bench.deployments import Deployed, Raw, no_collections
from tests.bench.figures import Row, median_interval, overlap, paired_difference
from tests.bench.plain import plain_client
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.conftest import Report
    from tests.bench.plain import PlainClient
    from tests.conftest import MakeDaemon
    from tests.support.daemon import Daemon
    from tests.support.engine_proxy import EngineProxy
    from tests.support.hooks import Exchange

pytestmark = pytest.mark.bench

PAIRS = 120
PAIRS_BY_PROXY = 60
WARM_UP = 5
RATIO = 1.02
OUTSIDE_MS = 3.0
SETTLE_OFF = ("--settle", "0")


async def test_create_to_complete(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str, report: Report, tmp_path: Path
) -> None:
    node = await daemon(*SETTLE_OFF)
    raw = Raw(docker, image, home=f"bench:{tmp_path / 'raw'}")
    ours, theirs = await _pairs(node, raw, PAIRS)

    mine, other = ([1000 * one.seconds for one in side] for side in (ours, theirs))
    ratio = median(mine) / median(other)
    differences = paired_difference(mine, other)
    outside = median(differences)
    low, high = median_interval(differences)
    create, wait = (
        1000 * median(times)
        for times in ([one.acknowledged for one in ours], [one.asked for one in ours])
    )
    report(
        Row(
            f"Create to complete, one at a time, p50 of {PAIRS} pairs",
            f"{median(mine):.1f} ms",
            f"{median(other):.1f} ms (raw aiodocker create, start, inspect)",
        ),
        Row(
            "Create to complete: ratio of p50s, or the p50 of the paired difference",
            f"{ratio:.3f}, {outside:+.2f} ms (95 %: {low:+.2f} to {high:+.2f})",
            "1, 0 ms",
            f"≤ {RATIO:g}, or ≤ {OUTSIDE_MS:g} ms",
            ratio <= RATIO or outside <= OUTSIDE_MS,
        ),
        Row(
            "Create to complete: the client's two calls by themselves, p50",
            f"{create:.2f} ms (Create), {wait:.2f} ms (Wait for what is done)",
            "-",
        ),
    )


async def test_time_outside_the_engines_calls(
    daemon: MakeDaemon, engine_proxy: EngineProxy, image: str, report: Report, tmp_path: Path
) -> None:
    clock = _EngineClock(engine_proxy)
    node = await daemon(*SETTLE_OFF, docker_host=engine_proxy.url)
    async with aiodocker.Docker(engine_proxy.url) as docker:
        raw = Raw(docker, image, home=f"bench:{tmp_path / 'raw'}")
        ours, theirs = await _pairs(node, raw, PAIRS_BY_PROXY)

    mine, other = ([1000 * clock.outside(one) for one in side] for side in (ours, theirs))
    # The way to the engine and back by HTTP, and the proxy's own time, are in both.
    differences = paired_difference(mine, other)
    added = median(differences)
    low, high = median_interval(differences)
    report(
        Row(
            f"Create to complete: time outside the engine's calls, p50 of {PAIRS_BY_PROXY} pairs",
            f"{median(mine):.2f} ms",
            f"{median(other):.2f} ms (raw aiodocker by the same proxy)",
        ),
        Row(
            "Create to complete: of that, ours alone (paired)",
            f"{added:.2f} ms (95 %: {low:.2f} to {high:.2f})",
            "0 ms",
        ),
    )


# The pairs


async def _pairs(node: Daemon, raw: Raw, count: int) -> tuple[list[Deployed], list[Deployed]]:
    """Ours and the other side's deployments, pair by pair; the first few are not counted."""
    ours: list[Deployed] = []
    theirs: list[Deployed] = []
    async with plain_client(node.port) as client:
        await _in_turn(node, client, raw, count, ours, theirs)
    return ours, theirs


async def _in_turn(
    node: Daemon,
    client: PlainClient,
    raw: Raw,
    count: int,
    ours: list[Deployed],
    theirs: list[Deployed],
) -> None:
    image = raw.spec.image
    with no_collections():
        for number in range(-WARM_UP, count):
            if number % 2:
                mine = await _deploy(client, image)
                other = await raw.deploy(number + WARM_UP)
            else:
                other = await raw.deploy(number + WARM_UP)
                mine = await _deploy(client, image)
            # Removed between the pairs, so that neither the removals nor a growing number of
            # containers are in what is measured.
            for deployed in (other, mine):
                await raw.remove(deployed.container)
            await _noticed(node, mine)
            if number >= 0:
                ours.append(mine)
                theirs.append(other)


async def _deploy(client: PlainClient, image: str) -> Deployed:
    """Our side: what a client sees."""
    began = time.perf_counter()
    job_id = (await client.call("ContainerService.Create", image=image))["job_id"]
    created = time.perf_counter()
    job = await client.call("ContainerService.Wait", job_id=job_id)
    ended = time.perf_counter()
    assert job["status"] == "complete", job
    await client.call("ContainerService.Wait", job_id=job_id)
    return Deployed(
        job=job_id,
        container=job["container"]["id"],
        began=began,
        ended=ended,
        acknowledged=created - began,
        asked=time.perf_counter() - ended,
    )


async def _noticed(node: Daemon, deployed: Deployed) -> None:
    """Let the daemon look at the removed container now, and not while the next pair is measured."""

    async def noticed() -> bool:
        job = await node.status(deployed.job)
        return bool(job["container"]["state"] == "removed")

    await eventually(noticed)


# The engine's time


class _EngineClock:
    """When the engine was at a call, as the proxy before it saw it."""

    def __init__(self, proxy: EngineProxy) -> None:
        self._begun: dict[Exchange, float] = {}
        self._calls: list[tuple[float, float]] = []
        # Not the stream of events, which goes on for ever.
        calls = r"(?!GET /events)"
        proxy.before(calls, self._begin, times=None)
        proxy.after(calls, self._end, times=None)

    def outside(self, deployed: Deployed) -> float:
        """The seconds of a deployment in which the engine was at no call."""
        return deployed.seconds - overlap(self._calls, deployed.began, deployed.ended)

    def _begin(self, exchange: Exchange) -> None:
        self._begun[exchange] = time.perf_counter()

    def _end(self, exchange: Exchange) -> None:
        self._calls.append((self._begun.pop(exchange), time.perf_counter()))
