"""NetworkService: the calls about the networks by which containers talk to each other."""

from __future__ import annotations

import asyncio
import re
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Any, Literal, Self

import structlog
from pydantic import AfterValidator, Field, model_validator
from typing_extensions import TypedDict

from container_manager.api.calls import Call
from container_manager.api.params import NoParams
from container_manager.api.resources import (
    Name,
    RemovedView,
    ResourceListParams,
    bears,
    callers_labels,
    created_view,
    strangers,
)
from container_manager.engine.errors import EngineRefused, EngineRejected, ObjectMissing
from container_manager.engine.networks import Network, Networks
from container_manager.engine.ownership import is_own, own_labels
from container_manager.errors import Conflict, NetworkNotFound
from container_manager.node import Node
from container_manager.spec import Model, check_fields
from container_manager.spec.labels import Labels

DENIED_FIELDS = dict.fromkeys(("options", "driver_opts"), "no driver options")
"""A bridge's options bind it to interfaces and addresses of the host."""

# Behind any other subnet the host and its containers would lose the machines that have these
# addresses. RFC 1918 (private use), RFC 6598 (shared), RFC 2544 (tests).
_PRIVATE = tuple(
    map(
        IPv4Network,
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "198.18.0.0/15"),
    )
)
_LONGEST_PREFIX = 30
"""Leaves two addresses: the gateway's and one container's."""

log = structlog.get_logger()


def _subnet(value: str) -> str:
    try:
        network = IPv4Network(value) if re.search(r"/[0-9]{1,2}$", value) else None
    except ValueError:
        network = None
    if network is None or network.prefixlen > _LONGEST_PREFIX:
        raise ValueError(
            f"is no IPv4 subnet of at most /{_LONGEST_PREFIX} in CIDR notation, with no bit set "
            'behind the prefix; write "10.77.0.0/24"'
        )
    if not any(network.subnet_of(private) for private in _PRIVATE):
        raise ValueError(f"must be within one of {', '.join(map(str, _PRIVATE))}")
    return str(network)


def _address(value: str) -> str:
    try:
        return str(IPv4Address(value))
    except ValueError:
        raise ValueError('is no IPv4 address; write "10.77.0.1"') from None


class NetworkCreateParams(Model):
    """NetworkService.Create."""

    name: Name = Field(description="The network's name; no two networks share one.")
    driver: Literal["bridge"] = Field(
        default="bridge", description="`bridge`: a network of this engine's containers."
    )
    internal: bool = Field(
        default=False, description="Without a way out: its containers reach only each other."
    )
    labels: Labels = Field(
        default_factory=dict, description="Labels for the network; List filters by them."
    )
    subnet: Annotated[str, AfterValidator(_subnet)] | None = Field(
        default=None,
        description="Its IPv4 addresses in CIDR notation, from a private range; without one the "
        "engine picks them.",
    )
    gateway: Annotated[str, AfterValidator(_address)] | None = Field(
        default=None, description="The host's own address in `subnet`, by default its first one."
    )

    @model_validator(mode="after")
    def _gateway_is_in_subnet(self) -> Self:
        if self.gateway is not None:
            if self.subnet is None:
                raise ValueError("gateway needs subnet, the addresses that it is one of")
            network, gateway = IPv4Network(self.subnet), IPv4Address(self.gateway)
            if gateway not in network or gateway in (
                network.network_address,
                network.broadcast_address,
            ):
                raise ValueError("gateway is no address for a host within subnet")
        return self


class NetworkParams(Model):
    """A call about one network."""

    name: Name = Field(description="The network's name.")


class NetworkView(TypedDict):
    """A network, as the engine shows it."""

    id: str
    name: str
    driver: str
    internal: bool
    subnet: str | None
    gateway: str | None
    labels: dict[str, str]
    managed: bool
    containers: int
    created_at: str | None


class NetworkListView(TypedDict):
    """The engine's networks, by name."""

    networks: list[NetworkView]
    truncated: bool


class NetworkService:
    """The networks of this node's engine. Only those that the node has made can be removed."""

    def __init__(self, networks: Networks, me: Node) -> None:
        """Make and remove `networks` in the name of the node `me`."""
        self._networks = networks
        self._me = me
        self._creating = asyncio.Lock()

    def calls(self) -> list[Call[Any]]:
        """All calls of this service."""
        name = "NetworkService."
        policy = partial(check_fields, denied=DENIED_FIELDS)
        return [
            Call(name + "Create", NetworkCreateParams, NetworkView, self.create, policy),
            Call(name + "List", ResourceListParams, NetworkListView, self.list),
            Call(name + "Remove", NetworkParams, RemovedView, self.remove),
            Call(name + "Prune", NoParams, RemovedView, self.prune),
        ]

    async def create(self, params: NetworkCreateParams) -> NetworkView:
        """Create a bridge network, on which containers find each other by name and alias.

        The engine's own check for a name that is taken is no lock; so that at least two calls to
        one node never make two networks of one name, they take turns.
        """
        taken = Conflict(
            f"A network {params.name} exists already. Choose another name, or use that one.",
            network=params.name,
        )
        async with self._creating:
            if any(one.name == params.name for one in await self._networks.list()):
                raise taken
            network = await self._networks.create(
                params.name,
                params.labels | own_labels(self._me),
                internal=params.internal,
                subnet=params.subnet,
                gateway=params.gateway,
            )
        return self._view(network)

    async def list(self, params: ResourceListParams) -> NetworkListView:
        """The networks of the engine, the node's own and all others."""
        found = [one for one in await self._networks.list() if bears(one.labels, params.label)]
        found.sort(key=lambda one: (one.name, one.id))
        return {
            "networks": [self._view(one) for one in found[: params.limit]],
            "truncated": len(found) > params.limit,
        }

    async def remove(self, params: NetworkParams) -> RemovedView:
        """Remove a network of the node's own that no running container is attached to."""
        named = [one for one in await self._networks.list() if one.name == params.name]
        if not named:
            raise NetworkNotFound
        own = [one for one in named if is_own(self._me, one.labels)]
        if not own:
            raise strangers("network", params.name, named[0].labels)
        try:
            for one in own:
                await self._networks.remove(one)
        except ObjectMissing as error:
            raise NetworkNotFound from error
        return {"removed": [params.name]}

    async def prune(self, params: NoParams) -> RemovedView:
        """Remove the node's own networks to which no container is attached, running or not.

        A job that waits for its deployment has no container yet: its network is not in use.
        """
        del params
        removed = []
        for one in await self._networks.list():
            if one.containers or not is_own(self._me, one.labels):
                continue
            try:
                await self._networks.remove(one)
            except (EngineRejected, EngineRefused) as error:  # in use since, or gone
                log.info("network not pruned", network=one.name, reason=str(error))
            else:
                removed.append(one.name)
        return {"removed": sorted(removed)}

    def _view(self, network: Network) -> NetworkView:
        return {
            "id": network.id,
            "name": network.name,
            "driver": network.driver,
            "internal": network.internal,
            "subnet": network.subnet,
            "gateway": network.gateway,
            "labels": callers_labels(network.labels),
            "managed": is_own(self._me, network.labels),
            "containers": network.containers,
            "created_at": created_view(network.created_at),
        }
