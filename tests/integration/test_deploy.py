"""Jobs deployed on the real engine: how each kind of job ends, and what is left behind."""

from __future__ import annotations

import base64
import io
import tarfile
from typing import TYPE_CHECKING, Any

import aiodocker
import pytest

from tests.support.engine_proxy import Answer, EngineProxy
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.conftest import MakeDaemon

LABEL = "io.container-manager.job"
# A container's first process is deaf to its own signals; its child is not.
CHILD_IS_KILLED = "sh -c 'kill -KILL $$'; exit $?"
ENDLESS = ["sh", "-c", "trap 'exit 0' TERM; echo ready; while :; do sleep 1 & wait $!; done"]


async def containers(docker: aiodocker.Docker, job_id: str) -> list[dict[str, Any]]:
    """The engine's containers of a job, inspected."""
    found = await docker.containers.list(all=True, filters=f'{{"label": ["{LABEL}={job_id}"]}}')
    shown = []
    for one in found:
        try:
            shown.append(await one.show())
        except aiodocker.DockerError as error:
            # Listed as it comes or goes: there is a moment in which it cannot be inspected.
            assert error.status == 404, error  # noqa: PT017 - all others are failures
    return shown


async def test_service_is_complete_once_its_container_is_up(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon("--settle", "0.2")
    job_id = await node.create(image, name="cm-test-up", env={"A": "1"}, labels={"tier": "web"})

    job = await node.wait(job_id)

    assert (job["status"], job["phase"], job["reason"]) == ("complete", None, None)
    assert job["attempts"] == 1
    phases = [entry["phase"] for entry in job["history"]]
    assert phases == [None, "creating", "starting", "verifying", None]
    (shown,) = await containers(docker, job_id)
    assert job["container"]["id"] == shown["Id"]
    assert job["container"]["name"] == shown["Name"].lstrip("/") == "cm-test-up"
    assert job["container"]["state"] == "running"
    assert shown["Config"]["Labels"]["tier"] == "web"
    assert shown["Config"]["Labels"]["io.container-manager.attempt"] == "1"
    assert shown["Config"]["Labels"]["io.container-manager.node"] == job["node"]
    assert "A=1" in shown["Config"]["Env"]
    assert shown["HostConfig"]["SecurityOpt"] == ["no-new-privileges"]
    assert not shown["HostConfig"]["Privileged"]
    assert not shown["HostConfig"]["AutoRemove"]


async def test_without_settle_time_a_running_container_is_enough(
    daemon: MakeDaemon, image: str
) -> None:
    node = await daemon("--settle", "0")
    job = await node.wait(await node.create(image))
    assert job["status"] == "complete"
    assert [e["phase"] for e in job["history"]] == [None, "creating", "starting", None]


async def test_service_that_dies_at_once_is_tried_again_and_cleaned_up(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon("--settle", "5")
    retry = {"max_attempts": 3, "backoff": 0.05}
    job_id = await node.create(image, arguments=["sh", "-c", "exit 7"], retry=retry)

    job = await node.wait(job_id)

    assert (job["status"], job["attempts"]) == ("failed", 3)
    assert job["reason"] == "the container exited with code 7 at once"
    assert job["container"]["exit_code"] == 7
    assert job["container"]["state"] == "removed"
    assert await containers(docker, job_id) == []


async def test_retries_without_a_pause_to_speak_of_do_no_harm(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    """The job is due again before the worker that failed it has let go of it."""
    node = await daemon("--settle", "0")
    retry = {"max_attempts": 5, "backoff": 0.000001, "max_backoff": 0.000001, "on_exit": True}
    jobs = [
        await node.create(image, type="batch", arguments=["no-such-command"], retry=retry),
        await node.create("127.0.0.1:9/nobody/listens", retry={**retry, "on_exit": False}),
        await node.create(image, type="batch", arguments=["false"], retry=retry),
    ]
    ended = [await node.wait(job_id) for job_id in jobs]
    assert [(job["status"], job["attempts"]) for job in ended] == [
        ("failed", 1),
        ("failed", 5),
        ("failed", 5),
    ]
    assert node.running


async def test_labels_beyond_every_line_do_no_harm(daemon: MakeDaemon, image: str) -> None:
    """The engine repeats all labels in each event of a container."""
    node = await daemon("--settle", "0.2")
    labels = {f"label-{number}": "x" * 6000 for number in range(120)}
    assert (await node.wait(await node.create(image, labels=labels)))["status"] == "complete"
    assert (await node.wait(await node.create(image)))["status"] == "complete"
    assert "engine unavailable" not in node.log


async def test_service_that_ends_well_at_once_is_told_of_batch(
    daemon: MakeDaemon, image: str
) -> None:
    node = await daemon("--settle", "5")
    retry = {"max_attempts": 1}
    job = await node.wait(await node.create(image, arguments=["true"], retry=retry))
    assert job["status"] == "failed"
    assert '"type": "batch"' in job["reason"]


@pytest.mark.parametrize(
    ("command", "status", "reason", "exit_code"),
    [
        (["true"], "complete", None, 0),
        (["sh", "-c", "exit 3"], "failed", "exited with code 3", 3),
        (["sh", "-c", CHILD_IS_KILLED], "failed", "exited with code 137 (SIGKILL)", 137),
    ],
)
async def test_batch_ends_by_its_exit_code(
    daemon: MakeDaemon,
    docker: aiodocker.Docker,
    image: str,
    command: list[str],
    status: str,
    reason: str | None,
    exit_code: int,
) -> None:
    node = await daemon()
    job_id = await node.create(image, type="batch", arguments=command)
    job = await node.wait(job_id)
    assert (job["status"], job["reason"]) == (status, reason)
    assert job["container"]["exit_code"] == exit_code
    assert job["attempts"] == 1
    (kept,) = await containers(docker, job_id)
    assert kept["State"]["Status"] == "exited"


async def test_batch_is_tried_again_on_exit_only_when_asked(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon()
    retry = {"on_exit": True, "max_attempts": 3, "backoff": 0.05}
    job_id = await node.create(image, type="batch", arguments=["false"], retry=retry)
    job = await node.wait(job_id)
    assert (job["status"], job["attempts"]) == ("failed", 3)
    assert len(await containers(docker, job_id)) == 1


async def test_batch_past_its_run_timeout_is_stopped(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon()
    job_id = await node.create(image, type="batch", arguments=ENDLESS, run_timeout=0.5)
    job = await node.wait(job_id)
    assert job["status"] == "failed"
    assert job["reason"] == "timed out: stopped after running for 0.5 s"
    (kept,) = await containers(docker, job_id)
    assert not kept["State"]["Running"]


async def test_bad_command_fails_at_once_in_the_engines_words(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon()
    job_id = await node.create(image, arguments=["no-such-command"])
    job = await node.wait(job_id)
    assert (job["status"], job["attempts"]) == ("failed", 1)
    assert "executable file not found" in job["reason"]
    assert await containers(docker, job_id) == []


async def test_name_of_a_stranger_fails_at_once(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    stranger = await docker.containers.create({"Image": image}, name="cm-test-stranger")
    try:
        node = await daemon()
        job = await node.wait(await node.create(image, name="cm-test-stranger"))
        assert (job["status"], job["attempts"]) == ("failed", 1)
        assert 'cm-test-stranger" is already in use by ' in job["reason"]
        assert (await stranger.show())["State"]["Status"] == "created"
    finally:
        await stranger.delete(force=True)


async def test_missing_image_is_pulled_once_it_can_be(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str, registry: str
) -> None:
    name = f"{registry}/pulled"
    await docker.images.tag(image, name, tag="v1")
    await docker.images.push(name, tag="v1", auth={})
    await docker.images.delete(f"{name}:v1")
    node = await daemon("--settle", "0")
    try:
        job = await node.wait(await node.create(f"{name}:v1"))
        assert job["status"] == "complete"
        assert "pulling" in [entry["phase"] for entry in job["history"]]
        again = await node.wait(await node.create(f"{name}:v1"))
        assert "pulling" not in [entry["phase"] for entry in again["history"]]
        always = await node.wait(await node.create(f"{name}:v1", pull="always"))
        assert "pulling" in [entry["phase"] for entry in always["history"]]
    finally:
        await docker.images.delete(f"{name}:v1", force=True)


async def test_image_that_is_in_no_registry_fails_at_once(
    daemon: MakeDaemon, registry: str
) -> None:
    node = await daemon()
    job = await node.wait(await node.create(f"{registry}/nobody/made:this"))
    assert (job["status"], job["attempts"]) == ("failed", 1)
    assert "manifest" in job["reason"]
    assert "not found" in job["reason"] or "unknown" in job["reason"]


async def test_image_that_must_not_be_pulled_fails_at_once(daemon: MakeDaemon) -> None:
    node = await daemon()
    job = await node.wait(await node.create("container-manager-test/absent", pull="never"))
    assert (job["status"], job["attempts"]) == ("failed", 1)
    assert "no such image" in job["reason"].lower()


async def test_registry_out_of_reach_is_tried_again(daemon: MakeDaemon) -> None:
    node = await daemon()
    retry = {"max_attempts": 2, "backoff": 0.05}
    job = await node.wait(await node.create("127.0.0.1:9/nobody/listens", retry=retry))
    assert (job["status"], job["attempts"]) == ("failed", 2)
    assert "connection refused" in job["reason"]


async def test_engine_error_heals(
    daemon: MakeDaemon, engine_proxy: EngineProxy, docker: aiodocker.Docker, image: str
) -> None:
    engine_proxy.before("POST /containers/create", Answer(500, {"message": "no good day"}))
    node = await daemon("--settle", "0", docker_host=engine_proxy.url)
    job_id = await node.create(image, retry={"backoff": 0.05})
    job = await node.wait(job_id)
    assert (job["status"], job["attempts"]) == ("complete", 2)
    assert "no good day" in [entry["reason"] for entry in job["history"]]
    assert len(await containers(docker, job_id)) == 1


async def test_retry_time_survives_a_restart(
    daemon: MakeDaemon, engine_proxy: EngineProxy, image: str
) -> None:
    engine_proxy.before("POST /containers/create", Answer(500, {"message": "not now"}))
    node = await daemon("--settle", "0", docker_host=engine_proxy.url)
    job_id = await node.create(image, retry={"backoff": 600, "max_backoff": 600})

    async def backing_off() -> bool:
        return bool((await node.status(job_id))["next_attempt_at"])

    await eventually(backing_off)
    before = await node.status(job_id)
    assert before["reason"] == "waiting to be tried again: not now"
    await node.restart()
    after = await node.status(job_id)
    assert (after["status"], after["next_attempt_at"]) == ("pending", before["next_attempt_at"])


@pytest.mark.usefixtures("health_timers")
async def test_health_check_decides(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    """An image with a health check: complete when healthy, failed when unhealthy."""
    for name, probe in (("well", "true"), ("ill", "false")):
        await _with_health_check(docker, image, f"container-manager-test/{name}", probe)
    try:
        node = await daemon("--settle", "0")
        retry = {"max_attempts": 1}
        well = await node.create("container-manager-test/well", retry=retry)
        ill = await node.create("container-manager-test/ill", retry=retry)
        job = await node.wait(well)
        assert (job["status"], job["container"]["health"]) == ("complete", "healthy")
        job = await node.wait(ill)
        assert (job["status"], job["reason"]) == ("failed", "the container is unhealthy")
        assert await containers(docker, ill) == []
    finally:
        for name in ("well", "ill"):
            node_containers = await docker.containers.list(
                all=True, filters=f'{{"ancestor": ["container-manager-test/{name}"]}}'
            )
            for one in node_containers:
                await one.delete(force=True)
            await docker.images.delete(f"container-manager-test/{name}", force=True)


async def _with_health_check(docker: aiodocker.Docker, image: str, name: str, probe: str) -> None:
    dockerfile = (
        f"FROM {image}\nHEALTHCHECK --interval=1s --timeout=5s --retries=1 CMD {probe}\n"
    ).encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        info = tarfile.TarInfo("Dockerfile")
        info.size = len(dockerfile)
        tar.addfile(info, io.BytesIO(dockerfile))
    packed.seek(0)
    await docker.images.build(fileobj=packed, tag=name, encoding="gzip")


async def test_environment_reaches_the_container_and_nothing_else(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    canary = "canary-" + base64.b16encode(b"environment").decode()
    node = await daemon("--log-level", "debug", "--settle", "0")
    script = ["sh", "-c", "echo length ${#SECRET}"]
    job_id = await node.create(image, type="batch", arguments=script, env={"SECRET": canary})
    job = await node.wait(job_id)
    assert job["status"] == "complete"
    (shown,) = await containers(docker, job_id)
    log = await docker.containers.container(shown["Id"]).log(stdout=True)
    assert log == [f"length {len(canary)}\n"]
    assert canary not in str(job)
    assert canary not in node.log
    for file in node.data_dir.iterdir():
        assert canary.encode() not in file.read_bytes(), file
