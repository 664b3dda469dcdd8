"""kill -9 at every step, and starting again: nothing acknowledged is lost, nothing runs twice.

A deployment is a chain of commits and engine calls. The matrix ends the daemon before and after
each of them, at the wire in front of the engine or at the file of the write-ahead log, starts it
again on the same data, and looks at what became of the job and at how many containers ran.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from tests.integration.test_control import reach
from tests.integration.test_deploy import ENDLESS, containers
from tests.support.daemon import COMMAND, CRASHING
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    import aiodocker

    from tests.conftest import MakeDaemon
    from tests.support.daemon import Daemon
    from tests.support.engine_proxy import EngineProxy

COMMITS = {
    "service": ["created", "claimed", "starting", "verifying", "complete"],
    "batch": ["created", "claimed", "starting", "running", "ended"],
}
CALLS = {
    "create": "POST /containers/create",
    "start": "POST /containers/[^/]+/start",
    "inspect": "GET /containers/[0-9a-f]{64}/json",
}
# The file stands for something that must happen once: two starts would write two lines.
ONCE = ["sh", "-c", "echo ran; sleep 0.3; exit 5"]


def spec(kind: str) -> dict[str, Any]:
    """A job of each kind: a service that stays, a batch that ends with code 5."""
    if kind == "batch":
        return {"type": "batch", "arguments": ONCE}
    return {"retry": {"backoff": 0.1}}


async def create_unless_killed(node: Daemon, image: str, kind: str) -> str | None:
    """The id of a job if its creation was acknowledged before the daemon ended."""
    with contextlib.suppress(aiohttp.ClientError):
        return await node.create(image, **spec(kind))
    return None


async def check(
    node: Daemon, docker: aiodocker.Docker, acknowledged: str | None, kind: str
) -> None:
    """No job that was acknowledged is lost, and none has run twice."""
    listed = await node.call("ContainerService.List", {})
    known = [job["job_id"] for job in listed["jobs"]]
    if acknowledged is not None:
        assert known == [acknowledged]
    # One that was written and never acknowledged may be there; it then ends like any other.
    for job_id in known:
        job = await node.wait(job_id)
        (shown,) = await containers(docker, job_id)
        assert shown["Id"] == job["container"]["id"]
        assert shown["Config"]["Labels"]["io.container-manager.attempt"] == "1"
        if kind == "service":
            assert job["status"] == "complete", job
            assert shown["State"]["Status"] == "running"
        else:
            assert (job["status"], job["reason"]) == ("failed", "exited with code 5"), job
            log = await docker.containers.container(shown["Id"]).log(stdout=True)
            assert log == ["ran\n"]


async def killed_at_a_commit(
    daemon: MakeDaemon,
    docker: aiodocker.Docker,
    image: str,
    tmp_path: Path,
    kind: str,
    number: int,
    when: str,
    name: str = "node",
) -> None:
    """One run that ends the daemon at the n-th commit of a job."""
    arm = tmp_path / f"{name}.arm"
    node = await daemon(
        *("--settle", "0.1"),
        name=name,
        command=CRASHING,
        env={"CRASH_AT": f"commit:{number}:{when}", "CRASH_ARM": str(arm)},
    )
    arm.touch()
    job_id = await create_unless_killed(node, image, kind)
    assert await node.ended() == -9
    node.command, node.env = list(COMMAND), {}
    await node.start()
    if number > 1:
        assert job_id is not None
    await check(node, docker, job_id, kind)


async def killed_at_a_call(
    daemon: MakeDaemon,
    engine_proxy: EngineProxy,
    docker: aiodocker.Docker,
    image: str,
    kind: str,
    call: str,
    when: str,
    name: str = "node",
) -> None:
    """One run that ends the daemon before or after a call to the engine."""
    node = await daemon("--settle", "0.1", name=name, docker_host=engine_proxy.url)
    point = engine_proxy.before if when == "before" else engine_proxy.after
    hook = point(CALLS[call], node.kill)
    job_id = await create_unless_killed(node, image, kind)
    assert await node.ended() == -9
    assert hook.fired == 1
    await node.start()
    assert job_id is not None
    await check(node, docker, job_id, kind)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", range(5), ids=lambda n: f"commit{n + 1}")
@pytest.mark.parametrize("kind", ["service", "batch"])
@pytest.mark.parametrize("round_", range(3))
async def test_killed_at_each_commit(
    daemon: MakeDaemon,
    docker: aiodocker.Docker,
    image: str,
    tmp_path: Path,
    kind: str,
    step: int,
    when: str,
    round_: int,
) -> None:
    await killed_at_a_commit(daemon, docker, image, tmp_path, kind, step + 1, when)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", list(CALLS))
@pytest.mark.parametrize("kind", ["service", "batch"])
@pytest.mark.parametrize("round_", range(3))
async def test_killed_at_each_engine_call(
    daemon: MakeDaemon,
    engine_proxy: EngineProxy,
    docker: aiodocker.Docker,
    image: str,
    kind: str,
    call: str,
    when: str,
    round_: int,
) -> None:
    await killed_at_a_call(daemon, engine_proxy, docker, image, kind, call, when)


@pytest.mark.soak
@pytest.mark.parametrize("round_", range(17))
async def test_killed_at_each_step_again_and_again(
    daemon: MakeDaemon,
    engine_proxy: EngineProxy,
    docker: aiodocker.Docker,
    image: str,
    tmp_path: Path,
    round_: int,
) -> None:
    """With the three rounds of the tests above, twenty for each step."""
    for kind, commits in COMMITS.items():
        for when in ("before", "after"):
            for number, _ in enumerate(commits, start=1):
                await killed_at_a_commit(
                    *(daemon, docker, image, tmp_path, kind, number, when),
                    name=f"{kind}-{number}-{when}",
                )
            for call in CALLS:
                await killed_at_a_call(
                    *(daemon, engine_proxy, docker, image, kind, call, when),
                    name=f"{kind}-{call}-{when}",
                )


async def test_killed_during_a_clean_up_the_next_attempt_still_runs_alone(
    daemon: MakeDaemon, engine_proxy: EngineProxy, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon("--settle", "5", docker_host=engine_proxy.url)
    engine_proxy.after("DELETE /containers/", node.kill)
    retry = {"max_attempts": 2, "backoff": 0.05}
    job_id = await node.create(image, arguments=["sh", "-c", "exit 1"], retry=retry)
    assert await node.ended() == -9
    await node.start()
    job = await node.wait(job_id)
    assert job["status"] == "failed"
    assert await containers(docker, job_id) == []


async def test_many_jobs_and_many_kills(
    daemon: MakeDaemon, engine_proxy: EngineProxy, docker: aiodocker.Docker, image: str
) -> None:
    """Killed in the thick of it, again and again, while jobs come in and are deployed."""
    node = await daemon("--settle", "0", "--worker-count", "4", docker_host=engine_proxy.url)
    acknowledged: list[str] = []

    async def load() -> None:
        with contextlib.suppress(aiohttp.ClientError):
            for _ in range(6):
                job_id = await node.create(image)
                acknowledged.append(job_id)

    for round_ in range(4):
        # A different call in each round, so that the kill falls into another mixture of steps.
        hook = engine_proxy.after(CALLS["create"], _nothing, times=2 + round_)
        loading = asyncio.create_task(load())
        await eventually(lambda hook=hook: hook.fired == hook.times)  # type: ignore[misc]
        await node.kill()
        await loading
        await node.start()
    for job_id in acknowledged:
        job = await node.wait(job_id, timeout=60)
        assert job["status"] == "complete", job
        assert len(await containers(docker, job_id)) == 1
    assert len(acknowledged) >= 12


def _nothing() -> None:
    """An action that only counts."""


async def test_batch_that_was_started_and_removed_while_down_is_not_run_again(
    daemon: MakeDaemon, engine_proxy: EngineProxy, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon(docker_host=engine_proxy.url)
    engine_proxy.after(CALLS["start"], node.kill)
    job_id = await node.create(image, type="batch", arguments=["true"])
    assert await node.ended() == -9
    (shown,) = await containers(docker, job_id)
    await docker.containers.container(shown["Id"]).delete(force=True)
    await node.start()
    assert (await node.wait(job_id))["status"] == "lost"
    assert await containers(docker, job_id) == []


async def test_exit_while_the_daemon_is_down_is_recorded(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon("--settle", "0")
    service = await node.create(image)
    batch = await node.create(image, type="batch", arguments=ENDLESS)
    await node.wait(service)
    await reach(node, batch, "running")
    await node.kill()
    for job_id in (service, batch):
        (shown,) = await containers(docker, job_id)
        await docker.containers.container(shown["Id"]).kill()
    await node.start()
    assert (await node.wait(batch))["container"]["exit_code"] == 137

    async def noted() -> bool:
        return bool((await node.status(service))["container"]["exit_code"] == 137)

    await eventually(noted)
    assert (await node.status(service))["status"] == "complete"


async def test_lost_data_directory_is_brought_back_from_the_labels(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon("--settle", "0")
    env = {"SECRET": "canary-of-the-lost"}
    service = await node.create(image, name="cm-test-lost", env=env, labels={"a": "b"})
    running = await node.create(image, type="batch", arguments=ENDLESS)
    ended = await node.create(image, type="batch", arguments=["sh", "-c", "exit 4"])
    over = await node.create(image, arguments=["sh", "-c", "sleep 0.5; exit 6"])
    assert (await node.wait(over))["status"] == "complete"
    before = await node.wait(service)
    await node.wait(ended)
    await reach(node, running, "running")
    other = await daemon("--settle", "0", name="other")  # on the same engine, and not concerned
    (shown,) = await containers(docker, over)
    await docker.containers.container(shown["Id"]).wait()
    await node.kill()
    for file in node.data_dir.iterdir():
        file.unlink()

    await node.start()

    job = await node.wait(service)
    assert job["status"] == "complete"
    assert job["container"]["id"] == before["container"]["id"]
    assert (job["created_at"][:20], job["labels"]) == (before["created_at"][:20], {"a": "b"})
    assert job["name"] == "cm-test-lost"
    assert (await node.wait(ended))["reason"] == "exited with code 4"
    # A service that had been up and has ended since is not tried again.
    job = await node.wait(over)
    assert (job["status"], job["container"]["exit_code"]) == ("complete", 6)
    assert len(await containers(docker, over)) == 1
    assert (await node.status(running))["status"] == "running"
    assert (await other.call("ContainerService.List", {}))["jobs"] == []
    for file in node.data_dir.iterdir():
        assert b"canary-of-the-lost" not in file.read_bytes(), file
    assert "canary-of-the-lost" not in node.log
    await node.call("ContainerService.Cancel", {"job_id": running})
    assert (await node.wait(running))["status"] == "cancelled"
