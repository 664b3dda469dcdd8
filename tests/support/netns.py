"""Hosts on one machine: network namespaces around a bridge, and faults between them.

    async with Network(["a", "b", "c"]) as net:               # or Network(3); or the fixture
        a, b, c = net.hosts                                   # `network`, which skips without root
        await a.run("ping", "-c", "1", b.address)             # waits; gives back what it printed
        process = await a.start(sys.executable, "-m", "…")    # an asyncio subprocess, killed in
                                                              # the end if it still runs
        await net.split({a}, {b, c})                          # faults add up until they are healed
        await net.isolate(c)
        await net.one_way(a, b)                               # nothing from a reaches b
        await net.loss(b, 0.3)                                # of all that b sends and receives
        await net.heal()

        aiohttp.ClientSession(connector=a.connector())        # calls to a's own 127.0.0.1, which
                                                              # no fault touches
        await other_net.attach(a, "eth1")                      # a second network on one host

The bridge has a namespace of its own, so that nothing of this stands among the machine's own
interfaces, and the machine's packet filter has no say in it. Packets are dropped where they
arrive, by the sender's MAC address: a filter on the way out would tell the sender (EPERM). So ARP
still passes. There is no route out of a network.

Addresses are from 198.18.0.0/15 and 2001:2::/48, set aside for tests of networks by RFC 2544 and
RFC 5180. The kernel's check for duplicate IPv6 addresses is off: they work at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import itertools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

CHAIN = "CM-FAULTS"
_CLONE_NEWNET = 0x40000000
_numbers = itertools.count(1)


@functools.cache
def unavailable() -> str:
    """Why there can be no network namespaces here; empty where there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [name for name in ("ip", "iptables", "ip6tables") if not shutil.which(name)]
    if missing:
        return f"network namespaces need {', '.join(missing)} (Debian: iproute2, iptables)"
    name = f"cm-t-{secrets.token_hex(2)}-try"
    refused = _said("ip", "netns", "add", name)
    _said("ip", "netns", "del", name)
    return f"no network namespaces here: {refused}" if refused else ""


@dataclass(eq=False)
class Host:
    """One host: its namespace, its first interface and what was started on it."""

    name: str
    namespace: str
    address: str = ""
    """Of its interface eth0 in the first network, as `address6` and `mac` are."""
    address6: str = ""
    mac: str = ""
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<host {self.name} {self.address}>"

    async def start(self, *argv: str, **options: Any) -> asyncio.subprocess.Process:
        """Start a process on this host; options are those of `create_subprocess_exec`.

        It has the process id of the command itself, so that signals reach it.
        """
        command = ("ip", "netns", "exec", self.namespace, *argv)
        process = await asyncio.create_subprocess_exec(*command, **options)
        self.processes.append(process)
        return process

    async def run(self, *argv: str, stdin: str = "", timeout: float = 10.0) -> str:
        """Run a command to its end and give back its output; an error has what it said."""
        return await _run(
            "ip", "netns", "exec", self.namespace, *argv, stdin=stdin, timeout=timeout
        )

    def socket(
        self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, proto: int = 0
    ) -> socket.socket:
        """A socket in this host's network, for a process that isn't: this one."""
        made: list[socket.socket] = []

        def make() -> None:
            # The namespace is the thread's, and ends with it.
            with Path(f"/run/netns/{self.namespace}").open("rb") as namespace:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"setns to {self.namespace}")
            made.append(socket.socket(family, kind, proto))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        made[0].setblocking(False)
        return made[0]

    def connector(self) -> aiohttp.TCPConnector:
        """Connections of an aiohttp client from this host; to addresses, not to names."""
        return aiohttp.TCPConnector(socket_factory=lambda info: self.socket(*info[:3]))


@dataclass(frozen=True)
class _Port:
    """Where a host is plugged in."""

    number: int
    interface: str
    mac: str


class Network:
    """Hosts on one bridge. Use it as an async context manager: in the end nothing is left."""

    def __init__(self, hosts: int | Sequence[str]) -> None:
        """Name the hosts, or say how many there shall be."""
        names = [f"h{n}" for n in range(1, hosts + 1)] if isinstance(hosts, int) else hosts
        self._name = f"cm-t-{secrets.token_hex(2)}"
        self._number = next(_numbers) % 256
        self.hosts = [Host(name, f"{self._name}-{name}") for name in names]
        self._ports: dict[Host, _Port] = {}
        self._blocked: set[tuple[Host, Host]] = set()
        self._loss: dict[Host, float] = {}

    def __getitem__(self, name: str) -> Host:
        return next(host for host in self.hosts if host.name == name)

    async def __aenter__(self) -> Network:
        try:
            spaces = [self._name, *(host.namespace for host in self.hosts)]
            await _batch(f"netns add {space}" for space in spaces)
            # Without snooping a bridge is a plain switch, which floods each multicast.
            await _batch(
                ["link add switch type bridge mcast_snooping 0", "link set switch up"],
                self._name,
            )
            await asyncio.gather(*(self._prepare(host) for host in self.hosts))
            for host in self.hosts:
                await self.attach(host, "eth0")
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Kill what runs on the hosts, and remove them."""
        # All that matters is done before the first await: a cancellation cannot come between.
        for host in self.hosts:
            for pid in _said("ip", "netns", "pids", host.namespace).split():
                with contextlib.suppress(ProcessLookupError, ValueError):  # gone; no such space
                    os.kill(int(pid), signal.SIGKILL)
        for space in [*(host.namespace for host in self.hosts), self._name]:
            _said("ip", "netns", "del", space)
        for host in self.hosts:
            await asyncio.gather(*(process.wait() for process in host.processes))

    async def attach(self, host: Host, interface: str) -> str:
        """Plug a host in, by an interface that it hasn't yet; give back its address there.

        The host may be another network's, which then has several interfaces.
        """
        n = self._ports[host].number if host in self._ports else len(self._ports) + 1
        mac = f"02:00:c6:12:{self._number:02x}:{n:02x}"
        address, address6 = f"198.18.{self._number}.{n}", f"2001:2:0:{self._number:x}::{n:x}"
        self._ports[host] = _Port(n, interface, mac)
        if not host.address:
            host.address, host.address6, host.mac = address, address6, mac
        peer = f"peer name {interface} netns {host.namespace} address {mac}"
        await _batch([f"link add port{n} netns {self._name} type veth {peer}"])
        await _batch([f"link set port{n} master switch", f"link set port{n} up"], self._name)
        await _batch(
            [
                f"addr add {address}/24 dev {interface}",
                f"addr add {address6}/64 dev {interface} nodad",
                f"link set {interface} up",
            ],
            host.namespace,
        )
        return address

    async def unplug(self, host: Host) -> None:
        """Pull the cable: the interface stays and has no carrier."""
        await _batch([f"link set port{self._ports[host].number} down"], self._name)

    async def plug(self, host: Host) -> None:
        """Put the cable back."""
        await _batch([f"link set port{self._ports[host].number} up"], self._name)

    async def detach(self, host: Host) -> None:
        """Remove the interface; `attach` then makes another one with the same addresses."""
        await _batch([f"link del port{self._ports[host].number}"], self._name)

    # Faults

    async def split(self, *groups: Collection[Host]) -> None:
        """Cut all ways between the groups; hosts in none of them keep theirs to everybody."""
        for one, other in itertools.permutations(groups, 2):
            self._blocked |= set(itertools.product(one, other))
        await self._apply()

    async def isolate(self, host: Host) -> None:
        """Cut a host off from all others, in both directions."""
        await self.split({host}, set(self._ports) - {host})

    async def one_way(self, sender: Host, receiver: Host) -> None:
        """Let nothing from `sender` reach `receiver`; the other direction stays."""
        self._blocked.add((sender, receiver))
        await self._apply()

    async def loss(self, host: Host, share: float) -> None:
        """Lose this share (0 to 1), at random, of all that a host receives, and of all it sends."""
        self._loss[host] = share
        await self._apply()

    async def heal(self) -> None:
        """End all faults."""
        self._blocked.clear()
        self._loss.clear()
        await self._apply()

    def rules(self, receiver: Host) -> list[str]:
        """What `receiver` drops, as rules for iptables and ip6tables alike."""
        port = self._ports[receiver]
        rules = [
            f"-m mac --mac-source {self._ports[sender].mac}"
            for sender, to in sorted(self._blocked, key=lambda pair: pair[0].name)
            if to is receiver
        ]
        for host, share in self._loss.items():
            of = f"-i {port.interface}"
            if host is not receiver:
                of += f" -m mac --mac-source {self._ports[host].mac}"
            rules.append(f"{of} -m statistic --mode random --probability {share}")
        return [f"-A {CHAIN} {rule} -j DROP" for rule in rules]

    async def _apply(self) -> None:
        # Naming a chain empties it, and the whole is one transaction.
        await asyncio.gather(
            *(_filter(host, [f":{CHAIN} - [0:0]", *self.rules(host)]) for host in self._ports)
        )

    async def _prepare(self, host: Host) -> None:
        conf = "/proc/sys/net/ipv6/conf/{}/{}"
        settings = {
            conf.format("default", "accept_dad"): 0,
            conf.format("default", "accept_ra"): 0,
            # An interface that goes down and up keeps its addresses, as IPv4's stay.
            conf.format("default", "keep_addr_on_down"): 1,
        }
        script = [f"echo {value} >{path}" for path, value in settings.items()]
        await host.run("sh", "-e", "-c", "\n".join([*script, "ip link set lo up"]))
        await _filter(host, [f":{CHAIN} - [0:0]", f"-A INPUT -j {CHAIN}"])


async def _filter(host: Host, lines: Iterable[str]) -> None:
    table = "\n".join(["*filter", *lines, "COMMIT", ""])
    for command in ("iptables-restore", "ip6tables-restore"):
        await host.run(command, "--wait", "--noflush", stdin=table)


async def _batch(lines: Iterable[str], namespace: str = "") -> None:
    where = ("-n", namespace) if namespace else ()
    await _run("ip", *where, "-batch", "-", stdin="\n".join([*lines, ""]))


async def _run(*argv: str, stdin: str = "", timeout: float = 10.0) -> str:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        async with asyncio.timeout(timeout):
            out, err = await process.communicate(stdin.encode())
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    if process.returncode:
        said = (err or out).decode(errors="replace").strip()
        raise AssertionError(f"{' '.join(argv)} ended with {process.returncode}: {said}\n{stdin}")
    return out.decode(errors="replace")


def _said(*argv: str) -> str:
    pipe = subprocess.PIPE
    done = subprocess.run(argv, stdout=pipe, stderr=subprocess.STDOUT, text=True, check=False)
    return done.stdout.strip()
