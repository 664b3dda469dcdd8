"""The tests' own hosts and the faults between them: each does what it says, and nothing stays."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from itertools import permutations
from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.support.netns import Host, Network, unavailable
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.conftest import MakeNetwork

PORT = 4001


def namespaces() -> str:
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    return listed.stdout


async def arrived(sender: Host, receiver: Host, count: int = 1, *, ipv6: bool = False) -> int:
    """How many of so many datagrams arrive; what is lost is known by a last one, on loopback."""
    family, to, here = (
        (socket.AF_INET6, receiver.address6, "::1")
        if ipv6
        else (socket.AF_INET, receiver.address, "127.0.0.1")
    )
    datagrams = socket.SOCK_DGRAM
    loop = asyncio.get_running_loop()
    with (
        receiver.socket(family, datagrams) as inbox,
        sender.socket(family, datagrams) as outbox,
        receiver.socket(family, datagrams) as last,
    ):
        inbox.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
        inbox.bind(("", PORT))
        for _ in range(count):
            await loop.sock_sendto(outbox, b"one", (to, PORT))
        # Delivery between namespaces is done within the send, once the neighbour is known.
        await eventually(lambda: _neighbour_known(sender, to))
        await loop.sock_sendto(last, b"last", (here, PORT))
        seen = 0
        while await loop.sock_recv(inbox, 10) != b"last":
            seen += 1
        return seen


def _neighbour_known(host: Host, to: str) -> bool:
    shown = ["ip", "-n", host.namespace, "neigh", "show", "to", to]
    said = subprocess.run(shown, capture_output=True, text=True, check=True).stdout
    return any(word in said for word in ("REACHABLE", "STALE", "DELAY", "PROBE", "FAILED"))


async def reached(net: Network, *, ipv6: bool = False) -> set[str]:
    pairs = permutations(net.hosts, 2)
    return {
        f"{one.name}{other.name}" for one, other in pairs if await arrived(one, other, ipv6=ipv6)
    }


async def test_hosts_reach_each_other_but_for_what_is_cut(network: MakeNetwork) -> None:
    net = await network(["a", "b", "c"])
    a, b, c = net.hosts
    everybody = {"ab", "ac", "ba", "bc", "ca", "cb"}
    assert await reached(net) == everybody
    assert await reached(net, ipv6=True) == everybody

    await net.split({a, b}, {c})
    assert await reached(net) == {"ab", "ba"}
    assert await reached(net, ipv6=True) == {"ab", "ba"}
    await net.one_way(a, b)
    assert await reached(net) == {"ba"}
    await net.heal()
    assert await reached(net) == everybody

    await net.isolate(b)
    assert await reached(net) == {"ac", "ca"}


async def test_a_share_is_lost_in_both_directions(network: MakeNetwork) -> None:
    net = await network(["a", "b", "c"])
    a, b, c = net.hosts
    assert await reached(net)  # all know their neighbours
    await net.loss(b, 0.3)
    for one, other in ((a, b), (b, a)):
        assert 550 < await arrived(one, other, 1000) < 850
    assert await arrived(a, c, 1000) == 1000


async def test_a_client_calls_a_server_on_a_host_that_is_cut_off(network: MakeNetwork) -> None:
    net = await network(["a", "b"])
    await net.isolate(net["a"])
    with net["a"].socket() as listening:
        listening.bind(("127.0.0.1", PORT))
        listening.listen()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhere")
            writer.close()

        async with (
            await asyncio.start_server(answer, sock=listening),
            aiohttp.ClientSession(connector=net["a"].connector()) as session,
            session.get(f"http://127.0.0.1:{PORT}/") as response,
        ):
            assert await response.text() == "here"


async def test_nothing_stays_when_a_test_is_cancelled() -> None:
    if reason := unavailable():
        pytest.skip(reason)
    started = asyncio.Event()
    made: list[Network] = []

    async def test() -> None:
        async with Network(2) as net:
            made.append(net)
            await net.hosts[0].start("sleep", "1000")
            assert net.hosts[0].namespace in namespaces()
            started.set()
            await asyncio.Event().wait()

    running = asyncio.create_task(test())
    await asyncio.wait_for(started.wait(), 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    (host, _) = made[0].hosts
    assert host.processes[0].returncode == -9
    assert host.namespace.rpartition("-")[0] not in namespaces()
