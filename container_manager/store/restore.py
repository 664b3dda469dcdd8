"""Puts a backup in the place of what a data directory holds, once all of it is found good."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

import apsw

from container_manager.node import Node
from container_manager.store.archive import (
    CHUNK,
    MANIFEST,
    SMALL,
    SUMS,
    BackupError,
    Manifest,
    newer,
    parse_sums,
)
from container_manager.store.directory import KEY_LENGTH, DataDirectory
from container_manager.store.integrity import StoreDamaged, verify
from container_manager.store.placing import (
    DATABASE,
    KEYS,
    NEW,
    OPTIONAL,
    place,
    stage,
    unsettled,
)
from container_manager.store.schema import MIGRATIONS


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored."""

    manifest: Manifest
    aside: Path | None
    """Where that is now which was in place before, if anything was."""


def restore(source: BinaryIO, data_dir: Path, *, force: bool = False) -> Restored:
    """Put the backup that `source` gives in place in `data_dir`: all of it, or nothing.

    The directory counts as new then, so that the next start brings back the jobs that only their
    containers still tell of.

    Args:
        source: the backup, read from its begin to its end.
        data_dir: the data directory; made where it is missing.
        force: set aside the job store that is there already.

    Raises:
        BackupError: it could not be restored.
        DirectoryError: the directory is in use, or cannot be written.
    """
    directory = DataDirectory(data_dir)
    try:
        _give_to_owner(directory.path, directory.path / "lock", directory.path / NEW)
        if directory.database.exists() and not force:
            raise BackupError(
                f"{directory.path} holds a job store already. With --force it is set aside, and "
                "the backup takes its place."
            )
        with _errors_named(directory.path), _staged(directory.path) as staging:
            manifest = _unpack(source, staging)
            _check(staging, manifest)
            (staging / NEW).touch(mode=0o600)
            _give_to_owner(directory.path, staging, *staging.iterdir())
            return Restored(manifest, place(directory.path))
    finally:
        directory.close()


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = " The next start of the daemon goes on with it." if unsettled(path) else ""
        raise BackupError(f"{path} cannot be written ({error.strerror}).{hint}") from error


@contextmanager
def _staged(path: Path) -> Iterator[Path]:
    """A directory for what is to be put in place, of which nothing stays if that fails."""
    staging = stage(path)
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


# -- reading ---------------------------------------------------------------------------------------


def _unpack(source: BinaryIO, staging: Path) -> Manifest:
    """Write the members of a backup to `staging`, each as it should be by its checksum."""
    try:
        with tarfile.open(fileobj=_Input(source), mode="r|") as tar:
            texts = {name: _text(tar, tar.next(), name) for name in (MANIFEST, SUMS)}
            manifest, sums = Manifest.from_json(texts[MANIFEST]), parse_sums(texts[SUMS])
            if hashlib.sha256(texts[MANIFEST]).hexdigest() != sums.pop(MANIFEST, None):
                raise _damaged(MANIFEST)
            known = {DATABASE, *KEYS, *OPTIONAL}
            if not {DATABASE, *KEYS} <= sums.keys() <= known:
                raise BackupError(f"{SUMS} of the backup names other files than a backup has.")
            while (member := tar.next()) is not None:
                content = tar.extractfile(member) if _is_plain(member) else None
                if content is None or member.name not in sums:
                    raise BackupError(
                        f"The backup holds {member.name!r}, which is no part of one, or twice, or "
                        "no file."
                    )
                if _write(content, staging / member.name) != sums.pop(member.name):
                    raise _damaged(member.name)
    except tarfile.TarError as error:
        raise BackupError(f"This is no backup, or a part of one ({error}).") from error
    if sums:
        raise BackupError(f"The backup is not whole: {', '.join(sums)} is missing.")
    return manifest


class _Input(io.BufferedIOBase):
    """What is read from, its errors apart from those of what is written meanwhile."""

    def __init__(self, source: BinaryIO) -> None:
        super().__init__()
        self._source = source

    def read(self, size: int | None = -1, /) -> bytes:
        try:
            return self._source.read(-1 if size is None else size)
        except OSError as error:
            raise BackupError(f"The backup cannot be read ({error.strerror}).") from error


def _is_plain(member: tarfile.TarInfo) -> bool:
    small = member.name == DATABASE or member.size <= SMALL
    return member.type == tarfile.REGTYPE and not member.issparse() and small


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo | None, name: str) -> bytes:
    expected = member is not None and member.name == name and _is_plain(member)
    content = tar.extractfile(member) if member is not None and expected else None
    if content is None:
        raise BackupError(f"This is no backup: it does not begin with {MANIFEST} and {SUMS}.")
    return content.read()


def _write(content: IO[bytes], path: Path) -> str:
    """Write a member to a new file, mode 0600; gives its SHA-256."""
    digest = hashlib.sha256()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        while part := content.read(CHUNK):
            digest.update(part)
            file.write(part)
    return digest.hexdigest()


def _damaged(name: str) -> BackupError:
    return BackupError(f"The backup is damaged: {name} is not what it was. Use another one.")


# -- checking --------------------------------------------------------------------------------------


def _check(staging: Path, manifest: Manifest) -> None:
    """Check that keys, store and manifest are what a daemon can start with."""
    for name in KEYS:
        if (staging / name).stat().st_size != KEY_LENGTH:
            raise BackupError(f"{name} of the backup is no key of {KEY_LENGTH} bytes.")
    if Node.from_key((staging / "node.key").read_bytes(), home="").id != manifest.node:
        raise BackupError(f"node.key of the backup is not the key of its node {manifest.node}.")
    store = staging / DATABASE
    # Immutable: looked at without a log or a lock beside it.
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    try:
        connection = apsw.Connection(f"{store.as_uri()}?immutable=1", flags=flags)
        try:
            verify(store, connection)
            if (version := connection.pragma("user_version")) > len(MIGRATIONS):
                raise newer(manifest.version)
            jobs = connection.execute("SELECT count(*) FROM job").get if version else None
        finally:
            connection.close()
    except (apsw.Error, StoreDamaged) as error:
        words = error.words if isinstance(error, StoreDamaged) else str(error)
        raise BackupError(f"The job store of the backup is damaged ({words}).") from error
    if jobs != manifest.jobs:
        raise BackupError(f"The backup holds {jobs} jobs instead of {manifest.jobs}.")


def _give_to_owner(path: Path, *files: Path) -> None:
    """Where root restores what another user's daemon is to use, give it to that user."""
    if os.geteuid() != 0:
        return
    owner = path.stat()
    for file in files:
        if file.exists():
            os.chown(file, owner.st_uid, owner.st_gid)
