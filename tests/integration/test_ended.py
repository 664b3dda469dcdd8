"""What stays of a container that has ended: its last lines, itself for a while, its record."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.test_deploy import CHILD_IS_KILLED, LABEL, containers
from tests.support.daemon import RpcError
from tests.support.engine_proxy import Answer, EngineProxy
from tests.support.waiting import eventually

if TYPE_CHECKING:
    import aiodocker

    from tests.conftest import MakeDaemon
    from tests.support.daemon import Daemon
    from tests.support.engine import Engine

ONCE = {"max_attempts": 1}
TALKS = ["sh", "-c", "for i in $(seq 1 150); do echo line $i; done; exit 3"]


async def gone(docker: aiodocker.Docker, job_id: str) -> None:
    """Wait until the engine has no container of a job."""

    async def removed() -> bool:
        listed = await docker.containers.list(
            all=True, filters=f'{{"label": ["{LABEL}={job_id}"]}}'
        )
        return listed == []

    await eventually(removed)


async def recorded_as_gone(node: Daemon, job_id: str) -> None:
    """Wait until the node has noted that a job's container is removed."""

    async def told() -> bool:
        return bool((await node.status(job_id))["container"]["state"] == "removed")

    await eventually(told)


async def forgotten(node: Daemon, job_id: str) -> None:
    """Wait until the node knows nothing of a job any more."""

    async def unknown() -> bool:
        try:
            await node.status(job_id)
        except RpcError as error:
            return error.code == -32001
        return False

    await eventually(unknown)


# The last lines


async def test_the_last_lines_of_a_batch_job_are_kept(daemon: MakeDaemon, image: str) -> None:
    node = await daemon()
    job = await node.wait(await node.create(image, type="batch", arguments=TALKS))
    assert (job["status"], job["container"]["exit_code"]) == ("failed", 3)
    assert job["output"] == [f"line {number}" for number in range(51, 151)]
    to_stderr = ["sh", "-c", "echo to stderr >&2"]
    job = await node.wait(await node.create(image, type="batch", arguments=to_stderr))
    assert (job["status"], job["output"]) == ("complete", ["to stderr"])


@pytest.mark.docker_only("it loses parts of long lines where only the last ones are asked for")
async def test_lines_beyond_every_bound_are_cut(daemon: MakeDaemon, image: str) -> None:
    node = await daemon()
    script = "head -c 300000 /dev/zero | tr '\\0' x; echo; echo; printf 'no end of line \\377'"
    job = await node.wait(await node.create(image, type="batch", arguments=["sh", "-c", script]))
    assert job["output"] == ["", "no end of line \ufffd"]


async def test_the_last_lines_of_a_service_that_does_not_come_up_are_kept(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon("--settle", "5")
    job_id = await node.create(image, arguments=["sh", "-c", "echo no config; exit 1"], retry=ONCE)
    job = await node.wait(job_id)
    assert (job["status"], job["output"]) == ("failed", ["no config"])
    assert await containers(docker, job_id) == []


async def test_the_last_lines_are_those_of_the_newest_attempt(
    daemon: MakeDaemon, image: str
) -> None:
    node = await daemon("--settle", "5")
    script = ["sh", "-c", "echo in $HOSTNAME; exit 1"]
    retry = {"max_attempts": 2, "backoff": 0.05}
    job = await node.wait(await node.create(image, arguments=script, retry=retry))
    assert job["attempts"] == 2
    assert job["output"] == [f"in {job['container']['id'][:12]}"]


async def test_a_service_that_ends_later_leaves_its_last_lines(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon("--settle", "0")
    script = ["sh", "-c", "trap 'echo told to end; exit 0' TERM; while :; do sleep 0.1; done"]
    job_id = await node.create(image, arguments=script)
    job = await node.wait(job_id)
    assert (job["status"], job["output"]) == ("complete", None)
    await docker.containers.container(job["container"]["id"]).stop()

    async def told() -> bool:
        return (await node.status(job_id))["output"] == ["told to end"]

    await eventually(told)
    assert len(await containers(docker, job_id)) == 1


async def test_a_log_driver_that_keeps_nothing_holds_nothing_up(
    daemon: MakeDaemon, image: str
) -> None:
    node = await daemon()
    job = await node.wait(
        await node.create(image, type="batch", arguments=["echo", "unheard"], log_driver="none")
    )
    assert (job["status"], job["output"]) == ("complete", None)


async def test_a_cancelled_batch_job_keeps_its_last_lines(daemon: MakeDaemon, image: str) -> None:
    node = await daemon()
    script = [
        "sh",
        "-c",
        "trap 'echo ending; exit 0' TERM; echo begun; while :; do sleep 0.1; done",
    ]
    job_id = await node.create(image, type="batch", arguments=script)

    async def runs() -> bool:
        return bool((await node.status(job_id))["phase"] == "running")

    await eventually(runs)
    await node.call("ContainerService.Cancel", {"job_id": job_id})
    job = await node.wait(job_id)
    assert job["status"] == "cancelled"
    assert job["output"][-1] == "ending"


async def test_exit_reasons_are_told(daemon: MakeDaemon, engine: Engine, image: str) -> None:
    node = await daemon()
    killed = ["sh", "-c", CHILD_IS_KILLED]
    job = await node.wait(await node.create(image, type="batch", arguments=killed))
    assert (job["container"]["exit_code"], job["container"]["signal"]) == (137, "SIGKILL")
    eats = ["sh", "-c", "x=x; while :; do x=$x$x; done"]
    job = await node.wait(
        await node.create(image, type="batch", arguments=eats, memory="8m"), timeout=60
    )
    told = job["container"]["oom_killed"]
    assert told or engine.podman  # which does not tell with control groups of version 1
    memory = ", out of memory" if told else ""
    assert job["status"] == "failed"
    assert job["reason"] == f"exited with code 137 (SIGKILL{memory})"


# The container


async def test_a_container_is_removed_on_exit_with_code_and_lines_recorded(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon()
    job_id = await node.create(image, type="batch", arguments=TALKS, remove_on_exit=True)
    job = await node.wait(job_id)
    assert (job["status"], job["container"]["exit_code"]) == ("failed", 3)
    await gone(docker, job_id)
    await recorded_as_gone(node, job_id)
    job = await node.status(job_id)
    assert (job["container"]["exit_code"], len(job["output"])) == (3, 100)


async def test_a_service_is_removed_on_exit_too(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon("--settle", "0")
    script = ["sh", "-c", "sleep 1; echo done; exit 4"]
    job_id = await node.create(image, arguments=script, remove_on_exit=True)
    assert (await node.wait(job_id))["status"] == "complete"
    await gone(docker, job_id)
    job = await node.status(job_id)
    assert (job["status"], job["container"]["exit_code"], job["output"]) == (
        "complete",
        4,
        ["done"],
    )


async def test_a_container_stays_as_long_as_its_job_says(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon()
    short = await node.create(image, type="batch", arguments=["true"], keep=1.5)
    by_default = await node.create(image, type="batch", arguments=["true"])
    await node.wait(short)
    await node.wait(by_default)
    assert len(await containers(docker, short)) == 1
    await gone(docker, short)
    assert len(await containers(docker, by_default)) == 1


async def test_what_is_due_while_the_daemon_is_away_is_removed_afterwards(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon()
    job_id = await node.create(image, type="batch", arguments=["true"], keep=0.5)
    await node.wait(job_id)
    await node.restart()
    await gone(docker, job_id)


async def test_a_container_that_cannot_be_removed_does_not_hold_up_others(
    daemon: MakeDaemon, docker: aiodocker.Docker, engine_proxy: EngineProxy, image: str
) -> None:
    engine_proxy.before("DELETE /containers/", Answer(500, {"message": "device or resource busy"}))
    node = await daemon(docker_host=engine_proxy.url)
    busy = await node.create(image, type="batch", arguments=["true"], remove_on_exit=True)
    await node.wait(busy)
    await eventually(lambda: _says(node, "ended container not removed"))
    other = await node.create(image, type="batch", arguments=["true"], remove_on_exit=True)
    await node.wait(other)
    await gone(docker, other)
    assert len(await containers(docker, busy)) == 1


async def _says(node: Daemon, words: str) -> bool:
    return words in node.log


# The record


async def test_records_go_by_age_once_their_containers_are_gone(
    daemon: MakeDaemon, image: str
) -> None:
    node = await daemon("--retain-age", "0")
    removed = await node.create(image, type="batch", arguments=["true"], remove_on_exit=True)
    kept = await node.create(image, type="batch", arguments=["true"])
    runs = await node.create(image)
    for job_id in (removed, kept, runs):
        await node.wait(job_id)
    await recorded_as_gone(node, removed)
    await node.restart()  # records are looked at when the daemon starts, and every minute
    await forgotten(node, removed)
    assert (await node.status(kept))["container"]["state"] == "exited"
    assert (await node.status(runs))["container"]["state"] == "running"


async def test_only_the_newest_records_stay(daemon: MakeDaemon, image: str) -> None:
    node = await daemon("--retain-jobs", "2")
    jobs = []
    for _ in range(4):
        jobs.append(await node.create(image, type="batch", arguments=["true"], remove_on_exit=True))
        await node.wait(jobs[-1])
        await recorded_as_gone(node, jobs[-1])
    await node.restart()
    await forgotten(node, jobs[0])
    await forgotten(node, jobs[1])
    listed = await node.call("ContainerService.List")
    assert [job["job_id"] for job in listed["jobs"]] == [jobs[3], jobs[2]]


async def test_a_container_removed_while_the_daemon_is_away_is_noticed(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon()
    job_id = await node.create(image, type="batch", arguments=["true"])
    job = await node.wait(job_id)
    await node.kill()
    await docker.containers.container(job["container"]["id"]).delete()
    await node.start()
    await recorded_as_gone(node, job_id)


async def test_a_key_whose_job_is_forgotten_makes_no_second_one(
    daemon: MakeDaemon, image: str
) -> None:
    node = await daemon("--retain-age", "0")
    spec = {"type": "batch", "arguments": ["true"], "remove_on_exit": True}
    job_id = await node.create(image, **spec, idempotency_key="once")
    await node.wait(job_id)
    await recorded_as_gone(node, job_id)
    await node.restart()
    await forgotten(node, job_id)
    with pytest.raises(RpcError, match="its record is not kept any more") as refused:
        await node.create(image, **spec, idempotency_key="once")
    assert refused.value.code == -32007


@pytest.mark.parametrize("flag", [("--retain-age", "soon"), ("--retain-jobs", "-1")])
async def test_bad_retention_is_refused_at_the_start(
    daemon: MakeDaemon, flag: tuple[str, str]
) -> None:
    node = await daemon(*flag, start=False)
    with pytest.raises(Exception, match="ended with 2"):
        await node.start()
    assert flag[0] in node.log
