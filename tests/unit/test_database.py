"""The database: grouped commits, each operation answered for itself, and a full disk."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import apsw
import pytest

from container_manager.errors import StorageUnavailable
from container_manager.store.database import MAX_GROUP, Connection, Database, Table

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

MIGRATIONS = ("CREATE TABLE t (x INTEGER PRIMARY KEY, y BLOB) STRICT",)
ROWS = Table("t", "x, y")


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Database]:
    database = Database(path, MIGRATIONS)
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "db.sqlite"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    async with opened(path) as database:
        yield database


def put(x: int, y: bytes = b"") -> Callable[[Connection], int]:
    def operation(connection: Connection) -> int:
        connection.execute("INSERT INTO t VALUES (?, ?)", (x, y))
        return x

    return operation


def fail(connection: Connection) -> None:
    connection.execute("INSERT INTO t VALUES (-1, NULL)")
    raise ValueError("no")


def numbers(connection: Connection) -> list[int]:
    return [x for (x,) in connection.execute("SELECT x FROM t ORDER BY x")]


@asynccontextmanager
async def held_up(database: Database) -> AsyncIterator[list[int]]:
    """Hold the writer up within a commit, so that what is handed in meanwhile waits together.

    Gives the sizes of the later commits, each the number of rows that it has added.
    """
    holding, go_on = threading.Event(), threading.Event()
    commits: list[int] = []
    counted = 0

    def committing() -> bool:
        nonlocal counted
        commits.append(writer[0].total_changes() - counted)
        counted = writer[0].total_changes()
        return False

    writer: list[Connection] = []

    def hold(connection: Connection) -> None:
        holding.set()
        assert go_on.wait(10)
        writer.append(connection)
        connection.set_commit_hook(committing)

    held = database.write(hold)
    async with asyncio.timeout(5):
        await asyncio.to_thread(holding.wait)
    try:
        yield commits
        await asyncio.sleep(0)  # what was handed in now goes to the writer in the next round
    finally:
        go_on.set()
    async with asyncio.timeout(10):
        await held


async def test_a_result_comes_after_the_commit_and_reading_sees_it(database: Database) -> None:
    assert await database.write(put(1)) == 1
    assert database.read(numbers) == [1]
    assert await database.scan(numbers) == [1]


async def test_what_waits_together_is_committed_together(database: Database) -> None:
    async with held_up(database) as commits:
        writes = [database.write(put(x)) for x in range(500)]
    assert await asyncio.gather(*writes) == list(range(500))
    assert [size for size in commits if size] == [500]


async def test_rows_and_operations_share_a_commit(database: Database) -> None:
    async with held_up(database) as commits:
        writes = [
            database.append(ROWS, (x, b"")) if x % 3 else database.write(put(x)) for x in range(300)
        ]
    assert await asyncio.gather(*writes) == [None if x % 3 else x for x in range(300)]
    assert database.read(numbers) == list(range(300))
    assert [size for size in commits if size] == [300]


async def test_a_commit_takes_no_more_once_it_is_large(database: Database) -> None:
    async with held_up(database) as commits:
        writes = []
        for x in range(2 * MAX_GROUP):
            writes.append(database.write(put(x)))
            await asyncio.sleep(0)  # each handed in by a round of its own
    await asyncio.gather(*writes)
    assert [size for size in commits if size] == [MAX_GROUP, MAX_GROUP]


@pytest.mark.parametrize("number", [1, 3, 4, 15, 16, 63, 64, 65, 149, 200])
async def test_any_number_of_rows_is_appended(database: Database, number: int) -> None:
    async with asyncio.timeout(10):
        await asyncio.gather(*(database.append(ROWS, (x, b"%d" % x)) for x in range(number)))
    rows = database.read(lambda c: list(c.execute("SELECT x, y FROM t ORDER BY x")))
    assert rows == [(x, b"%d" % x) for x in range(number)]


async def test_one_that_fails_fails_alone_and_changes_nothing(database: Database) -> None:
    async with held_up(database):
        first, bad, twice, row = (
            database.write(put(1)),
            database.write(fail),
            database.write(put(1)),
            database.append(ROWS, (7, b"")),
        )
        same, last = database.append(ROWS, (7, b"")), database.write(put(2))
    answers = await asyncio.gather(first, bad, twice, row, same, last, return_exceptions=True)
    assert [type(one) for one in answers] == [
        *(int, ValueError, apsw.ConstraintError),
        *(type(None), apsw.ConstraintError, int),
    ]
    assert database.read(numbers) == [1, 2, 7]


async def test_operations_run_in_the_order_in_which_they_were_handed_in(
    database: Database,
) -> None:
    seen: list[int] = []
    writes = [database.write(lambda _, x=x: seen.append(x)) for x in range(200)]
    await asyncio.gather(*writes)
    assert seen == list(range(200))


async def test_each_operation_sees_what_the_one_before_it_wrote(database: Database) -> None:
    writes = [database.write(lambda c, x=x: (put(x)(c), numbers(c))[1]) for x in range(20)]
    assert await asyncio.gather(*writes) == [list(range(x + 1)) for x in range(20)]


async def test_what_was_handed_in_is_written_though_nobody_waits_any_more(
    database: Database,
) -> None:
    told: list[object] = []
    async with held_up(database):
        write = database.write(put(1), lambda result, error: told.append((result, error)))
        append = database.append(ROWS, (2, b""), lambda *what: told.append(what))
        broken = database.write(fail, lambda *what: told.append(type(what[1])))
        for future in (write, append, broken):
            future.cancel()
    await database.write(put(3))
    assert database.read(numbers) == [1, 2, 3]
    assert told == [(1, None), (None, None), ValueError]


async def test_closing_commits_what_was_handed_in(path: Path) -> None:
    database = Database(path, MIGRATIONS)
    writes = [database.write(put(x)) for x in range(50)]
    async with asyncio.timeout(10):
        await database.close()
        assert await asyncio.gather(*writes) == list(range(50))
    async with opened(path) as database:
        assert database.read(numbers) == list(range(50))


async def test_migrations_run_once_and_only_those_that_are_new(path: Path) -> None:
    for migrations in (MIGRATIONS, MIGRATIONS, (*MIGRATIONS, "CREATE TABLE u (z)")):
        database = Database(path, migrations)
        version = database.read(lambda c: c.pragma("user_version"))
        await database.close()
        assert version == len(migrations)


async def test_a_migration_that_fails_leaves_the_file_as_it_was(path: Path) -> None:
    async with opened(path) as database:
        await database.write(put(1))
    with pytest.raises(StorageUnavailable):
        Database(path, (*MIGRATIONS, "DROP TABLE t; CREATE TABLE broken ("))
    async with opened(path) as database:
        assert database.read(numbers) == [1]


async def test_a_file_of_a_newer_program_is_refused(path: Path) -> None:
    await Database(path, (*MIGRATIONS, "CREATE TABLE u (z)")).close()
    with pytest.raises(StorageUnavailable, match="newer version"):
        Database(path, MIGRATIONS)


@pytest.fixture
def scrap(path: Path) -> Path:
    """A file that is no database."""
    path.write_bytes(b"no database at all, " * 100)
    return path


async def test_what_is_no_database_is_refused(scrap: Path) -> None:
    with pytest.raises(StorageUnavailable, match="not a database"):
        Database(scrap, MIGRATIONS)
    with pytest.raises(StorageUnavailable):
        Database(scrap.parent / "none" / "db.sqlite", MIGRATIONS)


async def test_readers_cannot_write(database: Database) -> None:
    with pytest.raises(StorageUnavailable, match="readonly"):
        database.read(put(1))
    with pytest.raises(StorageUnavailable, match="readonly"):
        await database.scan(put(1))


async def test_each_commit_is_synced(database: Database) -> None:
    assert await database.write(lambda c: c.pragma("synchronous")) == 2  # FULL
    assert await database.write(lambda c: c.pragma("journal_mode")) == "wal"


async def test_a_store_at_its_limit_refuses_and_heals(database: Database) -> None:
    pages = await database.write(lambda c: c.pragma("page_count"))
    await database.write(lambda c: c.pragma("max_page_count", pages + 1))
    answers = await asyncio.gather(
        *(database.write(put(x, bytes(2500))) for x in range(9)), return_exceptions=True
    )
    refusals = [one for one in answers if isinstance(one, BaseException)]
    assert refusals
    assert {(type(one), "full" in str(one)) for one in refusals} == {(StorageUnavailable, True)}
    assert database.read(numbers) == [one for one in answers if isinstance(one, int)]
    await database.write(lambda c: c.pragma("max_page_count", 10_000))
    assert await database.write(put(99, bytes(2500))) == 99


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 512 KiB, of which a file `ballast` takes 200."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", disk]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a disk of the test's own takes the right to mount one")
    try:
        (disk / "ballast").write_bytes(bytes(200 * 1024))
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


async def test_a_full_disk_loses_nothing_that_was_acknowledged_and_heals(small_disk: Path) -> None:
    kept: list[int] = []

    async def fill(database: Database) -> None:
        for x in range(1000):
            kept.append(await database.write(put(x, bytes(4000))))  # noqa: PERF401 - up to there

    async with opened(small_disk / "db.sqlite") as database:
        with pytest.raises(StorageUnavailable, match=r"full|disk"):
            await fill(database)
        assert kept
        assert database.read(numbers) == kept
        await asyncio.to_thread((small_disk / "ballast").unlink)
        assert await database.write(put(1000, bytes(4000))) == 1000
    async with opened(small_disk / "db.sqlite") as database:
        assert database.read(numbers) == [*kept, 1000]
