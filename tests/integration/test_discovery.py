"""Discovery on real networks: processes in network namespaces, and what happens to networks."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING

import pytest
from zeroconf import DNSAddress, DNSOutgoing, DNSPointer, DNSService, DNSText

from tests.support.discoverer import Discoverer, node_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.conftest import MakeNetwork
    from tests.support.netns import Host

SERVICE = "_container-mgr._tcp.local."
MDNS = ("224.0.0.251", 5353)
RESPONSE, IN, UNIQUE = 0x8400, 1, 0x8001
PTR, TXT, A, SRV = 12, 16, 1, 33
NOTHING_LEFT = {"tasks": 0, "threads": 0, "sockets": 0}


def at(*hosts: str) -> Callable[[list[str]], bool]:
    """Whether all these hosts are among a node's."""
    return lambda seen: set(hosts) <= set(seen)


async def announced(discoverer: Discoverer, times: int = 1) -> None:
    await discoverer.until(lambda: len(discoverer.logged("announced by mDNS")) >= times)


# Two nodes


async def test_two_hosts_find_each_other(network: MakeNetwork) -> None:
    net = await network(["a", "b"])
    a = await Discoverer(1, 4001, "--run", "00aa", "--cluster", "5eed").start(net["a"])
    await announced(a)
    b = await Discoverer(2, 4002).start(net["b"])

    started = b.lines[0].at
    took = await a.sees(2) - started, await b.sees(1, at(net["a"].address)) - started
    print(f"the new node was seen after {took[0] * 1000:.0f} ms, saw after {took[1] * 1000:.0f} ms")
    assert max(took) < 2

    await b.sees(1, lambda hosts: len(hosts) == 3)
    (sighting) = b.sightings(1)[-1]
    assert sighting == {
        "node": node_id(1),
        "run": "00aa",
        "version": "1.0",
        "cluster": "5eed",
        "addresses": [
            [net["a"].address, 4001],
            [net["a"].address6, 4001],
            ["fe80::c6ff:fe12:" + net["a"].mac[-5:].replace(":", "").lstrip("0") + "%eth0", 4001],
        ],
    }
    assert a.sightings(1) == []  # nobody sees itself


async def test_a_goodbye_is_heard_at_once_and_leaves_nothing(network: MakeNetwork) -> None:
    net = await network(["a", "b"])
    a, b = await Discoverer(1).start(net["a"]), await Discoverer(2).start(net["b"])
    await asyncio.gather(a.sees(2), b.sees(1))

    assert await b.stop() == NOTHING_LEFT
    await a.loses(2)
    gone = next(line.at for line in a.lines if "gone" in line.said)
    assert gone < b.lines[-1].at  # told while it was still ending


async def test_stopped_in_the_middle_of_its_start_it_says_goodbye_too(network: MakeNetwork) -> None:
    net = await network(["a", "b"])
    a = await Discoverer(1).start(net["a"])
    await announced(a)
    b = await Discoverer(2).start(net["b"])
    await a.sees(2)  # the first of three announcements

    assert await b.stop() == NOTHING_LEFT
    await a.loses(2)
    last = await Discoverer(3).start(net["b"])
    await a.sees(3)
    assert len(a.sightings(2)) <= 2
    await last.stop()


async def test_a_killed_node_is_no_news_and_its_next_run_is(network: MakeNetwork) -> None:
    net = await network(["a", "b", "c"])
    a = await Discoverer(1).start(net["a"])
    b = await Discoverer(2, 4001, "--run", "0001").start(net["b"])
    await a.sees(2)

    await b.kill()
    await Discoverer(3).start(net["c"])
    await a.sees(3)  # a whole round later
    assert not a.lost(2)

    await Discoverer(2, 4001, "--run", "0002").start(net["b"])
    await a.until(lambda: a.sightings(2)[-1]["run"] == "0002")
    await Discoverer(2, 4009, "--run", "0002").start(net["b"])
    await a.until(lambda: a.sightings(2)[-1]["addresses"][0][1] == 4009)
    assert not a.lost(2)


async def test_two_daemons_of_one_host(network: MakeNetwork) -> None:
    net = await network(["a", "b"])
    a1, a2 = await Discoverer(1).start(net["a"]), await Discoverer(2, 4002).start(net["a"])
    b = await Discoverer(3).start(net["b"])
    await asyncio.gather(
        *(one.sees(number) for one, number in ((a1, 2), (a1, 3), (a2, 1), (a2, 3), (b, 1), (b, 2)))
    )
    assert a1.sightings(2)[-1]["addresses"][0] == [net["a"].address, 4002]


async def test_two_daemons_of_a_host_without_a_network(network: MakeNetwork) -> None:
    net = await network(["a"])
    await net["a"].run("ip", "link", "set", "eth0", "down")
    a1, a2 = await Discoverer(1).start(net["a"]), await Discoverer(2, 4002).start(net["a"])
    await asyncio.gather(a1.sees(2), a2.sees(1))
    assert a1.sightings(2)[-1]["addresses"] == [["127.0.0.1", 4002]]


async def test_ipv6_alone(network: MakeNetwork) -> None:
    net = await network(["a", "b"])
    for host in net.hosts:
        await host.run("ip", "-4", "addr", "flush", "dev", "eth0")
    a, b = await Discoverer(1).start(net["a"]), await Discoverer(2).start(net["b"])
    await asyncio.gather(a.sees(2, at(net["b"].address6)), b.sees(1, at(net["a"].address6)))
    (first, _), (second, _) = a.sightings(2)[-1]["addresses"]
    assert (first, second[-5:]) == (net["b"].address6, "%eth0")


# Networks that change


async def test_another_address_is_seen(network: MakeNetwork) -> None:
    net = await network(["a", "b"])
    a, _ = await Discoverer(1).start(net["a"]), await Discoverer(2).start(net["b"])
    await a.sees(2)
    was = net["b"].address
    now = was.rpartition(".")[0] + ".77"
    await net["b"].run("ip", "addr", "del", f"{was}/24", "dev", "eth0")
    await net["b"].run("ip", "addr", "add", f"{now}/24", "dev", "eth0")
    await a.sees(2, lambda hosts: now in hosts and was not in hosts)
    assert not a.lost(2)


async def test_several_interfaces_and_one_that_appears_later(network: MakeNetwork) -> None:
    left, right = await network(["a", "b"]), await network(["c"])
    a, b = await Discoverer(1).start(left["a"]), await Discoverer(2).start(left["b"])
    c = await Discoverer(3).start(right["c"])
    await asyncio.gather(a.sees(2), b.sees(1), announced(c))
    assert not a.sightings(3)

    address = await right.attach(left["a"], "eth1")
    await asyncio.gather(a.sees(3), c.sees(1, at(address)), b.sees(1, at(address)))
    # Each is told first what is on its own network.
    assert c.sightings(1)[-1]["addresses"][0][0] == address
    assert b.sightings(1)[-1]["addresses"][0][0] == left["a"].address
    assert not b.sightings(3)
    assert a.logged("announced by mDNS")[-1]["interfaces"] == ["eth0", "eth1"]


async def test_an_interface_that_is_made_anew_with_its_address(network: MakeNetwork) -> None:
    net = await network(["a", "b"])
    a = await Discoverer(1).start(net["a"])
    await asked(net["b"], net["a"], 3)  # now it says nothing for a while, which would fail
    await net.detach(net["a"])
    await net.attach(net["a"], "eth0")
    await announced(a, 2)
    await Discoverer(2).start(net["b"])
    await a.sees(2)


async def test_only_the_named_interface_is_used(network: MakeNetwork) -> None:
    left, right = await network(["a", "b"]), await network(["c"])
    await right.attach(left["a"], "eth1")
    a = await Discoverer(1, 4001, "--interface", "eth1").start(left["a"])
    b, c = await Discoverer(2).start(left["b"]), await Discoverer(3).start(right["c"])
    await asyncio.gather(a.sees(3), c.sees(1), announced(b))
    assert left["a"].address not in dict(c.sightings(1)[-1]["addresses"])
    await Discoverer(4).start(left["b"])
    await b.sees(4)  # so b has had time for a, too
    assert not b.sightings(1)


async def test_a_named_interface_that_is_down_is_waited_for(network: MakeNetwork) -> None:
    net = await network(["a", "b"])
    await net["a"].run("ip", "link", "set", "eth0", "down")
    a = await Discoverer(1, 4001, "--interface", "eth0").start(net["a"])
    b = await Discoverer(2).start(net["b"])
    assert await a.warns() == "no network interface of eth0 is up and has an address"
    await net["a"].run("ip", "link", "set", "eth0", "up")
    await asyncio.gather(a.sees(2), b.sees(1))


async def test_a_named_interface_that_does_not_exist_is_refused(network: MakeNetwork) -> None:
    net = await network(["a"])
    a = await Discoverer(1, 4001, "--interface", "eth7").start(net["a"])
    with pytest.raises(AssertionError, match="there is no network interface 'eth7'"):
        await announced(a)
    assert await a.process.wait() == 1
    assert a.log[-1]["event"] == (
        "--mdns-interface: there is no network interface 'eth7' here, only lo, eth0"
    )


# Where it does not work


async def test_no_network_is_told_once_and_got_over(network: MakeNetwork) -> None:
    net = await network(["a", "b"])
    for name in ("eth0", "lo"):
        await net["a"].run("ip", "link", "set", name, "down")
    a, b = await Discoverer(1).start(net["a"]), await Discoverer(2).start(net["b"])
    assert await a.warns() == "no network interface is up and has an address"
    await net["a"].run("ip", "link", "set", "eth0", "up")
    await asyncio.gather(a.sees(2), b.sees(1))

    await net.unplug(net["a"])
    await net["a"].run("ip", "link", "set", "lo", "up")
    await announced(a, 2)
    assert a.logged("announced by mDNS")[-1]["interfaces"] == ["lo"]
    await net.plug(net["a"])
    await announced(a, 3)
    assert [entry["event"] for entry in a.log if entry["level"] != "info"] == ["mDNS does not work"]
    assert "--peer HOST:PORT" in a.logged("mDNS does not work")[0]["remedy"]
    assert await a.stop() == NOTHING_LEFT


async def test_a_port_that_somebody_keeps_for_himself(network: MakeNetwork) -> None:
    net = await network(["a", "b"])
    b = await Discoverer(2).start(net["b"])
    with net["a"].socket(kind=socket.SOCK_DGRAM) as taker:
        taker.bind(("", 5353))
        a = await Discoverer(1).start(net["a"])
        assert await a.warns() == "UDP port 5353 is taken by a program that does not share it"
    await asyncio.gather(a.sees(2), b.sees(1))
    assert len(a.logged("mDNS does not work")) == 1


async def test_sending_is_forbidden(network: MakeNetwork) -> None:
    net = await network(["a"])
    for command in ("iptables", "ip6tables"):
        await net["a"].run(command, "-A", "OUTPUT", "-p", "udp", "-j", "DROP")
    a = await Discoverer(1, 4001, "--ask-every", "1").start(net["a"])
    assert await a.warns() == "sending or receiving failed: Operation not permitted"
    assert await a.stop() == NOTHING_LEFT
    assert len(a.log) == 2  # that, and that it is announced


async def test_nodes_that_were_cut_off_when_they_started(network: MakeNetwork) -> None:
    net = await network(["a", "b", "watcher"])
    await net.split({net["a"]}, {net["b"]})
    a = await Discoverer(1, 4001, "--ask-every", "0.5").start(net["a"])
    b = await Discoverer(2).start(net["b"])
    await asyncio.gather(announced(a), announced(b))
    # zeroconf by itself asks thrice in this time, and never again before a quarter of an hour.
    assert await asked(net["watcher"], net["a"], 8) < 10
    await net.heal()
    await asyncio.gather(a.sees(2), b.sees(1))


async def asked(watcher: Host, host: Host, times: int) -> float:
    """Wait until a host has asked so often who is there; gives back the seconds that it took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    group = socket.inet_aton(MDNS[0]) + socket.inet_aton(watcher.address)
    with watcher.socket(kind=socket.SOCK_DGRAM) as listener:
        listener.bind(("", MDNS[1]))
        listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        async with asyncio.timeout(20):
            while times:
                data, (sender, _) = await loop.sock_recvfrom(listener, 9000)
                times -= sender == host.address and not data[2] & 0x80
    return loop.time() - began


# Strangers


def packet(
    instance: str,
    *,
    txt: dict[str, str] | bytes | None = None,
    port: int = 4001,
    address: str = "198.18.0.9",
) -> bytes:
    """An announcement as anybody could make one."""
    name, host = f"{instance}.{SERVICE}", f"{instance}.local."
    fields = {"txtvers": "1", "id": instance, "ver": "1", "cluster": ""} if txt is None else txt
    if isinstance(fields, dict):
        entries = [f"{key}={value}".encode() for key, value in fields.items()]
        fields = b"".join(bytes([len(entry)]) + entry for entry in entries)
    out = DNSOutgoing(RESPONSE)
    out.add_answer_at_time(DNSPointer(SERVICE, PTR, IN, 4500, name), 0)
    out.add_answer_at_time(DNSService(name, SRV, UNIQUE, 120, 0, 0, port, host), 0)
    out.add_answer_at_time(DNSText(name, TXT, UNIQUE, 4500, fields), 0)
    out.add_answer_at_time(DNSAddress(host, A, UNIQUE, 120, socket.inet_aton(address)), 0)
    return out.packets()[0]


async def send(host: Host, packets: Iterable[bytes]) -> None:
    loop = asyncio.get_running_loop()
    with host.socket(kind=socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(host.address))
        for one in packets:
            await loop.sock_sendto(sender, one, MDNS)


async def test_odd_announcements_are_ignored(network: MakeNetwork) -> None:
    net = await network(["a", "stranger"])
    a = await Discoverer(1).start(net["a"])
    await announced(a)
    x = node_id(0xBAD)
    good = packet(node_id(9), address=net["stranger"].address)
    txt = {"txtvers": "1", "id": x, "ver": "1", "cluster": ""}
    await send(
        net["stranger"],
        [
            packet("printer"),
            packet("printer.of.theirs"),
            packet(x.upper()),
            packet(x + "0"),
            packet(node_id(1)),  # a's own
            packet(x, txt={}),
            packet(x, txt=b"\xff" * 255),
            packet(x, txt=b"\x05id=\xff\xfe" * 30),
            packet(x, txt=txt | {"id": node_id(2)}),
            packet(x, txt=txt | {"txtvers": "2"}),
            packet(x, txt=txt | {"cluster": "<script>"}),
            packet(x, txt=txt | {"ver": "1\n2026 error: all is lost"}),
            packet(x, port=0),
            packet(x, address="127.0.0.1"),
            packet(x, address="0.0.0.0"),
            packet(x, address="224.0.0.251"),
            b"",
            b"\0" * 12,
            b"\xff" * 1400,
            struct.pack(">6H", 0, RESPONSE, 0, 65535, 0, 0),
            struct.pack(">6H", 0, RESPONSE, 0, 1, 0, 0) + b"\xc0\x0c" * 10,
            *(good[:length] for length in range(12, len(good), 5)),
        ],
    )
    await send(net["stranger"], [packet(node_id(8), address=net["stranger"].address)])
    await a.sees(8)
    assert {line.said["seen"]["node"] for line in a.lines if "seen" in line.said} <= {
        node_id(8),
        node_id(9),  # the longest piece of it may be the whole
    }
    assert [entry["event"] for entry in a.log] == ["announced by mDNS"]


async def test_a_flood_is_cut_off_and_told_once(network: MakeNetwork) -> None:
    net = await network(["a", "b", "stranger"])
    a = await Discoverer(1).start(net["a"])
    await announced(a)
    for first in range(1_000, 2_050, 50):  # few at a time, so that none is lost on the way
        await send(net["stranger"], (packet(node_id(n)) for n in range(first, first + 50)))
        await a.until(
            lambda last=first + 49: bool(a.sightings(last) or a.logged("mDNS does not work"))
        )
    await send(net["stranger"], (packet(node_id(n)) for n in range(3_000, 13_000)))
    assert await a.warns() == "more than 1000 nodes are announced: a flood"
    await Discoverer(2).start(net["b"])
    await a.sees(2, limit=30)
    seen = sum("seen" in line.said for line in a.lines)
    assert seen <= 1001 * len(a.logged("announced by mDNS"))
    assert {entry["event"] for entry in a.log} == {"announced by mDNS", "mDNS does not work"}
    assert len(a.logged("mDNS does not work")) == 1
    assert await a.stop() == NOTHING_LEFT
