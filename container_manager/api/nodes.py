"""NodeService: which nodes there are, and how each of them stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from typing_extensions import TypedDict

from container_manager.api.calls import Call
from container_manager.api.views import time_view
from container_manager.spec import Model
from container_manager.work.cluster import Standing


class NodeListParams(Model):
    """NodeService.List; it takes nothing."""


class EngineView(TypedDict):
    """What runs a node's containers, as the node last said."""

    name: str
    version: str


class NodeView(TypedDict):
    """A node, as the one that was asked knows it."""

    node: str
    name: str
    self: bool
    state: str
    reason: str | None
    version: str
    addresses: list[str]
    engine: EngineView | None
    last_heard_at: str | None
    lag: int | None
    clock_skew: float | None


class NodesView(TypedDict):
    """All nodes, the one that was asked first."""

    nodes: list[NodeView]


class NodeService:
    """Which nodes there are."""

    def __init__(self, nodes: Callable[[], list[Standing]], now: Callable[[], int]) -> None:
        """Tell of what `nodes` gives; `now` is in microseconds since 1970."""
        self._nodes = nodes
        self._now = now

    def calls(self) -> list[Call[Any]]:
        """All calls of this service."""
        return [Call("NodeService.List", NodeListParams, NodesView, self.list)]

    async def list(self, params: NodeListParams) -> NodesView:
        """The nodes of the cluster, and those that are seen and do not belong to it.

        A node is alive, suspect after 5 s without a word, gone after 15, left when it has said
        goodbye, and untrusted where it has never shown that it knows the cluster secret.
        """
        del params
        now = self._now()
        return {"nodes": [_view(one, now) for one in self._nodes()]}


def _view(node: Standing, now: int) -> NodeView:
    engine = node.engine
    return {
        "node": node.node,
        "name": node.name,
        "self": node.is_self,
        "state": node.state,
        "reason": node.reason,
        "version": node.version,
        "addresses": list(node.addresses),
        "engine": None
        if engine is None
        else {"name": str(engine.get("name", "")), "version": str(engine.get("version", ""))},
        "last_heard_at": None if node.heard is None else time_view(now - int(node.heard * 1e6)),
        "lag": node.lag,
        "clock_skew": None if node.clock_skew is None else round(node.clock_skew, 3),
    }
