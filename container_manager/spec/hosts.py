"""What a container is called among hosts, and how it finds others."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from container_manager.spec.model import LISTED, listed
from container_manager.spec.names import is_host_name
from container_manager.spec.ports import ip

MAX_HOSTS = 256
HOST_GATEWAY = "host-gateway"
"""Stands for the address by which containers reach the node."""


def _host_name(value: str) -> str:
    if not is_host_name(value):
        raise ValueError("a host's name takes letters, digits, '-', '_' and '.', 64 at most")
    return value


def _extra_host(value: str) -> str:
    """As the Docker client has it: "name:ip", "name=ip", an IPv6 address in brackets or not."""
    name, sign, address = value.partition("=" if "=" in value else ":")
    if not sign:
        raise ValueError('write "name:address"')
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    return f"{_host_name(name)}:{address if address == HOST_GATEWAY else ip(address)}"


def _extra_hosts(value: Any) -> Any:
    if not isinstance(value, dict):
        return listed(value)
    hosts: list[str] = []
    for name, addresses in value.items():
        for address in addresses if isinstance(addresses, list) else [addresses]:
            if not isinstance(address, str):
                raise ValueError('write {"name": "address"}')
            hosts.append(f"{name}={address}")
    return tuple(hosts)


_ExtraHostsInput = list[str] | dict[str, str | list[str]]

HostName = Annotated[str, AfterValidator(_host_name)]
Dns = Annotated[tuple[Annotated[str, AfterValidator(ip)], ...], Field(max_length=MAX_HOSTS), LISTED]
ExtraHosts = Annotated[
    tuple[Annotated[str, AfterValidator(_extra_host)], ...],
    Field(max_length=MAX_HOSTS),
    BeforeValidator(_extra_hosts, json_schema_input_type=_ExtraHostsInput),
]
