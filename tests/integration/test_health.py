"""Health checks of the spec: a job is complete when its container is healthy, and not before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from aiodocker import DockerError

from tests.integration.test_deploy import containers
from tests.support.images import publish
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiodocker

    from tests.conftest import MakeDaemon
    from tests.support.daemon import Daemon
    from tests.support.engine import Engine

pytestmark = pytest.mark.usefixtures("health_timers")

ONCE = {"max_attempts": 1}
TWICE = {"max_attempts": 2, "backoff": 0.05}
# The engine waits for the interval before the first test, too.
OFTEN = {"interval": 0.2, "timeout": 5, "retries": 1}
ILL = {**OFTEN, "test": "echo no database here >&2; exit 1"}
TALKS = ["sh", "-c", "echo in $HOSTNAME; exec sleep 600"]


@pytest_asyncio.fixture
async def sick(docker: aiodocker.Docker, registry: str) -> AsyncIterator[str]:
    """An image whose own health check always fails."""
    check = {"Test": ["CMD", "sh", "-c", "echo as the image has it; exit 1"]}
    periods = {"Interval": 200_000_000, "Timeout": 5_000_000_000, "Retries": 1}
    await publish(registry, "health/sick", config={"Healthcheck": {**check, **periods}})
    image = f"{registry}/health/sick"
    yield image
    await docker.images.delete(f"{image}:latest", force=True)


async def test_a_service_is_complete_only_when_it_is_healthy(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon("--settle", "0")
    check = {**OFTEN, "retries": 1000, "test": ["CMD", "cat", "/tmp/well"]}
    job_id = await node.create(image, healthcheck=check)

    async def says(health: str) -> bool:
        container = (await node.status(job_id))["container"]
        return bool(container is not None and container["health"] == health)

    await eventually(lambda: says("starting"))
    (shown,) = await containers(docker, job_id)
    assert shown["Config"]["Healthcheck"]["Interval"] == 200_000_000

    async def has_failed() -> bool:
        (shown,) = await containers(docker, job_id)
        return bool(shown["State"]["Health"]["FailingStreak"] >= 2)

    await eventually(has_failed)
    job = await node.status(job_id)
    assert (job["status"], job["phase"]) == ("running", "verifying")
    await run_in(docker, shown["Id"], "touch", "/tmp/well")
    job = await node.wait(job_id)
    assert (job["status"], job["attempts"]) == ("complete", 1)
    assert (job["container"]["health"], job["container"]["health_output"]) == ("healthy", None)


async def test_an_unhealthy_service_fails_with_what_its_probe_said(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon("--settle", "0")
    job_id = await node.create(image, arguments=TALKS, healthcheck=ILL, retry=TWICE)
    job = await node.wait(job_id)
    assert (job["status"], job["attempts"]) == ("failed", 2)
    assert job["reason"] == "the container is unhealthy: no database here"
    assert [e["reason"] for e in job["history"] if e["reason"]] == [job["reason"]] * 2
    assert job["output"] == [f"in {job['container']['id'][:12]}"]
    assert job["container"]["state"] == "removed"
    assert job["container"]["health_output"] == "no database here"
    assert await containers(docker, job_id) == []


async def test_what_a_probe_says_is_kept_within_a_bound(daemon: MakeDaemon, image: str) -> None:
    node = await daemon("--settle", "0")
    says = {
        **OFTEN,
        "test": "head -c 4000 /dev/zero | tr '\\0' x; printf '\\n\\n \\377 end'; exit 1",
    }
    job = await node.wait(await node.create(image, healthcheck=says, retry=ONCE))
    assert job["container"]["health_output"] == "x" * 500


async def test_a_service_that_stays_ill_later_is_complete_and_says_so(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon("--settle", "0")
    check = {**OFTEN, "test": "test ! -e /tmp/ill || { echo fell ill; exit 1; }"}
    job_id = await node.create(image, healthcheck=check)
    job = await node.wait(job_id)
    assert (job["status"], job["container"]["health"]) == ("complete", "healthy")
    await run_in(docker, job["container"]["id"], "touch", "/tmp/ill")

    async def told() -> bool:
        container = (await node.status(job_id))["container"]
        return (container["health"], container["health_output"]) == ("unhealthy", "fell ill")

    await eventually(told)
    assert (await node.status(job_id))["status"] == "complete"
    await run_in(docker, job["container"]["id"], "busybox", "rm", "/tmp/ill")

    async def well() -> bool:
        container = (await node.status(job_id))["container"]
        return (container["health"], container["health_output"]) == ("healthy", None)

    await eventually(well)


async def test_the_check_of_the_image_holds_where_the_spec_says_nothing(
    daemon: MakeDaemon, sick: str
) -> None:
    node = await daemon("--settle", "0")
    job = await node.wait(await node.create(sick, retry=ONCE))
    assert (job["status"], job["reason"]) == (
        "failed",
        "the container is unhealthy: as the image has it",
    )


async def test_the_check_of_the_spec_goes_over_that_of_the_image(
    daemon: MakeDaemon, docker: aiodocker.Docker, engine: Engine, sick: str
) -> None:
    node = await daemon("--settle", "0")
    checked = await node.create(sick, healthcheck={"test": ["true"]}, retry=ONCE)
    disabled = await node.create(sick, healthcheck={"disable": True}, retry=ONCE)
    job = await node.wait(checked)
    assert (job["status"], job["container"]["health"]) == ("complete", "healthy")
    (shown,) = await containers(docker, checked)
    # The image's, still; Podman's own instead.
    interval = 30_000_000_000 if engine.podman else 200_000_000
    assert shown["Config"]["Healthcheck"]["Interval"] == interval
    job = await node.wait(disabled)
    assert (job["status"], job["container"]["health"]) == ("complete", None)


async def test_a_service_that_is_never_healthy_is_not_up_in_time(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon("--settle", "0")
    check = {**OFTEN, "start_period": 600, "test": ["false"]}
    job_id = await node.create(image, healthcheck=check, deploy_timeout=1.5, retry=ONCE)
    job = await node.wait(job_id)
    assert job["reason"] == "the container was not up within deploy_timeout"
    assert await containers(docker, job_id) == []


async def test_health_is_waited_for_across_a_restart(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon("--settle", "0")
    check = {**OFTEN, "retries": 1000, "test": ["cat", "/tmp/well"]}
    job_id = await node.create(image, healthcheck=check)
    container = await started(node, job_id)
    await node.kill()
    await run_in(docker, container, "touch", "/tmp/well")
    await node.start()
    job = await node.wait(job_id)
    assert (job["status"], job["attempts"]) == ("complete", 1)
    assert job["container"]["id"] == container


async def started(node: Daemon, job_id: str) -> str:
    """The id of a job's container, once it is being verified."""

    async def verifying() -> str | None:
        job = await node.status(job_id)
        return job["container"]["id"] if job["phase"] == "verifying" else None

    return str(await eventually(verifying))


async def run_in(docker: aiodocker.Docker, container: str, *command: str) -> None:
    """Run a command in a container to its end."""
    made = await docker.containers.container(container).exec(list(command))
    stream: Any = made.start(detach=False)
    async with stream:
        while await stream.read_out() is not None:
            pass
    try:
        assert (await made.inspect())["ExitCode"] == 0
    except DockerError as error:
        # With Podman a container that ends takes along what it knows of its commands.
        assert (error.status, "no such exec session" in error.message) == (404, True)  # noqa: PT017
