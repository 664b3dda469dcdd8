"""Backup and restore: all of it or nothing, and nothing that is not what was saved."""

from __future__ import annotations

import asyncio
import io
import itertools
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from container_manager import __version__
from container_manager.node import Node, new_key
from container_manager.spec import Spec
from container_manager.store import jobs
from container_manager.store.archive import MANIFEST, SMALL, SUMS, BackupError, sums_text
from container_manager.store.backup import save, save_to
from container_manager.store.database import Database
from container_manager.store.directory import DataDirectory, DirectoryError
from container_manager.store.integrity import StoreDamaged
from container_manager.store.records import Place
from container_manager.store.restore import Restored, restore
from container_manager.store.schema import MIGRATIONS
from container_manager.store.sealing import Seal
from container_manager.work.ids import JobIds
from tests.support.damage import break_page, stored_ids
from tests.unit.builders import CANARY, NODE, NOW

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

SEAL_KEY = bytes(range(32))
NODE_KEY = new_key()
KEYS = {
    "node.key": NODE_KEY,
    "seal.key": SEAL_KEY,
    "token": b"open sesame\n",
    "credentials": b"{}",
}


def new_row(ids: JobIds, arguments: int = 10) -> tuple[Any, ...]:
    job_id = ids.new(NOW)
    sealed = Seal(SEAL_KEY).close({"PASSWORD": CANARY}, job_id)
    spec = Spec(image="nginx", arguments=["x" * arguments])
    return jobs.new_row(job_id, NODE, spec, sealed, NOW, Place(1, 0))


@asynccontextmanager
async def opened(data_dir: Path) -> AsyncIterator[Database]:
    database = Database(data_dir / "jobs.sqlite", MIGRATIONS)
    try:
        yield database
    finally:
        await database.close()


async def fill(data_dir: Path, number: int, arguments: int = 10) -> None:
    """Add so many jobs to a data directory, and keys where there are none."""
    directory = DataDirectory(data_dir)
    for name, content in KEYS.items():
        (data_dir / name).write_bytes(content)
    directory.close()
    ids = JobIds()
    async with opened(data_dir) as database:
        rows = [database.append(jobs.TABLE, new_row(ids, arguments)) for _ in range(number)]
        await asyncio.gather(*rows)
    directory.set_known()


@pytest.fixture
async def data_dir(tmp_path: Path) -> Path:
    """A data directory with a few jobs, not in use."""
    path = tmp_path / "data"
    await fill(path, 20)
    return path


@pytest.fixture
def saved(data_dir: Path, tmp_path: Path) -> Path:
    """A backup of it."""
    path = tmp_path / "backup.tar"
    save(data_dir, path)
    return path


def put_back(file: Path, data_dir: Path, *, force: bool = False) -> Restored:
    with file.open("rb") as source:
        return restore(source, data_dir, force=force)


def tree(path: Path) -> dict[str, tuple[int, bytes | None]]:
    """Mode and content of all that is below."""
    return {
        str(one.relative_to(path)): (
            stat.S_IMODE(one.lstat().st_mode),
            one.read_bytes() if one.is_file() else None,
        )
        for one in path.rglob("*")
    }


def test_what_was_saved_is_what_is_restored(data_dir: Path, saved: Path, tmp_path: Path) -> None:
    before = os.umask(0)  # so that the modes are the program's doing
    try:
        done = put_back(saved, tmp_path / "a" / "new")
    finally:
        os.umask(before)
    new = tmp_path / "a" / "new"
    assert done.aside is None
    assert done.manifest.jobs == 20
    assert stored_ids(new / "jobs.sqlite") == stored_ids(data_dir / "jobs.sqlite")
    assert {name: (new / name).read_bytes() for name in KEYS} == KEYS
    assert stat.S_IMODE(new.stat().st_mode) == 0o700
    # SQLite's own files, which a look at the store makes, get the store's mode.
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in new.iterdir()}
    assert set(modes.values()) == {0o600}
    assert modes.keys() - {"jobs.sqlite-wal", "jobs.sqlite-shm"} == {
        *("jobs.sqlite", "lock", "new"),
        *KEYS,
    }


async def test_what_was_restored_opens_and_unseals(saved: Path, tmp_path: Path) -> None:
    put_back(saved, tmp_path / "new")
    directory = DataDirectory(tmp_path / "new")
    assert directory.is_new  # what is at the engine may know of more jobs
    seal = Seal(directory.secret("seal.key", bytes))
    async with opened(directory.path) as database:
        found = await database.scan(lambda c: jobs.page(c, jobs.Filter(), 100, None))
        assert len(found.jobs) == 20
        for one in found.jobs:
            job = await database.scan(partial(jobs.get, job_id=one["id"]))
            assert job is not None
            assert seal.open(job.sealed_env, job.id) == {"PASSWORD": CANARY}
    directory.close()


def test_a_backup_says_what_it_is_and_other_tools_can_check_it(saved: Path, tmp_path: Path) -> None:
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    with tarfile.open(saved) as tar:
        names = [MANIFEST, SUMS, "jobs.sqlite", *KEYS]
        assert [(one.name, one.mode, one.isreg()) for one in tar] == [
            (name, 0o600, True) for name in names
        ]
        tar.extractall(tmp_path / "x", filter="data")
    subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=tmp_path / "x", check=True)
    manifest = orjson.loads((tmp_path / "x" / MANIFEST).read_bytes())
    assert manifest.pop("created_at").endswith("+00:00")
    assert manifest == {
        "format": 1,
        "version": __version__,
        "node": Node.from_key(NODE_KEY, "").id,
        "jobs": 20,
    }
    assert CANARY.encode() not in saved.read_bytes()


async def test_keys_that_there_are_not_are_not_saved(data_dir: Path, tmp_path: Path) -> None:
    (data_dir / "token").unlink()
    (data_dir / "credentials").unlink()
    assert save(data_dir, tmp_path / "b").names == ("jobs.sqlite", "node.key", "seal.key")
    # Nor is a file of the directory that is restored into taken for the node's.
    await fill(tmp_path / "other", 1)
    done = put_back(tmp_path / "b", tmp_path / "other", force=True)
    assert not (tmp_path / "other" / "token").exists()
    assert done.aside is not None
    assert (done.aside / "token").read_bytes() == KEYS["token"]


@pytest.mark.parametrize("deleting", [False, True])
async def test_a_writer_that_never_pauses_does_not_hold_up_a_backup(
    tmp_path: Path, deleting: bool
) -> None:
    """An online backup begins anew whenever somebody writes, unless it holds on to one moment."""
    data_dir, ids = tmp_path / "data", JobIds()
    await fill(data_dir, 2000, arguments=8000)  # enough for a few steps
    acknowledged = stored_ids(data_dir / "jobs.sqlite")
    done = asyncio.Event()
    written = 0

    def delete(connection: apsw.Connection) -> None:
        connection.execute("DELETE FROM job WHERE id IN (SELECT id FROM job LIMIT 2)")

    async def write(database: Database) -> None:
        nonlocal written
        while not done.is_set():
            row = new_row(ids)
            await (database.write(delete) if deleting else database.append(jobs.TABLE, row))
            written += 1

    async with opened(data_dir) as database:
        writing = asyncio.create_task(write(database))
        try:
            async with asyncio.timeout(30):
                saved = await asyncio.to_thread(save, data_dir, tmp_path / "b")
        finally:
            done.set()
            await writing
    assert written > 10
    put_back(tmp_path / "b", tmp_path / "new")
    kept = stored_ids(tmp_path / "new" / "jobs.sqlite")
    assert len(kept) == saved.manifest.jobs
    if deleting:
        assert stored_ids(data_dir / "jobs.sqlite") <= kept <= acknowledged
    else:
        assert acknowledged <= kept <= stored_ids(data_dir / "jobs.sqlite")


# Where a backup goes


def left_in(directory: Path, *names: str) -> bool:
    return {path.name for path in directory.iterdir()} == {*names}


def test_a_file_that_exists_is_replaced_only_when_asked_to(data_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(BackupError, match=r"exists already.*--force"):
        save(data_dir, file)
    assert file.read_text() == "mine"
    (tmp_path / "link").symlink_to(file)
    save(data_dir, tmp_path / "link", force=True)
    assert (tmp_path / "link").is_symlink()
    assert tarfile.is_tarfile(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert left_in(tmp_path, "data", "file", "link")


@pytest.mark.parametrize("force", [False, True])
def test_what_is_no_file_is_never_replaced(data_dir: Path, tmp_path: Path, force: bool) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/null")):
        with pytest.raises(BackupError, match="is no file"):
            save(data_dir, path, force=force)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert left_in(tmp_path, "data", "pipe")


def test_one_that_was_made_meanwhile_is_not_overwritten(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def late(*paths: Any) -> None:
        (tmp_path / "file").write_text("mine")
        link(*paths)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(BackupError, match="exists already"):
        save(data_dir, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    assert left_in(tmp_path, "data", "file")


def test_a_backup_through_a_pipe_is_the_same(data_dir: Path, saved: Path, tmp_path: Path) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cat:
        assert cat.stdin is not None
        assert cat.stdout is not None
        save_to(data_dir, cat.stdin.fileno())
        cat.stdin.close()
        restore(cat.stdout, tmp_path / "new")
    with tarfile.open(saved) as tar:
        content = tar.extractfile("jobs.sqlite")
        assert content is not None
        assert (tmp_path / "new" / "jobs.sqlite").read_bytes() == content.read()


def test_a_reader_that_goes_away_ends_the_backup(data_dir: Path) -> None:
    theirs, ours = os.pipe()
    os.close(theirs)
    with pytest.raises(BackupError, match=r"Standard output.*Broken pipe"):
        save_to(data_dir, ours)
    os.close(ours)


# What cannot be saved


def test_what_has_no_store_or_no_keys_is_not_saved(data_dir: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path / "data" / "token"):
        with pytest.raises(BackupError, match=r"no job store|cannot be read"):
            save(path, tmp_path / "b")
    (data_dir / "seal.key").unlink()
    with pytest.raises(BackupError, match=r"seal.key is missing"):
        save(data_dir, tmp_path / "b")
    (tmp_path / "none" / "b").parent.mkdir()
    shutil.rmtree(tmp_path / "none")
    with pytest.raises(BackupError, match="No such file"):
        save(data_dir, tmp_path / "none" / "b")
    assert left_in(tmp_path, "data")


async def test_a_damaged_store_is_not_saved(tmp_path: Path) -> None:
    await fill(tmp_path / "data", 200)
    break_page(tmp_path / "data" / "jobs.sqlite")
    with pytest.raises(StoreDamaged) as error:
        save(tmp_path / "data", tmp_path / "b")
    assert str(tmp_path / "data" / "jobs.sqlite") in error.value.remedy
    (tmp_path / "data" / "jobs.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreDamaged, match="not a database"):
        save(tmp_path / "data", tmp_path / "b")
    assert left_in(tmp_path, "data")


# What is not restored


def test_a_store_that_is_there_is_set_aside_only_when_asked_to(data_dir: Path, saved: Path) -> None:
    before = tree(data_dir)
    with pytest.raises(BackupError, match=r"holds a job store already.*--force"):
        put_back(saved, data_dir)
    assert tree(data_dir) == before

    (data_dir / "jobs.sqlite-wal").write_bytes(b"an old log")
    done = put_back(saved, data_dir, force=True)
    assert done.aside is not None
    assert done.aside.parent == data_dir
    assert done.aside.name.startswith("before-restore-")
    assert stat.S_IMODE(done.aside.stat().st_mode) == 0o700
    aside = {path.name: path.read_bytes() for path in done.aside.iterdir()}
    assert aside.items() >= KEYS.items()
    assert aside["jobs.sqlite"] == before["jobs.sqlite"][1]
    assert aside["jobs.sqlite-wal"] == b"an old log"
    assert not (data_dir / "jobs.sqlite-wal").exists()
    again = put_back(saved, data_dir, force=True)
    assert again.aside not in (None, done.aside)
    assert not list(data_dir.glob("restore.*"))


def test_what_root_restores_is_the_directorys_owners(saved: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving a file away needs root")
    new = tmp_path / "new"
    new.mkdir()
    os.chown(new, 1234, 5678)
    with pytest.raises(BackupError):
        restore(io.BytesIO(b"no backup"), new)
    assert {path.stat().st_uid for path in new.rglob("*")} == {1234}
    put_back(saved, new)
    put_back(saved, new, force=True)
    assert {(path.stat().st_uid, path.stat().st_gid) for path in new.rglob("*")} == {(1234, 5678)}


def test_a_directory_in_use_is_left_alone(data_dir: Path, saved: Path) -> None:
    before = tree(data_dir)
    directory = DataDirectory(data_dir)
    with pytest.raises(DirectoryError, match=r"in use.*Stop"):
        put_back(saved, data_dir, force=True)
    directory.close()
    assert tree(data_dir) == before


def refused(file: bytes, data_dir: Path) -> str:
    """What a restore says of this backup; nothing has changed then."""
    before = tree(data_dir)
    with pytest.raises(BackupError) as error:
        restore(io.BytesIO(file), data_dir, force=True)
    assert tree(data_dir) == before
    return str(error.value)


@pytest.mark.parametrize("content", [b"", b"no tar", bytes(20_000), b"\x1f\x8b\x08" * 9000])
def test_what_is_no_backup_is_refused(data_dir: Path, content: bytes) -> None:
    assert "no backup" in refused(content, data_dir)


Change = dict[str, bytes | tarfile.TarInfo | None]


def changed(file: Path, change: Change, *, honest: bool = False) -> bytes:
    """The backup with other members; with `honest`, the sums and the manifest's are right."""
    with tarfile.open(file) as tar:
        contents: Change = {}
        for one in tar:
            content = tar.extractfile(one)
            assert content is not None
            contents[one.name] = content.read()
    contents |= change
    if honest:
        known = {k: v for k, v in contents.items() if isinstance(v, bytes) and k != SUMS}
        contents[SUMS] = sums_text({k: sha256(v) for k, v in known.items()})
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, what in contents.items():
            if isinstance(what, tarfile.TarInfo):
                tar.addfile(what)
            elif what is not None:
                member = tarfile.TarInfo(name)
                member.size = len(what)
                tar.addfile(member, io.BytesIO(what))
    return out.getvalue()


def sha256(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "lock", "a/node.key", "./token"])
@pytest.mark.parametrize("honest", [False, True])
def test_other_names_are_refused(data_dir: Path, saved: Path, name: str, honest: bool) -> None:
    said = refused(changed(saved, {name: b"x"}, honest=honest), data_dir)
    assert repr(name) in said or SUMS in said
    assert not (data_dir.parent / "escaped").exists()


@pytest.mark.parametrize("name", ["token", "node.key", "jobs.sqlite", MANIFEST])
@pytest.mark.parametrize(
    ("kind", "link"),
    [
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.LNKTYPE, "seal.key"),
        (tarfile.DIRTYPE, ""),
        (tarfile.FIFOTYPE, ""),
        (tarfile.CHRTYPE, ""),
        (tarfile.GNUTYPE_SPARSE, ""),
    ],
)
def test_what_is_no_plain_file_is_refused(
    data_dir: Path, saved: Path, name: str, kind: bytes, link: str
) -> None:
    said = refused(changed(saved, {name: special(name, kind, link)}), data_dir)
    assert "no backup" in said or repr(name) in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"token": None}, "token is missing"),
        ({"jobs.sqlite": None}, "jobs.sqlite is missing"),
        ({"token": b"another"}, "token is not what it was"),
        ({"token": bytes(SMALL + 1)}, "'token'"),
        ({SUMS: b""}, "manifest.json is not what it was"),
        ({SUMS: b"\xff"}, "cannot be read"),
        ({SUMS: b"one word"}, "cannot be read"),
    ],
)
def test_what_does_not_fit_its_sums_is_refused(
    data_dir: Path, saved: Path, change: Change, words: str
) -> None:
    assert words in refused(changed(saved, change), data_dir)


def manifest(**fields: Any) -> bytes:
    known = {"format": 1, "version": "9.9", "created_at": "", "jobs": 20}
    return orjson.dumps({**known, "node": Node.from_key(NODE_KEY, "").id, **fields})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({MANIFEST: manifest(format=2)}, "9.9, which is newer"),
        ({MANIFEST: manifest(jobs=21)}, "20 jobs instead of 21"),
        ({MANIFEST: manifest(node="x")}, "not the key of its node"),
        ({MANIFEST: manifest(more=1)}, "cannot be read"),
        ({MANIFEST: b"[]"}, "cannot be read"),
        ({MANIFEST: b"{"}, "cannot be read"),
        ({"node.key": b"short"}, "no key"),
        ({"seal.key": b"short"}, "no key"),
        ({"seal.key": None}, "other files"),
        ({"jobs.sqlite": b""}, "jobs instead of"),
        ({"jobs.sqlite": b"no database" * 1000}, "not a database"),
    ],
)
def test_what_is_whole_and_makes_no_sense_is_refused(
    data_dir: Path, saved: Path, change: Change, words: str
) -> None:
    assert words in refused(changed(saved, change, honest=True), data_dir)


def edited(data_dir: Path, saved: Path, edit: Callable[[Path], object]) -> bytes:
    """The backup with another job store, its sums right."""
    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch) / "store"
        shutil.copy(data_dir / "jobs.sqlite", store)
        edit(store)
        return changed(saved, {"jobs.sqlite": store.read_bytes()}, honest=True)


async def test_a_store_that_is_not_whole_is_refused(data_dir: Path, tmp_path: Path) -> None:
    await fill(data_dir, 200)
    save(data_dir, tmp_path / "b")
    said = refused(edited(data_dir, tmp_path / "b", break_page), data_dir)
    assert "job store of the backup is damaged" in said


def test_a_store_of_a_newer_program_is_refused(data_dir: Path, saved: Path) -> None:
    def age(store: Path) -> None:
        connection = apsw.Connection(str(store))
        connection.pragma("user_version", len(MIGRATIONS) + 1)
        connection.close()

    assert "newer" in refused(edited(data_dir, saved, age), data_dir)


_scratch = itertools.count()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with a backup of one job, and to restore it to."""
    place = tmp_path_factory.mktemp("small")
    asyncio.run(fill(place / "data", 1))
    save(place / "data", place / "b")
    return place


# Near the begin and the end are what is small: names, sums and keys.
places = st.integers(0, 2560) | st.integers(-10_000, -1) | st.integers(2560, 40_000)


@given(at=places, bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed_or_means_nothing(small: Path, at: int, bit: int) -> None:
    content = (small / "b").read_bytes()
    broken = bytearray(content)
    broken[at % len(broken)] ^= 1 << bit
    check_refused_or_same(bytes(broken), small)


@given(at=places)
def test_a_backup_that_was_cut_off_is_noticed_or_means_nothing(small: Path, at: int) -> None:
    content = (small / "b").read_bytes()
    check_refused_or_same(content[:at], small)


def check_refused_or_same(broken: bytes, place: Path) -> None:
    """The same: what was flipped or cut is between or after the members."""
    new = place / f"new-{next(_scratch)}"
    try:
        restore(io.BytesIO(broken), new)
    except BackupError:
        assert left_in(new, "lock", "new")
    else:
        assert {name: (new / name).read_bytes() for name in KEYS} == KEYS
        saved_ids = stored_ids(place / "data" / "jobs.sqlite")
        assert stored_ids(new / "jobs.sqlite") == saved_ids
    finally:
        shutil.rmtree(new)
