"""VolumeService on a real engine: containers that keep data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.resources import ready
from tests.support.daemon import RpcError
from tests.support.waiting import eventually

if TYPE_CHECKING:
    import aiodocker

    from tests.conftest import MakeDaemon
    from tests.integration.resources import Resources
    from tests.support.daemon import Daemon
    from tests.support.engine_proxy import EngineProxy


async def create(node: Daemon, name: str, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = await node.call("VolumeService.Create", {"name": name, **more})
    return made


async def listed(node: Daemon, name: str) -> dict[str, Any] | None:
    """The volume as the daemon lists it."""
    answer = await node.call("VolumeService.List")
    return next((one for one in answer["volumes"] if one["name"] == name), None)


def at_data(name: str, **more: Any) -> dict[str, Any]:
    """The volume, mounted at /data."""
    return {"Source": name, "Target": "/data", **more}


async def test_data_outlives_the_container_that_wrote_it(
    daemon: MakeDaemon, docker: aiodocker.Docker, resources: Resources
) -> None:
    node = await daemon()
    name = resources.name("kept")
    made = await create(node, name, labels={"team": "a"})
    assert (made["name"], made["driver"], made["managed"]) == (name, "local", True)
    assert (made["labels"], made["containers"]) == ({"team": "a"}, 0)
    assert made["created_at"].endswith("Z")
    shown = await (await docker.volumes.get(name)).show()
    assert (shown["Driver"], shown["Options"] or None) == ("local", None)
    assert shown["Labels"].keys() == {
        *("team", "io.container-manager.node", "io.container-manager.home")
    }

    await resources.output("sh", "-c", "echo kept > /data/file", mount=at_data(name))
    # Docker's local driver tells as the time of making when the top directory was last changed.
    seen = await listed(node, name) or {}
    assert seen == {**made, "created_at": seen["created_at"]}
    assert await resources.output("cat", "/data/file", mount=at_data(name)) == "kept\n"


async def test_create_of_a_volume_that_is_ours_gives_it_and_of_a_strangers_is_a_conflict(
    daemon: MakeDaemon, resources: Resources
) -> None:
    node = await daemon()
    name, foreign = resources.name(), resources.name()
    made = await create(node, name, labels={"team": "a"})
    await resources.container(mount=at_data(name), start=False)
    again = await create(node, name, labels={"team": "b"})
    assert again == {**made, "containers": 1}

    await resources.volume(foreign, {"team": "c"})
    with pytest.raises(RpcError, match=foreign) as refused:
        await create(node, foreign)
    assert (refused.value.code, refused.value.data["volume"]) == (-32007, foreign)
    assert (await listed(node, foreign) or {})["labels"] == {"team": "c"}


async def test_remove_takes_what_is_ours_and_unused(
    daemon: MakeDaemon, resources: Resources
) -> None:
    node = await daemon()
    name, foreign = resources.name(), resources.name()
    await create(node, name)
    await resources.volume(foreign)
    container = await resources.container(mount=at_data(name), start=False)

    async def remove(what: str) -> Any:
        return await node.call("VolumeService.Remove", {"name": what})

    with pytest.raises(RpcError, match=r"volume is (in use|being used)") as refused:
        await remove(name)
    assert refused.value.code == -32007
    await container.delete(force=True)
    assert await remove(name) == {"removed": [name]}
    assert await listed(node, name) is None
    with pytest.raises(RpcError) as missing:
        await remove(name)
    assert (missing.value.code, missing.value.data["name"]) == (-32012, "volume_not_found")

    with pytest.raises(RpcError, match=f"`docker volume rm {foreign}`") as refused:
        await remove(foreign)
    assert refused.value.code == -32007
    assert (await listed(node, foreign) or {})["managed"] is False


async def test_prune_takes_only_what_this_node_has_made_and_nobody_uses(
    daemon: MakeDaemon, resources: Resources
) -> None:
    node = await daemon()
    other = await daemon(name="other")
    unused, used = resources.name("unused"), resources.name("used")
    for name in (unused, used):
        await create(node, name)
    await resources.container(mount=at_data(used), start=False)
    foreign, others = resources.name("foreign"), resources.name("others")
    await resources.volume(foreign)
    await create(other, others)

    with pytest.raises(RpcError, match="another node"):
        await node.call("VolumeService.Remove", {"name": others})
    assert await node.call("VolumeService.Prune") == {"removed": [unused]}
    assert await listed(node, unused) is None
    for name, managed in ((used, True), (foreign, False), (others, False)):
        assert (await listed(node, name) or {})["managed"] is managed
    assert await other.call("VolumeService.Prune") == {"removed": [others]}


async def test_volume_that_was_made_for_a_container_is_known_by_its_labels(
    daemon: MakeDaemon, image: str, resources: Resources
) -> None:
    node = await daemon()
    name, made_along = resources.name(), resources.name("along")
    await create(node, name)
    job = {"type": "batch", "arguments": ["true"], "remove_on_exit": True}
    await node.wait(await node.create(image, **job, volumes=[f"{made_along}:/data"]))

    async def unused() -> bool:
        return bool((await listed(node, made_along) or {})["containers"] == 0)

    await eventually(unused)
    assert (await listed(node, made_along) or {})["managed"] is True
    removed = await node.call("VolumeService.Prune")
    assert removed == {"removed": sorted([name, made_along])}


async def test_prune_skips_what_is_taken_into_use_meanwhile(
    daemon: MakeDaemon, engine_proxy: EngineProxy, resources: Resources
) -> None:
    node = await daemon(docker_host=engine_proxy.url)
    taken, unused = resources.name("taken"), resources.name("unused")
    for name in (taken, unused):
        await create(node, name)

    async def take() -> None:
        await resources.container(mount=at_data(taken), start=False)

    hook = engine_proxy.before(f"DELETE /volumes/{taken}", take)
    assert await node.call("VolumeService.Prune", {}) == {"removed": [unused]}
    assert hook.fired == 1
    assert (await listed(node, taken) or {})["containers"] == 1


async def test_engine_away_is_said_and_heals(
    daemon: MakeDaemon, engine_proxy: EngineProxy, resources: Resources
) -> None:
    node = await daemon(docker_host=engine_proxy.url)
    name = resources.name()
    await engine_proxy.go_away()
    for method, params in (
        ("Create", {"name": name}),
        ("List", {}),
        ("Remove", {"name": name}),
        ("Prune", {}),
    ):
        with pytest.raises(RpcError, match="-32003") as away:
            await node.call(f"VolumeService.{method}", params)
        assert away.value.data["name"] == "engine_unavailable"
    await engine_proxy.come_back()
    await ready(node)
    await create(node, name)
