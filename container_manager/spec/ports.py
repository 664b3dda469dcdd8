"""Published ports, as `docker run --publish` writes them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from container_manager.spec.model import Model, at, listed

MAX_PORTS = 1000
"""Ports of one container, ranges counted out: the engine starts a process for each."""

_FORM = re.compile(
    r"(?:(?:(?:\[(?P<ip6>[^\[\]]*)\]|(?P<ip>[^\[\]:]*)):)?(?P<host>[^\[\]:/]*):)?"
    r"(?P<container>[^\[\]:/]+)(?:/(?P<protocol>[a-zA-Z]+))?"
)
_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)
_HINT = 'write "80", "8080:80", "127.0.0.1:8080:80/udp", "[::1]:8080:80" or "8000-8009:80-89"'


def ip(value: str) -> str:
    """An IP address in its usual form.

    Raises:
        ValueError: it is none; addresses with a zone are none to the engine.
    """
    try:
        address = ip_address(value)
    except ValueError:
        address = None
    if address is None or "%" in value:
        raise ValueError("is no IP address")
    return str(address)


class Port(Model):
    """A port of the container, published on the node."""

    container_port: Annotated[int, Field(ge=1, le=65535)] = Field(
        description="The port inside the container."
    )
    host_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=0, description="The node's port; 0 lets the engine pick one."
    )
    host_port_end: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        default=None,
        description="With it the engine picks one of the ports from host_port to this one.",
    )
    host_ip: Annotated[str, AfterValidator(ip)] | None = Field(
        default=None, description="The node's address to listen on; all, where there is none."
    )
    protocol: Literal["tcp", "udp", "sctp"] = Field(default="tcp", description="The protocol.")

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.host_port_end is not None and not 0 < self.host_port < self.host_port_end:
            raise ValueError("host_port_end is the end of a range that host_port begins")
        return self


def parse_port(text: str) -> Iterator[Port]:
    """The ports that one form of `--publish` names: several, where it gives a range.

    Raises:
        ValueError: it is no such form.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"is no port; {_HINT}")
    common: dict[str, Any] = {}
    if match["ip"] or match["ip6"] is not None:
        common["host_ip"] = ip(match["ip"] or match["ip6"])
    if (protocol := (match["protocol"] or "tcp").lower()) != "tcp":
        common["protocol"] = protocol
    first, last = _range(match["container"])
    if not match["host"] or match["host"] == "0":
        if match["host"] and first != last:
            raise ValueError("a range of ports has a range of the node's ports, or none")
        return (Port(container_port=port, **common) for port in range(first, last + 1))
    from_, to = _range(match["host"])
    if to - from_ == last - first:
        shift = from_ - first
        return (
            Port(container_port=port, host_port=port + shift, **common)
            for port in range(first, last + 1)
        )
    if first != last:
        raise ValueError("the two ranges of ports are not of one length")
    return iter((Port(container_port=first, host_port=from_, host_port_end=to, **common),))


def _range(text: str) -> tuple[int, int]:
    match = _RANGE.fullmatch(text)
    if match is None:
        raise ValueError(f"is no port; {_HINT}")
    first, last = int(match[1]), int(match[2] or match[1])
    if not 0 < first <= last <= 65535:
        raise ValueError("a port is a number from 1 to 65535, and a range of ports rises")
    return first, last


def _ports(value: Any) -> tuple[Port, ...]:
    ports: list[Port] = []
    for index, item in enumerate(listed(value)):
        try:
            for port in _one(item):
                ports.append(port)
                if len(ports) > MAX_PORTS:
                    raise ValueError(f"more than {MAX_PORTS} ports")
        except ValueError as error:
            raise at(index, error) from None
    bound = [(p.host_ip, p.host_port, p.protocol) for p in ports if p.host_port_end is None]
    fixed = [one for one in bound if one[1] != 0]
    if len(set(fixed)) < len(fixed):
        raise ValueError("a port of the node can be given only once")
    return tuple(ports)


def _one(item: Any) -> Iterator[Port]:
    if isinstance(item, str):
        return parse_port(item)
    if type(item) is int:
        return parse_port(str(item))
    if isinstance(item, dict | Port):
        return iter((Port.model_validate(item),))
    raise ValueError(f"is no port; {_HINT}")


_Input = Annotated[list[str | int | Port], Field(max_length=MAX_PORTS)]
Ports = Annotated[tuple[Port, ...], BeforeValidator(_ports, json_schema_input_type=_Input)]
