"""Puts a restored store and its keys in place: all of it or none, wherever it is cut short.

What is to be put in place is made ready in a directory of its own inside the data directory, which
may be a mount point whose parent is on another disk or not ours to write. The name of that
directory says how far things are, and each step can be taken again:

`restore.part`     is being prepared; what is in place is untouched.
`restore.ready`    is whole and on disk, which decides it; what was in place goes into its `old`.
`restore.placing`  nothing old is in place any more; the new is moved in, then `old` set aside.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

DATABASE = "jobs.sqlite"
KEYS = ("node.key", "seal.key")
"""Without them a store is of no use: who the node is, and what opens its environments."""
OPTIONAL = ("token", "credentials")
NEW = "new"
"""Marks a directory whose store has not been compared yet with what there is at the engine."""

_REPLACED = (
    DATABASE,
    # A log that is left beside another database would be played into it.
    *(f"{DATABASE}-{suffix}" for suffix in ("wal", "shm", "journal")),
    *KEYS,
    *OPTIONAL,
)
_PART, _READY, _PLACING = "restore.part", "restore.ready", "restore.placing"
_OLD = "old"


def stage(directory: Path) -> Path:
    """A new, empty directory for what is to be put in place of what `directory` holds."""
    part = directory / _PART
    (part / _OLD).mkdir(mode=0o700, parents=True)
    part.chmod(0o700)
    return part


def place(directory: Path) -> Path | None:
    """Replace what `directory` holds by what was staged; gives where the old is now, if any was.

    Raises:
        OSError: it could not be done. Before the staged files were on disk nothing has changed;
            after it `settle` goes on where this broke off.
    """
    part = directory / _PART
    for path in part.iterdir():
        sync(path)
    sync(part)
    part.rename(directory / _READY)
    sync(directory)
    return _go_on(directory)


def settle(directory: Path) -> bool:
    """Finish a restore that was cut short, or clear away one that had not come to its decision.

    Gives whether one was finished. Only for whoever holds the directory's lock.
    """
    if (part := directory / _PART).exists():
        shutil.rmtree(part)
    if not unsettled(directory):
        return False
    _go_on(directory)
    return True


def unsettled(directory: Path) -> bool:
    """Whether old and new stand side by side there."""
    return (directory / _READY).exists() or (directory / _PLACING).exists()


def sync(path: Path) -> None:
    """Bring a file, or the names in a directory, to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _go_on(directory: Path) -> Path | None:
    ready, placing = directory / _READY, directory / _PLACING
    if ready.exists():
        for name in _REPLACED:
            if (directory / name).exists():
                (directory / name).rename(ready / _OLD / name)
        sync(ready / _OLD)
        sync(directory)
        ready.rename(placing)
        sync(directory)
    old, aside = placing / _OLD, None
    for path in placing.iterdir():
        if path != old:
            path.rename(directory / path.name)
    sync(directory)
    if old.exists():
        if any(old.iterdir()):
            aside = _free_name(directory)
            old.rename(aside)
        else:
            old.rmdir()
    placing.rmdir()
    sync(directory)
    return aside


def _free_name(directory: Path) -> Path:
    """`before-restore-TIME`, with the time in UTC."""
    name = time.strftime("before-restore-%Y%m%dT%H%M%SZ", time.gmtime())
    names = (name, *(f"{name}-{number}" for number in range(2, 1000)))
    return next(path for each in names if not (path := directory / each).exists())
