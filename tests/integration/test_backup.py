"""Backup and restore by the command line, beside real daemons; and daemons with a damaged store."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.integration.test_disk import create, fill, listed, small_disk
from tests.integration.test_start import environment, failed, refused, run
from tests.support.daemon import COMMAND, RpcError
from tests.support.damage import break_page, stored_ids
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    import aiodocker

    from tests.conftest import MakeDaemon
    from tests.support.daemon import Daemon

AWAY = "unix:///nonexistent.sock"
QUEUE = ("--queue-size", "1000000")


async def command(data_dir: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command on a data directory."""
    words = ("--data-dir", str(data_dir), *(str(one) for one in arguments))
    return await asyncio.to_thread(run, *words)


async def done(data_dir: Path, *arguments: object) -> str:
    """Run a command that has to succeed; what it says, in one line."""
    ended = await command(data_dir, *arguments)
    assert ended.returncode == 0, ended
    assert ended.stderr == ""
    (line,) = ended.stdout.splitlines()
    return line


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


# Beside a daemon that works


async def test_backup_of_a_busy_daemon_has_all_that_was_acknowledged_before(
    daemon: MakeDaemon, tmp_path: Path
) -> None:
    node = await daemon(*QUEUE, docker_host=AWAY, wait_ready=False)
    acknowledged: list[str] = []

    async def load() -> None:
        while True:
            acknowledged.extend((await create(node, 50))[0])

    loads = [asyncio.create_task(load()) for _ in range(4)]
    for number in range(3):
        await eventually(lambda n=number: len(acknowledged) > 3000 * (n + 1), timeout=60)
        before = set(acknowledged)
        file = tmp_path / f"backup-{number}"
        said = await done(node.data_dir, "backup", file)
        assert str(file) in said
        after = len(acknowledged)
        assert after > len(before)  # it was not held up
        new = tmp_path / f"new-{number}"
        await done(new, "restore", file)
        kept = stored_ids(new / "jobs.sqlite")
        assert before <= kept
        assert f"Saved {len(kept)} jobs" in said
    for one in loads:
        one.cancel()
    await asyncio.gather(*loads, return_exceptions=True)
    assert set(acknowledged) <= set(await listed(node))

    await node.kill()
    other = await daemon(*QUEUE, name="new-2", docker_host=AWAY, wait_ready=False)
    assert set(await listed(other)) == kept
    assert (await create(other))[1] == []


async def test_backup_without_a_daemon_and_after_it_was_killed(
    daemon: MakeDaemon, tmp_path: Path
) -> None:
    node = await daemon(docker_host=AWAY, wait_ready=False)
    made = {await node.create("nginx", env={"A": "1"}) for _ in range(5)}
    await node.kill()  # what was made is in the log alone
    assert stored_ids(node.data_dir / "jobs.sqlite") == made
    said = await done(node.data_dir, "backup", tmp_path / "b")
    assert said.startswith("Saved 5 jobs of node ")
    assert "jobs.sqlite, node.key, seal.key, token in " in said
    said = await done(tmp_path / "new", "restore", tmp_path / "b")
    assert said.startswith("Restored 5 jobs of node ")
    assert said.endswith(f" to {tmp_path / 'new'}.")
    assert stored_ids(tmp_path / "new" / "jobs.sqlite") == made


@pytest.mark.engine
async def test_restored_jobs_are_deployed_and_younger_ones_brought_back(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str, tmp_path: Path
) -> None:
    node = await daemon("--settle", "0")
    old = await node.create(image, env={"PASSWORD": "sesame"})
    assert (await node.wait(old))["status"] == "complete"
    await node.kill()
    # One waits when the backup is made, and is deployed after it.
    away = await daemon("--settle", "0", docker_host=AWAY, wait_ready=False, start=False)
    await away.start(wait_ready=False)
    waiting = await away.create(image, env={"PASSWORD": "open"})
    await done(node.data_dir, "backup", tmp_path / "b")
    await away.kill()
    await node.start()
    assert (await node.wait(waiting))["status"] == "complete"
    young = await node.create(image, env={"PASSWORD": "later"})
    containers = {}
    for job_id in (old, waiting, young):
        containers[job_id] = (await node.wait(job_id))["container"]["id"]

    before = stored_ids(node.data_dir / "jobs.sqlite")
    failed(await command(node.data_dir, "restore", "--force", tmp_path / "b"), "in use", "Stop")
    assert (await node.status(young))["status"] == "complete"
    await node.terminate()
    failed(await command(node.data_dir, "restore", tmp_path / "b"), "job store already", "--force")
    said = await done(node.data_dir, "restore", "--force", tmp_path / "b")
    aside = node.data_dir / next(n for n in names(node.data_dir) if n.startswith("before-"))
    assert said.endswith(f" What was there is in {aside}.")
    assert stored_ids(aside / "jobs.sqlite") == before
    assert stored_ids(node.data_dir / "jobs.sqlite") == {old, waiting}

    await node.start()
    await eventually(lambda: "brought back" in node.log)
    for job_id, container in containers.items():
        job = await node.wait(job_id)
        assert (job["status"], job["container"]["id"]) == ("complete", container)
        found = await (await docker.containers.get(container)).show()
        assert found["State"]["Running"]


@pytest.mark.engine
async def test_environment_that_was_sealed_before_the_backup_opens_after_the_restore(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str, tmp_path: Path
) -> None:
    away = await daemon(docker_host=AWAY, wait_ready=False)
    job_id = await away.create(image, env={"PASSWORD": "sesame"})
    await done(away.data_dir, "backup", tmp_path / "b")
    await away.terminate()
    await done(tmp_path / "moved", "restore", tmp_path / "b")
    node = await daemon("--settle", "0", name="moved")
    job = await node.wait(job_id)
    assert job["status"] == "complete"
    found = await (await docker.containers.get(job["container"]["id"])).show()
    assert "PASSWORD=sesame" in found["Config"]["Env"]


# As a command


async def test_backup_and_restore_through_pipes(daemon: MakeDaemon, tmp_path: Path) -> None:
    node = await daemon(docker_host=AWAY, wait_ready=False)
    job_id = await node.create("nginx")
    line = (
        f"{' '.join(COMMAND)} --data-dir {node.data_dir} backup - | gzip | gzip -d | "
        f"{' '.join(COMMAND)} --data-dir {tmp_path / 'new'} restore -"
    )
    ended = await asyncio.to_thread(
        subprocess.run,
        ["/bin/sh", "-c", line],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 0, ended
    assert ended.stdout.startswith("Restored 1 job of node ")
    assert ended.stderr.startswith("Saved 1 job of node ")
    assert "standard output" in ended.stderr
    assert stored_ids(tmp_path / "new" / "jobs.sqlite") == {job_id}
    # A reader that has had enough is no reason for a traceback.
    line = f"{' '.join(COMMAND)} --data-dir {node.data_dir} backup - | true"
    ended = await asyncio.to_thread(
        subprocess.run,
        ["/bin/sh", "-c", line],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.stderr.startswith("container-manager: Standard output cannot be written")
    assert len(ended.stderr.splitlines()) == 1


async def test_a_terminal_gets_no_backup(daemon: MakeDaemon) -> None:
    node = await daemon(docker_host=AWAY, wait_ready=False)
    ours, theirs = pty.openpty()
    words = [*COMMAND, "--data-dir", str(node.data_dir), "backup", "-"]
    ended = await asyncio.to_thread(
        subprocess.run,
        words,
        env=environment(),
        stdout=theirs,
        stderr=subprocess.PIPE,
        text=True,
        timeout=30,
        check=False,
    )
    os.close(theirs)
    os.close(ours)
    assert ended.returncode == 2
    assert "terminal" in ended.stderr


async def test_settings_name_the_directory_and_a_token_elsewhere_is_not_saved(
    daemon: MakeDaemon, tmp_path: Path
) -> None:
    token = tmp_path / "elsewhere"
    node = await daemon("--token-file", str(token), docker_host=AWAY, wait_ready=False)
    file = tmp_path / "settings.toml"
    file.write_text(f'data_dir = "{node.data_dir}"\ntoken_file = "{token}"\n')
    ended = await asyncio.to_thread(run, "--config", str(file), "backup", str(tmp_path / "a"))
    assert ended.returncode == 0, ended
    assert "with jobs.sqlite, node.key, seal.key in" in ended.stdout
    assert f"Not saved: {token}" in ended.stdout
    more = {"CONTAINER_MANAGER_DATA_DIR": str(tmp_path / "new")}
    ended = await asyncio.to_thread(run, "restore", str(tmp_path / "a"), env=more)
    assert ended.returncode == 0, ended
    assert not (tmp_path / "new" / "token").exists()


async def test_what_cannot_be_done_is_said_in_one_line(daemon: MakeDaemon, tmp_path: Path) -> None:
    node = await daemon(docker_host=AWAY, wait_ready=False)
    (tmp_path / "mine").write_text("mine")
    failed(await command(node.data_dir, "backup", tmp_path / "mine"), "mine", "--force")
    assert (tmp_path / "mine").read_text() == "mine"
    failed(await command(tmp_path / "none", "backup", tmp_path / "b"), "no job store", "--data-dir")
    failed(await command(node.data_dir, "backup", tmp_path / "no" / "b"), "No such file")
    new = tmp_path / "new"
    failed(await command(new, "restore", tmp_path / "no"), str(tmp_path / "no"), "No such file")
    failed(await command(new, "restore", tmp_path), str(tmp_path), "Is a directory")
    failed(await command(new, "restore", tmp_path / "mine"), "no backup")
    refused(await command(new, "restore"), "FILE")
    assert names(tmp_path) - {"new", "node", "node.log"} == {"mine"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_command_that_is_ended_leaves_nothing_behind(
    tmp_path: Path, daemon: MakeDaemon, number: signal.Signals
) -> None:
    node = await daemon(docker_host=AWAY, wait_ready=False)
    await node.create("nginx")
    await node.terminate()
    await done(node.data_dir, "backup", tmp_path / "b")
    words = [*COMMAND, "--data-dir", str(tmp_path / "new"), "restore", "-"]
    process = await asyncio.create_subprocess_exec(
        *words, env=environment(), stdin=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.write((tmp_path / "b").read_bytes()[:30_000])
    await eventually((tmp_path / "new" / "restore.part" / "jobs.sqlite").exists)
    process.send_signal(number)
    async with asyncio.timeout(10):
        assert await process.wait() == {signal.SIGTERM: 143, signal.SIGINT: 1}[number]
    assert names(tmp_path / "new") == {"lock", "new"}


# A full disk


async def test_full_disk_leaves_no_half_a_backup(daemon: MakeDaemon, tmp_path: Path) -> None:
    node = await daemon(*QUEUE, docker_host=AWAY, wait_ready=False)
    await create(node, 100)
    await done(node.data_dir, "backup", tmp_path / "a")
    size = (tmp_path / "a").stat().st_size
    disk = tmp_path / "disk"
    with small_disk(disk):
        # Room for nothing, for a part of the copy, for the copy and a part of the file.
        for leave in (0, size // 2, size * 3 // 2):
            filler = fill(disk, leave=leave)
            failed(await command(node.data_dir, "backup", disk / "b"), str(disk))
            assert names(disk) == {"filler"}
            filler.unlink()
        await done(node.data_dir, "backup", disk / "b")
        (disk / "b").unlink()
    assert (await create(node))[1] == []


async def test_full_disk_leaves_the_directory_as_it_was(daemon: MakeDaemon, tmp_path: Path) -> None:
    other = await daemon(*QUEUE, name="other", docker_host=AWAY, wait_ready=False)
    await create(other, 100)
    await create(other, 100)
    await done(other.data_dir, "backup", tmp_path / "b")
    with small_disk(tmp_path / "node"):
        node = await daemon(docker_host=AWAY, wait_ready=False)
        job_id = await node.create("nginx")
        await node.terminate()
        before = {path.name: path.read_bytes() for path in node.data_dir.iterdir()}
        for leave in (0, 200_000):
            filler = fill(node.data_dir, leave=leave)
            ended = await command(node.data_dir, "restore", "--force", tmp_path / "b")
            failed(ended, str(node.data_dir), "No space left")
            filler.unlink()
            assert {path.name: path.read_bytes() for path in node.data_dir.iterdir()} == before
        await node.start(wait_ready=False)
        assert await listed(node) == [job_id]
        await node.close()


# A damaged store


def ended_by_damage(node: Daemon, code: int) -> None:
    assert code == 1
    last = node.log.splitlines()[-1]
    assert last.startswith(f"container-manager: The job store {node.data_dir}/jobs.sqlite is ")
    assert "damaged" in last
    assert "container-manager restore --force" in last
    assert "Traceback" not in node.log


async def test_damaged_store_is_found_at_the_start_and_a_backup_heals_it(
    daemon: MakeDaemon, tmp_path: Path
) -> None:
    node = await daemon(*QUEUE, docker_host=AWAY, wait_ready=False)
    made = (await create(node, 100))[0]
    await done(node.data_dir, "backup", tmp_path / "b")
    await node.terminate()
    broken = break_page(node.data_dir / "jobs.sqlite")

    ended = await command(node.data_dir, "--docker-host", AWAY, "--port", "0")
    failed(ended, f"{node.data_dir}/jobs.sqlite is damaged", "container-manager restore --force")
    assert (node.data_dir / "jobs.sqlite").read_bytes() == broken
    failed(await command(node.data_dir, "backup", tmp_path / "c"), "jobs.sqlite is damaged")
    assert not (tmp_path / "c").exists()

    await done(node.data_dir, "restore", "--force", tmp_path / "b")
    await node.start(wait_ready=False)
    assert set(await listed(node)) == set(made)


async def test_store_that_was_emptied_is_not_begun_anew(daemon: MakeDaemon) -> None:
    node = await daemon(docker_host=AWAY, wait_ready=False)
    await node.create("nginx")
    await node.terminate()
    (node.data_dir / "new").unlink()  # as once it was compared with the engine
    os.truncate(node.data_dir / "jobs.sqlite", 0)
    ended = await command(node.data_dir, "--docker-host", AWAY, "--port", "0")
    failed(ended, f"{node.data_dir}/jobs.sqlite is damaged (the file is empty)")


# As if the store were too large for the start's share of the check.
UNHURRIED = (
    sys.executable,
    "-c",
    """
import sys
from container_manager.cli.main import main
from container_manager.store import database, integrity

database.CHECK_SECONDS = integrity.HEAD_START = 0
main(sys.argv[1:])
""",
)


async def test_damage_that_is_found_beside_the_work_ends_the_daemon(daemon: MakeDaemon) -> None:
    node = await daemon(*QUEUE, docker_host=AWAY, wait_ready=False, command=UNHURRIED)
    await create(node, 100)
    await node.restart(wait_ready=False)
    await eventually(lambda: "job store checked" in node.log)
    await node.terminate()
    broken = break_page(node.data_dir / "jobs.sqlite")
    with suppress(Exception):  # it may end before it answers
        await node.start(wait_ready=False)
    ended_by_damage(node, await node.ended())
    assert (node.data_dir / "jobs.sqlite").read_bytes() == broken


async def test_damage_that_a_call_meets_ends_the_daemon(daemon: MakeDaemon) -> None:
    node = await daemon(*QUEUE, docker_host=AWAY, wait_ready=False)
    made = [*(await create(node, 100))[0], *(await create(node, 100))[0]]
    await node.terminate()
    await node.start(wait_ready=False)
    waiter = asyncio.create_task(
        node.call("ContainerService.Wait", {"job_id": made[-1], "timeout": 60})
    )
    broken = break_page(node.data_dir / "jobs.sqlite")
    # By a connection that has read nothing yet.
    with pytest.raises(RpcError, match="damaged") as error:
        await listed(node)
    assert error.value.code == -32603
    assert error.value.data["name"] == "storage_unavailable"
    assert str(node.data_dir) not in error.value.message
    # A caller who waits hears how things stand, as at any end.
    assert (await waiter)["status"] == "pending"
    ended_by_damage(node, await node.ended())
    assert (node.data_dir / "jobs.sqlite").read_bytes() == broken
