"""Daemons on one network find each other, without being told where."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.support.cluster import id_of, linked, logged, moment
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.conftest import MakeNetwork
    from tests.integration.conftest import MakeNode
    from tests.support.daemon import Daemon

KNOWN_BY_MDNS, KNOWN_BY_PEER = 3.0, 0.3
"""Seconds after its start in which a node is known to the others."""


async def known(new: Daemon, others: list[Daemon]) -> float:
    """Wait until the others have a link with a new node; gives the seconds after `started`.

    Both moments are those of the log, so no polling is in them.
    """
    id_ = await id_of(new)
    for other in others:
        await eventually(lambda other=other: logged(other, "peer linked", peer=id_), 10)
    started = moment(logged(new, "started")[-1])
    return max(moment(logged(other, "peer linked", peer=id_)[0]) for other in others) - started


async def test_three_nodes_find_each_other_by_mdns(network: MakeNetwork, node: MakeNode) -> None:
    net = await network(["a", "b", "c"])
    a, b = await asyncio.gather(node(net["a"]), node(net["b"]))
    await linked(a, b)
    c = await node(net["c"])
    took = await known(c, [a, b])
    print(f"a new node was known by mDNS {took * 1000:.0f} ms after its start")
    assert took <= KNOWN_BY_MDNS
    await linked(a, b, c)
    job = await c.create("busybox")
    for one in (a, b):
        assert (await one.status(job))["status"] == "pending"


async def test_a_node_that_is_told_where_is_known_at_once(
    network: MakeNetwork, node: MakeNode
) -> None:
    net = await network(["a", "b", "c"])
    a, b = await asyncio.gather(node(net["a"], "--no-mdns"), node(net["b"], "--no-mdns"))
    peers = [word for one in ("a", "b") for word in ("--peer", f"{net[one].address}:4001")]
    c = await node(net["c"], "--no-mdns", *peers)
    took = await known(c, [a, b])
    print(f"a new node with --peer was known {took * 1000:.0f} ms after its start")
    assert took <= KNOWN_BY_PEER
