"""NetworkService and VolumeService: what they take and refuse, and what is whose and in use."""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from container_manager.api.dispatch import Dispatcher
from container_manager.api.networks import NetworkCreateParams
from container_manager.api.resources import bears, callers_labels, strangers
from container_manager.engine.networks import attached
from container_manager.engine.ownership import is_own, own_labels
from container_manager.engine.volumes import used
from container_manager.node import Node
from tests.unit.builders import CANARY, NODE, Rooms, all_calls, texts, words

ME = Node(NODE, "host:/data")


@pytest.fixture
async def ask(rooms: Rooms) -> Any:
    """Calls a method of a daemon whose engine was never reached; gives the error."""
    methods = {call.name: call.method() for call in all_calls(rooms)}
    dispatcher = Dispatcher(methods, lambda *_: None)

    async def call(method: str, params: Any) -> dict[str, Any]:
        request = {"jsonrpc": "2.0", "method": method, "id": 1, "params": params}
        answer = await dispatcher.handle(json.dumps(request).encode(), None)
        assert answer is not None
        error: dict[str, Any] = json.loads(answer)["error"]
        return error

    return call


@pytest.mark.parametrize("service", ["NetworkService", "VolumeService"])
@pytest.mark.parametrize(
    ("method", "params"),
    [("Create", {"name": "web"}), ("List", {}), ("Remove", {"name": "web"}), ("Prune", {})],
)
async def test_without_an_engine_each_call_says_so_and_why(
    ask: Any, service: str, method: str, params: dict[str, Any]
) -> None:
    error = await ask(f"{service}.{method}", params)
    assert error["code"] == -32003
    assert error["data"] == {"name": "engine_unavailable"}
    assert "it has not been reached yet" in error["message"]


@pytest.mark.parametrize("service", ["NetworkService", "VolumeService"])
@pytest.mark.parametrize("method", ["Create", "Remove"])
@pytest.mark.parametrize(
    "name", ["", "a", "-a", ".a", "a b", "a/b", "../x", "a:b", "é1", "ab\n", "a" * 129, 1, None]
)
async def test_names_that_are_none_are_refused(
    ask: Any, service: str, method: str, name: Any
) -> None:
    error = await ask(f"{service}.{method}", {"name": name})
    assert error["code"] == -32602
    (wrong,) = error["data"]["errors"]
    assert wrong["loc"] == ["name"]


@pytest.mark.parametrize(
    ("method", "field", "rule"),
    [
        ("VolumeService.Create", "driver", "no host paths"),
        ("VolumeService.Create", "driver_opts", "no host paths"),
        ("VolumeService.Create", "options", "no host paths"),
        ("NetworkService.Create", "driver_opts", "no driver options"),
        ("NetworkService.Create", "options", "no driver options"),
    ],
)
async def test_what_reaches_the_host_is_denied_by_its_rule(
    ask: Any, method: str, field: str, rule: str
) -> None:
    value = {"type": "none", "o": "bind", "device": CANARY}
    error = await ask(method, {"name": "data", field: value})
    assert (error["code"], error["data"]["name"]) == (-32009, "policy_denied")
    assert (error["data"]["field"], error["data"]["rule"]) == (field, rule)
    assert CANARY not in json.dumps(error)


@pytest.mark.parametrize(
    ("params", "place"),
    [
        ({"driver": "macvlan"}, ["driver"]),
        ({"driver": "host"}, ["driver"]),
        ({"internal": "yes"}, ["internal"]),
        ({"labels": {"io.container-manager.node": CANARY}}, ["labels"]),
        ({"labels": {"": CANARY}}, ["labels"]),
        ({"subnet": "10.0.0.1/24"}, ["subnet"]),
        ({"subnet": "10.0.0.0"}, ["subnet"]),
        ({"subnet": "10.0.0.0/255.255.255.0"}, ["subnet"]),
        ({"subnet": "10.0.0.0/31"}, ["subnet"]),
        ({"subnet": "0.0.0.0/0"}, ["subnet"]),
        ({"subnet": "8.8.8.0/24"}, ["subnet"]),
        ({"subnet": "127.0.0.0/24"}, ["subnet"]),
        ({"subnet": "169.254.169.0/24"}, ["subnet"]),
        ({"subnet": "fd00::/64"}, ["subnet"]),
        ({"subnet": CANARY}, ["subnet"]),
        ({"subnet": "10.0.0.0/24", "gateway": CANARY}, ["gateway"]),
        ({"subnet": "10.0.0.0/24", "gateway": "10.0.1.1"}, []),
        ({"subnet": "10.0.0.0/24", "gateway": "10.0.0.0"}, []),
        ({"subnet": "10.0.0.0/24", "gateway": "10.0.0.255"}, []),
        ({"gateway": "10.0.0.1"}, []),
        ({"enable_ipv6": True}, ["enable_ipv6"]),
    ],
)
async def test_a_network_that_cannot_be_is_refused_by_the_field(
    ask: Any, params: dict[str, Any], place: list[str]
) -> None:
    error = await ask("NetworkService.Create", {"name": "web", **params})
    assert error["code"] == -32602
    (wrong,) = error["data"]["errors"]
    assert wrong["loc"][:1] == place
    assert place or "gateway" in wrong["msg"]
    assert CANARY not in json.dumps(error)


@pytest.mark.parametrize("limit", [0, 1001, "5", None])
@pytest.mark.parametrize("service", ["NetworkService", "VolumeService"])
async def test_list_refuses_a_limit_out_of_its_bounds(ask: Any, service: str, limit: Any) -> None:
    error = await ask(f"{service}.List", {"limit": limit})
    assert (error["code"], error["data"]["errors"][0]["loc"]) == (-32602, ["limit"])


private = st.sampled_from(["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]).map(IPv4Network)


@given(private, st.integers(0, 2**32), st.integers(16, 30), st.data())
def test_every_private_subnet_is_taken_with_each_of_its_hosts_as_gateway(
    within: IPv4Network, number: int, prefix: int, data: st.DataObject
) -> None:
    base = int(within.network_address) + number % within.num_addresses
    subnet = IPv4Network((base, prefix), strict=False)
    offset = data.draw(st.integers(1, subnet.num_addresses - 2))
    params = {"name": "web", "subnet": str(subnet), "gateway": str(subnet[offset])}
    assert NetworkCreateParams.model_validate(params).model_dump().items() >= params.items()


@given(st.integers(0, 2**32 - 1), st.integers(0, 32))
def test_no_subnet_outside_the_private_ranges_is_taken(number: int, prefix: int) -> None:
    subnet = IPv4Network((number, prefix), strict=False)
    assume(not subnet.is_private)
    assume(not subnet.subnet_of(IPv4Network("100.64.0.0/10")))
    with pytest.raises(ValidationError):
        NetworkCreateParams.model_validate({"name": "web", "subnet": str(subnet)})


def test_a_thing_is_its_nodes_by_node_or_by_home_and_nobody_elses() -> None:
    before = Node("f" * 32, ME.home)
    elsewhere = Node("e" * 32, "host:/other")
    assert is_own(ME, own_labels(ME))
    assert is_own(ME, own_labels(before))
    assert is_own(Node(ME.id, "moved:/data"), own_labels(ME))
    assert not is_own(ME, own_labels(elsewhere))
    assert not is_own(ME, {})
    assert not is_own(ME, {"io.container-manager.volume": "true", "team": "a"})


@given(st.dictionaries(words, texts, max_size=4))
def test_the_managers_labels_are_not_shown_and_the_callers_are(labels: dict[str, str]) -> None:
    assert callers_labels(labels | own_labels(ME)) == labels


def test_a_listing_is_filtered_by_all_labels() -> None:
    labels = {"a": "1", "b": ""}
    for label in (None, [], "a", "a=1", "b", "b=", ["a=1", "b"]):
        assert bears(labels, label), label
    for label in ("c", "a=", "a=2", "b=1", ["a", "c"], ["a=1", "b=1"]):
        assert not bears(labels, label), label


def test_strangers_are_told_apart_from_other_nodes() -> None:
    made_by_docker = strangers("volume", "data", {"a": "b"})
    assert "`docker volume rm data`" in made_by_docker.message
    assert made_by_docker.data == {"name": "conflict", "volume": "data"}
    others = strangers("network", "web", own_labels(ME))
    assert "another node" in others.message
    assert "docker" not in others.message


def test_a_network_is_in_use_by_containers_that_have_never_run_as_well() -> None:
    never_run = {"NetworkSettings": {"Networks": {"web": {"NetworkID": ""}}}}
    ran = {"NetworkSettings": {"Networks": {"web": {"NetworkID": "1d"}, "db": {"NetworkID": "2e"}}}}
    assert attached([never_run, ran, ran]) == {"web": 1, "1d": 2, "2e": 2}
    assert attached([{"NetworkSettings": {"Networks": None}}]) == {}


def test_a_volume_that_a_container_has_twice_has_one_user() -> None:
    data = {"Type": "volume", "Name": "data"}
    bind = {"Type": "bind", "Source": "/srv"}
    assert used([{"Mounts": [data, data, bind]}, {"Mounts": [data]}, {"Mounts": None}]) == {
        "data": 2
    }
