"""Saves the job store and the node's keys in one file, also while the daemon runs.

SQLite's online backup copies the store as it stands at one moment: the copying connection holds on
to that moment, so that however much is written meanwhile it never has to begin again, and in WAL
mode nobody waits for it.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apsw

from container_manager import __version__
from container_manager.node import Node
from container_manager.store.archive import (
    CHUNK,
    MANIFEST,
    SMALL,
    SUMS,
    BackupError,
    Manifest,
    sums_text,
)
from container_manager.store.integrity import StoreDamaged, unavailable, verify
from container_manager.store.placing import DATABASE, KEYS, OPTIONAL, sync, unsettled

_PAGES = 1024
"""Pages that are copied in one step."""
_PAUSE = 0.005
"""Seconds between two steps, in which the disk is the daemon's."""
_UNSYNCED = 32 << 20
"""Bytes after which what was written is synced: one sync of all would hold up the daemon's."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What was saved."""

    manifest: Manifest
    names: tuple[str, ...]
    size: int
    """Bytes of the backup."""


def save(data_dir: Path, target: Path, *, force: bool = False) -> Saved:
    """Save what is in `data_dir` as the file `target`, mode 0600: whole, or not at all.

    Everything that was acknowledged before the call is in it. Room for the store is needed twice
    beside `target` meanwhile.

    Args:
        data_dir: the data directory.
        target: the file to make.
        force: replace the file where there is one.

    Raises:
        BackupError: it could not be made.
        StoreDamaged: the job store is damaged.
    """
    shown, target = target, target.resolve()
    _check_target(shown, target, force=force)
    try:
        with _scratch(target.parent, f".{target.name}.") as scratch:
            part = scratch / "backup.tar"
            with _Output(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)) as out:
                saved = _save(data_dir, scratch, out)
            if force:
                part.replace(target)
            else:
                _appear(part, shown, target)
            sync(target.parent)
    except OSError as error:
        raise BackupError(f"{shown} cannot be written ({error.strerror}).") from error
    return saved


def save_to(data_dir: Path, descriptor: int) -> Saved:
    """Write a backup to an open file or pipe, else as `save`.

    The store's copy is made in the directory for temporary files (`TMPDIR`) first.
    """
    try:
        with _scratch(None, "container-manager.") as scratch, _Output(os.dup(descriptor)) as out:
            return _save(data_dir, scratch, out)
    except OSError as error:
        raise BackupError(f"Standard output cannot be written ({error.strerror}).") from error


# -- where it goes ---------------------------------------------------------------------------------


def _check_target(shown: Path, target: Path, *, force: bool) -> None:
    if not os.path.lexists(target):
        return
    if not target.is_file():
        raise BackupError(f"{shown} is no file. Name one, or `-` for standard output.")
    if not force:
        raise _taken(shown)


def _taken(shown: Path) -> BackupError:
    return BackupError(f"{shown} exists already. Name another file, or replace it with --force.")


def _appear(part: Path, shown: Path, target: Path) -> None:
    """Give the file its name, unless somebody has made one of that name meanwhile."""
    try:
        os.link(part, target)
    except FileExistsError as error:
        raise _taken(shown) from error
    except OSError:  # a file system without links
        _check_target(shown, target, force=False)
        part.rename(target)


@contextmanager
def _scratch(parent: Path | None, prefix: str) -> Iterator[Path]:
    """A directory (mode 0700) for what is half done, of which nothing stays."""
    try:
        made = tempfile.TemporaryDirectory(suffix=".part", prefix=prefix, dir=parent)
    except OSError as error:
        where = parent or tempfile.gettempdir()
        raise BackupError(f"{where} cannot be written ({error.strerror}).") from error
    with made as path:
        yield Path(path)


class _Output(io.BufferedIOBase):
    """An open file or pipe, which it closes; a file is brought to disk as it grows."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._unsynced = 0
        self.size = 0

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()

    def write(self, data: Any, /) -> int:
        left = memoryview(data)
        while left:
            left = left[os.write(self._descriptor, left) :]
        self.size += len(data)
        self._unsynced += len(data)
        if self._unsynced >= _UNSYNCED:
            self.sync()
        return len(data)

    def sync(self) -> None:
        if self._is_file:
            os.fsync(self._descriptor)
        self._unsynced = 0


# -- what goes there -------------------------------------------------------------------------------


def _save(data_dir: Path, scratch: Path, out: _Output) -> Saved:
    copy = scratch / DATABASE
    now = datetime.now(UTC)
    jobs = _copy_store(data_dir, copy)
    keys = _read_keys(data_dir)
    manifest = Manifest(
        version=__version__,
        created_at=now.isoformat(timespec="seconds"),
        node=Node.from_key(keys["node.key"], home="").id,
        jobs=jobs,
    )
    texts = {MANIFEST: manifest.to_json(), **keys}
    sums = {name: hashlib.sha256(text).hexdigest() for name, text in texts.items()}
    with copy.open("rb") as store:
        sums[DATABASE] = hashlib.file_digest(store, "sha256").hexdigest()
        store.seek(0)
        with tarfile.open(fileobj=out, mode="w|", bufsize=CHUNK) as tar:

            def add(name: str, size: int, content: io.BufferedIOBase) -> None:
                member = tarfile.TarInfo(name)
                member.size, member.mode, member.mtime = size, 0o600, int(now.timestamp())
                tar.addfile(member, content)

            for name, text in ((MANIFEST, texts.pop(MANIFEST)), (SUMS, sums_text(sums))):
                add(name, len(text), io.BytesIO(text))
            add(DATABASE, copy.stat().st_size, store)
            for name, text in texts.items():
                add(name, len(text), io.BytesIO(text))
    out.sync()
    return Saved(manifest, (DATABASE, *keys), out.size)


def _copy_store(data_dir: Path, copy: Path) -> int:
    """Make a checked copy of the job store; gives the number of jobs in it."""
    source = data_dir / DATABASE
    try:
        if unsettled(data_dir):
            raise BackupError(
                f"A restore into {data_dir} was cut short. Start the daemon, which finishes it."
            )
        if not source.exists():
            raise BackupError(
                f"There is no job store in {data_dir}. Name the daemon's --data-dir before "
                "`backup`."
            )
        source.open("rb").close()  # SQLite would not say why it cannot
    except OSError as error:
        raise BackupError(f"{source} cannot be read ({error.strerror}).") from error
    try:
        with _connections(source, copy) as (reader, writer):
            reader.execute("BEGIN")
            reader.pragma("user_version")  # from here on it sees this moment
            with writer.backup("main", reader, "main") as backup:
                while not backup.done:
                    backup.step(_PAGES)
                    time.sleep(_PAUSE)
            reader.execute("ROLLBACK")  # the daemon's log need not keep it any longer
            verify(source, writer)
            return int(writer.execute("SELECT count(*) FROM job").get)
    except apsw.FullError as error:
        raise BackupError(f"There is not enough room in {copy.parent.parent}.") from error
    except apsw.Error as error:
        damaged = unavailable(source, error)
        if isinstance(damaged, StoreDamaged):
            raise damaged from error
        raise BackupError(f"{source} cannot be copied ({error}).") from error


@contextmanager
def _connections(source: Path, copy: Path) -> Iterator[tuple[apsw.Connection, apsw.Connection]]:
    reader = apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        reader.set_busy_timeout(5000)
        writer = apsw.Connection(str(copy))
        try:
            # A copy that is cut short is thrown away; one that is whole is synced in the tar file.
            writer.pragma("journal_mode", "off")
            writer.pragma("synchronous", "off")
            yield reader, writer
        finally:
            writer.close()
    finally:
        reader.close()


def _read_keys(data_dir: Path) -> dict[str, bytes]:
    """The content of the key files that there are, by their names."""
    keys = {}
    for name in (*KEYS, *OPTIONAL):
        path = data_dir / name
        try:
            with path.open("rb") as file:
                keys[name] = file.read(SMALL + 1)
        except FileNotFoundError as error:
            if name in KEYS:
                raise BackupError(
                    f"{path} is missing, and without it a backup is of no use."
                ) from error
        except OSError as error:
            raise BackupError(f"{path} cannot be read ({error.strerror}).") from error
        else:
            if len(keys[name]) > SMALL:
                raise BackupError(f"{path} is larger than {SMALL} bytes.")
    return keys
