"""The data directory: where a node keeps what has to outlive it. One daemon at a time."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from container_manager.store import placing
from container_manager.store.integrity import StoreDamaged

KEY_LENGTH = 32
"""Bytes of each key: of an Ed25519 key as of a ChaCha20-Poly1305 one."""
_HEADER = 100
"""Bytes with which every SQLite database begins (https://www.sqlite.org/fileformat.html)."""

SEAL_KEY = "seal.key"
"""The file of the key with which values are sealed."""


class DirectoryError(Exception):
    """The data directory cannot be used; the message says why and what to do."""


class DataDirectory:
    """A data directory that is ours as long as this object is open."""

    def __init__(self, path: Path) -> None:
        """Take the directory, making it (mode 0700) where it is missing.

        A restore that was cut short is finished first.

        Raises:
            DirectoryError: it cannot be made or written, or another daemon has it.
        """
        self.path = path.expanduser().absolute()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DirectoryError(
                f"The data directory {self.path} cannot be written ({error.strerror}). "
                "Name another one with --data-dir, or give this user the right to write it."
            ) from error
        self._new = self.path / placing.NEW
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise DirectoryError(
                f"The data directory {self.path} is in use by another container-manager. "
                "Stop that one, or name another directory with --data-dir."
            ) from error
        try:
            self.finished_restore = placing.settle(self.path)
            """Whether a restore was found that had been cut short."""
            if not self.database.exists():
                self._new.touch(mode=0o600)
        except OSError as error:
            self.close()
            raise DirectoryError(
                f"The data directory {self.path} cannot be written ({error.strerror})."
            ) from error

    @property
    def home(self) -> str:
        """`hostname:path`, which no other daemon can be at meanwhile."""
        return f"{socket.gethostname()}:{self.path}"

    @property
    def is_new(self) -> bool:
        """Whether nobody has compared it yet with what there is at the engine.

        Kept on disk, because the engine may be away at the first starts.
        """
        return self._new.exists()

    def set_known(self) -> None:
        """It has been compared."""
        if self.is_new:
            self._new.unlink()

    def check_store(self) -> None:
        """Refuse a job store that was emptied, which SQLite would take for a new one.

        Raises:
            StoreDamaged: next to nothing is in the file, and this is not a first start that was
                cut short.
        """
        if not self.is_new and self.database.stat().st_size < _HEADER:
            raise StoreDamaged(self.database, "the file is empty")

    @property
    def database(self) -> Path:
        """The file of the job store."""
        return self.path / placing.DATABASE

    def secret(self, name: str, make: Callable[[], bytes]) -> bytes:
        """The 32 bytes of the key file `name`, made by `make` on the first start, mode 0600."""
        return key_file(self.path / name, make)

    def close(self) -> None:
        """Let another daemon have it."""
        os.close(self._lock)


def key_file(path: Path, make: Callable[[], bytes]) -> bytes:
    """The 32 bytes of a key file, made by `make` where it is missing.

    Raises:
        DirectoryError: it can be neither read nor made, or is no key.
    """
    key = secret_file(path, make)
    if len(key) != KEY_LENGTH:
        raise DirectoryError(
            f"{path} is no key: it holds {len(key)} bytes instead of {KEY_LENGTH}. "
            "Restore it from a backup."
        )
    return key


def secret_file(path: Path, make: Callable[[], bytes]) -> bytes:
    """The content of a file that only its owner may read, made by `make` where it is missing.

    Raises:
        DirectoryError: it can be neither read nor made.
    """
    try:
        if not path.exists():
            # The daemon's start and a command may both find it missing: one makes it, the other
            # waits at the unfinished file and then finds it made.
            part = _part(path)
            with private_file(part) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if path.exists():
                    part.unlink(missing_ok=True)
                else:
                    _finish(file, path, make())
        content = path.read_bytes()
    except OSError as error:
        raise DirectoryError(f"{path} cannot be read or made ({error.strerror}).") from error
    if not content.strip():
        raise DirectoryError(f"{path} is empty. Restore it, or remove it to have a new one made.")
    return content


def replace_file(path: Path, content: bytes, owner: os.stat_result | None = None) -> None:
    """Give a private file this content, whole or not at all, and synced. Not for two at a time.

    Raises:
        OSError: it cannot be written.
    """
    with private_file(_part(path), owner) as file:
        _finish(file, path, content)


def private_file(path: Path, owner: os.stat_result | None = None) -> BinaryIO:
    """Open a file for writing that only its owner may read, made where it is missing.

    Args:
        path: no symbolic link; root is not to be led elsewhere.
        owner: whose it is to be where root makes it; root's own by default.

    Raises:
        OSError: it can be neither opened nor made.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.fdopen(os.open(path, flags, 0o600), "r+b")
    if owner is not None and os.geteuid() == 0:
        with suppress(PermissionError):  # not every root may; then it stays root's
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
    return file


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _finish(file: BinaryIO, path: Path, content: bytes) -> None:
    """Write an unfinished file and put it in its place: a crash must not leave half of one."""
    file.truncate()
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
    _part(path).rename(path)
    placing.sync(path.parent)
