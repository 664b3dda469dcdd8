"""The data directory: who may look into it, and that one daemon alone has it."""

from __future__ import annotations

import fcntl
import itertools
import os
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from container_manager.store.directory import DataDirectory, DirectoryError, secret_file
from tests.support.waiting import eventually_now

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def lax_umask() -> Iterator[None]:
    """So that the modes are the program's doing."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "a" / "data")
    directory.secret("key", lambda: b"k" * 32)
    assert mode(directory.path) == 0o700
    assert {path.name: mode(path) for path in directory.path.iterdir()} == {
        "lock": 0o600,
        "new": 0o600,
        "key": 0o600,
    }
    directory.close()


def test_its_home_names_the_host_and_the_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for given, path in (("data", tmp_path / "data"), ("~/data", tmp_path / "home/data")):
        directory = DataDirectory(type(tmp_path)(given))
        assert directory.home == f"{socket.gethostname()}:{path}"
        assert directory.database.parent == path
        directory.close()


TAKE = """
import sys
from pathlib import Path
from container_manager.store.directory import DataDirectory, DirectoryError
try:
    DataDirectory(Path(sys.argv[1]))
except DirectoryError as error:
    sys.exit(str(error))
"""


def test_a_second_process_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    def second() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", TAKE, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    directory = DataDirectory(tmp_path)
    refused = second()
    assert refused.returncode == 1
    assert f"{tmp_path} is in use" in refused.stderr
    assert "--data-dir" in refused.stderr
    directory.close()
    assert second().returncode == 0


def test_a_refused_one_leaves_the_holder_its_lock(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    for _ in range(2):
        with pytest.raises(DirectoryError, match="in use"):
            DataDirectory(tmp_path)
    directory.close()
    DataDirectory(tmp_path).close()


def test_a_secret_is_made_once_and_stays(tmp_path: Path) -> None:
    made = itertools.count()

    def make() -> bytes:
        return b"secret %25d" % next(made)

    for _ in range(3):
        directory = DataDirectory(tmp_path)
        assert directory.secret("key", make) == b"secret %25d" % 0
        assert directory.secret("key", make) == b"secret %25d" % 0
        directory.close()
    assert directory.secret("other", make) == b"secret %25d" % 1


def test_a_start_that_was_cut_short_leaves_no_half_a_key(tmp_path: Path) -> None:
    def break_off() -> bytes:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        secret_file(tmp_path / "key", break_off)
    assert not (tmp_path / "key").exists()
    (tmp_path / "key.part").write_bytes(b"what was left of a longer one")
    assert secret_file(tmp_path / "key", lambda: b"whole") == b"whole"
    assert mode(tmp_path / "key") == 0o600


MAKE = """
import os, sys
from pathlib import Path
from container_manager.store.directory import secret_file
sys.stdin.read()
sys.stdout.buffer.write(secret_file(Path(sys.argv[1]), lambda: os.urandom(32).hex().encode()))
"""


def test_two_who_find_a_secret_missing_at_once_get_the_same_one(tmp_path: Path) -> None:
    """As a daemon's start and a command may."""
    for number in range(5):
        path = tmp_path / f"{number}"
        command = [sys.executable, "-c", MAKE, path]
        with (
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one,
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other,
        ):
            for process in (one, other):
                assert process.stdin is not None
                process.stdin.close()
            assert one.stdout is not None
            assert other.stdout is not None
            assert one.stdout.read() == other.stdout.read() == path.read_bytes() != b""


def test_who_waited_for_another_to_make_a_secret_takes_it_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    """The other is this test: it holds the unfinished file and finishes it before it lets go."""
    path, part = tmp_path / "key", tmp_path / "key.part"
    with part.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(secret_file, path, lambda: b"its own")
            eventually_now(lambda: waits_for_a_lock(part))
            path.write_bytes(b"the other's")
            fcntl.flock(file, fcntl.LOCK_UN)
            assert waiting.result(30) == b"the other's"
    assert [one.name for one in tmp_path.iterdir()] == ["key"]


def waits_for_a_lock(path: Path) -> bool:
    """Whether somebody stands at the lock of a file; such lines of the kernel have an arrow."""
    inode = f":{path.stat().st_ino} "
    with open("/proc/locks") as locks:
        return any("->" in line and inode in line for line in locks)


@pytest.mark.parametrize("below", ["file", "file/data", "link"])
def test_a_path_that_cannot_be_written_is_named_with_the_reason(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "link").symlink_to(tmp_path / "link")
    with pytest.raises(DirectoryError) as error:
        DataDirectory(tmp_path / below)
    assert str(tmp_path / below) in str(error.value)
    assert "--data-dir" in str(error.value)
    assert os.strerror(0) not in str(error.value)


def test_a_secret_that_cannot_be_kept_is_an_error_too(tmp_path: Path) -> None:
    for path in (tmp_path / "none" / "token", tmp_path):
        with pytest.raises(DirectoryError, match="cannot be read or made"):
            secret_file(path, lambda: b"x")


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_a_key_file_that_holds_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    directory = DataDirectory(tmp_path)
    with pytest.raises(DirectoryError, match=r"key is (empty|no key)"):
        directory.secret("key", lambda: b"k" * 32)
    directory.close()
