"""Whether the job store is whole: SQLite's own check, at the start and beside the running daemon.

SQLite keeps no checksums of its pages. The check walks every tree, compares indexes with their
tables and rows with their constraints; bytes that changed inside a text, and leave all of that
right, it cannot see.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import apsw
import structlog

from container_manager.errors import StorageUnavailable

_STEPS = 100
"""Cells and pages between two looks at the clock."""
HEAD_START = 5.0
"""Seconds that everything else gets at the start before the check goes on beside it."""

log = structlog.get_logger()


class StoreDamaged(StorageUnavailable):
    """The file is no whole database: nothing may be written to it or acknowledged any more."""

    def __init__(self, path: Path, words: str) -> None:
        """Name the file, and what SQLite says of it."""
        super().__init__(f"it is damaged: {words}")
        self.words = words
        self.remedy = (
            f"The job store {path} is damaged ({words}). Put a backup in its place with "
            "`container-manager restore --force FILE`. Without one, move the files "
            f"{path.name}* out of {path.parent}: jobs whose containers are still there are then "
            "brought back from the containers' labels."
        )
        """What happened and what to do, for whoever runs the daemon."""


def unavailable(path: Path, error: apsw.Error) -> StorageUnavailable:
    """What an error of SQLite means for the store, in SQLite's own words.

    "database or disk is full", not "FullError: …".
    """
    words = str(error) or type(error).__name__
    if isinstance(error, apsw.CorruptError | apsw.NotADBError):
        return StoreDamaged(path, words)
    return StorageUnavailable(words)


def verify(path: Path, connection: apsw.Connection) -> None:
    """Check the whole database behind `connection`; `path` is what messages call it.

    Raises:
        StoreDamaged: it is not whole.
        apsw.InterruptError: the check was broken off.
        apsw.Error: it cannot be read.
    """
    try:
        found = str(connection.execute("PRAGMA integrity_check(1)").get)
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise unavailable(path, error) from error
    if found != "ok":
        raise StoreDamaged(path, found.removeprefix("*** in database main ***\n").splitlines()[0])


def whole_so_far(path: Path, seconds: float) -> bool:
    """Check for `seconds` at most; whether all of it was seen in that time.

    Where a power cut has left a rollback journal, as it can while the file is being made, SQLite
    has to roll back before anybody can read: such a file is not looked at here.

    Raises:
        StoreDamaged: what was seen is damaged.
        apsw.Error: it cannot be read.
    """
    connection = _opened(path)
    end = time.monotonic() + seconds
    connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
    try:
        verify(path, connection)
    except (apsw.InterruptError, apsw.ReadOnlyError):
        return False
    finally:
        connection.close()
    return True


class BackgroundCheck:
    """A check that takes its time, in a thread that leaves the processors to everything else."""

    def __init__(self, path: Path, found: Callable[[StoreDamaged], None]) -> None:
        """Begin to check `path`; `found` is called, in the thread, with damage."""
        self._path = path
        self._found = found
        self._connection = _opened(path)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store-check", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Break the check off, unless it has ended."""
        self._closing.set()
        while self._thread.is_alive():
            # Again and again: an interrupt before the check has begun goes unheard.
            self._connection.interrupt()
            self._thread.join(0.01)
        self._connection.close()

    def _run(self) -> None:
        _step_back()
        if self._closing.wait(HEAD_START):
            return
        begun = time.monotonic()
        try:
            # No progress handler here: it would hold the interpreter's lock from a thread that
            # may have to wait long for a processor.
            verify(self._path, self._connection)
        except StoreDamaged as damage:
            self._found(damage)
        except apsw.InterruptError:
            pass
        except apsw.Error as error:
            log.warning("job store not checked", reason=str(error))
        else:
            log.info("job store checked", seconds=round(time.monotonic() - begun, 1))


def _opened(path: Path) -> apsw.Connection:
    """A connection that leaves the file, its log included, as it is."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(5000)
    return connection


def _step_back() -> None:
    """Give this thread the lowest priority, where threads have one of their own."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
