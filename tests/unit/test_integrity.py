"""A store that is not whole: noticed, named, and not written on."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import apsw
import pytest

from container_manager.spec import Spec
from container_manager.store import database as module
from container_manager.store import integrity
from container_manager.store.database import Connection, Database, Table
from container_manager.store.directory import DataDirectory
from container_manager.store.integrity import BackgroundCheck, StoreDamaged, whole_so_far
from tests.support.damage import PAGE, break_page
from tests.support.waiting import eventually
from tests.unit.builders import Clock, create, opened

if TYPE_CHECKING:
    from pathlib import Path

MIGRATIONS = ("CREATE TABLE t (x INTEGER PRIMARY KEY, y BLOB) STRICT",)
ROWS = Table("t", "x, y")


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A store of some hundred pages."""
    path = tmp_path / "db.sqlite"
    database = Database(path, MIGRATIONS)
    await asyncio.gather(*(database.append(ROWS, (x, bytes(1000))) for x in range(1000)))
    await database.close()
    return path


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the store were too large for the start's share of the check."""
    monkeypatch.setattr(module, "CHECK_SECONDS", 0)
    monkeypatch.setattr(integrity, "HEAD_START", 0)


def refused(path: Path) -> StoreDamaged:
    before = path.read_bytes()
    with pytest.raises(StoreDamaged) as caught:
        Database(path, MIGRATIONS)
    assert path.read_bytes() == before
    assert str(path) in caught.value.remedy
    assert "container-manager restore --force" in caught.value.remedy
    assert "\n" not in caught.value.remedy
    assert caught.value.words in caught.value.message
    assert str(path.parent) not in caught.value.message  # callers are told no paths
    return caught.value


@pytest.mark.parametrize("page", [1, 2, 50, None])
async def test_damage_is_found_at_the_start(path: Path, page: int | None) -> None:
    break_page(path, page)
    refused(path)


@pytest.mark.parametrize("size", [100, PAGE - 1, PAGE, PAGE * 100, PAGE * 200 + 17])
async def test_a_file_that_was_cut_off_is_refused(path: Path, size: int) -> None:
    os.truncate(path, size)
    refused(path)


async def test_an_index_that_is_not_the_tables_is_damage(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("CREATE INDEX i ON t (x)")
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_schema SET sql = 'CREATE INDEX i ON t (y)' WHERE name = 'i'")
    connection.close()
    assert "missing from index" in refused(path).words


@pytest.mark.parametrize("size", [0, 1, 99])
def test_an_emptied_store_is_taken_for_no_new_one(tmp_path: Path, size: int) -> None:
    directory = DataDirectory(tmp_path)
    directory.check_store()
    directory.database.touch()
    directory.check_store()  # a first start that was cut short
    directory.set_known()
    directory.database.write_bytes(bytes(size))
    with pytest.raises(StoreDamaged, match="empty"):
        directory.check_store()
    directory.close()


async def test_a_check_ends_with_its_time(path: Path) -> None:
    assert whole_so_far(path, 60)
    assert not whole_so_far(path, 0)


@pytest.mark.usefixtures("unhurried")
async def test_damage_is_found_beside_the_work(path: Path) -> None:
    broken = break_page(path)
    database = Database(path, MIGRATIONS)
    told = asyncio.Event()
    database.on_damage(told.set)
    async with asyncio.timeout(10):
        await told.wait()
    assert database.damage is not None
    for write in (
        database.write(lambda c: c.execute("DELETE FROM t")),
        database.append(ROWS, (-1, b"")),
    ):
        with pytest.raises(StoreDamaged):
            await write
    late = asyncio.Event()
    database.on_damage(late.set)
    assert late.is_set()
    await database.close()
    assert await asyncio.to_thread(path.read_bytes) == broken


@pytest.mark.usefixtures("unhurried")
async def test_a_whole_store_is_worked_with_while_it_is_checked(path: Path) -> None:
    database = Database(path, MIGRATIONS)
    check = database._check
    assert check is not None
    await database.append(ROWS, (-1, b""))
    await eventually(lambda: not check._thread.is_alive())
    assert database.damage is None
    await database.append(ROWS, (-2, b""))
    await database.close()


async def test_a_check_that_is_not_needed_is_not_made(path: Path) -> None:
    database = Database(path, MIGRATIONS)
    assert database._check is None
    await database.close()


@pytest.mark.parametrize("head_start", [0, 60])
async def test_a_check_can_be_broken_off(
    path: Path, monkeypatch: pytest.MonkeyPatch, head_start: float
) -> None:
    monkeypatch.setattr(integrity, "HEAD_START", head_start)
    for _ in range(20):  # at any point of it
        found: list[StoreDamaged] = []
        check = BackgroundCheck(path, found.append)
        check.close()
        assert not check._thread.is_alive()
        assert found == []


def everything(connection: Connection) -> list[int]:
    return [len(y) for (y,) in connection.execute("SELECT y FROM t")]


def change(connection: Connection) -> None:
    connection.execute("UPDATE t SET y = x'00'")


@pytest.mark.parametrize("way", ["read", "scan", "write"])
async def test_damage_that_work_meets_ends_the_writing(path: Path, way: str) -> None:
    database = Database(path, MIGRATIONS)
    await database.append(ROWS, (-1, b""))  # in the log, which is not to be played into the file
    told = asyncio.Event()
    database.on_damage(told.set)
    broken = break_page(path)

    async def work() -> None:
        match way:
            case "read":
                database.read(everything)
            case "scan":
                await database.scan(everything)
            case _:
                await database.write(change)

    with pytest.raises(StoreDamaged, match=r"damaged.*malformed"):
        await work()
    async with asyncio.timeout(10):
        await told.wait()
    with pytest.raises(StoreDamaged):
        await database.append(ROWS, (-2, b""))
    await database.close()
    assert await asyncio.to_thread(path.read_bytes) == broken


async def test_who_waits_for_a_job_hears_of_the_damage_at_the_end(
    tmp_path: Path, clock: Clock
) -> None:
    async with opened(tmp_path, clock) as rooms:
        job = await create(rooms.ledger, Spec(image="nginx"))
        waiting = asyncio.create_task(rooms.ledger.wait(job.id, 60))
        # Nothing that was read before holds after this.
        await rooms.ledger.create(Spec(image="nginx"))
        for name in ("jobs.sqlite", "jobs.sqlite-wal"):
            file = tmp_path / name
            with file.open("r+b") as out:
                out.write(b"\xa5" * file.stat().st_size)
        rooms.ledger.stop_waiting()
        with pytest.raises(StoreDamaged):
            await waiting


async def test_damage_met_by_one_of_many_refuses_all_of_them(path: Path) -> None:
    database = Database(path, MIGRATIONS)
    broken = break_page(path)
    writes = [database.append(ROWS, (-1, b"")), database.write(change), database.write(everything)]
    answers = await asyncio.gather(*writes, return_exceptions=True)
    assert {type(answer) for answer in answers} == {StoreDamaged}
    await database.close()
    assert await asyncio.to_thread(path.read_bytes) == broken
