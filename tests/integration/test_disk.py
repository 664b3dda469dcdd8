"""A full disk: what was acknowledged is kept, nothing else is said, and room heals it."""

from __future__ import annotations

import asyncio
import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from tests.integration.test_start import failed, start
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import aiodocker

    from tests.conftest import MakeDaemon
    from tests.support.daemon import Daemon
    from tests.support.engine_proxy import EngineProxy

AWAY = "unix:///nonexistent.sock"
SERVICE = "ContainerService."
LABEL = "io.container-manager.job"


@contextmanager
def small_disk(directory: Path) -> Iterator[None]:
    """A file system of two megabytes, mounted at `directory`."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "cmt", directory], check=True)
    try:
        yield
    finally:
        # Lazily: a daemon that a failing test has left is ended by its fixture only later.
        subprocess.run(["umount", "--lazy", directory], check=True)


def fill(directory: Path, leave: int = 0) -> Path:
    """Use up what is left of the file system, but for so many bytes; deleting the file frees it."""
    file = directory / "filler"
    free = os.statvfs(directory)
    with file.open("wb") as out:
        os.posix_fallocate(out.fileno(), 0, free.f_bavail * free.f_frsize - leave)
    left = os.statvfs(directory)
    assert abs(left.f_bavail * left.f_frsize - leave) < 4096
    return file


async def create(node: Daemon, number: int = 1) -> tuple[list[str], list[dict[str, Any]]]:
    """Ask for so many jobs at once; the ids acknowledged, and the errors."""
    params = {"image": "nginx", "env": {"A": "x" * 200}, "arguments": ["y" * 500]}
    call = {"jsonrpc": "2.0", "method": f"{SERVICE}Create", "params": params}
    body = orjson.dumps([{**call, "id": id_} for id_ in range(number)])
    status, _, text = await node.post(body)
    assert status == 200, text
    answers = orjson.loads(text)
    assert len(answers) == number
    made = [answer["result"]["job_id"] for answer in answers if "result" in answer]
    return made, [answer["error"] for answer in answers if "error" in answer]


async def create_until_full(node: Daemon, at_once: int) -> list[str]:
    """Create jobs until that fails for each of a round; the ids that were acknowledged."""
    acknowledged: list[str] = []
    for _ in range(2000):
        made, errors = await create(node, at_once)
        acknowledged += made
        for error in errors:
            assert error["data"]["name"] == "storage_unavailable", error
            assert "Nothing was" in error["message"]
        if len(errors) == at_once:
            return acknowledged
    raise AssertionError("the disk never filled")


async def listed(node: Daemon) -> list[str]:
    """The ids of all jobs that there are."""
    found: list[str] = []
    cursor = None
    while True:
        page = await node.call(f"{SERVICE}List", {"limit": 1000, "cursor": cursor})
        found += [job["job_id"] for job in page["jobs"]]
        if (cursor := page["next_cursor"]) is None:
            return found


@pytest.mark.parametrize("at_once", [1, 20])
async def test_full_disk_refuses_jobs_and_keeps_those_acknowledged(
    daemon: MakeDaemon, tmp_path: Path, at_once: int
) -> None:
    with small_disk(tmp_path / "node"):
        node = await daemon("--queue-size", "100000", docker_host=AWAY, wait_ready=False)
        filler = fill(node.data_dir, leave=600_000)
        acknowledged = await create_until_full(node, at_once)
        assert acknowledged

        # What can be read goes on.
        for job_id in (acknowledged[0], acknowledged[-1]):
            assert (await node.status(job_id))["status"] == "pending"
        assert (await node.get("/livez"))[0] == 200
        assert sorted(await listed(node)) == sorted(acknowledged)
        # A refused job takes no place in the queue, and is counted as none.
        _, text = await node.get("/readyz")
        assert orjson.loads(text)["queue"]["waiting"] == len(acknowledged)
        metrics = (await node.get("/metrics"))[1].splitlines()
        assert f"container_manager_jobs_created_total {float(len(acknowledged))}" in metrics

        filler.unlink()
        made, errors = await create(node, 10)
        assert errors == []
        acknowledged += made

        await node.restart(wait_ready=False)
        assert sorted(await listed(node)) == sorted(acknowledged)
        assert "Traceback" not in node.log
        await node.close()


async def test_killed_on_a_full_disk_it_has_what_it_acknowledged(
    daemon: MakeDaemon, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "node"):
        node = await daemon("--queue-size", "100000", docker_host=AWAY, wait_ready=False)
        filler = fill(node.data_dir, leave=300_000)
        acknowledged = await create_until_full(node, 5)
        await node.kill()
        filler.unlink()
        await node.start(wait_ready=False)
        assert sorted(await listed(node)) == sorted(acknowledged)
        made, errors = await create(node)
        assert (len(made), errors) == (1, [])
        await node.close()


async def test_start_on_a_full_disk_says_so_in_one_line(daemon: MakeDaemon, tmp_path: Path) -> None:
    with small_disk(tmp_path / "node"):
        directory = tmp_path / "node"
        filler = fill(directory)
        failed(await asyncio.to_thread(start, directory), str(directory), "No space left")
        # With room for the keys, and none for the database.
        filler.unlink()
        fill(directory, leave=20_000)
        failed(await asyncio.to_thread(start, directory), "job store")
        filler.unlink()
        # Nothing half made is in the way of the next start.
        node = await daemon(docker_host=AWAY, wait_ready=False)
        assert (await create(node))[1] == []
        await node.close()


@pytest.mark.engine
async def test_deployment_waits_for_room_and_makes_one_container(
    daemon: MakeDaemon,
    engine_proxy: EngineProxy,
    docker: aiodocker.Docker,
    image: str,
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "node"):
        flags = ("--settle", "0", "--queue-size", "100000")
        await engine_proxy.go_away()
        node = await daemon(*flags, docker_host=engine_proxy.url, wait_ready=False)
        job_id = await node.create(image)
        filler = fill(node.data_dir)
        # Fill what room the database has left within its own files, too.
        while not (await create(node))[1]:
            pass
        others = [one for one in await listed(node) if one != job_id]
        await engine_proxy.come_back()
        await eventually(lambda: "job store not writable" in node.log)
        # The intention cannot be kept, so nothing is done.
        assert not any(one.startswith("POST /containers") for one in engine_proxy.requests)
        assert (await node.status(job_id))["status"] == "pending"

        filler.unlink()

        job = await node.wait(job_id)
        assert job["status"] == "complete", job
        filters = f'{{"label": ["{LABEL}={job_id}"]}}'
        assert len(await docker.containers.list(all=True, filters=filters)) == 1
        for one in others:
            await node.call(f"{SERVICE}Cancel", {"job_id": one})
        assert "Traceback" not in node.log
        await node.close()
