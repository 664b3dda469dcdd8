"""Containers that the engine itself starts again: when their jobs are complete, and when not."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

import aiodocker
import pytest

from tests.integration.test_deploy import containers
from tests.integration.test_health import run_in, started
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.conftest import MakeDaemon
    from tests.support.daemon import Daemon
    from tests.support.dockerd import PrivateDockerd
    from tests.support.engine_proxy import EngineProxy

ONCE = {"max_attempts": 1}
# Runs until it is told to crash, and once more each time that it is started again.
CRASHES_WHEN_TOLD = [
    *("sh", "-c"),
    "trap 'exit 0' TERM; while [ ! -e /tmp/crash ]; do sleep 0.05; done; rm /tmp/crash; exit 3",
]


def crashes(times: int, *, after: float = 0, then: str = "exec sleep 600") -> list[str]:
    """What ends with code 3 so many times, then goes on: the file tree outlives each end."""
    count = f"echo x >> /tmp/runs; [ $(wc -l < /tmp/runs) -gt {times} ]"
    return ["sh", "-c", f"{count} || {{ sleep {after}; exit 3; }}; {then}"]


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


async def restarted(node: Daemon, job_id: str, times: int) -> dict[str, Any]:
    """The job's container, once the engine has started it again so many times and it runs."""

    async def runs() -> dict[str, Any] | None:
        seen: dict[str, Any] = (await node.status(job_id))["container"]
        return seen if (seen["restarts"], seen["state"]) == (times, "running") else None

    found: dict[str, Any] = await eventually(runs)
    return found


async def test_a_service_settles_from_its_newest_start(daemon: MakeDaemon, image: str) -> None:
    """Were it from the first one, its second run would be taken for up."""
    node = await daemon("--settle", "2")
    jobs = [
        await node.create(image, arguments=crashes(2, after=1.2), restart_policy=policy, retry=ONCE)
        for policy in ("always", "on-failure", "on-failure:2")
    ]
    for job_id in jobs:
        job = await node.wait(job_id)
        assert (job["status"], job["attempts"]) == ("complete", 1), job["reason"]
        container = job["container"]
        assert (container["state"], container["restarts"]) == ("running", 2)
        settled = moment(job["history"][-1]["at"]) - moment(container["started_at"])
        assert settled >= 2


@pytest.mark.docker_only("a restart by hand is an end to it, and then a start")
async def test_a_service_that_is_restarted_by_hand_settles_anew(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon("--settle", "2")
    job_id = await node.create(image)
    container = await started(node, job_id)
    await docker.containers.container(container).restart(timeout=5)
    job = await node.wait(job_id)
    assert (job["status"], job["container"]["restarts"]) == ("complete", 0)
    settled = moment(job["history"][-1]["at"]) - moment(job["container"]["started_at"])
    assert settled >= 2


async def test_a_service_that_keeps_crashing_fails_with_its_restarts(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon("--settle", "5")
    ever, twice = [
        await node.create(image, arguments=crashes(99), restart_policy=policy, retry=ONCE)
        for policy in ("unless-stopped", "on-failure:2")
    ]
    job = await node.wait(ever)
    assert job["status"] == "failed"
    # Its end is told where it is between two runs as its container is looked at, and by then the
    # engine may have been at it once more.
    words = r"the container keeps ending: restarted [5-9] times(; it last exited with code 3)?"
    assert re.fullmatch(words, job["reason"])
    job = await node.wait(twice)
    assert job["status"] == "failed"
    assert job["reason"] == "the container exited with code 3, restarted 2 times before"
    for job_id in (ever, twice):
        assert await containers(docker, job_id) == []


async def test_a_crash_that_the_engine_mends_later_is_told(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon("--settle", "0")
    job_id = await node.create(image, arguments=CRASHES_WHEN_TOLD, restart_policy="always")
    first = (await node.wait(job_id))["container"]
    for times in (1, 2):
        await run_in(docker, first["id"], "touch", "/tmp/crash")
        container = await restarted(node, job_id, times)
        assert (container["id"], container["exit_code"]) == (first["id"], None)
        assert container["started_at"] > first["started_at"]
    assert (await node.status(job_id))["status"] == "complete"


async def test_a_start_that_comes_during_a_look_is_not_overlooked(
    daemon: MakeDaemon, engine_proxy: EngineProxy, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon("--settle", "0", docker_host=engine_proxy.url)
    job_id = await node.create(image, arguments=CRASHES_WHEN_TOLD, restart_policy="always")
    other = await node.create(image)
    container = (await node.wait(job_id))["container"]["id"]
    stranger = (await node.wait(other))["container"]["id"]
    gate = engine_proxy.hold(f"GET /containers/{container}/json", when="after")
    await run_in(docker, container, "touch", "/tmp/crash")
    await gate.reached()  # it was seen ended, and nobody knows it yet

    async def runs_again() -> bool:
        (shown,) = await containers(docker, job_id)
        return bool(shown["State"]["Running"]) and shown["RestartCount"] == 1

    await eventually(runs_again)
    # Events come in their order: with this one the start has been heard, too.
    await docker.containers.container(stranger).kill()

    async def heard() -> bool:
        return bool((await node.status(other))["container"]["state"] == "exited")

    await eventually(heard)
    gate.release()
    await restarted(node, job_id, 1)


@pytest.mark.docker_only("the engine that it restarts is a dockerd")
async def test_a_restart_of_the_engine_brings_it_back_and_its_status_follows(
    daemon: MakeDaemon, private_dockerd: PrivateDockerd
) -> None:
    image = await private_dockerd.import_busybox()
    node = await daemon("--settle", "0", docker_host=private_dockerd.url)
    fields = {"restart_policy": "always", "ports": ["127.0.0.1::80"]}
    stays = await node.create(image, network_mode="none")
    again = await node.create(image, **fields)
    before = (await node.wait(again))["container"]
    await node.wait(stays)
    await private_dockerd.restart()

    async def follows() -> dict[str, Any] | None:
        container: dict[str, Any] = (await node.status(again))["container"]
        new = container["started_at"] > before["started_at"]
        return container if new and container["state"] == "running" else None

    container = await eventually(follows, timeout=30)
    engine = private_dockerd.engine
    shown = await asyncio.to_thread(engine.call, "GET", f"/containers/{before['id']}/json")
    (binding,) = shown["NetworkSettings"]["Ports"]["80/tcp"]
    assert [port["host_port"] for port in container["ports"]] == [int(binding["HostPort"])]
    assert (await node.status(again))["status"] == "complete"

    async def ended() -> bool:
        return bool((await node.status(stays))["container"]["state"] == "exited")

    await eventually(ended)


async def test_a_restart_that_nobody_heard_of_is_seen_at_the_next_start(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon("--settle", "0")
    job_id = await node.create(image, ports=["127.0.0.1::80"])
    before = (await node.wait(job_id))["container"]
    await node.kill()
    await docker.containers.container(before["id"]).restart(timeout=5)
    await node.start()

    async def follows() -> bool:
        container = (await node.status(job_id))["container"]
        return bool(container["started_at"] > before["started_at"])

    await eventually(follows)
    (shown,) = await containers(docker, job_id)
    (binding,) = shown["NetworkSettings"]["Ports"]["80/tcp"]
    (port,) = (await node.status(job_id))["container"]["ports"]
    assert port["host_port"] == int(binding["HostPort"])


@pytest.mark.parametrize(
    ("failures", "status", "code", "restarts"), [(1, "complete", 0, 1), (9, "failed", 3, 2)]
)
async def test_a_batch_is_run_again_on_failure_by_its_engine(
    daemon: MakeDaemon,
    docker: aiodocker.Docker,
    image: str,
    failures: int,
    status: str,
    code: int,
    restarts: int,
) -> None:
    node = await daemon()
    arguments = crashes(failures, then="echo done")
    job_id = await node.create(
        image, type="batch", arguments=arguments, restart_policy="on-failure:2"
    )
    job = await node.wait(job_id)
    assert (job["status"], job["attempts"]) == (status, 1)
    container = job["container"]
    assert (container["exit_code"], container["restarts"]) == (code, restarts)
    assert job["reason"] == (None if code == 0 else "exited with code 3")
    assert job["output"] == (["done"] if code == 0 else [])
    assert len(await containers(docker, job_id)) == 1
