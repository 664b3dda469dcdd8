"""Networks, and how containers on them find each other."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from container_manager.spec.model import LISTED, Model, at, listed
from container_manager.spec.names import MAX_NAME, is_host_name, is_name

MAX_NETWORKS = 64

_NETWORK = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_ID = re.compile(r"[0-9a-f]{12}|[0-9a-f]{64}")
# What another process's network is asked for by: container:NAME, ns:PATH and, in Compose, service.
_SHARED = ("container:", "ns:", "service:")


def is_foreign_namespace(network: Any) -> bool:
    """Whether a network, as a caller wrote it, is that of the host or of another container."""
    return isinstance(network, str) and (network == "host" or network.startswith(_SHARED))


def denied_networks(value: Any) -> bool:
    """Whether networks that were refused asked for what is never granted."""
    if isinstance(value, list):
        names = [one.get("name") if isinstance(one, dict) else one for one in value]
    else:
        names = list(value) if isinstance(value, dict) else [value]
    return any(map(is_foreign_namespace, names))


def _network_name(value: str) -> str:
    if is_foreign_namespace(value):
        raise ValueError("networks of the host and of other containers are denied")
    if not _NETWORK.fullmatch(value):
        raise ValueError("a network's name takes letters, digits, '_', '.' and '-'")
    if _ID.fullmatch(value):
        raise ValueError("give the network's name: ids differ from engine to engine")
    return value


def _attached(value: str) -> str:
    if value in ("none", "default"):
        raise ValueError(f'write "network_mode": "{value}"')
    return _network_name(value)


def _alias(value: str) -> str:
    if not is_host_name(value):
        raise ValueError("an alias takes letters, digits, '_', '.' and '-', 64 at most")
    return value


_Aliases = Annotated[
    tuple[Annotated[str, AfterValidator(_alias)], ...], Field(max_length=MAX_NETWORKS), LISTED
]


class Attachment(Model):
    """How a container is on a network."""

    aliases: _Aliases = Field(
        default=(), description="Names by which others on the network find the container, too."
    )


class Network(Attachment):
    """A network that a container is on."""

    name: Annotated[str, Field(max_length=MAX_NAME), AfterValidator(_attached)] = Field(
        description="The network's name."
    )


def _networks(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple(_network(name, attachment) for name, attachment in value.items())
    return listed(value)


def _network(name: str, attachment: Any) -> Network:
    try:
        found = Attachment.model_validate({} if attachment is None else attachment)
        return Network(name=name, **found.model_dump(exclude_unset=True))
    except ValueError as error:
        raise at(name, error) from None


def _form(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _fitting(networks: tuple[Network, ...]) -> tuple[Network, ...]:
    if len({network.name for network in networks}) < len(networks):
        raise ValueError("a network can be given only once")
    if any(network.name == "bridge" and network.aliases for network in networks):
        raise ValueError('the default network "bridge" has no aliases; make a network of your own')
    return networks


def _link(value: str) -> str:
    container, colon, alias = value.partition(":")
    # Without an alias, or with itself for one, it goes by its own name, as the engine has it.
    named = not colon or alias == container or is_host_name(alias)
    if not is_name(container) or not named:
        raise ValueError('is no link; write "container" or "container:alias"')
    return f"{container}:{alias or container}"


_Network = Annotated[Network, BeforeValidator(_form, json_schema_input_type=str | Network)]
_NetworksInput = list[str | Network] | dict[str, Attachment | None]

Networks = Annotated[
    tuple[_Network, ...],
    Field(max_length=MAX_NETWORKS),
    BeforeValidator(_networks, json_schema_input_type=_NetworksInput),
    AfterValidator(_fitting),
]
NetworkMode = Annotated[str, Field(max_length=MAX_NAME), AfterValidator(_network_name)]
Links = Annotated[
    tuple[Annotated[str, AfterValidator(_link)], ...], Field(max_length=MAX_NETWORKS), LISTED
]
