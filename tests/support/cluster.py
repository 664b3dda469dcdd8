"""Whole clusters: how their nodes see each other, what they list, and work on all sides."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson

from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.daemon import Daemon

NO_ENGINE = "unix:///nonexistent.sock"
"""Jobs stay pending, and can be made and cancelled quickly."""
LINKED = 5.0
"""Seconds in which nodes that can reach each other have a link."""
PAGE = 1000


# Nodes


async def id_of(node: Daemon) -> str:
    """A node's id."""
    listed = await node.call("NodeService.List")
    return str(next(one["node"] for one in listed["nodes"] if one["self"]))


async def states(node: Daemon) -> dict[str, str]:
    """How a node says that the others stand, by their ids."""
    listed = await node.call("NodeService.List")
    return {one["node"]: one["state"] for one in listed["nodes"] if not one["self"]}


async def linked(*nodes: Daemon, within: float = LINKED) -> None:
    """Wait until each says that all others are alive."""
    ids = {await id_of(node) for node in nodes}

    async def all_alive(node: Daemon) -> bool:
        alive = {one for one, state in (await states(node)).items() if state == "alive"}
        return ids - {await id_of(node)} <= alive

    for node in nodes:
        await eventually(lambda node=node: all_alive(node), within)


async def stands(node: Daemon, other: str, state: str, within: float) -> float:
    """Wait until a node says that another one stands so; gives the seconds that it took."""
    began = time.monotonic()

    async def is_so() -> bool:
        return (await states(node)).get(other) == state

    await eventually(is_so, within)
    return time.monotonic() - began


# Logs


def logged(node: Daemon, event: str, **fields: Any) -> list[dict[str, Any]]:
    """What a daemon has logged of this event, with these fields."""
    lines = (orjson.loads(line) for line in node.log.splitlines() if line.startswith("{"))
    return [
        line
        for line in lines
        if line.get("event") == event and all(line.get(k) == v for k, v in fields.items())
    ]


def moment(line: dict[str, Any]) -> float:
    """When something was logged, in seconds since 1970."""
    return datetime.fromisoformat(line["timestamp"]).timestamp()


# Jobs


async def jobs(node: Daemon, since: str | None = None) -> dict[str, str]:
    """All jobs that a node lists, with their statuses; those made at `since` or later."""
    params: dict[str, Any] = {"limit": PAGE} | ({"since": since} if since else {})
    found: dict[str, str] = {}
    while True:
        page = await node.call("ContainerService.List", params)
        found |= {job["job_id"]: job["status"] for job in page["jobs"]}
        if page["next_cursor"] is None:
            return found
        params["cursor"] = page["next_cursor"]


async def equal(
    nodes: Sequence[Daemon], expected: dict[str, str], within: float, since: str | None = None
) -> float:
    """Wait until all nodes list just these jobs with these statuses; gives the seconds it took."""
    began = time.monotonic()
    different: list[str] = []

    async def all_equal() -> bool:
        different.clear()
        for node in nodes:
            listed = await jobs(node, since)
            if listed != expected:
                wrong = Counter(
                    f"{listed.get(job)} instead of {expected.get(job)}"
                    for job in listed.keys() | expected.keys()
                    if listed.get(job) != expected.get(job)
                )
                different.append(f"{node.data_dir.name}: {dict(wrong)}")
        return not different

    try:
        await eventually(all_equal, within, 0.1)
    except AssertionError:
        seen = {node.data_dir.name: await states(node) for node in nodes}
        raise AssertionError(f"not equal within {within} s: {different}; {seen}") from None
    return time.monotonic() - began


class Load:
    """Jobs made and some of them cancelled at one node, from `start` to `stop`."""

    def __init__(self, node: Daemon, rng: random.Random, per_second: float = 10.0) -> None:
        self._node = node
        self._rng = rng
        self._pause = 1 / per_second
        self.acknowledged: dict[str, str] = {}
        """What the node has answered: the jobs, and how each of them stands by that."""
        self._ended = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> Load:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="load")
        return self

    async def stop(self) -> dict[str, str]:
        """End it; gives all that was acknowledged. What failed is raised."""
        assert self._task is not None
        self._ended.set()
        await self._task
        return self.acknowledged

    async def _run(self) -> None:
        while not self._ended.is_set():
            self.acknowledged[await self._node.create("busybox")] = "pending"
            if self._rng.random() < 0.3:
                job = self._rng.choice(list(self.acknowledged))
                if self.acknowledged[job] == "pending":
                    await self._node.call("ContainerService.Cancel", {"job_id": job})
                    self.acknowledged[job] = "cancelled"
            try:
                async with asyncio.timeout(self._pause * self._rng.uniform(0.5, 1.5)):
                    await self._ended.wait()
            except TimeoutError:
                continue
