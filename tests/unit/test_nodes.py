"""NodeService.List: what is shown of nodes, of one without others first."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from container_manager import __version__
from container_manager.api.dispatch import Dispatcher
from container_manager.api.nodes import NodeService
from container_manager.work.cluster import Standing, alone
from tests.unit.builders import NODE, NOW

if TYPE_CHECKING:
    from collections.abc import Sequence

OTHER = Standing(
    node="f" * 32,
    name="other",
    version="9.9",
    state="suspect",
    addresses=("192.0.2.1:4001", "[2001:db8::1]:4001"),
    engine={"name": "Podman", "version": "4.3", "later": 1},
    heard=6.25,
    lag=7,
    clock_skew=-0.123456,
    reason="it refuses this node",
    is_self=False,
)


async def ask(nodes: Sequence[Standing], params: Any = None) -> dict[str, Any]:
    service = NodeService(lambda: list(nodes), lambda: NOW)
    methods = {call.name: call.method() for call in service.calls()}
    request = {"jsonrpc": "2.0", "method": "NodeService.List", "params": params or {}, "id": 1}
    answer = await Dispatcher(methods, lambda *_: None).handle(json.dumps(request).encode(), None)
    found: dict[str, Any] = json.loads(answer or b"")
    return found


async def test_a_node_alone_lists_itself() -> None:
    (node,) = (await ask([alone(NODE, "here")]))["result"]["nodes"]
    assert node == {
        "node": NODE,
        "name": "here",
        "self": True,
        "state": "alive",
        "reason": None,
        "version": __version__,
        "addresses": [],
        "engine": None,
        "last_heard_at": "2030-03-17T17:46:40.000000Z",
        "lag": 0,
        "clock_skew": 0.0,
    }


async def test_another_node_is_shown_with_what_is_known_of_it() -> None:
    nodes = (await ask([alone(NODE, "here"), OTHER]))["result"]["nodes"]
    assert [node["self"] for node in nodes] == [True, False]
    assert nodes[1] == {
        "node": "f" * 32,
        "name": "other",
        "self": False,
        "state": "suspect",
        "reason": "it refuses this node",
        "version": "9.9",
        "addresses": ["192.0.2.1:4001", "[2001:db8::1]:4001"],
        "engine": {"name": "Podman", "version": "4.3"},
        "last_heard_at": "2030-03-17T17:46:33.750000Z",
        "lag": 7,
        "clock_skew": -0.123,
    }


async def test_what_is_not_known_of_a_node_is_null() -> None:
    unknown = replace(OTHER, engine=None, heard=None, lag=None, clock_skew=None, reason=None)
    (node,) = (await ask([unknown]))["result"]["nodes"]
    for name in ("engine", "last_heard_at", "lag", "clock_skew", "reason"):
        assert node[name] is None


@pytest.mark.parametrize("engine", [{}, {"name": None, "version": 5}, {"version": ["x"]}])
async def test_what_a_node_says_of_its_engine_is_shown_as_text(engine: dict[str, Any]) -> None:
    (node,) = (await ask([replace(OTHER, engine=engine)]))["result"]["nodes"]
    assert {type(value) for value in node["engine"].values()} == {str}


async def test_it_takes_no_params() -> None:
    answer = await ask([], {"node": NODE})
    assert answer["error"]["code"] == -32602
    assert answer["error"]["data"]["errors"][0]["loc"] == ["node"]
