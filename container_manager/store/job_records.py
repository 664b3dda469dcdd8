"""Jobs as records: the body that nodes send each other, and the row that it becomes.

The body is an array, to whose end later versions add. What this version does not know of it is kept
beside the row and sent on as it came, since the signature covers it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import ormsgpack

from container_manager.job import Phase, Status
from container_manager.record import Record
from container_manager.store.database import Connection

if TYPE_CHECKING:
    from container_manager.store.records import Place

KIND = "job"
_COLUMNS = (
    "id, node, epoch, revision, status, phase, followed, created_at, updated_at, spec, sealed_env,"
    " body, removal_due, feed, seq, expires_at, signature, extra"
)
_SELECT = f"SELECT {_COLUMNS}, (SELECT lines FROM output WHERE job_id = id) FROM job"  # noqa: S608
SELECT_ONE = f"{_SELECT} WHERE id = ?"
SELECT_IN_FEED = f"{_SELECT} WHERE feed = ? AND seq > ? ORDER BY seq LIMIT ?"
_REPLACE = f"INSERT OR REPLACE INTO job ({_COLUMNS}) VALUES ({','.join('?' * 18)})"  # noqa: S608
_KNOWN = 10
"""Elements of the body that this version knows."""
_STATUSES, _PHASES = frozenset(map(str, Status)), frozenset(map(str, Phase))


def seq(row: tuple[Any, ...]) -> int:
    """Where in its feed a row stands."""
    found: int = row[14]
    return found


def record(row: tuple[Any, ...]) -> Record:
    """The record of a row."""
    id_, node, epoch, revision, *said = row[:12]
    removal_due, _, _, expires_at, signature, extra, output = row[12:]
    known = (*said, removal_due, output)
    body = ormsgpack.packb(known if extra is None else (*known, *ormsgpack.unpackb(extra)))
    return Record(KIND, id_, epoch, revision, node, expires_at, body, signature)


def put(connection: Connection, record: Record, place: Place, *, first: bool) -> bool:
    """Keep a job that another node has written; False where this version cannot read it.

    With `first` nothing is kept of it yet.
    """
    if (said := _read(record)) is None:
        return False
    *known, removal_due, output = said[:_KNOWN]
    extra = ormsgpack.packb(said[_KNOWN:]) if said[_KNOWN:] else None
    connection.execute(
        _REPLACE,
        (
            record.id,
            record.writer,
            record.epoch,
            record.revision,
            *known,
            removal_due,
            *place,
            record.expires_at,
            record.signature,
            extra,
        ),
    )
    if output is None:
        if not first:
            connection.execute("DELETE FROM output WHERE job_id = ?", (record.id,))
    else:
        connection.execute("INSERT OR REPLACE INTO output VALUES (?, ?)", (record.id, output))
    return True


def delete(connection: Connection, id_: bytes) -> None:
    """Drop a job's row and all that belongs to it."""
    connection.execute("DELETE FROM job WHERE id = ?", (id_,))
    connection.execute("DELETE FROM output WHERE job_id = ?", (id_,))


def _read(record: Record) -> list[Any] | None:
    """What the body says, if this version can make a row of it."""
    try:
        said = ormsgpack.unpackb(record.body or b"")
        status, phase, followed, created, updated, spec, env, body, due, output = said[:_KNOWN]
        fits = (
            type(said) is list
            and len(record.id) == 16
            and record.epoch >= 1
            and status in _STATUSES
            and (phase is None) == (status != Status.RUNNING)
            and (phase is None or phase in _PHASES)
            and followed in (0, 1)
            and all(type(time) is int for time in (created, updated))
            and all(value is None or type(value) is bytes for value in (env, output))
            and (due is None or type(due) is int)
            and _is_job(orjson.loads(spec), orjson.loads(body))
        )
    except (ValueError, TypeError):  # as both libraries' own errors are
        return None
    return said if fits else None


def _is_job(spec: Any, body: Any) -> bool:
    return (
        type(spec) is dict
        and type(body) is dict
        and type(spec.get("image")) is str
        and type(body.get("history")) is list
    )
