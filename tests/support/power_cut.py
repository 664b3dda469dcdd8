"""What a disk may hold after a power cut: everything that SQLite does to its files, recorded.

`Recorder` is an SQLite VFS that passes all through to the files of one directory and notes each
write, truncation, sync, creation and deletion in the order in which they happened, with marks of
the test's own between them ("job X is acknowledged"). `Disk` plays a recording up to a moment and
then cuts the power: it gives contents that the files may have when the machine comes back.

What is assumed of a disk follows SQLite's own documents on what it asks of one,
https://sqlite.org/atomiccommit.html (section 2) and https://sqlite.org/psow.html:

- What was written to a file before a sync of that file that has returned is on disk. A sync of one
  file says nothing of another.
- Of what was written since, each 512-byte sector of each write may have arrived or not, whatever
  became of those before and after it: writes are lost, torn and out of order. A sector is whole,
  old or new (`SECTOR`), or it is scrap. Bytes that nobody wrote to stay ("powersafe overwrite",
  which SQLite takes for granted on Linux).
- A file that grew is as long as the furthest sector that arrived, or, since its length may arrive
  before its content, as long as it was to become, with zeros where nothing arrived.
- Names come and go in the order of the calls, as journaling file systems keep them (ext4, XFS,
  Btrfs), and any number of the last of these calls may be lost. They are on disk once the directory
  is synced: with SQLite's `unix` VFS by a deletion that asks for it, and by the first sync of a log
  or journal that was opened to be created where it is missing (`UNIXFILE_DIRSYNC` in os_unix.c).
  What was deleted and comes back has the content that such a file may have.
- Shared memory (`-shm`) is memory.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw

if TYPE_CHECKING:
    from random import Random

SECTOR = 512
"""Bytes that a disk writes wholly or not at all."""


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes were written to a file."""

    file: int
    offset: int
    data: bytes

    def pieces(self) -> Iterator[tuple[int, int, bytes]]:
        """Sector by sector: the sector's number, where in the file, and what."""
        at, end = self.offset, self.offset + len(self.data)
        while at < end:
            after = min(end, (at // SECTOR + 1) * SECTOR)
            yield at // SECTOR, at, self.data[at - self.offset : after - self.offset]
            at = after


@dataclass(frozen=True, slots=True)
class Truncate:
    """A file was cut to a length."""

    file: int
    size: int


@dataclass(frozen=True, slots=True)
class Sync:
    """A file was synced, and perhaps the directory with it."""

    file: int
    directory: bool


@dataclass(frozen=True, slots=True)
class Link:
    """A file was created."""

    name: str
    file: int


@dataclass(frozen=True, slots=True)
class Unlink:
    """A file was deleted, and perhaps the directory synced."""

    name: str
    synced: bool


@dataclass(frozen=True, slots=True)
class Mark:
    """The test has noted something."""

    what: Any


Event = Write | Truncate | Sync | Link | Unlink | Mark


@dataclass
class Recording:
    """What happened, and what the files were before. Files are numbered: names may come again."""

    directory: Path
    before: dict[str, bytes]
    events: list[Event] = field(default_factory=list)

    def moments(self, random: Random, number: int) -> list[int]:
        """So many moments, in order; moment n is when the first n events have happened.

        Half of them are next to a sync, a creation or a deletion, a quarter within checkpoints,
        the rest anywhere.
        """
        kinds = (Sync, Link, Unlink)
        turns = [at for at, event in enumerate(self.events) if isinstance(event, kinds)]
        numbers = list(zip(self.before, range(len(self.before)), strict=True))
        numbers += [(event.name, event.file) for event in self.events if isinstance(event, Link)]
        databases = {file for name, file in numbers if not name.endswith(("-wal", "-journal"))}
        checkpoints = [
            at
            for at, event in enumerate(self.events)
            if isinstance(event, Write) and event.file in databases
        ]
        found = []
        for turn in range(number):
            if turn % 2:
                moment = random.choice(turns) + random.randint(-2, 3)
            elif turn % 4 and checkpoints:
                moment = random.choice(checkpoints) + random.randint(0, 1)
            else:
                moment = random.randint(0, len(self.events))
            found.append(min(max(moment, 0), len(self.events)))
        return sorted(found)


class Recorder(apsw.VFS):
    """The system's files, and a recording of what is done to those in one directory.

    As a context manager it is beneath every database that is opened within the block.
    """

    def __init__(self, directory: Path) -> None:
        # By its name: the default is ourselves in a moment.
        self._base = apsw.vfs_names()[0]
        super().__init__("power-cut", self._base, makedefault=True, maxpathname=0)
        before = {
            path.name: path.read_bytes()
            for path in sorted(directory.iterdir())
            if not path.name.endswith("-shm")
        }
        self.recording = Recording(directory, before)
        self._numbers = {name: number for number, name in enumerate(before)}
        self._made = len(before)
        self._lock = threading.Lock()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.unregister()

    def mark(self, what: Any) -> None:
        """Note that something has happened by now."""
        self.note(Mark(what))

    def note(self, event: Event) -> None:
        """Add an event."""
        with self._lock:
            self.recording.events.append(event)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 -- SQLite's name
        """Open a file, which may create it."""
        path = Path(name.filename() if isinstance(name, apsw.URIFilename) else name or "")
        if path.parent != self.recording.directory:
            return super().xOpen(name, flags)
        known = path.exists()
        file = RecordedFile(self._base, name, flags, self)
        if not known:
            self._numbers[path.name] = self._made
            self._made += 1
            self.note(Link(path.name, self._numbers[path.name]))
        beside = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL
        if flags[0] & beside and flags[0] & apsw.SQLITE_OPEN_CREATE:
            # Whether or not it was there already: another connection may have made it.
            file.directory_unsynced = True
        file.number = self._numbers[path.name]
        return file

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802 -- SQLite's name
        """Delete a file."""
        super().xDelete(filename, syncdir)
        path = Path(filename)
        if path.parent == self.recording.directory:
            del self._numbers[path.name]
            self.note(Unlink(path.name, bool(syncdir)))


class RecordedFile(apsw.VFSFile):
    """An open file of which the recorder hears."""

    number = -1
    directory_unsynced = False

    def __init__(
        self,
        base: str,
        name: str | apsw.URIFilename | None,
        flags: list[int],
        recorder: Recorder,
    ) -> None:
        super().__init__(base, name, flags)
        self._recorder = recorder

    def xLock(self, level: int) -> None:  # noqa: N802 -- SQLite's name
        """Lock."""
        try:
            super().xLock(level)
        except apsw.IOError as error:
            # Closing a read-only connection tries for a lock that it cannot have. SQLite goes on
            # without, and so has apsw, which would otherwise raise what went wrong.
            raise apsw.BusyError(str(error)) from error

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 -- SQLite's name
        """Write."""
        self._recorder.note(Write(self.number, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 -- SQLite's name
        """Cut."""
        self._recorder.note(Truncate(self.number, newsize))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802 -- SQLite's name
        """Sync; it counts from when it has returned."""
        super().xSync(flags)
        self._recorder.note(Sync(self.number, self.directory_unsynced))
        self.directory_unsynced = False


Arrived = Callable[[int, int], bool]
"""Whether, of the n-th change since the last sync, the part in the m-th sector is on disk."""


class _File:
    """One file: what is on disk for certain, and what was done to it since."""

    def __init__(self, content: bytes = b"") -> None:
        self._synced = bytearray(content)
        self._since: list[Write | Truncate] = []

    def do(self, change: Write | Truncate) -> None:
        self._since.append(change)

    def sync(self) -> None:
        for change in self._since:
            if isinstance(change, Write):
                _put(self._synced, change.offset, change.data)
            else:
                _cut(self._synced, change.size)
        self._since.clear()

    def after_cut(self, random: Random, fate: str) -> bytes:
        """What it may hold."""
        content = bytearray(self._synced)
        arrived = self._arrived(random, fate)
        scrap = random.random() < 0.15
        for number, change in enumerate(self._since):
            if isinstance(change, Truncate):
                if arrived(number, change.size // SECTOR):
                    _cut(content, change.size)
                continue
            for sector, offset, data in change.pieces():
                if arrived(number, sector):
                    _put(content, offset, data)
                elif scrap and random.random() < 0.2:
                    _put(content, offset, random.randbytes(len(data)))
        if random.random() < 0.3:
            ends = [c.offset + len(c.data) for c in self._since if isinstance(c, Write)]
            content.extend(bytes(max([0, *ends, len(content)]) - len(content)))
        return bytes(content)

    def _arrived(self, random: Random, fate: str) -> Arrived:
        count = len(self._since)
        match fate:
            case "everything":
                return lambda number, sector: True
            case "nothing":
                return lambda number, sector: False
            case "the first":
                # All up to one write, and of that one all up to one sector.
                last = random.randint(0, count)
                part = random.randrange(12)
                start = 0
                if last < count and isinstance(torn := self._since[last], Write):
                    start = torn.offset // SECTOR
                return lambda number, sector: (
                    number < last or (number == last and sector < start + part)
                )
            case "some writes":
                chance = random.choice((0.1, 0.5, 0.9))
                whole = [random.random() < chance for _ in range(count)]
                partly = [random.random() < 0.3 for _ in range(count)]
                return lambda number, sector: (
                    random.random() < 0.5 if partly[number] else whole[number]
                )
            case _:
                # Each sector as it was in memory at some moment since the last sync.
                until: dict[int, int] = {}
                return lambda number, sector: (
                    number < until.setdefault(sector, random.randint(0, count))
                )


FATES = ("everything", "nothing", "the first", "some writes", "some sectors")
"""What may become of what was written to a file since its last sync."""


class Disk:
    """The files of a recording, as they are on a disk that is written to behind its users' back."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._files = {
            number: _File(content) for number, content in enumerate(recording.before.values())
        }
        self._names = {name: number for number, name in enumerate(recording.before)}
        self._unsynced: list[Link | Unlink] = []
        self._moment = 0

    def advance(self, moment: int) -> None:
        """Let everything happen that happened before this moment, which is not an earlier one."""
        for event in self._recording.events[self._moment : moment]:
            self._happen(event)
        self._moment = moment

    def _happen(self, event: Event) -> None:
        match event:
            case Write() | Truncate():
                self._files[event.file].do(event)
            case Sync():
                self._files[event.file].sync()
                if event.directory:
                    self._sync_names()
            case Link():
                self._files[event.file] = _File()
                self._unsynced.append(event)
            case Unlink():
                self._unsynced.append(event)
                if event.synced:
                    self._sync_names()

    def _sync_names(self) -> None:
        _rename(self._names, self._unsynced)
        self._unsynced.clear()

    def cut(self, random: Random) -> tuple[str, dict[str, bytes]]:
        """Cut the power at this moment: how it went, and the files that may be found then."""
        names = dict(self._names)
        # Mostly the names are on disk: all but the first moments of a file's life.
        kept = random.choice((random.randint(0, len(self._unsynced)), len(self._unsynced)))
        _rename(names, self._unsynced[:kept])
        files, story = {}, []
        for name, number in sorted(names.items()):
            fate = random.choice(FATES)
            files[name] = self._files[number].after_cut(random, fate)
            story.append(f"of {name} {fate} ({len(files[name])} bytes)")
        return ", ".join(story) or "no file", files


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if offset > len(content):
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _cut(content: bytearray, size: int) -> None:
    del content[size:]
    content.extend(bytes(size - len(content)))


def _rename(names: dict[str, int], changes: list[Link | Unlink]) -> None:
    for change in changes:
        if isinstance(change, Link):
            names[change.name] = change.file
        else:
            names.pop(change.name, None)


def write_files(directory: Path, files: dict[str, bytes]) -> None:
    """Make a directory that holds these files and nothing else."""
    directory.mkdir(exist_ok=True)
    for name in os.listdir(directory):
        (directory / name).unlink()
    for name, content in files.items():
        (directory / name).write_bytes(content)
