"""Jobs with volumes: what they write outlives them, and the volume is the node's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.test_deploy import containers
from tests.integration.test_ended import gone

if TYPE_CHECKING:
    import aiodocker

    from tests.conftest import MakeDaemon
    from tests.integration.resources import Resources
    from tests.support.daemon import Daemon

ONCE = {"max_attempts": 1}


async def run(node: Daemon, image: str, script: str, **fields: Any) -> dict[str, Any]:
    """A batch job of a few lines of shell, when it is final."""
    arguments = ["sh", "-c", script]
    return await node.wait(await node.create(image, type="batch", arguments=arguments, **fields))


async def volume(node: Daemon, name: str) -> dict[str, Any] | None:
    """A volume as the daemon lists it."""
    answer = await node.call("VolumeService.List")
    return next((one for one in answer["volumes"] if one["name"] == name), None)


async def test_data_outlive_the_container_that_has_written_them(
    resources: Resources, daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon("--settle", "0")
    name = resources.name("data")
    service = await node.create(
        image, arguments=["no-such-command"], volumes=[f"{name}:/data"], retry=ONCE
    )
    assert (await node.wait(service))["status"] == "failed"
    assert await containers(docker, service) == []
    assert await volume(node, name) is not None  # made for a job that failed, and kept
    job = await run(
        node, image, "echo kept > /data/file", volumes=[f"{name}:/data"], remove_on_exit=True
    )
    assert job["status"] == "complete"
    await gone(docker, job["job_id"])
    mounts = [{"name": name, "target": "/elsewhere", "read_only": True}]
    job = await run(
        node, image, "exec 2>&1; cat /elsewhere/file; touch /elsewhere/x", volumes=mounts
    )
    assert (job["status"], job["output"][0]) == ("failed", "kept")
    assert "Read-only file system" in job["output"][1]


async def test_a_volume_that_a_job_made_is_the_nodes(
    resources: Resources, daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon("--settle", "0")
    made, foreign = resources.name("made"), resources.name("foreign")
    await resources.volume(foreign)
    job_id = await node.create(image, volumes=[f"{made}:/a", f"{foreign}:/b:ro"])
    job = await node.wait(job_id)
    assert job["status"] == "complete", job["reason"]
    (shown,) = await containers(docker, job_id)
    home = shown["Config"]["Labels"]["io.container-manager.home"]
    assert ((await volume(node, made)) or {})["managed"] is True
    assert ((await volume(node, foreign)) or {})["managed"] is False
    raw = await (await docker.volumes.get(made)).show()
    assert raw["Labels"] == {
        "io.container-manager.node": job["node"],
        "io.container-manager.home": home,
    }
    mounts = {one["Name"]: one["RW"] for one in shown["Mounts"]}
    assert mounts == {made: True, foreign: False}
    # It is in use, and nobody's to prune.
    assert made not in (await node.call("VolumeService.Prune"))["removed"]


@pytest.mark.docker_only("it fills a new volume from the image even where it is not to")
async def test_a_new_volume_gets_what_the_image_has_unless_it_is_not_to(
    resources: Resources, daemon: MakeDaemon, image: str
) -> None:
    node = await daemon()
    script = ["/bin/busybox", "echo", "there"]
    for nocopy, status in ((False, "complete"), (True, "failed")):
        mounts = [{"name": resources.name(), "target": "/bin", "nocopy": nocopy}]
        job_id = await node.create(image, type="batch", arguments=script, volumes=mounts)
        assert (await node.wait(job_id))["status"] == status


async def test_only_volumes_and_memory_can_be_written_where_all_else_is_read_only(
    resources: Resources, daemon: MakeDaemon, image: str
) -> None:
    node = await daemon()
    script = (
        "touch /data/a && touch /run/b && ! touch /c 2>/dev/null"
        " && mount | grep -c ' /run .*size=1024k'"
    )
    job = await run(
        node,
        image,
        script,
        read_only=True,
        volumes=[f"{resources.name()}:/data"],
        tmpfs=["/run:size=1m"],
    )
    assert job["status"] == "complete", job["output"]
    assert job["output"] == ["1"]
