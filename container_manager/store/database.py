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
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import apsw
import structlog

from container_manager.errors import ApplicationError, StorageUnavailable
from container_manager.store.integrity import (
    BackgroundCheck,
    StoreDamaged,
    unavailable,
    whole_so_far,
)

T = TypeVar("T")
Connection = apsw.Connection
Operation = Callable[[Connection], T]

log = structlog.get_logger()

MAX_GROUP = 1024
"""Operations after which a commit takes no more: bounds how long the first waits for the last."""
CHECK_SECONDS = 0.25
"""Seconds that a start may spend on checking the file; what is left is checked beside the work."""

Then = Callable[[Any, BaseException | None], None]
"""Told in the event loop what an operation gave or raised, whether or not anybody awaits it."""


class Table:
    """A table to which rows are appended, many by one statement."""

    _SIZES = (64, 16, 4, 1)

    def __init__(self, name: str, columns: str) -> None:
        """Name the table and, with commas between, the columns that a row gives."""
        row = f"({','.join('?' * len(columns.split(',')))})"
        head = f"INSERT INTO {name} ({columns}) VALUES "  # noqa: S608 - constants of this program
        self._statements = [(size, head + ",".join([row] * size)) for size in self._SIZES]

    def append(self, connection: Connection, rows: Sequence[Sequence[Any]]) -> None:
        """Append rows. Each statement lets go of the interpreter once, whatever its rows: a
        statement for each row would have this thread and the event loop wait for each other.
        """
        done = 0
        for size, statement in self._statements:
            while len(rows) - done >= size:
                values = [value for row in rows[done : done + size] for value in row]
                connection.execute(statement, values)
                done += size


@dataclass(slots=True)
class _Write:
    operation: Operation[Any] | None
    future: asyncio.Future[Any]
    then: Then | None
    table: Table | None = None
    row: Sequence[Any] = ()
    result: Any = None
    error: BaseException | None = None

    def settle(self) -> None:
        if self.then is not None:
            self.then(self.result, self.error)
        if self.future.cancelled():
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class Database:
    """An open database file. Made, used and closed in one event loop."""

    def __init__(self, path: Path, migrations: Sequence[str]) -> None:
        """Open `path`, creating it where it is missing, and bring its tables up to date.

        Args:
            path: the file.
            migrations: statements by schema version: those beyond the file's version are run.

        Raises:
            StoreDamaged: the check found damage.
            StorageUnavailable: it cannot be opened, or a newer program has written it.
        """
        self.damage: StoreDamaged | None = None
        """Set for good once the file proves damaged: from then on nothing is written."""
        self._when_damaged: Callable[[], None] | None = None
        self._check: BackgroundCheck | None = None
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._handed_in: list[_Write] = []
        self._prologue: Operation[None] | None = None
        self._groups: queue.SimpleQueue[list[_Write] | None] = queue.SimpleQueue()
        try:
            # Before anything is written: a file that is not whole stays as it was found.
            whole = not path.exists() or whole_so_far(path, CHECK_SECONDS)
            self._writer = self._connect()
            self._migrate(migrations)
            self._reader = self._connect(readonly=True)
            self._scanner = self._connect(readonly=True)
            if not whole:
                self._check = BackgroundCheck(path, self._found_damaged)
        except apsw.Error as error:
            raise unavailable(path, error) from error
        self._scans = ThreadPoolExecutor(1, thread_name_prefix="store-scan")
        self._thread = threading.Thread(target=self._write_groups, name="store-writer", daemon=True)
        self._thread.start()

    def write(self, operation: Operation[T], then: Then | None = None) -> asyncio.Future[T]:
        """Run `operation` in the next commit; the future resolves once that is synced to disk.

        Operations run in the order of these calls. One that raises changes nothing, and its
        exception is the future's (an `ApplicationError` has to be raised before anything is
        written); one that cannot be written raises `StorageUnavailable`. An operation that was
        handed in is carried out, also when the future is cancelled.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        self._hand_in(_Write(operation, future, then))
        return future

    def append(
        self, table: Table, row: Sequence[Any], then: Then | None = None
    ) -> asyncio.Future[None]:
        """Append a row to a table in the next commit, else as `write`.

        Rows come before the operations of the same commit: nobody can know of one before it is
        acknowledged.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        self._hand_in(_Write(None, future, then, table, row))
        return future

    def _hand_in(self, write: _Write) -> None:
        if not self._handed_in:
            # One wake-up of the writer for all that this round of the loop hands in: waking a
            # thread costs more than the write.
            self._loop.call_soon(self._hand_over)
        self._handed_in.append(write)

    def begin_with(self, operation: Operation[None]) -> None:
        """Run `operation` in the transaction of the first commit, before all else in it."""
        self._prologue = operation

    def read(self, operation: Operation[T]) -> T:
        """Run a look-up of a few rows here and now, on the last committed state.

        Raises:
            StorageUnavailable: the file cannot be read.
        """
        return self._translating(operation, self._reader)

    async def scan(self, operation: Operation[T]) -> T:
        """Run a longer reading in a thread of its own, on the last committed state."""
        return await self._loop.run_in_executor(
            self._scans, self._translating, operation, self._scanner
        )

    def on_damage(self, told: Callable[[], None]) -> None:
        """Have `told` called in the event loop once the file proves damaged, or has already."""
        self._when_damaged = told
        if self.damage is not None:
            told()

    async def close(self) -> None:
        """Commit what has been handed in, and close the file."""
        if self._check is not None:
            await self._loop.run_in_executor(None, self._check.close)
        self._hand_over()
        self._groups.put(None)
        await self._loop.run_in_executor(None, self._thread.join)
        self._scans.shutdown()
        for connection in (self._scanner, self._reader, self._writer):
            if self.damage is not None:
                connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
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

    def _hand_over(self) -> None:
        if self._handed_in:
            self._groups.put(self._handed_in)
            self._handed_in = []

    def _translating(self, operation: Operation[T], connection: Connection) -> T:
        try:
            return operation(connection)
        except apsw.Error as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: apsw.Error) -> StorageUnavailable:
        meant = unavailable(self._path, error)
        if isinstance(meant, StoreDamaged):
            self._found_damaged(meant)
        return meant

    def _found_damaged(self, damage: StoreDamaged) -> None:
        """Take note, from whatever thread."""
        if self.damage is None:
            self.damage = damage
            log.error("job store damaged", reason=damage.remedy)
            self._loop.call_soon_threadsafe(self._tell_of_damage)

    def _tell_of_damage(self) -> None:
        if self._when_damaged is not None:
            self._when_damaged()

    # -- the writer's thread -------------------------------------------------------------------

    def _write_groups(self) -> None:
        while (group := self._groups.get()) is not None:
            last = False
            while len(group) < MAX_GROUP and not self._groups.empty():
                more = self._groups.get()
                if more is None:
                    last = True
                    break
                group += more
            self._commit(group)
            self._loop.call_soon_threadsafe(_settle, group)
            if last:
                return

    def _commit(self, group: list[_Write]) -> None:
        """Commit all of `group` at once; where one operation raises, each by itself."""
        if self.damage is not None:
            self._refuse(group, self.damage)
            return
        try:
            self._writer.execute("BEGIN IMMEDIATE")
        except apsw.Error as error:
            # Somebody else holds the lock: no use in each of them waiting for it anew.
            self._refuse(group, self._unavailable(error))
            return
        try:
            if self._prologue is not None:
                self._prologue(self._writer)
            self._append_rows(group)
            for write in group:
                if write.operation is not None:
                    self._operate(write, write.operation)
            self._writer.execute("COMMIT")
            self._prologue = None
        except Exception as error:  # noqa: BLE001 - each one's exception goes to its own caller
            self._roll_back()
            meant = self._translated(error)
            if len(group) > 1:
                for write in group:
                    write.result = write.error = None
                    self._commit([write])
            else:
                group[0].error = meant

    @staticmethod
    def _refuse(group: list[_Write], error: StorageUnavailable) -> None:
        for write in group:
            write.error = error

    def _append_rows(self, group: list[_Write]) -> None:
        rows: defaultdict[Table, list[Sequence[Any]]] = defaultdict(list)
        for write in group:
            if write.table is not None:
                rows[write.table].append(write.row)
        for table, appended in rows.items():
            table.append(self._writer, appended)

    def _operate(self, write: _Write, operation: Operation[Any]) -> None:
        try:
            write.result = operation(self._writer)
        except ApplicationError as refusal:
            write.error = refusal  # it has written nothing, and concerns nobody else

    def _roll_back(self) -> None:
        # A full disk rolls the transaction back by itself; a second roll-back would be an error.
        if self._writer.in_transaction:
            with suppress(apsw.Error):  # the next BEGIN tells what is wrong
                self._writer.execute("ROLLBACK")

    def _translated(self, error: Exception) -> Exception:
        if isinstance(error, apsw.ConstraintError) or not isinstance(error, apsw.Error):
            return error
        return self._unavailable(error)


def _settle(group: list[_Write]) -> None:
    for write in group:
        try:
            write.settle()
        except Exception:
            # A defect in what was to be told; the others' results are no less true for it.
            log.exception("telling of a commit broke")
