"""The engine's volumes.

Source: https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Volume
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from container_manager.engine.docker import Engine


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume as the engine shows it."""

    name: str
    driver: str
    labels: Mapping[str, str]
    created_at: str | None
    """RFC 3339; None where its driver does not tell. Docker's local driver tells when the top
    directory of the volume was last changed."""
    containers: int
    """How many containers use it, running or not."""


class Volumes:
    """The calls about volumes. Each raises `EngineError` as all calls to the engine do."""

    def __init__(self, engine: Engine) -> None:
        """Ask `engine`."""
        self._engine = engine

    async def list(self) -> list[Volume]:
        """All volumes of the engine."""
        # First the volumes, then who uses them: a use that begins in between is seen.
        shown = (await self._engine.request("GET", "volumes"))["Volumes"] or []
        users = await self._users()
        return [_volume(one, users[one["Name"]]) for one in shown]

    async def create(self, name: str, labels: Mapping[str, str]) -> Volume:
        """Create a volume, or give the one of this name that there is, with the labels it has.

        The driver is `local`, and never gets options: with those it mounts any path of the host.
        """
        document = {"Name": name, "Driver": "local", "Labels": dict(labels)}
        made = await self._engine.request("POST", "volumes/create", body=document)
        return _volume(made, (await self._users())[name])

    async def remove(self, name: str) -> None:
        """Remove a volume and the data in it.

        Raises:
            ObjectMissing: there is none.
            EngineRefused: a container uses it, running or not.
        """
        await self._engine.request("DELETE", f"volumes/{name}")

    async def _users(self) -> Counter[str]:
        return used(await self._engine.request("GET", "containers/json", query={"all": "1"}))


def used(containers: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """How many containers use each volume, by its name, of the documents of the engine's list."""
    return Counter(
        name
        for one in containers
        for name in {
            mount["Name"] for mount in one["Mounts"] or [] if mount.get("Type") == "volume"
        }
    )


def _volume(document: Mapping[str, Any], containers: int) -> Volume:
    return Volume(
        name=document["Name"],
        driver=document["Driver"],
        labels=document["Labels"] or {},
        created_at=document.get("CreatedAt") or None,
        containers=containers,
    )
