"""Against Docker Swarm's own API: accepted, running, and forty of them running.

Both sides deploy the same image on one engine of the bench's own, which is the manager and the only
node of a swarm. When a container has started is heard from the engine's events, for both alike. The
service names its image by id, because Swarm asks the registry for any other before each start.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from contextlib import asynccontextmanager
from statistics import median
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from container_manager.spec import LABEL_PREFIX
from tests.bench.deployments import no_collections
from tests.bench.figures import Row
from tests.bench.plain import plain_client, plain_engine_client
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.bench.conftest import Report
    from tests.bench.plain import PlainClient
    from tests.conftest import MakeDaemon
    from tests.support.dockerd import PrivateDockerd
    from tests.support.engine import Engine

pytestmark = pytest.mark.bench

PAIRS = 30
WARM_UP = 3
MANY = 40
MANY_ROUNDS = 3
RUNNING_FACTOR = 2.3
MANY_FACTOR = 2.8
PATIENCE = 120
SERVICE_LABEL = "com.docker.swarm.service.id"
JOB_LABEL = f"{LABEL_PREFIX}job"


async def test_against_swarm(
    daemon: MakeDaemon, private_dockerd: PrivateDockerd, report: Report
) -> None:
    image = await private_dockerd.import_busybox()
    engine = private_dockerd.engine
    _begin_swarm(engine)
    node = await daemon(docker_host=private_dockerd.url)
    async with (
        plain_client(node.port) as our_client,
        plain_engine_client(private_dockerd.socket) as engine_client,
        _starts(private_dockerd) as starts,
    ):
        ours = _Ours(our_client, engine, starts, image)
        swarm = _Swarm(engine_client, engine, starts, image)
        accepted, running = await _pairs(ours, swarm)
        rounds = [await _in_turn(ours, swarm, MANY, number) for number in range(MANY_ROUNDS)]
    await node.kill()
    _leave_swarm(engine)

    many = [tuple(ended for _, ended in one) for one in rounds]
    (our_ms, swarm_ms), (our_run, swarm_run), (our_many, swarm_many) = (
        [median(side) for side in zip(*pairs, strict=True)] for pairs in (accepted, running, many)
    )
    report(
        Row(
            f"accepted at one connection, p50 of {PAIRS} pairs",
            f"{1000 * our_ms:.2f} ms",
            f"{1000 * swarm_ms:.2f} ms (POST /services/create)",
            "not slower",
            our_ms <= swarm_ms,
        ),
        Row(
            "from the call until the container runs, p50 of the same",
            f"{1000 * our_run:.0f} ms",
            f"{1000 * swarm_run:.0f} ms (Swarm): {swarm_run / our_run:.2f} times ours",
            f"≥ {RUNNING_FACTOR:g} times ours",
            swarm_run >= RUNNING_FACTOR * our_run,
        ),
        Row(
            f"until {MANY} containers run, p50 of {MANY_ROUNDS} rounds",
            f"{our_many:.2f} s (one batch)",
            f"{swarm_many:.2f} s ({MANY} replicas): {swarm_many / our_many:.2f} times ours",
            f"≥ {MANY_FACTOR:g} times ours",
            swarm_many >= MANY_FACTOR * our_many,
        ),
    )


# In turn

_Pair = tuple[float, float]
"""Seconds: ours, and Swarm's."""


async def _pairs(ours: _Ours, swarm: _Swarm) -> tuple[list[_Pair], list[_Pair]]:
    """Until accepted, and until running; the first few are not counted."""
    with no_collections():
        both = [await _in_turn(ours, swarm, 1, number) for number in range(-WARM_UP, PAIRS)]
    both = both[WARM_UP:]
    return [(a[0], b[0]) for a, b in both], [(a[1], b[1]) for a, b in both]


async def _in_turn(ours: _Ours, swarm: _Swarm, count: int, number: int) -> tuple[_Pair, _Pair]:
    """Seconds until accepted and until `count` containers run: ours, and Swarm's."""
    if number % 2:
        mine = await ours.run(count)
        return mine, await swarm.run(count)
    other = await swarm.run(count)
    return await ours.run(count), other


class _Side:
    """One side: what it is asked by, and what shows that it has done it."""

    def __init__(self, client: PlainClient, engine: Engine, starts: _Starts, image: str) -> None:
        self._client = client
        self._engine = engine
        self._starts = starts
        self._image = image

    async def _remove_containers(self, label: str) -> None:
        query = {"all": "1", "filters": json.dumps({"label": [label]})}

        def none_left() -> bool:
            found = self._engine.call("GET", "/containers/json", query)
            for one in found:
                # 404 and 409: on its way out already.
                self._engine.request("DELETE", f"/containers/{one['Id']}", {"force": "1"})
            return not found

        await eventually(lambda: asyncio.to_thread(none_left), PATIENCE)


class _Ours(_Side):
    async def run(self, count: int) -> _Pair:
        """Seconds until accepted and until so many containers run; they are removed again."""
        began = time.perf_counter()
        if count == 1:
            created = [await self._client.call("ContainerService.Create", image=self._image)]
        else:
            spec = {"image": self._image}
            created = await self._client.batch("ContainerService.Create", [spec] * count)
        accepted = time.perf_counter()
        running = await self._starts.all(JOB_LABEL, count)
        asked = [{"job_id": one["job_id"]} for one in created]
        # Final before its container is taken from it.
        await self._client.batch("ContainerService.Wait", asked)
        await self._remove_containers(JOB_LABEL)

        async def noticed() -> bool:
            jobs = await self._client.batch("ContainerService.Status", asked)
            return all(job["container"]["state"] == "removed" for job in jobs)

        await eventually(noticed, PATIENCE)
        return accepted - began, running - began


class _Swarm(_Side):
    async def run(self, count: int) -> _Pair:
        """Seconds until accepted and until so many containers run; they are removed again."""
        image = self._engine.call("GET", f"/images/{self._image}/json")["Id"]
        service = {
            "TaskTemplate": {"ContainerSpec": {"Image": image}},
            "Mode": {"Replicated": {"Replicas": count}},
        }
        began = time.perf_counter()
        created = await self._client.post("/services/create", service)
        accepted = time.perf_counter()
        running = await self._starts.all(SERVICE_LABEL, count)
        self._engine.call("DELETE", f"/services/{created['ID']}")
        await self._remove_containers(SERVICE_LABEL)
        return accepted - began, running - began


# The engine


class _Starts:
    """When the engine says that a container has started, and by what label it is whose."""

    def __init__(self) -> None:
        self._heard: asyncio.Queue[tuple[dict[str, str], float]] = asyncio.Queue()

    async def listen(self, content: aiohttp.StreamReader) -> None:
        """Note each event as it comes."""
        async for line in content:
            now = time.perf_counter()
            self._heard.put_nowait((json.loads(line)["Actor"]["Attributes"], now))

    async def all(self, label: str, count: int) -> float:
        """When the last of so many containers with this label has started."""
        last = 0.0
        async with asyncio.timeout(PATIENCE):
            for _ in range(count):
                labels, last = await self._heard.get()
                assert label in labels, labels
        return last


@asynccontextmanager
async def _starts(dockerd: PrivateDockerd) -> AsyncIterator[_Starts]:
    starts = _Starts()
    filters = json.dumps({"type": ["container"], "event": ["start"]})
    async with (
        aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(dockerd.socket)),
            timeout=aiohttp.ClientTimeout(total=None),
        ) as session,
        session.get("http://engine/events", params={"filters": filters}) as answer,
    ):
        listening = asyncio.create_task(starts.listen(answer.content))
        try:
            yield starts
        finally:
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listening


def _begin_swarm(engine: Engine) -> None:
    document: dict[str, Any] = {"ListenAddr": "127.0.0.1:2377", "AdvertiseAddr": "127.0.0.1"}
    engine.call("POST", "/swarm/init", body=json.dumps(document).encode())


def _leave_swarm(engine: Engine) -> None:
    engine.call("POST", "/swarm/leave", {"force": "1"})
