"""VolumeService: the calls about the volumes in which containers keep data."""

from __future__ import annotations

from functools import partial
from typing import Any

import structlog
from pydantic import Field
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
from container_manager.engine.ownership import is_own, own_labels
from container_manager.engine.volumes import Volume, Volumes
from container_manager.errors import Conflict, VolumeNotFound
from container_manager.node import Node
from container_manager.spec import Model, check_fields
from container_manager.spec.labels import Labels

DENIED_FIELDS = dict.fromkeys(("driver", "driver_opts", "options"), "no host paths")
"""With options, even the local driver mounts any path of the host."""

log = structlog.get_logger()


class VolumeParams(Model):
    """A call about one volume."""

    name: Name = Field(description="The volume's name.")


class VolumeCreateParams(VolumeParams):
    """VolumeService.Create."""

    labels: Labels = Field(
        default_factory=dict, description="Labels for the volume; List filters by them."
    )


class VolumeView(TypedDict):
    """A volume, as the engine shows it."""

    name: str
    driver: str
    labels: dict[str, str]
    managed: bool
    containers: int
    created_at: str | None


class VolumeListView(TypedDict):
    """The engine's volumes, by name."""

    volumes: list[VolumeView]
    truncated: bool


class VolumeService:
    """The volumes of this node's engine. Only those that the node has made can be removed."""

    def __init__(self, volumes: Volumes, me: Node) -> None:
        """Make and remove `volumes` in the name of the node `me`."""
        self._volumes = volumes
        self._me = me

    def calls(self) -> list[Call[Any]]:
        """All calls of this service."""
        name = "VolumeService."
        policy = partial(check_fields, denied=DENIED_FIELDS)
        return [
            Call(name + "Create", VolumeCreateParams, VolumeView, self.create, policy),
            Call(name + "List", ResourceListParams, VolumeListView, self.list),
            Call(name + "Remove", VolumeParams, RemovedView, self.remove),
            Call(name + "Prune", NoParams, RemovedView, self.prune),
        ]

    async def create(self, params: VolumeCreateParams) -> VolumeView:
        """Create a volume on the engine's disk; one of the node's own that exists stays as it is.

        The engine, too, answers with the volume that there is, its labels unchanged: they tell
        whose it is, with no gap between looking and making.
        """
        volume = await self._volumes.create(params.name, params.labels | own_labels(self._me))
        if not is_own(self._me, volume.labels):
            raise Conflict(
                f"A volume {params.name} exists already, and this node has not made it. "
                "Choose another name.",
                volume=params.name,
            )
        return self._view(volume)

    async def list(self, params: ResourceListParams) -> VolumeListView:
        """The volumes of the engine, the node's own and all others."""
        found = [one for one in await self._volumes.list() if bears(one.labels, params.label)]
        found.sort(key=lambda one: one.name)
        return {
            "volumes": [self._view(one) for one in found[: params.limit]],
            "truncated": len(found) > params.limit,
        }

    async def remove(self, params: VolumeParams) -> RemovedView:
        """Remove a volume of the node's own that no container uses. Its data is lost."""
        found = [one for one in await self._volumes.list() if one.name == params.name]
        if not found:
            raise VolumeNotFound
        if not is_own(self._me, found[0].labels):
            raise strangers("volume", params.name, found[0].labels)
        try:
            await self._volumes.remove(params.name)
        except ObjectMissing as error:
            raise VolumeNotFound from error
        return {"removed": [params.name]}

    async def prune(self, params: NoParams) -> RemovedView:
        """Remove the node's own volumes that no container uses, running or not. Data is lost.

        A volume outlives the containers that used it, and all data in it goes with this call. A
        job that waits for its deployment has no container yet: its volume is not in use.
        """
        del params
        removed = []
        for one in await self._volumes.list():
            if one.containers or not is_own(self._me, one.labels):
                continue
            try:
                await self._volumes.remove(one.name)
            except (EngineRejected, EngineRefused) as error:  # in use since, or gone
                log.info("volume not pruned", volume=one.name, reason=str(error))
            else:
                removed.append(one.name)
        return {"removed": sorted(removed)}

    def _view(self, volume: Volume) -> VolumeView:
        return {
            "name": volume.name,
            "driver": volume.driver,
            "labels": callers_labels(volume.labels),
            "managed": is_own(self._me, volume.labels),
            "containers": volume.containers,
            "created_at": created_view(volume.created_at),
        }
