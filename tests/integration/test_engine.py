"""The engine's truth: whatever happens to containers and to the engine ends in the right status."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.test_control import reach
from tests.integration.test_deploy import ENDLESS, containers
from tests.support.engine_proxy import CUT, Answer
from tests.support.waiting import eventually

if TYPE_CHECKING:
    import aiodocker
    from aiodocker.containers import DockerContainer

    from tests.conftest import MakeDaemon
    from tests.support.daemon import Daemon
    from tests.support.dockerd import PrivateDockerd
    from tests.support.engine_proxy import EngineProxy


async def container_is(node: Daemon, job_id: str, state: str) -> dict[str, Any]:
    """Wait until a job's record says this of its container; gives the record."""

    async def says() -> dict[str, Any] | None:
        job = await node.status(job_id)
        return job if job["container"]["state"] == state else None

    return await eventually(says) or {}


async def running_batch(
    node: Daemon, docker: aiodocker.Docker, image: str, arguments: list[str]
) -> tuple[str, DockerContainer]:
    """A batch job that runs, and its container."""
    job_id = await node.create(image, type="batch", arguments=arguments)
    await reach(node, job_id, "running")
    (shown,) = await containers(docker, job_id)
    return job_id, docker.containers.container(shown["Id"])


async def test_exit_after_the_deployment_is_noted_and_the_job_stays_complete(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon("--settle", "0")
    job_id = await node.create(image)
    job = await node.wait(job_id)
    container = docker.containers.container(job["container"]["id"])

    await container.pause()
    await container_is(node, job_id, "paused")
    await container.unpause()
    await container_is(node, job_id, "running")
    await container.kill(signal="SIGKILL")
    job = await container_is(node, job_id, "exited")
    assert (job["status"], job["container"]["exit_code"]) == ("complete", 137)
    await container.start()
    await container_is(node, job_id, "running")
    await container.delete(force=True)
    job = await container_is(node, job_id, "removed")
    assert job["status"] == "complete"


async def test_batch_stopped_from_outside_ends_by_its_exit_code(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon()
    job_id, container = await running_batch(node, docker, image, ["sleep", "600"])
    await container.kill()
    job = await node.wait(job_id)
    assert (job["status"], job["reason"]) == ("failed", "exited with code 137 (SIGKILL)")


async def test_batch_whose_container_vanishes_is_lost(
    daemon: MakeDaemon, engine_proxy: EngineProxy, docker: aiodocker.Docker, image: str
) -> None:
    """Removed while nobody watched: not even its end was seen."""
    node = await daemon(docker_host=engine_proxy.url)
    job_id, container = await running_batch(node, docker, image, ENDLESS)
    await engine_proxy.go_away()
    await container.delete(force=True)
    await engine_proxy.come_back()
    job = await node.wait(job_id)
    assert (job["status"], job["container"]["state"]) == ("lost", "removed")


async def test_exit_while_the_events_are_cut_is_seen_after_reconnecting(
    daemon: MakeDaemon, engine_proxy: EngineProxy, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon(docker_host=engine_proxy.url)
    job_id, container = await running_batch(node, docker, image, ENDLESS)
    gate = engine_proxy.hold("GET /events")  # the next subscription stands at the gate
    assert engine_proxy.cut("GET /events") == 1
    await gate.reached()
    await container.kill()
    gate.release()
    job = await node.wait(job_id)
    assert job["reason"] == "exited with code 137 (SIGKILL)"


async def test_exit_during_the_look_after_reconnecting_is_heard(
    daemon: MakeDaemon, engine_proxy: EngineProxy, docker: aiodocker.Docker, image: str
) -> None:
    """It dies when the list has been made and not been read: only its event tells."""
    node = await daemon(docker_host=engine_proxy.url)
    job_id, container = await running_batch(node, docker, image, ENDLESS)
    looked = engine_proxy.hold("GET /containers/[^/]+/json", when="after")
    engine_proxy.cut("GET /events")
    await looked.reached()
    await container.kill()
    looked.release()
    assert (await node.wait(job_id))["reason"] == "exited with code 137 (SIGKILL)"


async def test_jobs_queue_while_the_engine_is_away_and_go_on_when_it_is_back(
    daemon: MakeDaemon, engine_proxy: EngineProxy, docker: aiodocker.Docker, image: str
) -> None:
    await engine_proxy.go_away()
    node = await daemon("--settle", "0", docker_host=engine_proxy.url, wait_ready=False)
    status, body = await node.get("/readyz")
    assert status == 503
    assert f"no engine answers at {engine_proxy.url}" in body
    jobs = [await node.create(image) for _ in range(3)]
    waiting = await node.status(jobs[0])
    assert waiting["status"] == "pending"
    assert waiting["reason"].startswith("waiting for the container engine: ")

    await engine_proxy.come_back()
    for job_id in jobs:
        assert (await node.wait(job_id))["status"] == "complete"
        assert len(await containers(docker, job_id)) == 1
    assert (await node.get("/readyz"))[0] == 200


@pytest.mark.parametrize("call", ["POST /containers/create", "POST /containers/[^/]+/start"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_call_that_breaks_off_is_taken_up_again_without_counting(
    daemon: MakeDaemon,
    engine_proxy: EngineProxy,
    docker: aiodocker.Docker,
    image: str,
    call: str,
    when: str,
) -> None:
    node = await daemon("--settle", "0", docker_host=engine_proxy.url)
    cut = engine_proxy.before if when == "before" else engine_proxy.after
    hook = cut(call, CUT, times=2)
    job_id = await node.create(image)
    job = await node.wait(job_id)
    assert (job["status"], job["attempts"]) == ("complete", 1)
    assert hook.fired >= 1
    assert len(await containers(docker, job_id)) == 1


async def test_engine_that_goes_away_during_a_deployment(
    daemon: MakeDaemon, engine_proxy: EngineProxy, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon("--settle", "0", docker_host=engine_proxy.url)
    engine_proxy.after("POST /containers/create", engine_proxy.go_away)
    job_id = await node.create(image)

    async def said() -> bool:
        job = await node.status(job_id)
        return bool(job["status"] == "running" and "container engine" in (job["reason"] or ""))

    await eventually(said)
    await engine_proxy.come_back()
    job = await node.wait(job_id)
    assert (job["status"], job["attempts"]) == ("complete", 1)
    assert len(await containers(docker, job_id)) == 1


async def left_behind(
    docker: aiodocker.Docker, node: Daemon, image: str, name: str
) -> tuple[str, str]:
    """A job that has ended and whose container was replaced by another, of this name."""
    job = await node.wait(await node.create(image, type="batch", arguments=["true"]))
    (shown,) = await containers(docker, job["job_id"])
    await docker.containers.container(shown["Id"]).delete(force=True)
    labels = shown["Config"]["Labels"]
    other = await docker.containers.create(
        {"Image": image, "Labels": labels}, name=name or job["container"]["name"]
    )
    return job["job_id"], other.id


async def test_stray_container_of_a_job_that_went_on_without_it_is_removed(
    daemon: MakeDaemon, engine_proxy: EngineProxy, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon(docker_host=engine_proxy.url)
    job_id, _ = await left_behind(docker, node, image, name="")
    engine_proxy.cut("GET /events")  # reconnecting looks at everything

    async def gone() -> bool:
        return await containers(docker, job_id) == []

    await eventually(gone)


async def test_container_that_inherits_our_labels_is_let_be(
    daemon: MakeDaemon, engine_proxy: EngineProxy, docker: aiodocker.Docker, image: str
) -> None:
    """As one from an image that somebody has made of a container of ours."""
    node = await daemon(docker_host=engine_proxy.url)
    job_id, inherited = await left_behind(docker, node, image, name="cm-test-inherited")
    stray_job, _ = await left_behind(docker, node, image, name="")
    engine_proxy.cut("GET /events")

    async def gone() -> bool:
        return await containers(docker, stray_job) == []

    await eventually(gone)  # so the look has been at everything
    assert [one["Id"] for one in await containers(docker, job_id)] == [inherited]


async def test_stray_container_that_cannot_be_removed_holds_up_nothing(
    daemon: MakeDaemon, engine_proxy: EngineProxy, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon("--settle", "0", docker_host=engine_proxy.url)
    refused = engine_proxy.before(
        "DELETE /containers/", Answer(500, {"message": "device or resource busy"}), times=None
    )
    job_id, _ = await left_behind(docker, node, image, name="")
    engine_proxy.cut("GET /events")
    await engine_proxy.seen("DELETE /containers/")
    assert (await node.wait(await node.create(image)))["status"] == "complete"
    assert refused.fired >= 1
    assert len(await containers(docker, job_id)) == 1


@pytest.mark.docker_only("the engine that it kills is a dockerd; Podman's containers need none")
@pytest.mark.parametrize("rounds", [10])
async def test_engine_killed_and_restarted_under_load(
    daemon: MakeDaemon, private_dockerd: PrivateDockerd, rounds: int
) -> None:
    """Every job ends right: deployed, or ended as its container did; each container once."""
    image = await private_dockerd.import_busybox()
    node = await daemon("--settle", "0.2", "--worker-count", "4", docker_host=private_dockerd.url)
    jobs: dict[str, str] = {}

    async def load() -> None:
        while True:
            jobs[await node.create(image, retry={"backoff": 0.1})] = "service"
            job_id = await node.create(image, type="batch", arguments=["sh", "-c", "exit 0"])
            jobs[job_id] = "batch"
            # As fast as they are deployed, and no faster.
            await node.call("ContainerService.Wait", {"job_id": job_id, "timeout": 5})

    loading = asyncio.create_task(load())
    try:
        for _ in range(rounds):
            many = len(jobs) + 6
            await eventually(lambda many=many: len(jobs) >= many, timeout=60)  # type: ignore[misc]
            await private_dockerd.kill()
            await private_dockerd.start()
            await eventually(lambda: _ready(node), timeout=30)
    finally:
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
    assert len(jobs) >= 6 * rounds
    ended = {job_id: await node.wait(job_id, timeout=60) for job_id in jobs}
    shown = await asyncio.to_thread(
        private_dockerd.engine.call, "GET", "/containers/json", {"all": "1"}
    )
    by_job: dict[str, list[dict[str, Any]]] = {job_id: [] for job_id in jobs}
    for one in shown:
        by_job[one["Labels"]["io.container-manager.job"]].append(one)
    for job_id, kind in jobs.items():
        job = ended[job_id]
        (one,) = by_job[job_id]
        assert one["Id"] == job["container"]["id"], job
        await container_is(node, job_id, one["State"])
        if kind == "service":
            assert job["status"] == "complete", job
        elif job["status"] == "failed":
            # It ended with the engine, and its record says how.
            assert job["container"]["exit_code"] == 137, job
        else:
            assert (job["status"], job["container"]["exit_code"]) == ("complete", 0), job


async def _ready(node: Daemon) -> bool:
    return (await node.get("/readyz"))[0] == 200
