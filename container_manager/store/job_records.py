"""Jobs as records: the body that nodes send each other, and the row that it becomes.

The body is an array, to whose end later versions add. What this version does not know of it is kept
beside the row and sent on as it came, since the signature covers it. A body that this version
cannot read, or would not write in the same bytes, does not become a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import ormsgpack

from container_manager.job import Phase, Status
from container_manager.record import Record
from container_manager.spec import Spec
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
_END_OF_TIME = 1 << 57
"""In microseconds since 1970: in the year 6536, within what dates and the database take."""
_SPEC = Spec.model_fields.keys()
_PORT = {"container_port", "protocol", "host_ip", "host_port"}
_TEXT, _NUMBER, _BYTES = (frozenset({kind, type(None)}) for kind in (str, int, bytes))
"""The types of what may be left out."""
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
    """What the body says, if this version can make a row of it, and the same body of the row.

    One bad row would break every listing, so whatever is shown of a job is looked at.
    """
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
            and type(followed) is int
            and followed in (0, 1)
            and _is_time(created)
            and _is_time(updated)
            and type(env) in _BYTES
            and type(output) in _BYTES
            and (due is None or _is_time(due))
            and type(spec) is type(body) is bytes
            and _is_shown(orjson.loads(spec), orjson.loads(body))
            and ormsgpack.packb(said) == record.body
        )
    except (ValueError, TypeError, KeyError, AttributeError):  # as the libraries' own errors are
        return None
    return said if fits else None


def _is_shown(spec: dict[str, Any], body: dict[str, Any]) -> bool:
    """Whether a job's document can be shown. Raises a `KeyError` or a `TypeError` as well."""
    for at, status, phase, reason, attempt in body["history"]:
        known = status in _STATUSES and (phase is None or phase in _PHASES)
        if not (known and _is_time(at) and type(reason) in _TEXT and type(attempt) is int):
            return False
    due_at, container = body.get("due_at"), body.get("container")
    return (
        spec.keys() <= _SPEC
        and type(spec["image"]) is str
        and type(spec.get("name")) in _TEXT
        and type(spec.get("type", "")) is str
        and type(spec.get("labels", {})) is dict
        and type(body.get("reason")) in _TEXT
        and type(body.get("attempts", 0)) is int
        and (due_at is None or _is_time(due_at))
        and type(body.get("cancel_requested", False)) is bool
        and (container is None or _is_container(container))
    )


def _is_container(said: dict[str, Any]) -> bool:
    started_at, finished_at = said.get("started_at"), said.get("finished_at")
    return (
        type(said["id"]) is type(said["name"]) is type(said["state"]) is str
        and _is_time(said["seen_at"])
        and (started_at is None or _is_time(started_at))
        and (finished_at is None or _is_time(finished_at))
        and type(said.get("exit_code")) in _NUMBER
        and all(port.keys() >= _PORT for port in said.get("ports", ()))
    )


def _is_time(value: Any) -> bool:
    return type(value) is int and 0 <= value < _END_OF_TIME
