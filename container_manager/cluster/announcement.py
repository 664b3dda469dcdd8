"""What nodes say of themselves by mDNS, and what is made of what others say.

Anybody on the network can announce anything. So a sighting is a hint at best, each field has a
form and a limit, and what is odd is no sighting.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from container_manager.cluster.interfaces import Adapter

SERVICE = "_container-mgr._tcp.local."
TXT_VERSION = "1"
MOST_ADDRESSES = 16
"""So many of one node's are kept and announced."""

_FORMS = {
    "id": re.compile(r"[0-9a-f]{32}", re.ASCII),
    "run": re.compile(r"[0-9a-f]{0,32}", re.ASCII),
    "ver": re.compile(r"[0-9A-Za-z.+_~-]{0,64}", re.ASCII),
    "cluster": re.compile(r"[0-9a-f]{0,64}", re.ASCII),
}
_TXT_VERSION_KEY = b"txtvers"


@dataclass(frozen=True, slots=True)
class Sighting:
    """Somebody announces this node. Nothing of it is proved."""

    node: str
    """The id: 32 hexadecimal digits."""

    run: str
    """Which start of that daemon this is; empty where it is not said."""

    version: str
    cluster: str
    """A short hash of the cluster's authority; empty without a cluster secret."""

    addresses: tuple[tuple[str, int], ...]
    """Host and port, the most promising first; never empty. Link-local ones as `fe80::1%eth0`."""


def properties(node: str, *, run: str, version: str, cluster: str) -> dict[str, str]:
    """The TXT record, as RFC 6763 section 6 has it: at most some 250 bytes.

    Raises:
        ValueError: a value has not the form that others will take.
    """
    values = {"id": node, "run": run, "ver": version, "cluster": cluster}
    for key, value in values.items():
        if not _FORMS[key].fullmatch(value):
            raise ValueError(f"{key} cannot be announced as {value!r}")
    return {_TXT_VERSION_KEY.decode(): TXT_VERSION, **values}


def node_of(instance: str) -> str | None:
    """The node id in a full instance name such as `<id>._container-mgr._tcp.local.`."""
    label = instance.removesuffix(f".{SERVICE}")
    return label if label != instance and _FORMS["id"].fullmatch(label) else None


def sighting(
    node: str,
    txt: Mapping[bytes, bytes | None],
    hosts: Iterable[str],
    port: int | None,
    *,
    at: Sequence[Adapter],
) -> Sighting | None:
    """What an announcement of `node` comes to, for who listens on these interfaces.

    `hosts` are addresses, those of IPv6 with a scope (`%2`) where it is known. Keys that nobody
    here knows are ignored, so that later versions can add some.
    """
    said = {key: (txt.get(key.encode()) or b"").decode("ascii", "replace") for key in _FORMS}
    usable = _usable(hosts, at)
    if (
        txt.get(_TXT_VERSION_KEY) != TXT_VERSION.encode()
        or said["id"] != node
        or not all(_FORMS[key].fullmatch(value) for key, value in said.items())
        or not port
        or not usable
    ):
        return None
    return Sighting(
        node=node,
        run=said["run"],
        version=said["ver"],
        cluster=said["cluster"],
        addresses=tuple((host, port) for host in usable),
    )


def _usable(hosts: Iterable[str], at: Sequence[Adapter]) -> list[str]:
    """Those of the hosts that can be called from here, in the order in which to try them."""
    networks = [address.network for adapter in at for address in adapter.hosts]
    names = {str(adapter.index): adapter.name for adapter in at}
    local = any(adapter.loopback for adapter in at)
    found: list[tuple[int, int, int, str]] = []
    for text in hosts:
        ip = ip_address(text)
        host = text
        if ip.is_multicast or ip.is_unspecified or ip == IPv4Address("255.255.255.255"):
            continue
        if ip.is_loopback and not local:
            continue  # or a stranger could have this node call itself
        linked = isinstance(ip, IPv6Address) and ip.is_link_local
        if isinstance(ip, IPv6Address) and linked:
            name = names.get(ip.scope_id or "")
            if name is None:
                continue
            host = f"{text.partition('%')[0]}%{name}"
        # On one of our networks; on our link; perhaps behind a router.
        rank = 1 if linked else 0 if any(ip in network for network in networks) else 2
        found.append((rank, ip.version, int(ip), host))
    return [host for *_, host in sorted(found)][:MOST_ADDRESSES]
