"""Daemons that share a secret: what one is told, all answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import pytest_asyncio

from container_manager.cluster.secret import ClusterSecret
from tests.support.cluster import NO_ENGINE, id_of, linked, states
from tests.support.daemon import Daemon, RpcError, free_port
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeDaemon

pytestmark = pytest.mark.engine

SECRET = ClusterSecret.new_text()
JOB_NOT_FOUND, NODE_UNREACHABLE = -32001, -32008
LINKED = 3.0
"""Seconds in which two nodes that know each other's address have a link."""
EQUAL = 5.0
"""Seconds in which linked nodes know the same."""


class MakeMember(Protocol):
    """What the `member` fixture gives."""

    async def __call__(
        self, name: str, *flags: str, secret: str | None = SECRET, **options: Any
    ) -> Daemon:
        """Start a daemon that dials the members made before it."""


@pytest_asyncio.fixture
async def member(daemon: MakeDaemon, tmp_path: Path) -> MakeMember:
    """Make daemons of one cluster, without mDNS: `a = await member("a")`."""
    ports: list[int] = []

    async def make(name: str, *flags: str, secret: str | None = SECRET, **options: Any) -> Daemon:
        port = free_port()
        peers = [word for known in ports for word in ("--peer", f"127.0.0.1:{known}")]
        ports.append(port)
        env = {} if secret is None else {"CONTAINER_MANAGER_SECRET": secret}
        return await daemon(
            *("--no-mdns", "--p2p-port", str(port), "--listen-address", "127.0.0.1"),
            *(*peers, *flags),
            name=name,
            env=env,
            **options,
        )

    return make


async def knows(node: Daemon, job_id: str, **said: Any) -> bool:
    """Whether a node tells that of a job from what it has on its own disk."""
    listed = await node.call("ContainerService.List", {"limit": 1000})
    found = [job for job in listed["jobs"] if job["job_id"] == job_id]
    return any(all(job[name] == value for name, value in said.items()) for job in found)


async def test_a_job_created_at_one_is_answered_by_all_with_the_same_container(
    member: MakeMember, image: str
) -> None:
    a, b, c = await member("a"), await member("b"), await member("c")
    await linked(a, b, c, within=LINKED)
    job_id = await a.create(image)
    done = await a.wait(job_id)
    assert done["status"] == "complete"
    for other in (b, c):
        await eventually(lambda other=other: knows(other, job_id, status="complete"), EQUAL)
        job = await other.status(job_id)
        assert job["container"] == done["container"]
        assert job["history"] == done["history"]
        assert (job["node"], job["owner_reachable"]) == (await id_of(a), True)
        listed = await other.call("ContainerService.List")
        assert [one["job_id"] for one in listed["jobs"]] == [job_id]


async def test_waiting_at_another_node_ends_when_the_job_does(
    member: MakeMember, image: str
) -> None:
    a, b = await member("a", "--settle", "0"), await member("b")
    await linked(a, b, within=LINKED)
    job_id = await a.create(image, type="batch", arguments=["sh", "-c", "echo done"])
    await eventually(lambda: knows(b, job_id), EQUAL)
    job = await b.call("ContainerService.Wait", {"job_id": job_id, "timeout": 30})
    assert (job["status"], job["timed_out"], job["output"]) == ("complete", False, ["done"])


async def test_what_a_dead_node_has_said_is_known_and_said_to_be_old(member: MakeMember) -> None:
    a, b = await member("a", wait_ready=False, docker_host=NO_ENGINE), await member("b")
    await linked(a, b, within=LINKED)
    job_id = await a.create("busybox")
    await eventually(lambda: knows(b, job_id), EQUAL)
    gone = await id_of(a)
    await a.kill()
    await eventually(lambda: knows(b, job_id, owner_reachable=False), EQUAL)
    job = await b.status(job_id)
    assert job["status"] == "pending"
    assert job["as_of"] is not None
    assert "cannot be reached" in job["reason"]
    assert (await states(b))[gone] in ("alive", "suspect")  # for as long as it might be a blip
    for call in ("ContainerService.Cancel", "ContainerService.Retry"):
        with pytest.raises(RpcError) as refused:
            await b.call(call, {"job_id": job_id})
        assert refused.value.code == NODE_UNREACHABLE
        assert refused.value.data["node"] == gone
    # Started again it goes on with its job, and the other one knows.
    await a.start(wait_ready=False)
    await eventually(lambda: knows(b, job_id, owner_reachable=True), EQUAL)


async def test_what_changes_a_job_is_done_by_its_owner(member: MakeMember) -> None:
    a = await member("a", wait_ready=False, docker_host=NO_ENGINE)
    b = await member("b", wait_ready=False, docker_host=NO_ENGINE)
    await linked(a, b, within=LINKED)
    job_id = await a.create("busybox")
    await eventually(lambda: knows(b, job_id), EQUAL)
    cancelled = await b.call("ContainerService.Cancel", {"job_id": job_id})
    assert (cancelled["status"], cancelled["node"]) == ("cancelled", await id_of(a))
    await eventually(lambda: knows(b, job_id, status="cancelled"), EQUAL)
    retried = await b.call("ContainerService.Retry", {"job_id": job_id})
    assert retried["status"] == "pending"
    with pytest.raises(RpcError) as refused:
        await b.call("ContainerService.Retry", {"job_id": job_id})
    assert (refused.value.code, refused.value.data["name"]) == (-32007, "conflict")


async def test_a_job_that_has_not_come_yet_is_asked_for(member: MakeMember) -> None:
    """Right after Create, which is long before any look at what is missing."""
    a = await member("a", wait_ready=False, docker_host=NO_ENGINE)
    b = await member("b", wait_ready=False, docker_host=NO_ENGINE)
    await linked(a, b, within=LINKED)
    for _ in range(50):
        job_id = await a.create("busybox")
        assert (await b.status(job_id))["status"] == "pending"
        waited = await b.call("ContainerService.Wait", {"job_id": job_id, "timeout": 0.01})
        assert (waited["status"], waited["timed_out"]) == ("pending", True)
    # As soon as it is there it can be changed as well.
    job_id = await a.create("busybox")
    assert (await b.call("ContainerService.Cancel", {"job_id": job_id}))["status"] == "cancelled"
    with pytest.raises(RpcError) as unknown:
        await b.status("01900000-0000-7000-8000-000000000000")
    assert unknown.value.code == JOB_NOT_FOUND


async def test_a_node_that_comes_late_is_told_what_was_before_also_by_third_nodes(
    member: MakeMember,
) -> None:
    a = await member("a", "--queue-size", "1000", wait_ready=False, docker_host=NO_ENGINE)
    b = await member("b", wait_ready=False, docker_host=NO_ENGINE)
    await linked(a, b, within=LINKED)
    created = [await a.create("busybox") for _ in range(300)]
    await eventually(lambda: knows(b, created[-1]), EQUAL)
    await a.kill()  # from now on only b can tell of them
    c = await member("c", wait_ready=False, docker_host=NO_ENGINE)
    await eventually(lambda: knows(c, created[-1]), LINKED + EQUAL)
    jobs = (await c.call("ContainerService.List", {"limit": 1000}))["jobs"]
    assert {job["job_id"] for job in jobs} == set(created)


async def test_a_node_says_goodbye(member: MakeMember) -> None:
    a = await member("a", wait_ready=False, docker_host=NO_ENGINE)
    b = await member("b", wait_ready=False, docker_host=NO_ENGINE)
    await linked(a, b, within=LINKED)
    left = await id_of(b)
    assert await b.terminate() == 0

    async def has_left() -> bool:
        return (await states(a))[left] == "left"

    await eventually(has_left, 2)


async def test_another_secret_is_refused_and_said_so_on_both_sides(member: MakeMember) -> None:
    a = await member("a", wait_ready=False, docker_host=NO_ENGINE)
    b = await member("b", wait_ready=False, docker_host=NO_ENGINE, secret=ClusterSecret.new_text())
    for node in (a, b):
        await eventually(lambda node=node: "cluster secret" in node.log, LINKED)
    assert await states(a) == await states(b) == {}
    job_id = await a.create("busybox")
    assert not await knows(b, job_id)


async def test_one_token_is_good_at_every_node(member: MakeMember) -> None:
    a, b = [
        await member(name, "--require-token", wait_ready=False, docker_host=NO_ENGINE)
        for name in ("a", "b")
    ]
    tokens = {(node.data_dir / "token").read_text().strip() for node in (a, b)}
    assert len(tokens) == 1


async def test_what_is_secret_is_in_the_clear_on_no_disk(member: MakeMember) -> None:
    canary = "canary-in-the-environment"
    a = await member("a", wait_ready=False, docker_host=NO_ENGINE)
    b = await member("b", wait_ready=False, docker_host=NO_ENGINE)
    await linked(a, b, within=LINKED)
    job_id = await a.create("busybox", env={"PASSWORD": canary})
    await eventually(lambda: knows(b, job_id), EQUAL)
    for node in (a, b):
        await node.terminate()
        files = [path for path in node.data_dir.rglob("*") if path.is_file()]
        found = await asyncio.to_thread(_holding, files, (canary.encode(), SECRET.encode()))
        assert not found


def _holding(files: list[Path], words: tuple[bytes, ...]) -> list[Path]:
    return [path for path in files if any(word in path.read_bytes() for word in words)]


async def test_a_weak_secret_is_refused_at_the_start(daemon: MakeDaemon) -> None:
    node = await daemon(start=False, env={"CONTAINER_MANAGER_SECRET": "password"})
    with pytest.raises(Exception, match="weak"):
        await node.start(timeout=5)
