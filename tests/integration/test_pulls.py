"""Pulls from a real registry: one for all, with progress, and each failure told apart."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING

import aiodocker
import pytest

from tests.support.engine_proxy import Answer, EngineProxy
from tests.support.images import publish
from tests.support.registry_proxy import BLOB, MANIFEST, RegistryProxy, refusal
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Any

    from tests.conftest import MakeDaemon
    from tests.support.daemon import Daemon

MEGABYTE = 1_000_000
ONCE = {"max_attempts": 1}
QUICKLY = {"max_attempts": 3, "backoff": 0.05, "max_backoff": 0.1}


@pytest.fixture
async def pulled(
    docker: aiodocker.Docker, registry: str, registry_proxy: RegistryProxy
) -> AsyncIterator[str]:
    """An image that the engine can pull by way of the proxy, taken away from it afterwards."""
    await publish(registry, "pulls/app", [MEGABYTE, MEGABYTE])
    image = f"{registry_proxy.address}/pulls/app"
    yield image
    try:
        await docker.images.delete(f"{image}:latest", force=True)
    except aiodocker.DockerError as error:
        assert error.status == 404, error  # noqa: PT017 - most tests never get it


async def pull(node: Daemon, image: str, **spec: Any) -> dict[str, Any]:
    """A job that pulls this image, when it is final."""
    return await node.wait(await node.create(image, type="batch", arguments=["true"], **spec))


async def test_a_hundred_jobs_of_one_image_are_one_pull_whose_progress_all_see(
    daemon: MakeDaemon, registry_proxy: RegistryProxy, pulled: str
) -> None:
    node = await daemon("--queue-size", "100")
    registry_proxy.rate = MEGABYTE
    jobs = [
        await node.create(pulled, type="batch", arguments=["true"], remove_on_exit=True)
        for _ in range(100)
    ]

    async def all_see_it() -> bool:
        seen = [await node.status(job_id) for job_id in jobs]
        progress = [job["progress"] for job in seen]
        return all(one is not None and one["bytes"] > 0 for one in progress)

    await eventually(all_see_it)
    seen = (await node.status(jobs[-1]))["progress"]
    assert seen["layers"] == 3
    assert 0 < seen["bytes"] <= seen["bytes_total"] <= 3.5 * MEGABYTE
    assert (await node.status(jobs[0]))["reason"].startswith("pulling the image: ")
    ended = await asyncio.gather(*(node.wait(job_id, 90) for job_id in jobs))
    assert {job["status"] for job in ended} == {"complete"}
    assert {job["attempts"] for job in ended} == {1}
    assert {job["progress"] for job in ended} == {None}
    blobs = [request for request in registry_proxy.requests if re.match(BLOB, request)]
    assert len(blobs) == len(set(blobs)) >= 3  # the configuration and two layers at least


async def test_a_job_whose_image_is_at_hand_does_not_wait_for_the_pulls_of_others(
    daemon: MakeDaemon, registry_proxy: RegistryProxy, pulled: str, image: str
) -> None:
    node = await daemon("--worker-count", "1")
    gate = registry_proxy.hold(BLOB, times=None)
    waits = [await node.create(pulled, type="batch", arguments=["true"]) for _ in range(2)]
    await gate.reached()
    assert (await pull(node, image))["status"] == "complete"
    gate.release()
    assert {(await node.wait(job_id))["status"] for job_id in waits} == {"complete"}


async def test_jobs_that_wait_for_a_pull_fill_the_queue(
    daemon: MakeDaemon, registry_proxy: RegistryProxy, pulled: str
) -> None:
    from tests.support.daemon import RpcError

    node = await daemon("--queue-size", "2")
    gate = registry_proxy.hold(BLOB, times=None)
    jobs = [await node.create(pulled, type="batch", arguments=["true"]) for _ in range(2)]
    await gate.reached()
    with pytest.raises(RpcError) as refused:
        await node.create(pulled)
    assert refused.value.code == -32002
    gate.release()
    assert {(await node.wait(job_id))["status"] for job_id in jobs} == {"complete"}


async def test_the_pull_goes_on_for_the_others_when_one_is_cancelled(
    daemon: MakeDaemon, registry_proxy: RegistryProxy, pulled: str
) -> None:
    node = await daemon()
    gate = registry_proxy.hold(BLOB, times=None)
    first, second = [await node.create(pulled, type="batch", arguments=["true"]) for _ in "12"]
    await gate.reached()

    async def both_wait() -> bool:
        return {(await node.status(one))["phase"] for one in (first, second)} == {"pulling"}

    await eventually(both_wait)
    await node.call("ContainerService.Cancel", {"job_id": first})
    assert (await node.wait(first))["status"] == "cancelled"
    gate.release()
    assert (await node.wait(second))["status"] == "complete"


async def test_a_pull_that_nobody_waits_for_is_given_up(
    daemon: MakeDaemon, registry_proxy: RegistryProxy, pulled: str, docker: aiodocker.Docker
) -> None:
    node = await daemon()
    registry_proxy.rate = MEGABYTE / 10
    job_id = await node.create(pulled, retry=ONCE, deploy_timeout=1.5)
    job = await node.wait(job_id)
    assert job["reason"] == "the image was not pulled within the deploy_timeout of 1.5 s"
    registry_proxy.rate = None
    assert (await pull(node, pulled))["status"] == "complete"


# Failures


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (refusal(401, "UNAUTHORIZED", "authentication required"), "there is no login for it"),
        (refusal(403, "DENIED", "requested access is denied"), "refuses pulls/app"),
        (refusal(404, "MANIFEST_UNKNOWN", "manifest unknown"), "has no pulls/app latest"),
        (refusal(404, "NAME_UNKNOWN", "repository name not known"), "has no pulls/app latest"),
    ],
)
async def test_what_does_not_heal_fails_at_once(
    daemon: MakeDaemon, registry_proxy: RegistryProxy, pulled: str, answer: Answer, words: str
) -> None:
    registry_proxy.answer(MANIFEST, answer, times=None)
    node = await daemon()
    job = await pull(node, pulled, retry=QUICKLY)
    print(job["reason"])
    assert (job["status"], job["attempts"]) == ("failed", 1)
    assert words in job["reason"]
    assert registry_proxy.address in job["reason"]


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_refusal_without_a_word_is_told_by_its_status(
    daemon: MakeDaemon, registry_proxy: RegistryProxy, pulled: str, status: int
) -> None:
    """As some registries refuse, which docker passes on as an "unexpected end of JSON input"."""
    registry_proxy.answer(MANIFEST, Answer(status), times=None)
    node = await daemon()
    job = await pull(node, pulled, retry=QUICKLY)
    assert (job["status"], job["attempts"]) == ("failed", 1), job["reason"]
    words = "has no pulls/app latest" if status == 404 else "refuses pulls/app"
    assert words in job["reason"]


async def test_the_name_of_an_image_is_not_taken_for_the_reason(
    daemon: MakeDaemon, registry: str
) -> None:
    node = await daemon()
    job = await pull(node, f"{registry}/pulls/unavailable", retry=QUICKLY)
    assert (job["status"], job["attempts"]) == ("failed", 1)
    assert "has no pulls/unavailable latest" in job["reason"]


@pytest.mark.parametrize(
    ("pattern", "answer", "words"),
    [
        (MANIFEST, refusal(500, "UNKNOWN"), "fails: "),
        (MANIFEST, refusal(502, "UNKNOWN"), "fails: "),
        (MANIFEST, refusal(503, "UNAVAILABLE", "back soon"), "fails: "),
    ],
)
async def test_a_registry_that_fails_is_tried_again(
    daemon: MakeDaemon,
    registry_proxy: RegistryProxy,
    pulled: str,
    pattern: str,
    answer: Answer,
    words: str,
) -> None:
    registry_proxy.answer(pattern, answer, times=None)
    node = await daemon()
    job = await pull(node, pulled, retry=QUICKLY)
    print(job["reason"])
    assert (job["status"], job["attempts"]) == ("failed", 3)
    assert f"the registry {registry_proxy.address} {words}" in job["reason"]


async def test_a_registry_that_heals_is_enough(
    daemon: MakeDaemon, registry_proxy: RegistryProxy, pulled: str
) -> None:
    registry_proxy.answer(MANIFEST, refusal(500, "UNKNOWN"), times=2)
    node = await daemon()
    job = await pull(node, pulled, retry=QUICKLY)
    assert job["status"] == "complete"
    assert "pulling" in [entry["phase"] for entry in job["history"]]


@pytest.mark.docker_only("it makes the pause and tries again by itself")
async def test_too_many_requests_are_followed_by_the_pause_that_is_asked_for(
    daemon: MakeDaemon, registry_proxy: RegistryProxy, pulled: str
) -> None:
    told = refusal(429, "TOOMANYREQUESTS", "slow down, retry after 2 seconds")
    registry_proxy.answer(r"(GET|HEAD) /v2/.+/manifests/", told, times=2)
    node = await daemon()
    job = await pull(node, pulled, retry=QUICKLY)
    print(job["history"])
    assert job["status"] == "complete"
    reason = next(entry["reason"] for entry in job["history"] if entry["reason"])
    assert "too many requests; next try in 2 s or later" in reason


async def test_a_blob_that_is_cut_is_had_all_the_same(
    daemon: MakeDaemon, registry_proxy: RegistryProxy, pulled: str
) -> None:
    registry_proxy.cut(BLOB, after=100_000, skip=1)
    node = await daemon()
    assert (await pull(node, pulled))["status"] == "complete"


async def test_a_full_disk_of_the_engine_says_so_and_is_tried_again(
    daemon: MakeDaemon, engine_proxy: EngineProxy, pulled: str
) -> None:
    words = "write /var/lib/docker/tmp/GetImageBlob1: no space left on device"
    engine_proxy.before("POST /images/create", Answer(500, {"message": words}))
    node = await daemon(docker_host=engine_proxy.url)
    job = await pull(node, pulled, retry=QUICKLY)
    assert job["status"] == "complete"
    assert f"the engine's disk is full: {words}" in [entry["reason"] for entry in job["history"]]


async def test_a_login_is_asked_for_and_used(
    daemon: MakeDaemon, registry_proxy: RegistryProxy, pulled: str
) -> None:
    registry_proxy.require("someone", "canary-password")
    node = await daemon("--log-level", "debug")
    job = await pull(node, pulled)
    assert (job["status"], job["attempts"]) == ("failed", 1)
    assert f"`docker login {registry_proxy.address}`" in job["reason"]


# The end of the daemon, and of the engine


async def test_the_daemon_does_not_wait_for_pulls_when_it_is_to_end(
    daemon: MakeDaemon, registry_proxy: RegistryProxy, pulled: str
) -> None:
    node = await daemon()
    gate = registry_proxy.hold(BLOB, times=None)
    jobs = [await node.create(pulled, type="batch", arguments=["true"]) for _ in range(3)]
    await gate.reached()

    async def all_wait() -> bool:
        return {(await node.status(one))["phase"] for one in jobs} == {"pulling"}

    await eventually(all_wait)
    begun = time.monotonic()
    assert await node.terminate() == 0
    assert time.monotonic() - begun < 3
    await node.start()
    for job_id in jobs:
        assert (await node.status(job_id))["status"] == "running"
    gate.release()
    for job_id in jobs:
        job = await node.wait(job_id)
        assert (job["status"], job["attempts"]) == ("complete", 1)


async def test_killed_during_a_pull_the_job_goes_on(
    daemon: MakeDaemon, registry_proxy: RegistryProxy, pulled: str
) -> None:
    node = await daemon()
    gate = registry_proxy.hold(BLOB, times=None)
    job_id = await node.create(pulled, type="batch", arguments=["true"])
    await gate.reached()
    await node.restart()
    gate.release()
    job = await node.wait(job_id)
    assert (job["status"], job["attempts"]) == ("complete", 1)


async def test_an_engine_that_goes_away_during_a_pull_is_waited_for(
    daemon: MakeDaemon, engine_proxy: EngineProxy, registry_proxy: RegistryProxy, pulled: str
) -> None:
    node = await daemon(docker_host=engine_proxy.url)
    gate = registry_proxy.hold(BLOB, times=None)
    jobs = [await node.create(pulled, type="batch", arguments=["true"]) for _ in range(2)]
    await gate.reached()

    async def all_say(words: str) -> bool:
        seen = [(await node.status(one))["reason"] or "" for one in jobs]
        return all(reason.startswith(words) for reason in seen)

    await eventually(lambda: all_say("pulling the image"))
    await engine_proxy.go_away()
    await eventually(lambda: all_say("waiting for the container engine"))
    gate.release()
    await engine_proxy.come_back()
    for job_id in jobs:
        job = await node.wait(job_id)
        assert (job["status"], job["attempts"]) == ("complete", 1), job["reason"]
