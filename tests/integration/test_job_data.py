"""What a job carries besides its container: user_data, a platform."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiodocker
import pytest
import pytest_asyncio

from tests.integration.test_deploy import containers
from tests.support.images import publish

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import MakeDaemon


async def test_user_data_come_back_wherever_the_job_is_shown(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon("--settle", "0")
    data: list[Any] = [
        {
            "order": "canary-order",
            "tags": ["a", None, True, 1.5, {"deep": {"er": [[]]}}],
            "é": "\u0000日",
        },
        "text",
        0,
        False,
        [],
    ]
    jobs = [await node.create(image, type="batch", arguments=["true"], user_data=d) for d in data]
    for job_id, given in zip(jobs, data, strict=True):
        assert (await node.wait(job_id))["user_data"] == given
    (shown,) = await containers(docker, jobs[0])
    assert "canary-order" not in str(shown)
    plain = await node.wait(await node.create(image, type="batch", arguments=["true"]))
    assert plain["user_data"] is None
    await node.restart()
    listed = await node.call("ContainerService.List")
    assert [job["user_data"] for job in listed["jobs"]] == [None, *reversed(data)]


OF_ANY_PLATFORM = "it makes a container of the image that is there, whatever its platform"
OTHER = "s390x"
"""What no machine is on which these tests run."""


@pytest_asyncio.fixture
async def published(docker: aiodocker.Docker, registry: str) -> AsyncIterator[str]:
    """An image that the registry has for this machine's architecture alone."""
    await publish(registry, "platform/app")
    image = f"{registry}/platform/app"
    yield image
    try:
        await docker.images.delete(f"{image}:latest", force=True)
    except aiodocker.DockerError as error:
        assert error.status == 404, error  # noqa: PT017 - a test that never got it


@pytest.mark.docker_only(OF_ANY_PLATFORM)
async def test_another_architecture_fails_at_once_in_clear_words(
    daemon: MakeDaemon, published: str
) -> None:
    node = await daemon()

    async def other(pull: str) -> dict[str, Any]:
        job = await node.wait(await node.create(published, platform=f"linux/{OTHER}", pull=pull))
        assert (job["status"], job["attempts"]) == ("failed", 1)
        pulled = "pulling" in [entry["phase"] for entry in job["history"]]
        assert pulled == (pull != "never")
        return job

    assert "No such image" in (await other("never"))["reason"]
    for pull in ("missing", "always"):
        assert f"wanted linux/{OTHER}, actual: linux/" in (await other(pull))["reason"]
    job = await node.wait(await node.create(published, type="batch", arguments=["true"]))
    assert job["status"] == "complete"
    for pull in ("never", "missing", "always"):
        assert f"wanted linux/{OTHER}, actual: linux/" in (await other(pull))["reason"]


@pytest.mark.docker_only(OF_ANY_PLATFORM)
async def test_an_image_that_is_there_for_another_platform_is_pulled(
    daemon: MakeDaemon, registry: str, published: str
) -> None:
    """As `docker run --platform` does."""
    node = await daemon()
    job = await node.wait(await node.create(published, type="batch", arguments=["true"]))
    assert job["status"] == "complete"
    await publish(registry, "platform/app", architecture=OTHER)
    phases = []
    for _ in range(2):
        job = await node.wait(
            await node.create(
                published, type="batch", arguments=["true"], platform=f"linux/{OTHER}"
            )
        )
        # Its program is this machine's, whatever the image says that it is.
        assert job["status"] == "complete", job["reason"]
        phases.append([entry["phase"] for entry in job["history"]])
    assert ["pulling" in phase for phase in phases] == [True, False]
