"""The daemon, killing itself at a chosen commit: `python -m tests.support.crashing -- ARGUMENTS`.

`CRASH_AT=commit:N:before` kills it (SIGKILL) just before the first byte of the N-th commit reaches
the write-ahead log, `commit:N:after` just after the log has been synced with that commit, before
anybody hears of it. Counted is from when the file named by `CRASH_ARM` exists, so that a test can
let the daemon start in peace. A commit is what is written to a log between two syncs of it, as it
is with synchronous=FULL.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import apsw

# The log's own header: written, and synced, ahead of the first commit after each restart of it.
WAL_HEADER_SIZE = 32


@dataclass
class CrashPoint:
    """When to die; counts the commits of all write-ahead logs of this process."""

    number: int
    when: Literal["before", "after"]
    arm: Path | None
    seen: int = 0

    @classmethod
    def from_environment(cls) -> CrashPoint | None:
        """As `CRASH_AT` and `CRASH_ARM` say; None without them."""
        text = os.environ.get("CRASH_AT")
        if not text:
            return None
        match = re.fullmatch(r"commit:([1-9][0-9]*):(before|after)", text)
        if match is None:
            raise SystemExit(f"CRASH_AT={text!r} is not commit:N:before or commit:N:after")
        arm = os.environ.get("CRASH_ARM")
        when: Literal["before", "after"] = "before" if match[2] == "before" else "after"
        return cls(int(match[1]), when, Path(arm) if arm else None)

    def begins(self) -> bool:
        """A commit is about to be written; whether it counts."""
        if self.arm is not None and not self.arm.exists():
            return False
        self.seen += 1
        self._die_if("before")
        return True

    def ended(self) -> None:
        """The commit that began last, and counts, is on disk."""
        self._die_if("after")

    def _die_if(self, when: Literal["before", "after"]) -> None:
        if self.seen == self.number and when == self.when:
            os.kill(os.getpid(), signal.SIGKILL)


class CrashingLog(apsw.VFSFile):
    """A write-ahead log which tells the crash point of each commit."""

    def __init__(
        self, base: str, name: str | apsw.URIFilename | None, flags: list[int], point: CrashPoint
    ) -> None:
        super().__init__(base, name, flags)
        self._point = point
        self._state: Literal["idle", "begun", "written"] = "idle"
        self._counts = False

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 -- SQLite's name
        """Part of a commit, the first one perhaps."""
        if self._state == "idle":
            self._state = "begun"
            self._counts = self._point.begins()
        super().xWrite(data, offset)
        if offset > 0 or len(data) != WAL_HEADER_SIZE:
            self._state = "written"

    def xSync(self, flags: int) -> None:  # noqa: N802 -- SQLite's name
        """The end of a commit, if one has been written; checkpoints sync, too."""
        super().xSync(flags)
        if self._state == "written":
            self._state = "idle"
            if self._counts:
                self._point.ended()


class CrashingFiles(apsw.VFS):
    """The system's files, but for the write-ahead logs."""

    def __init__(self, point: CrashPoint) -> None:
        # By its name: the default is ourselves in a moment.
        self._base = apsw.vfs_names()[0]
        super().__init__("crashing", self._base, makedefault=True, maxpathname=0)
        self._point = point

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 -- SQLite's name
        """Open a file; the main database and its log are opened as one after the other."""
        if flags[0] & apsw.SQLITE_OPEN_WAL:
            return CrashingLog(self._base, name, flags, self._point)
        return super().xOpen(name, flags)


def install() -> CrashingFiles | None:
    """Put the crash point under every database opened from now on; keep what is given back."""
    point = CrashPoint.from_environment()
    return None if point is None else CrashingFiles(point)


def main() -> None:
    """Run the daemon on these files, with the arguments after `--`."""
    files = install()
    arguments = sys.argv[1:]
    sys.argv = ["container-manager", *(arguments[1:] if arguments[:1] == ["--"] else arguments)]
    from container_manager.cli.main import main as daemon  # the fault is in place before

    try:
        daemon()
    finally:
        if files is not None:
            files.unregister()


if __name__ == "__main__":
    main()
