"""The data directory: where a node keeps what has to outlive it. One daemon at a time."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Callable
from pathlib import Path

from container_manager.store import placing
from container_manager.store.integrity import StoreDamaged

KEY_LENGTH = 32
"""Bytes of each key: of an Ed25519 key as of a ChaCha20-Poly1305 one."""
_HEADER = 100
"""Bytes with which every SQLite database begins (https://www.sqlite.org/fileformat.html)."""


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
        key = secret_file(self.path / name, make)
        if len(key) != KEY_LENGTH:
            raise DirectoryError(
                f"{self.path / name} is no key: it holds {len(key)} bytes instead of {KEY_LENGTH}. "
                "Restore it from a backup."
            )
        return key

    def close(self) -> None:
        """Let another daemon have it."""
        os.close(self._lock)


def secret_file(path: Path, make: Callable[[], bytes]) -> bytes:
    """The content of a file that only its owner may read, made by `make` where it is missing.

    Raises:
        DirectoryError: it can be neither read nor made.
    """
    try:
        if not path.exists():
            # Whole or not at all: a start that is cut short must not leave half a key behind.
            part = path.with_name(path.name + ".part")
            with os.fdopen(
                os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb"
            ) as file:
                file.write(make())
                file.flush()
                os.fsync(file.fileno())
            part.rename(path)
            placing.sync(path.parent)
        content = path.read_bytes()
    except OSError as error:
        raise DirectoryError(f"{path} cannot be read or made ({error.strerror}).") from error
    if not content.strip():
        raise DirectoryError(f"{path} is empty. Restore it, or remove it to have a new one made.")
    return content
