"""Damage to a job store as a failing disk does it, and a look into one past the program."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING
from uuid import UUID

import apsw

if TYPE_CHECKING:
    from pathlib import Path

PAGE = 4096


def break_page(path: Path, number: int | None = None) -> bytes:
    """Make rubbish of the begin of a page, one in the middle by default; gives the file then."""
    pages = path.stat().st_size // PAGE
    with path.open("r+b") as file:
        file.seek((pages // 2 if number is None else number) * PAGE)
        file.write(b"\xa5" * 200)
    return path.read_bytes()


def stored_ids(path: Path) -> set[str]:
    """The ids of all jobs of a store, which has to be whole."""
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        assert connection.execute("PRAGMA integrity_check").get == "ok"
        return {str(UUID(bytes=id_)) for (id_,) in connection.execute("SELECT id FROM job")}
