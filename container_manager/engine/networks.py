"""The engine's networks.

Source: https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Network
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from container_manager.engine.docker import Engine
from container_manager.engine.podman import is_podman


@dataclass(frozen=True, slots=True)
class Network:
    """A network as the engine shows it."""

    id: str
    name: str
    driver: str
    internal: bool
    subnet: str | None
    """CIDR of its first pool of IPv4 addresses; None where it has none, as `host`."""
    gateway: str | None
    labels: Mapping[str, str]
    created_at: str
    """RFC 3339."""
    containers: int
    """How many containers are attached to it, running or not."""


class Networks:
    """The calls about networks. Each raises `EngineError` as all calls to the engine do."""

    def __init__(self, engine: Engine) -> None:
        """Ask `engine`."""
        self._engine = engine

    async def list(self) -> list[Network]:
        """All networks of the engine."""
        # First the networks, then who uses them: an attachment made in between is seen.
        shown = await self._engine.request("GET", "networks")
        containers = await self._engine.request("GET", "containers/json", query={"all": "1"})
        users = attached(containers)
        return [_network(one, users[one["Id"]] + users[one["Name"]]) for one in shown]

    async def create(
        self,
        name: str,
        labels: Mapping[str, str],
        *,
        internal: bool = False,
        subnet: str | None = None,
        gateway: str | None = None,
    ) -> Network:
        """Create a bridge network; the engine picks the addresses that are not given.

        Raises:
            EngineRefused: one of the name exists, as far as the engine has noticed: its check is
                no lock.
        """
        document: dict[str, Any] = {
            "Name": name,
            "CheckDuplicate": True,
            "Driver": "bridge",
            "Internal": internal,
            "Labels": dict(labels),
        }
        if subnet is not None:
            pool = {"Subnet": subnet}
            if gateway is not None:
                pool["Gateway"] = gateway
            document["IPAM"] = {"Driver": "default", "Config": [pool]}
        made = await self._engine.request("POST", "networks/create", body=document)
        return _network(await self._engine.request("GET", f"networks/{made['Id']}"), 0)

    async def remove(self, network: Network) -> None:
        """Remove a network: by its id, since several may have one name.

        Raises:
            ObjectMissing: there is none.
            EngineRejected: a running container is attached to it.
        """
        # With Podman no two have one name, and given an id it removes one that is in use.
        key = network.name if is_podman(self._engine.version) else network.id
        await self._engine.request("DELETE", f"networks/{key}")


def attached(containers: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """How many containers are attached to each network, of the documents of the engine's list.

    A network is counted under its id, and under its name by containers that have never run: of
    those the list shows only that.
    """
    return Counter(
        end["NetworkID"] or name
        for one in containers
        for name, end in (one["NetworkSettings"]["Networks"] or {}).items()
    )


def _network(document: Mapping[str, Any], containers: int) -> Network:
    pools = document["IPAM"]["Config"] or []
    pool: Mapping[str, str] = next((one for one in pools if "." in one.get("Subnet", "")), {})
    return Network(
        id=document["Id"],
        name=document["Name"],
        driver=document["Driver"],
        internal=document["Internal"],
        subnet=pool.get("Subnet"),
        gateway=pool.get("Gateway"),
        labels=document["Labels"] or {},
        created_at=document["Created"],
        containers=containers,
    )
