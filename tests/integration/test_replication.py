"""Many nodes in one process, linked by real sockets: all come to know the same."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from container_manager.spec import Spec
from tests.support.nodes import Node, running
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

NODES = 10
JOBS = 2000
LINKED = 20.0
EQUAL = 5.0
SPEC = Spec(image="busybox")


async def some(stack: AsyncExitStack, directory: Path, number: int) -> list[Node]:
    """So many nodes, each linked with all others."""
    nodes: list[Node] = []
    for index in range(number):
        peers = [node.address for node in nodes]
        nodes.append(await stack.enter_async_context(running(directory / f"n{index}", peers)))
    await eventually(lambda: all(node.linked() == number - 1 for node in nodes), LINKED)
    return nodes


def equal(nodes: list[Node], number: int) -> bool:
    """Whether all know so many jobs, and the same of them."""
    first = nodes[0].rows()
    return len(first) == number and all(node.rows() == first for node in nodes[1:])


async def test_ten_nodes_are_equal_soon_after_the_last_of_two_thousand_jobs(
    tmp_path: Path,
) -> None:
    async with AsyncExitStack() as stack:
        nodes = await some(stack, tmp_path, NODES)
        chooser = random.Random(7)

        async def create(node: Node) -> None:
            job_id = await node.ledger.create(SPEC)
            if chooser.random() < 0.3:
                await node.ledger.change(job_id, lambda job: job.cancelling(node.ledger.now()))

        for _ in range(JOBS // 100):
            await asyncio.gather(*(create(chooser.choice(nodes)) for _ in range(100)))
        await eventually(lambda: equal(nodes, JOBS), EQUAL, 0.1)


async def test_a_node_that_starts_again_is_told_what_it_missed_and_tells_nothing_twice(
    tmp_path: Path,
) -> None:
    async with running(tmp_path / "a") as a:
        async with running(tmp_path / "b", [a.address]) as b:
            await eventually(lambda: a.linked() == b.linked() == 1, LINKED)
            for node in (a, b):
                for _ in range(50):
                    await node.ledger.create(SPEC)
            await eventually(lambda: equal([a, b], 100), EQUAL)
        for _ in range(50):
            await a.ledger.create(SPEC)
        async with running(tmp_path / "b", [a.address]) as b:
            await eventually(lambda: equal([a, b], 150), EQUAL)
            # What it had written in its earlier run still stands where it stood.
            moved = "SELECT count(*) FROM husk WHERE kind = 'job'"
            assert [node.database.read(lambda c: c.execute(moved).get) for node in (a, b)] == [0, 0]
