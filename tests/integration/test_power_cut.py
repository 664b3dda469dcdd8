"""The power is cut at any moment: the store opens, is whole, and has all that was acknowledged.

What SQLite does to its files is recorded while a ledger works on a real database; then the power is
cut at many moments, each giving files as a disk may have them (`tests.support.power_cut`). What is
found there has to be what some commit left, to the byte and in all tables, and that commit must
not be older than the newest one of which somebody had been told.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import secrets
import tempfile
from bisect import bisect_left
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import apsw
import pytest

from container_manager.errors import StorageUnavailable
from container_manager.job import Container, Job, Phase
from container_manager.spec import Spec
from container_manager.store import feeds, jobs
from container_manager.store.database import Connection, Database
from container_manager.store.document import document
from container_manager.store.schema import MIGRATIONS
from container_manager.store.sealing import Seal
from container_manager.work.ledger import Ledger, Step
from container_manager.work.queue import JobQueue
from tests.support.power_cut import Disk, Mark, Recorder, Recording, Write, write_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

NODE = "0123456789abcdef0123456789abcdef"
RETAIN = 7 * 86_400.0
FILE = "jobs.sqlite"
LATEST = "ffffffff-ffff-7fff-bfff-fffffffffff0"
"""The id of a job that sorts behind all others."""

Row = tuple[Any, ...]
"""The table's name, then what the row holds."""
Version = tuple[str, Any, int]
"""What a caller is told of: a table, the row's key, and a job's revision (else 0)."""


class Commits:
    """What each commit left in the tables, as SQLite itself tells it."""

    def __init__(self) -> None:
        self.last = 0
        self.by_content: dict[int, int] = {}
        """The last commit that left just this content, by its fingerprint."""
        self.by_version: dict[Version, int] = {}
        """The commit that wrote this."""
        self._fingerprint = 0
        self._changes: list[tuple[int, Row]] = []

    def watch(self, connection: Connection) -> None:
        """Follow the writer, from what it has found."""
        found = rows(connection)
        self._fingerprint = fingerprint(found)
        self.by_content[self._fingerprint] = self.last
        for row in found:
            self.by_version.setdefault(version(row), self.last)
        connection.preupdate_hook(self._changing)
        connection.set_commit_hook(self._committing)
        connection.set_rollback_hook(self._changes.clear)

    def _changing(self, update: apsw.PreUpdate) -> None:
        for sign, row in ((-1, update.old), (1, update.new)):
            if row is not None:
                self._changes.append((sign, (update.table_name, *row)))

    def _committing(self) -> bool:
        self.last += 1
        for sign, row in self._changes:
            self._fingerprint += sign * hash(row)
            if sign > 0:
                self.by_version[version(row)] = self.last
        self._changes.clear()
        self.by_content[self._fingerprint] = self.last
        return False


def rows(connection: Connection) -> list[Row]:
    """All that is in the tables."""
    query = "SELECT name FROM sqlite_schema WHERE type = 'table'"
    tables = [name for (name,) in connection.execute(query)]
    return [(name, *row) for name in tables for row in connection.execute(f"SELECT * FROM {name}")]


def fingerprint(found: list[Row]) -> int:
    """The same for the same rows, in this process."""
    return sum(map(hash, found))


def version(row: Row) -> Version:
    """Table, key and revision: columns 0 and 3 of a job."""
    return row[0], row[1], row[4] if row[0] == "job" else 0


@dataclass
class Life:
    """What a store did to its files, and what its callers were told."""

    recording: Recording
    commits: Commits
    _told: list[tuple[int, int]] = field(default_factory=list)
    """Moments of acknowledgements, each with the newest commit told of up to there."""

    def __post_init__(self) -> None:
        newest = 0
        for moment, event in enumerate(self.recording.events):
            if isinstance(event, Mark):
                newest = max(newest, self.commits.by_version[event.what])
                self._told.append((moment, newest))

    @property
    def log_starts(self) -> int:
        """How often a write-ahead log was begun, as it is after a checkpoint of all of it."""
        # https://sqlite.org/fileformat2.html#the_write_ahead_log: the log's header is 32 bytes.
        writes = [event for event in self.recording.events if isinstance(event, Write)]
        return sum((write.offset, len(write.data)) == (0, 32) for write in writes)

    def told_by(self, moment: int) -> int:
        """The newest commit of which somebody had been told."""
        at = bisect_left(self._told, (moment,))
        return self._told[at - 1][1] if at else 0


# -- a store at work -------------------------------------------------------------------------------


class Callers:
    """Those who create jobs and work on them; what they are told is marked in the recording."""

    def __init__(self, ledger: Ledger, recorder: Recorder, chance: random.Random) -> None:
        self._ledger = ledger
        self._recorder = recorder
        self._random = chance

    async def create(self, size: int) -> str:
        env = {"TOKEN": "x" * self._random.randint(1, 200)} if self._random.random() < 0.5 else {}
        spec = Spec(image="nginx", arguments=[self._random.randbytes(size // 2).hex()], env=env)
        key = self._random.randbytes(8).hex() if self._random.random() < 0.2 else None
        job_id = await self._ledger.create(spec, key)
        self._recorder.mark(("job", UUID(job_id).bytes, 1))
        if key is not None:
            self._recorder.mark(("idempotency", key, 0))
        return job_id

    async def change(self, job_id: str, step: Step) -> None:
        job = await self._ledger.change(job_id, step)
        self._recorder.mark(("job", UUID(job.id).bytes, job.revision))

    async def work(self, job_id: str) -> None:
        now = self._ledger.now
        seen = Container(id=self._random.randbytes(32).hex(), name="w", state="running", seen_at=1)
        steps: list[Step] = [
            lambda job: job.claimed(now()),
            lambda job: job.entered(Phase.STARTING, now(), seen),
            lambda job: job.entered(Phase.VERIFYING, now()),
            lambda job: job.failed("no luck", seen, now()),
            lambda job: job.retried(now()),
            lambda job: job.claimed(now()),
            lambda job: job.completed(seen, now()),
        ]
        for step in steps[: self._random.randint(1, len(steps))]:
            await self.change(job_id, step)

    async def caller(self, number: int) -> None:
        """One after the other."""
        for _ in range(number):
            await self.work(await self.create(self._random.choice((0, 100, 1000, 9000))))

    async def all(self, scale: int) -> None:
        """First one alone, then many side by side, and a crowd that shares one commit: at a scale
        of 6 it is larger than SQLite's cache, and reaches the log before it ends.
        """
        await self.caller(3)
        await asyncio.gather(*(self.caller(scale) for _ in range(16)))
        await asyncio.gather(*(self.create(40_000) for _ in range(10 * scale)))
        await asyncio.gather(*(self.caller(scale) for _ in range(16)))


class HastyCallers(Callers):
    """Callers who are told of a change before its commit."""

    async def change(self, job_id: str, step: Step) -> None:
        revision = self._ledger.get(job_id).revision + 1
        self._recorder.mark(("job", UUID(job_id).bytes, revision))
        await self._ledger.change(job_id, step)


async def live(
    directory: Path,
    seed: object,
    *,
    scale: int = 2,
    callers: type[Callers] = Callers,
    **pragmas: Any,
) -> Life:
    """Let a store be worked on, closed, and worked on again."""
    chance = random.Random(f"life {seed}")
    commits = Commits()
    with Recorder(directory) as recorder:
        for run in ("1" * 16, "2" * 16):
            database = Database(directory / FILE, MIGRATIONS)
            try:
                for name, value in pragmas.items():
                    database._writer.pragma(name, value)
                commits.watch(database._writer)
                clock = itertools.count(1_900_000_000_000_000, 1000).__next__
                feed = database.read(partial(feeds.own_feed, node=NODE, run=run))
                database.begin_with(partial(feeds.begin_own, feed=feed))
                ledger = Ledger(
                    database, Seal(bytes(32)), JobQueue(10**6), NODE, feed, clock, retain=RETAIN
                )
                await callers(ledger, recorder, chance).all(scale)
            finally:
                await database.close()
    return Life(recorder.recording, commits)


# -- the cut ---------------------------------------------------------------------------------------


async def examine(path: Path, life: Life, moment: int) -> str | None:
    """What is wrong with the store of which this was left when the power was cut."""
    try:
        database = Database(path, MIGRATIONS)
    except StorageUnavailable as error:
        return f"does not open: {error}"
    try:
        return await _examine(database, life, moment)
    except StorageUnavailable as error:
        return f"does not work: {error}"
    finally:
        await database.close()


async def _examine(database: Database, life: Life, moment: int) -> str | None:
    if (verdict := database.read(lambda c: c.pragma("integrity_check"))) != "ok":
        return f"broken: {verdict}"
    found = database.read(rows)
    told = life.told_by(moment)
    if (commit := life.commits.by_content.get(fingerprint(found))) is None:
        return f"stray: its {len(found)} rows are what no commit left"
    if commit < told:
        return f"lost: this is commit {commit}, and of commit {told} somebody had been told"
    job = Job.new(id=LATEST, node=NODE, spec=Spec(image="nginx"), sealed_env=None, now=1)
    await database.append(jobs.TABLE, jobs.row(job))
    page = database.read(lambda c: jobs.page(c, jobs.Filter(), 3, None))
    return None if page.jobs[0] == document(jobs.row(job)) else "does not take another job"


@dataclass(frozen=True)
class Finding:
    """What was wrong after a cut, and how it came to be."""

    verdict: str
    story: str

    @property
    def kind(self) -> str:
        return self.verdict.partition(":")[0]


def told(findings: list[Finding]) -> str:
    """The first few, in full."""
    return "\n".join(f"{one.verdict}; {one.story}" for one in findings[:5])


async def cut(
    life: Life, seed: object, moments: Iterable[int], directory: Path, keep: Path
) -> list[Finding]:
    """Cut the power at moments of a life, in their order; what is wrong with what is left.

    How calls share commits depends on the threads, so that a seed does not bring back the very
    same state: what is wrong is kept, as it was found, below `keep`.
    """
    chance = random.Random(f"cut {seed}")
    disk = Disk(life.recording)
    findings: list[Finding] = []
    for moment in moments:
        disk.advance(moment)
        story, files = disk.cut(chance)
        write_files(directory, files)
        if verdict := await examine(directory / FILE, life, moment):
            write_files(kept := keep / f"cut-{len(findings)}", files)
            where = f"moment {moment} of {len(life.recording.events)}, seed {seed}"
            findings.append(Finding(verdict, f"{where}; {story}; kept in {kept}"))
    return findings


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in memory where there is one: what a sync means is up to the recording."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="container-manager-test-", dir=place) as directory:
        yield Path(directory)


async def check_lives(memory: Path, keep: Path, seed: object, cuts: Sequence[int]) -> None:
    """Cut the power so often in each life; each begins with what a cut has left of the one before.

    The first one is large and checkpoints as the daemon does, every 1000 pages; the others
    checkpoint every 50, so that most moments are near one.
    """
    chance = random.Random(f"generations {seed}")
    files: dict[str, bytes] = {}
    for generation, number in enumerate(cuts):
        write_files(memory / "life", files)
        name = f"{seed}, generation {generation}"
        if generation == 0:
            life = await live(memory / "life", name, scale=6)
        else:
            life = await live(memory / "life", name, scale=1, wal_autocheckpoint=50)
        assert life.log_starts >= 4  # made once for each opening, and begun anew in between
        moments = life.recording.moments(chance, number)
        findings = await cut(life, name, moments, memory / "cut", keep)
        assert not findings, told(findings)
        disk = Disk(life.recording)
        # Early on, so that those who come after do not get larger and larger.
        disk.advance(chance.randint(0, len(life.recording.events) // 2))
        _, files = disk.cut(chance)


async def test_power_cuts_while_the_store_is_being_made(memory: Path, tmp_path: Path) -> None:
    write_files(memory / "life", {})
    life = await live(memory / "life", 5, scale=0)
    events = life.recording.events
    beginning = next(at for at, event in enumerate(events) if isinstance(event, Mark))
    early = [moment for moment in range(beginning) for _ in range(10)]
    findings = await cut(life, 5, early, memory / "cut", tmp_path)
    assert not findings, told(findings)


async def test_after_2000_power_cuts_all_that_was_acknowledged_is_there(
    memory: Path, tmp_path: Path
) -> None:
    await check_lives(memory, tmp_path, 1, [200, 450, 450, 450, 450])


@pytest.mark.soak
@pytest.mark.parametrize("run", range(3))
async def test_after_many_power_cuts_all_that_was_acknowledged_is_there(
    memory: Path, tmp_path: Path, run: int
) -> None:
    await check_lives(memory, tmp_path, f"{secrets.token_hex(4)}-{run}", [400] * 5)


# The checks are checked: where the store does wrong, they have to find it


def moments(life: Life, seed: int) -> list[int]:
    return life.recording.moments(random.Random(f"moments {seed}"), 100)


async def test_without_syncs_jobs_are_lost_and_the_store_breaks(
    memory: Path, tmp_path: Path
) -> None:
    write_files(memory / "life", {})
    life = await live(memory / "life", 2, scale=4, synchronous="off")
    findings = await cut(life, 2, moments(life, 2), memory / "cut", tmp_path)
    assert any(finding.kind == "lost" for finding in findings)
    # Which the store may notice by itself.
    assert any(finding.kind == "broken" or "damaged" in finding.verdict for finding in findings), (
        findings[:5]
    )


async def test_with_syncs_at_checkpoints_alone_jobs_are_lost(memory: Path, tmp_path: Path) -> None:
    write_files(memory / "life", {})
    life = await live(memory / "life", 3, synchronous="normal")
    findings = await cut(life, 3, moments(life, 3), memory / "cut", tmp_path)
    assert {finding.kind for finding in findings} == {"lost"}


async def test_what_is_acknowledged_before_its_commit_is_lost(memory: Path, tmp_path: Path) -> None:
    write_files(memory / "life", {})
    life = await live(memory / "life", 4, callers=HastyCallers)
    findings = await cut(life, 4, moments(life, 4), memory / "cut", tmp_path)
    assert {finding.kind for finding in findings} == {"lost"}
