"""A restore that is killed: the next start finds all of the old or all of the new."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from container_manager.node import new_key
from container_manager.store import placing
from container_manager.store.archive import BackupError
from container_manager.store.backup import save
from container_manager.store.directory import DataDirectory
from tests.support.daemon import ROOT
from tests.support.damage import stored_ids
from tests.unit.test_backup import fill, put_back

if TYPE_CHECKING:
    from pathlib import Path

# For each n, restores into a copy of a directory in a process that kills itself at its n-th call
# that tells the disk something; until one comes to its end.
RESTORE = """
import os, shutil, signal, sys
from pathlib import Path
from container_manager.store.restore import restore

file, template, place = (Path(one) for one in sys.argv[1:])
last = calls = 0

def counted(call):
    def counting(*args, **kwargs):
        global calls
        calls += 1
        if calls == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)
    return counting

status = -1
while status != 0:
    last += 1
    data_dir = place / str(last)
    shutil.copytree(template, data_dir)
    if (child := os.fork()) == 0:
        for name in ("rename", "rmdir", "fsync", "mkdir", "unlink"):
            setattr(os, name, counted(getattr(os, name)))
        with file.open("rb") as source:
            restore(source, data_dir, force=True)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), status
"""


def state(data_dir: Path) -> dict[str, bytes | set[str]]:
    """The keys and the jobs of a directory, which has to be whole."""
    keys = ("node.key", "seal.key", "token", "credentials")
    found: dict[str, bytes | set[str]] = {
        name: (data_dir / name).read_bytes() for name in keys if (data_dir / name).exists()
    }
    found["jobs"] = stored_ids(data_dir / "jobs.sqlite")
    return found


@pytest.fixture
async def file(tmp_path: Path) -> Path:
    """A backup of another node, with no token."""
    await fill(tmp_path / "other", 3)
    (tmp_path / "other" / "node.key").write_bytes(new_key())
    (tmp_path / "other" / "token").unlink()
    save(tmp_path / "other", tmp_path / "backup")
    return tmp_path / "backup"


async def test_killed_at_each_step_it_is_the_old_or_the_new(tmp_path: Path, file: Path) -> None:
    await fill(tmp_path / "data", 5)
    old, new = state(tmp_path / "data"), state(tmp_path / "other")
    assert old.keys() != new.keys()

    (tmp_path / "data" / "jobs.sqlite-wal").touch()
    (tmp_path / "killed").mkdir()
    command = [sys.executable, "-c", RESTORE, file, tmp_path / "data", tmp_path / "killed"]
    await asyncio.to_thread(subprocess.run, command, check=True, timeout=60, cwd=ROOT)
    data_dirs = sorted((tmp_path / "killed").iterdir(), key=lambda path: int(path.name))
    assert len(data_dirs) > 15
    ends = []
    for data_dir in data_dirs:
        was_undecided = placing.unsettled(data_dir)
        if was_undecided:
            with pytest.raises(BackupError, match="cut short"):
                save(data_dir, tmp_path / "no backup of half a thing")
        directory = DataDirectory(data_dir)
        assert directory.finished_restore is was_undecided
        log = (data_dir / "jobs.sqlite-wal").exists()  # before a look at the store makes one
        found = state(data_dir)
        assert found in (old, new)
        ends.append(found == new)
        assert log is not ends[-1]
        asides = list(data_dir.glob("before-restore-*"))
        assert len(asides) == ends[-1]
        if ends[-1]:
            assert directory.is_new
            assert (asides[0] / "jobs.sqlite-wal").exists()
            assert state(asides[0]) == old
        assert not list(data_dir.glob("restore.*"))
        directory.close()
        DataDirectory(data_dir).close()
        assert state(data_dir) == found
        # It is no dead end either.
        put_back(file, data_dir, force=True)
        assert state(data_dir) == new
    assert ends == sorted(ends)  # once it is the new, it stays so
    assert {*ends} == {False, True}
