"""NetworkService on a real engine: containers that talk to each other."""

from __future__ import annotations

import asyncio
import random
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.resources import ready
from tests.support.daemon import RpcError
from tests.support.engine_proxy import CUT

if TYPE_CHECKING:
    import aiodocker

    from tests.conftest import MakeDaemon
    from tests.integration.resources import Resources
    from tests.support.daemon import Daemon
    from tests.support.engine import Engine
    from tests.support.engine_proxy import EngineProxy

SERVE = "echo hello > /tmp/page; exec busybox httpd -f -p 80 -h /tmp"
FETCH = "until busybox wget -qO- http://web/page 2>/dev/null; do sleep 0.1; done"


async def create(node: Daemon, name: str, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = await node.call("NetworkService.Create", {"name": name, **more})
    return made


async def listed(node: Daemon, name: str) -> dict[str, Any] | None:
    """The network as the daemon lists it."""
    answer = await node.call("NetworkService.List")
    return next((one for one in answer["networks"] if one["name"] == name), None)


def subnet() -> str:
    """A /28 that no other test has, most probably."""
    return f"10.{random.randrange(128, 256)}.{random.randrange(256)}.{16 * random.randrange(16)}/28"


async def test_two_containers_reach_each_other_by_alias(
    daemon: MakeDaemon, docker: aiodocker.Docker, resources: Resources
) -> None:
    node = await daemon()
    name = resources.name("talk")
    made = await create(node, name, labels={"team": "a"})
    assert (made["name"], made["driver"], made["internal"]) == (name, "bridge", False)
    assert (made["managed"], made["labels"], made["containers"]) == (True, {"team": "a"}, 0)
    assert made["subnet"].partition("/")[0].rpartition(".")[0] in made["gateway"]
    assert made["created_at"].endswith("Z")

    await resources.container("sh", "-c", SERVE, network=name, alias="web")
    assert await resources.output("sh", "-c", FETCH, network=name) == "hello\n"

    assert await listed(node, name) == {**made, "containers": 1}
    shown = await (await docker.networks.get(name)).show()
    assert shown["Labels"].keys() == {
        *("team", "io.container-manager.node", "io.container-manager.home")
    }
    answer = await node.call("NetworkService.List", {"label": ["team=a"]})
    assert made["id"] in [one["id"] for one in answer["networks"]]
    answer = await node.call("NetworkService.List", {"label": "team=b"})
    assert made["id"] not in [one["id"] for one in answer["networks"]]


async def test_addresses_and_internal_are_as_they_are_asked_for(
    daemon: MakeDaemon, docker: aiodocker.Docker, resources: Resources
) -> None:
    node = await daemon()
    name, wanted = resources.name(), subnet()
    start, _, last = wanted.partition("/")[0].rpartition(".")
    gateway = f"{start}.{int(last) + 5}"
    made = await create(node, name, subnet=wanted, gateway=gateway, internal=True)
    assert (made["subnet"], made["gateway"], made["internal"]) == (wanted, gateway, True)
    shown = await (await docker.networks.get(name)).show()
    assert (shown["Driver"], shown["Internal"], shown["EnableIPv6"]) == ("bridge", True, False)
    assert shown["IPAM"]["Config"] == [{"Subnet": wanted, "Gateway": gateway}]

    with pytest.raises(RpcError) as refused:
        await create(node, resources.name(), subnet=wanted)
    assert refused.value.code == -32007
    assert re.search("overlaps|is already used", refused.value.message)


async def test_name_that_is_taken_is_a_conflict_however_many_ask_at_once(
    daemon: MakeDaemon, engine: Engine, resources: Resources
) -> None:
    node = await daemon()
    name = resources.name()
    answers = await asyncio.gather(*(create(node, name) for _ in range(5)), return_exceptions=True)
    refused = [one for one in answers if isinstance(one, RpcError)]
    assert len(refused) == 4
    assert {one.code for one in refused} == {-32007}
    assert all(name in one.message and one.data["network"] == name for one in refused)
    assert [one["Name"] for one in engine.call("GET", "/networks")].count(name) == 1

    foreign = resources.name()
    await resources.network(foreign)
    with pytest.raises(RpcError, match="-32007"):
        await create(node, foreign)
    with pytest.raises(RpcError, match="-32007"):
        await create(node, "bridge")
    if not engine.podman:  # there it is a name like any other
        with pytest.raises(RpcError, match=r"-32007 .*predefined"):  # reserved, and in no list
            await create(node, "default")


async def test_remove_takes_what_is_ours_and_unused(
    daemon: MakeDaemon, resources: Resources
) -> None:
    node = await daemon()
    name, foreign = resources.name(), resources.name()
    await create(node, name)
    await resources.network(foreign)
    container = await resources.container(network=name)

    async def remove(what: str) -> Any:
        return await node.call("NetworkService.Remove", {"name": what})

    with pytest.raises(RpcError, match=r"has active endpoints|is being used") as refused:
        await remove(name)
    assert refused.value.code == -32007
    await container.delete(force=True)
    assert await remove(name) == {"removed": [name]}
    assert await listed(node, name) is None
    with pytest.raises(RpcError) as missing:
        await remove(name)
    assert (missing.value.code, missing.value.data["name"]) == (-32011, "network_not_found")

    with pytest.raises(RpcError, match=f"`docker network rm {foreign}`") as refused:
        await remove(foreign)
    assert refused.value.code == -32007
    assert (await listed(node, foreign) or {})["managed"] is False


async def test_remove_of_what_somebody_removes_meanwhile_finds_nothing(
    daemon: MakeDaemon, engine_proxy: EngineProxy, engine: Engine, resources: Resources
) -> None:
    node = await daemon(docker_host=engine_proxy.url)
    name = resources.name()
    for service, code in (("NetworkService", -32011), ("VolumeService", -32012)):
        await node.call(f"{service}.Create", {"name": name})
        path = f"/{service.removesuffix('Service').lower()}s/{name}"

        async def remove(path: str = path) -> None:
            await asyncio.to_thread(engine.call, "DELETE", path)

        hook = engine_proxy.before("DELETE /", remove)
        with pytest.raises(RpcError) as missing:
            await node.call(f"{service}.Remove", {"name": name})
        assert (missing.value.code, hook.fired) == (code, 1)


async def test_prune_takes_only_what_this_node_has_made_and_nobody_uses(
    daemon: MakeDaemon, resources: Resources
) -> None:
    node = await daemon()
    other = await daemon(name="other")
    unused, used, waiting = (resources.name(hint) for hint in ("unused", "used", "waiting"))
    for name in (unused, used, waiting):
        await create(node, name)
    await resources.container(network=used)
    await resources.container(network=waiting, start=False)
    foreign, others = resources.name("foreign"), resources.name("others")
    await resources.network(foreign)
    await create(other, others)

    assert (await listed(node, waiting) or {})["containers"] == 1
    with pytest.raises(RpcError, match="another node"):
        await node.call("NetworkService.Remove", {"name": others})
    assert await node.call("NetworkService.Prune") == {"removed": [unused]}
    assert await listed(node, unused) is None
    for name, managed in ((used, True), (waiting, True), (foreign, False), (others, False)):
        assert (await listed(node, name) or {})["managed"] is managed
    assert await other.call("NetworkService.Prune") == {"removed": [others]}


async def test_prune_skips_what_is_taken_into_use_meanwhile(
    daemon: MakeDaemon, engine_proxy: EngineProxy, resources: Resources
) -> None:
    node = await daemon(docker_host=engine_proxy.url)
    taken, unused = resources.name("taken"), resources.name("unused")
    id_ = (await create(node, taken))["id"]
    await create(node, unused)

    async def take() -> None:
        await resources.container(network=taken)

    hook = engine_proxy.before(f"DELETE /networks/({id_}|{taken})", take)
    assert await node.call("NetworkService.Prune", {}) == {"removed": [unused]}
    assert hook.fired == 1
    assert (await listed(node, taken) or {})["containers"] == 1


async def test_engine_away_is_said_and_heals(
    daemon: MakeDaemon, engine_proxy: EngineProxy, resources: Resources
) -> None:
    node = await daemon(docker_host=engine_proxy.url)
    name = resources.name()
    engine_proxy.after("POST /networks/create", CUT)
    with pytest.raises(RpcError) as away:  # it is made, and nobody heard of it
        await create(node, name)
    assert (away.value.code, away.value.data["name"]) == (-32003, "engine_unavailable")
    with pytest.raises(RpcError, match="-32007"):
        await create(node, name)

    await engine_proxy.go_away()
    for method, params in (
        ("Create", {"name": name}),
        ("List", {}),
        ("Remove", {"name": name}),
        ("Prune", {}),
    ):
        with pytest.raises(RpcError, match=r"-32003 .*engine_unavailable"):
            await node.call(f"NetworkService.{method}", params)
    await engine_proxy.come_back()
    await ready(node)
    assert await node.call("NetworkService.Remove", {"name": name}) == {"removed": [name]}


async def test_call_under_way_when_the_connection_is_made_anew_says_that_the_engine_went_away(
    daemon: MakeDaemon, engine_proxy: EngineProxy, resources: Resources
) -> None:
    node = await daemon(docker_host=engine_proxy.url)
    name = resources.name()
    await create(node, name)
    gate = engine_proxy.hold("DELETE /networks/")
    removing = asyncio.create_task(node.call("NetworkService.Remove", {"name": name}))
    await gate.reached()
    many = len(engine_proxy.requests)
    engine_proxy.cut("GET /events")
    await engine_proxy.seen("GET /events", since=many)
    gate.release()
    with pytest.raises(RpcError, match="-32003"):
        await removing


async def test_networks_of_a_lost_data_directory_are_still_its_own(
    daemon: MakeDaemon, resources: Resources
) -> None:
    node = await daemon()
    name = resources.name()
    await create(node, name)
    await node.kill()
    shutil.rmtree(node.data_dir)
    await node.start()
    assert (await listed(node, name) or {})["managed"] is True
    assert await node.call("NetworkService.Prune") == {"removed": [name]}


async def test_list_says_when_it_does_not_show_all(
    daemon: MakeDaemon, resources: Resources
) -> None:
    node = await daemon()
    names = sorted(resources.name() for _ in range(3))
    for name in names:
        await create(node, name, labels={"test": names[0]})
    params = {"label": f"test={names[0]}", "limit": 2}
    answer = await node.call("NetworkService.List", params)
    assert ([one["name"] for one in answer["networks"]], answer["truncated"]) == (names[:2], True)
    answer = await node.call("NetworkService.List", {**params, "limit": 3})
    assert ([one["name"] for one in answer["networks"]], answer["truncated"]) == (names, False)
