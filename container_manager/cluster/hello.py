"""The link's own words: what two nodes say of themselves at first, and that they refuse or go."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from container_manager.cluster.errors import FRAME, WIRE_VERSION, LinkRefused
from container_manager.cluster.frames import encode

WIRE = (1, 1)
"""The lowest and the highest version of the wire that this program speaks."""

# The link's own kinds of frames. Those that are not known here are ignored.
HELLO = 1
"""The first frame of either side."""
WELCOME = 2
"""The dialling side's answer to the other's hello; after it all other frames may follow."""
PING = 3
"""Said when there was nothing else to say: `{"time": seconds since 1970}`."""
BYE = 4
"""This node leaves."""
REFUSED = 5
"""The last word of a side that wants no link: `{"kind", "reason", "wire"}`."""

FIRST_KIND = 16
"""From here on kinds are the users' of a link."""

MAX_HELLO = 1 << 20
"""Bytes that a hello may have."""

_NODE, _RUN = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9a-f]{16}")
_MAX_TEXT = 255
_MAX_REASON = 500
_MAX_ADDRESSES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What a node says of itself at the start of a link."""

    node: str
    """Its id."""
    run: str
    """16 hexadecimal digits that are new at each start of the daemon."""
    name: str
    """For people."""
    version: str
    """Of the program."""
    addresses: tuple[str, ...] = ()
    """Where it can be dialled: `host:port`, `[host]:port` for IPv6."""
    vector: dict[str, int] = field(default_factory=dict)
    """Up to which sequence number it holds each feed."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What later versions add."""
    wire: tuple[int, int] = WIRE
    """The lowest and the highest version of the wire that it speaks."""

    def to_content(self) -> dict[str, Any]:
        """As it goes over the wire."""
        return {
            "wire": self.wire,
            "node": self.node,
            "run": self.run,
            "name": self.name,
            "version": self.version,
            "addresses": self.addresses,
            "vector": self.vector,
            "extra": self.extra,
        }

    @classmethod
    def from_content(cls, content: Any, mine: tuple[int, int] = WIRE) -> Hello:
        """What came over the wire. Fields that are not known here are ignored.

        Args:
            content: of the frame.
            mine: the versions of the wire that this node speaks. They are compared before all
                else, since the rest may look otherwise in other versions.

        Raises:
            LinkRefused: there is no common version, or this is no hello.
        """
        if not isinstance(content, dict):
            raise _strange("it is no map")
        theirs = _range(content.get("wire"))
        common(mine, theirs)
        node, run = content.get("node"), content.get("run")
        if not (isinstance(node, str) and _NODE.fullmatch(node)):
            raise _strange("node")
        if not (isinstance(run, str) and _RUN.fullmatch(run)):
            raise _strange("run")
        addresses, vector = content.get("addresses"), content.get("vector")
        if not (isinstance(addresses, list) and len(addresses) <= _MAX_ADDRESSES):
            raise _strange("addresses")
        if not (isinstance(vector, dict) and all(_is_count(seq) for seq in vector.values())):
            raise _strange("vector")
        extra = content.get("extra", {})
        if not isinstance(extra, dict):
            raise _strange("extra")
        return cls(
            node=node,
            run=run,
            name=_text("name", content.get("name")),
            version=_text("version", content.get("version")),
            addresses=tuple(_text("addresses", one) for one in addresses),
            vector=vector,
            extra=extra,
            wire=theirs,
        )


def common(mine: tuple[int, int], theirs: tuple[int, int]) -> int:
    """The highest version of the wire that both speak.

    Raises:
        LinkRefused: there is none.
    """
    version = min(mine[1], theirs[1])
    if version >= max(mine[0], theirs[0]):
        return version
    older = "this node" if mine[1] < theirs[0] else "it"
    raise LinkRefused(
        f"it speaks {_versions(theirs)}, this node {_versions(mine)}: upgrade {older}", WIRE_VERSION
    )


def refusal(error: LinkRefused, mine: tuple[int, int] = WIRE) -> bytes:
    """The frame that tells the other side why."""
    return encode(REFUSED, {"kind": error.kind, "reason": error.reason[:_MAX_REASON], "wire": mine})


def refused(content: Any, mine: tuple[int, int] = WIRE) -> LinkRefused:
    """What the other side's refusal says to people on this side."""
    fields = content if isinstance(content, dict) else {}
    kind, reason, wire = (fields.get(name) for name in ("kind", "reason", "wire"))
    if not (isinstance(kind, str) and re.fullmatch(r"[a-z0-9_]{1,32}", kind)):
        kind = FRAME
    if kind == WIRE_VERSION:
        try:
            common(mine, _range(wire))
        except LinkRefused as error:
            return error
    if not (isinstance(reason, str) and reason.isprintable()):
        reason = "no reason given"
    return LinkRefused(f"it refuses this node, in its own words: {reason[:_MAX_REASON]}", kind)


def _range(wire: Any) -> tuple[int, int]:
    if isinstance(wire, list) and len(wire) == 2 and all(_is_count(one) for one in wire):
        return (wire[0], wire[1])
    raise _strange("wire")


def _versions(wire: tuple[int, int]) -> str:
    low, high = wire
    return f"wire version {low}" if low == high else f"wire versions {low} to {high}"


def _text(name: str, value: Any) -> str:
    # Printable, since it goes into logs and onto terminals.
    if isinstance(value, str) and len(value) <= _MAX_TEXT and value.isprintable():
        return value
    raise _strange(name)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _strange(what: str) -> LinkRefused:
    return LinkRefused(f"its hello is malformed ({what})", FRAME)
