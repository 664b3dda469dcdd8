"""Which network interfaces carry mDNS: a look at those there are, and the choice among them.

mDNS stays on the link, so it is spoken on each interface by itself. A machine that runs containers
has dozens that lead nowhere but into itself: these are left out, unless there is nothing else.
"""

from __future__ import annotations

import fcntl
import re
import socket
import struct
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_interface

import ifaddr

_LOOPBACK = re.compile(r"lo\d*$")

_OF_THIS_MACHINE = re.compile(
    # docker0 and Docker's own networks; a bridge that a person named, as br-lan, is a real one.
    r"docker|br-[0-9a-f]{12}$|veth|virbr|vnet|podman|cni|cali|flannel|lxc|lxdbr"
)
"""Names of what engines, hypervisors and network plugins make for their guests."""

_UP, _RUNNING, _MULTICAST = 0x1, 0x40, 0x1000  # netdevice(7)
_SIOCGIFFLAGS = 0x8913  # of Linux

Address = IPv4Interface | IPv6Interface


class UnknownInterface(Exception):
    """A name that was given is no network interface of this machine."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """One network interface as it was when somebody looked."""

    name: str
    index: int
    addresses: tuple[Address, ...]
    """With their networks; those of IPv6 that the kernel is still checking are left out."""

    ready: bool = True
    """Up and with a carrier."""

    multicast: bool = True

    @property
    def loopback(self) -> bool:
        """Whether this is `lo`, where IPv6 has no multicast and only 127.0.0.1 is of use."""
        return _LOOPBACK.match(self.name) is not None

    @property
    def hosts(self) -> tuple[Address, ...]:
        """The addresses at which others can be told to call."""
        if self.loopback:
            return tuple(one for one in self.addresses if one.version == 4 and one.ip.is_loopback)
        return self.addresses


def require(names: Iterable[str]) -> None:
    """Check that these interfaces exist; they need be neither up nor have an address.

    Raises:
        UnknownInterface: one does not; the message names it, the setting and those there are.
    """
    known = [name for _, name in socket.if_nameindex()]
    for name in names:
        if name not in known:
            raise UnknownInterface(
                f"--mdns-interface: there is no network interface {name!r} here, "
                f"only {', '.join(known) or 'none'}"
            )


def look() -> tuple[Adapter, ...]:
    """The interfaces that have an address now. Takes about a millisecond.

    Raises:
        OSError: the system does not tell.
    """
    adapters = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for found in ifaddr.get_adapters():
            index = found.index
            flags = _flags(any_socket, found.name)
            if index is None or not flags & _UP:
                continue
            addresses = (_address(one) for one in found.ips)
            adapters.append(
                Adapter(
                    found.name,
                    index,
                    tuple(
                        sorted(
                            filter(None, (_settled(one, index) for one in addresses)), key=_order
                        )
                    ),
                    ready=bool(flags & _RUNNING),
                    multicast=bool(flags & _MULTICAST),
                )
            )
    return tuple(sorted(adapters, key=lambda one: one.index))


def choose(adapters: Iterable[Adapter], names: Sequence[str] = ()) -> tuple[Adapter, ...]:
    """Choose where to speak mDNS: the named ones, or all that lead to other machines.

    Where none does, those that lead to guests of this one; where none of these is there either,
    loopback, so that two daemons of one machine find each other. None at all is an empty answer:
    look again later.
    """
    ready = [one for one in adapters if one.ready and one.hosts]
    if names:
        return tuple(one for one in ready if one.name in names)
    spoken = [one for one in ready if one.multicast and not one.loopback]
    outward = [one for one in spoken if not _OF_THIS_MACHINE.match(one.name)]
    return tuple(outward or spoken or [one for one in ready if one.loopback])


def senders(chosen: Iterable[Adapter], adapters: Iterable[Adapter]) -> list[str | int]:
    """Where to send from, as zeroconf wants to be told: an address or an interface's index.

    One of each family for each interface, however many addresses it has: each further one would
    send everything once more. Of IPv6 the link-local one, since only of packets from there the
    kernel says on which link they came in, and without it a link-local address is worthless.
    """
    everywhere = [one.ip for adapter in adapters for one in adapter.addresses]
    found: list[str | int] = []
    for adapter in chosen:
        found += [str(one.ip) for one in adapter.hosts if one.version == 4][:1]
        ipv6 = [one.ip for one in adapter.hosts if one.version == 6]
        if ipv6:
            # VLANs of one card share its link-local address, and only the index tells them apart.
            unique = [str(ip) for ip in ipv6 if everywhere.count(ip) == 1]
            found.append(unique[0] if unique else adapter.index)
    return found


def _flags(any_socket: socket.socket, name: str) -> int:
    if sys.platform != "linux":
        return _UP | _RUNNING | _MULTICAST
    try:
        answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16sH22x", name.encode(), 0))
    except OSError:  # gone since
        return 0
    return int(struct.unpack_from("16xH", answer)[0])


def _address(found: ifaddr.IP) -> Address:
    ip = found.ip if isinstance(found.ip, str) else found.ip[0]
    return ip_interface(f"{ip}/{found.network_prefix}")


def _settled(address: Address, index: int) -> Address | None:
    """The address, if it can be used: one that the kernel is still checking cannot be bound to."""
    if address.version == 6:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((str(address.ip), 0, 0, index if address.is_link_local else 0))
            except OSError:
                return None
    return address


def _order(address: Address) -> tuple[int, bool, int]:
    """IPv4 first; of IPv6 the link-local address first."""
    return address.version, not address.is_link_local, int(address.ip)
