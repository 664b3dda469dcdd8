"""What callers can do about a job under way: cancel it in every phase, retry it, wait for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.integration.test_deploy import ENDLESS, containers
from tests.support.daemon import RpcError
from tests.support.engine_proxy import Answer
from tests.support.waiting import eventually

if TYPE_CHECKING:
    import aiodocker

    from tests.conftest import MakeDaemon
    from tests.support.daemon import Daemon
    from tests.support.engine_proxy import EngineProxy


async def reach(node: Daemon, job_id: str, phase: str) -> None:
    """Wait until a job is in a phase."""

    async def there() -> bool:
        return bool((await node.status(job_id))["phase"] == phase)

    await eventually(there)


async def test_cancel_of_a_waiting_job_is_immediate(
    daemon: MakeDaemon, engine_proxy: EngineProxy, docker: aiodocker.Docker, image: str
) -> None:
    gate = engine_proxy.hold("POST /containers/create")
    node = await daemon("--worker-count", "1", docker_host=engine_proxy.url)
    first = await node.create(image)
    await gate.reached()
    second = await node.create(image)
    assert (await node.status(second))["reason"] == "waiting for a free worker"

    cancelled = await node.call("ContainerService.Cancel", {"job_id": second})
    assert (cancelled["status"], cancelled["reason"]) == ("cancelled", "cancelled by a call")
    gate.release()

    assert (await node.wait(first))["status"] == "complete"
    assert (await node.status(second))["attempts"] == 0
    assert await containers(docker, second) == []


@pytest.mark.parametrize(
    ("held", "when"),
    [
        ("POST /containers/create", "before"),
        ("POST /containers/create", "after"),
        ("POST /containers/[^/]+/start", "before"),
        ("POST /containers/[^/]+/start", "after"),
        ("GET /containers/[0-9a-f]{64}/json", "after"),
    ],
)
@pytest.mark.parametrize("settle", ["0", "60"])
async def test_cancel_while_the_engine_works_leaves_nothing(
    daemon: MakeDaemon,
    engine_proxy: EngineProxy,
    docker: aiodocker.Docker,
    image: str,
    held: str,
    when: str,
    settle: str,
) -> None:
    node = await daemon("--settle", settle, docker_host=engine_proxy.url)
    gate = engine_proxy.hold(held, when=when)  # type: ignore[arg-type]
    job_id = await node.create(image)
    await gate.reached()

    answer = await node.call("ContainerService.Cancel", {"job_id": job_id})
    assert (answer["status"], answer["cancel_requested"]) == ("running", True)
    assert answer["reason"] == "being cancelled"
    gate.release()

    assert (await node.wait(job_id))["status"] == "cancelled"
    assert await containers(docker, job_id) == []


async def test_cancel_during_a_pull_ends_the_pull(
    daemon: MakeDaemon, engine_proxy: EngineProxy, registry: str
) -> None:
    node = await daemon(docker_host=engine_proxy.url)
    engine_proxy.hold("POST /images/create")  # never released: only cancelling can end it
    job_id = await node.create(f"{registry}/slow")
    await reach(node, job_id, "pulling")
    await engine_proxy.seen("POST /images/create")
    await node.call("ContainerService.Cancel", {"job_id": job_id})
    assert (await node.wait(job_id, timeout=5))["status"] == "cancelled"


async def test_cancel_while_verifying_removes_the_container(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon("--settle", "600")
    job_id = await node.create(image)
    await reach(node, job_id, "verifying")
    await node.call("ContainerService.Cancel", {"job_id": job_id})
    job = await node.wait(job_id)
    assert (job["status"], job["container"]["state"]) == ("cancelled", "removed")
    assert await containers(docker, job_id) == []


async def test_cancel_of_a_running_batch_stops_and_keeps_its_container(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon()
    job_id = await node.create(image, type="batch", arguments=ENDLESS)
    await reach(node, job_id, "running")
    (shown,) = await containers(docker, job_id)
    container = docker.containers.container(shown["Id"])

    async def trapping() -> bool:
        return "ready\n" in await container.log(stdout=True)

    await eventually(trapping)
    await node.call("ContainerService.Cancel", {"job_id": job_id})
    job = await node.wait(job_id)
    assert (job["status"], job["container"]["state"]) == ("cancelled", "exited")
    assert job["container"]["exit_code"] == 0
    assert len(await containers(docker, job_id)) == 1


async def test_cancel_with_the_engine_away_is_kept_and_done_when_it_is_back(
    daemon: MakeDaemon, engine_proxy: EngineProxy, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon("--settle", "600", docker_host=engine_proxy.url)
    job_id = await node.create(image)
    await reach(node, job_id, "verifying")
    await engine_proxy.go_away()
    await node.call("ContainerService.Cancel", {"job_id": job_id})
    await node.restart(wait_ready=False)
    assert (await node.status(job_id))["cancel_requested"]
    await engine_proxy.come_back()
    assert (await node.wait(job_id))["status"] == "cancelled"
    assert await containers(docker, job_id) == []


async def test_cancel_twice_is_the_same_and_of_a_complete_job_is_refused(
    daemon: MakeDaemon, image: str
) -> None:
    node = await daemon("--settle", "600")
    job_id = await node.create(image)
    await node.call("ContainerService.Cancel", {"job_id": job_id})
    await node.wait(job_id)
    again = await node.call("ContainerService.Cancel", {"job_id": job_id})
    assert again["status"] == "cancelled"

    done = await node.create(image, type="batch", arguments=["true"])
    await node.wait(done)
    with pytest.raises(RpcError) as refused:
        await node.call("ContainerService.Cancel", {"job_id": done})
    assert (refused.value.code, refused.value.data["name"]) == (-32007, "conflict")


async def test_retry_tries_again_from_the_start(
    daemon: MakeDaemon, engine_proxy: EngineProxy, docker: aiodocker.Docker, image: str
) -> None:
    engine_proxy.before("POST /containers/create", Answer(400, {"message": "bad today"}))
    node = await daemon("--settle", "0", docker_host=engine_proxy.url)
    job_id = await node.create(image)
    assert (await node.wait(job_id))["status"] == "failed"

    retried = await node.call("ContainerService.Retry", {"job_id": job_id})
    assert retried["status"] == "pending"
    job = await node.wait(job_id)
    assert (job["status"], job["attempts"]) == ("complete", 2)
    assert len(await containers(docker, job_id)) == 1

    with pytest.raises(RpcError) as refused:
        await node.call("ContainerService.Retry", {"job_id": job_id})
    assert refused.value.code == -32007


async def test_retry_of_a_batch_removes_the_container_before(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon()
    job_id = await node.create(image, type="batch", arguments=["false"], name="cm-test-again")
    await node.wait(job_id)
    (first,) = await containers(docker, job_id)
    await node.call("ContainerService.Retry", {"job_id": job_id})
    assert (await node.wait(job_id))["status"] == "failed"
    (second,) = await containers(docker, job_id)
    assert first["Id"] != second["Id"]


async def test_wait_answers_after_its_timeout_with_how_things_stand(
    daemon: MakeDaemon, image: str
) -> None:
    node = await daemon("--settle", "600")
    job_id = await node.create(image)
    await reach(node, job_id, "verifying")
    seen = await node.call("ContainerService.Wait", {"job_id": job_id, "timeout": 0.05})
    assert (seen["status"], seen["phase"], seen["timed_out"]) == ("running", "verifying", True)

    async def waiting() -> str:
        seen = await node.call("ContainerService.Wait", {"job_id": job_id, "timeout": 30})
        assert seen["timed_out"] is False
        return str(seen["status"])

    callers = [asyncio.create_task(waiting()) for _ in range(5)]
    await node.call("ContainerService.Cancel", {"job_id": job_id})
    assert await asyncio.gather(*callers) == ["cancelled"] * 5


async def test_queue_is_bounded_and_says_so(
    daemon: MakeDaemon, engine_proxy: EngineProxy, image: str
) -> None:
    gate = engine_proxy.hold("POST /containers/create", times=None)
    node = await daemon("--queue-size", "3", "--worker-count", "1", docker_host=engine_proxy.url)
    await node.create(image)
    await gate.reached()
    waiting = [await node.create(image) for _ in range(3)]

    with pytest.raises(RpcError) as full:
        await node.create(image)
    assert full.value.code == -32002
    assert full.value.data["name"] == "queue_full"
    assert full.value.data["queue_size"] == 3
    assert full.value.data["retry_after"] >= 1

    await node.call("ContainerService.Cancel", {"job_id": waiting[0]})
    await node.create(image)


async def test_idempotency_key_gives_the_same_job(daemon: MakeDaemon, image: str) -> None:
    node = await daemon("--settle", "600")
    first = await node.create(image, idempotency_key="k", env={"A": "1"})
    assert await node.create(image, idempotency_key="k", env={"A": "1"}) == first
    await node.restart()
    assert await node.create(image, idempotency_key="k", env={"A": "1"}) == first
    with pytest.raises(RpcError) as other:
        await node.create(image, idempotency_key="k", env={"A": "2"})
    assert (other.value.code, other.value.data["job_id"]) == (-32007, first)
    both = await asyncio.gather(*(node.create(image, idempotency_key="k2") for _ in range(8)))
    assert len(set(both)) == 1
