"""The database: one writer thread that groups commits, and readers that never wait for it.

Whoever writes hands in an operation and awaits its result, which arrives after the commit has been
synced to disk. The writer takes all operations that wait, runs them in one transaction and syncs
once: under load hundreds of acknowledgements share one sync, and a lone one waits for nobody.

In WAL mode readers see the last commit and block nobody. The event loop reads single rows by
itself (a look-up costs less than a thread switch); whatever may read many rows goes to `scan`.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import apsw

from container_manager.errors import StorageUnavailable

T = TypeVar("T")
Connection = apsw.Connection
Operation = Callable[[Connection], T]

MAX_GROUP = 1024
"""Operations in one commit at most: bounds how long the first of them waits for the last."""

_Pending = tuple[Operation[Any], "asyncio.Future[Any]"]
_Settled = tuple["asyncio.Future[Any]", Any, BaseException | None]


class Database:
    """An open database file. Made, used and closed in one event loop."""

    def __init__(self, path: Path, migrations: Sequence[str]) -> None:
        """Open `path`, creating it where it is missing, and bring its tables up to date.

        Args:
            path: the file.
            migrations: statements by schema version: those beyond the file's version are run.

        Raises:
            StorageUnavailable: it cannot be opened, or a newer program has written it.
        """
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._operations: queue.SimpleQueue[_Pending | None] = queue.SimpleQueue()
        try:
            self._writer = self._connect()
            self._migrate(migrations)
            self._reader = self._connect(readonly=True)
            self._scanner = self._connect(readonly=True)
        except apsw.Error as error:
            raise StorageUnavailable(_words(error)) from error
        self._scans = ThreadPoolExecutor(1, thread_name_prefix="store-scan")
        self._thread = threading.Thread(target=self._write_groups, name="store-writer", daemon=True)
        self._thread.start()

    def write(self, operation: Operation[T]) -> asyncio.Future[T]:
        """Run `operation` in the next commit; the future resolves once that is synced to disk.

        Operations run in the order of these calls. One that raises changes nothing, and its
        exception is the future's; one that cannot be written raises `StorageUnavailable`.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        self._operations.put((operation, future))
        return future

    def read(self, operation: Operation[T]) -> T:
        """Run a look-up of a few rows here and now, on the last committed state."""
        return operation(self._reader)

    async def scan(self, operation: Operation[T]) -> T:
        """Run a longer reading in a thread of its own, on the last committed state."""
        return await self._loop.run_in_executor(self._scans, operation, self._scanner)

    async def close(self) -> None:
        """Commit what has been handed in, and close the file."""
        self._operations.put(None)
        await self._loop.run_in_executor(None, self._thread.join)
        self._scans.shutdown()
        for connection in (self._scanner, self._reader, self._writer):
            connection.close()

    def _connect(self, *, readonly: bool = False) -> Connection:
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        connection = apsw.Connection(str(self._path), flags=flags)
        connection.set_busy_timeout(5000)
        connection.pragma("journal_mode", "wal")
        # FULL syncs the log at each commit: what is acknowledged survives a power cut.
        connection.pragma("synchronous", "full")
        connection.pragma("wal_autocheckpoint", 1000)
        connection.pragma("query_only", readonly)
        return connection

    def _migrate(self, migrations: Sequence[str]) -> None:
        version = self._writer.pragma("user_version")
        if version > len(migrations):
            raise StorageUnavailable(
                f"{self._path} was written by a newer version of container-manager"
            )
        for number, statements in enumerate(migrations[version:], start=version + 1):
            with self._writer:
                self._writer.execute(statements)
                self._writer.pragma("user_version", number)

    # -- the writer's thread -------------------------------------------------------------------

    def _write_groups(self) -> None:
        while (first := self._operations.get()) is not None:
            group = [first]
            last = False
            while len(group) < MAX_GROUP and not self._operations.empty():
                item = self._operations.get()
                if item is None:
                    last = True
                    break
                group.append(item)
            settled = self._commit(group)
            self._loop.call_soon_threadsafe(_settle, settled)
            if last:
                return

    def _commit(self, group: list[_Pending]) -> list[_Settled]:
        """Commit all of `group` at once; where one operation raises, each by itself."""
        settled: list[_Settled] = []
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            for operation, future in group:
                settled.append((future, operation(self._writer), None))
            self._writer.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - each one's exception goes to its own caller
            self._roll_back()
            if len(group) == 1:
                return [(group[0][1], None, _translated(error))]
            return [result for item in group for result in self._commit([item])]
        return settled

    def _roll_back(self) -> None:
        # A full disk rolls the transaction back by itself; a second roll-back would be an error.
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")


def _settle(settled: list[_Settled]) -> None:
    for future, result, error in settled:
        if future.cancelled():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


def _translated(error: Exception) -> Exception:
    if isinstance(error, apsw.ConstraintError) or not isinstance(error, apsw.Error):
        return error
    return StorageUnavailable(_words(error))


def _words(error: apsw.Error) -> str:
    """SQLite's own words: "database or disk is full", not "FullError: …"."""
    return str(error) or type(error).__name__
