"""The jobs' table: a row for each job, found by id, by status and by what has to be followed.

A row's columns are what the database decides by; the rest is one JSON document. The CHECK
constraints make rows impossible that `container_manager.job` would not write.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import orjson

from container_manager.job import Container, Entry, Job, Phase, Port, Status
from container_manager.spec import Model, Spec
from container_manager.store import job_records, records
from container_manager.store.database import Connection, Table
from container_manager.store.document import Document, document, job_id_of
from container_manager.store.records import JOB, Place

_COLUMNS = (
    "id, node, epoch, revision, status, phase, followed, created_at, updated_at, spec, sealed_env,"
    " body, removal_due, feed, seq, expires_at"
)
TABLE = Table("job", _COLUMNS)
_INSERT = f"INSERT OR IGNORE INTO job ({_COLUMNS}) VALUES ({','.join('?' * 16)})"  # noqa: S608
_SELECT = f"SELECT {_COLUMNS} FROM job"  # noqa: S608 - a constant
_SELECT_ONE = f"{_SELECT} WHERE id = ?"
# By one statement: another one costs more than what it finds.
_SELECT_WITH_OUTPUT = (
    f"SELECT {_COLUMNS}, (SELECT lines FROM output WHERE job_id = id) FROM job WHERE id = ?"  # noqa: S608
)
_UPDATE = """
    UPDATE job SET node = ?2, epoch = ?3, revision = ?4, status = ?5, phase = ?6, followed = ?7,
        created_at = ?8, updated_at = ?9, spec = ?10, sealed_env = ?11, body = ?12,
        removal_due = ?13, feed = ?14, seq = ?15, expires_at = ?16, signature = NULL
    WHERE id = ?1
"""

# A look-up costs a third of what the enumeration's own call does.
_STATUSES = {status.value: status for status in Status}
_PHASES = {phase.value: phase for phase in Phase}

_NOWHERE = Place(1, 0)
_SAID = ("reason", "attempts", "failures", "due_at", "cancel_requested", "timed_out")
"""What a job's body says in the job's own words, where there is something to say."""
_CONTAINER, _PORT = ({one.name for one in fields(kind)} for kind in (Container, Port))
_STORED = Spec.model_fields.keys() - {"env"}
"""Further fields of a call are no part of the spec, and the environment is sealed apart from it."""

SCAN_LIMIT = 5000
"""Rows that one page looks at: a filter that fits few jobs answers with a short page instead of
holding the reader for long."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs a listing shows."""

    status: frozenset[Status] = frozenset()
    """Any of these; all when empty."""
    labels: tuple[tuple[str, str | None], ...] = ()
    """All of these; a value of None asks only that the label is there."""
    since: int | None = None
    """Made at this time or later, in microseconds."""


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a listing, newest first."""

    jobs: list[Document]
    next_cursor: str | None
    """Where the next part begins: hand it back. None at the end."""


# -- rows ------------------------------------------------------------------------------------------


def row(job: Job, place: Place = _NOWHERE, expires_at: int | None = None) -> tuple[Any, ...]:
    """The job as the table keeps it, at a place of this node's feed; or as nobody is told of it."""
    return (
        _key(job.id),
        job.node,
        job.epoch,
        job.revision,
        job.status.value,
        job.phase,
        int(job.followed),
        job.created_at,
        job.updated_at,
        encode_spec(job.spec),
        job.sealed_env,
        _body(job),
        job.removal_due,
        *place,
        expires_at,
    )


def new_row(
    job_id: str, node: str, spec: Spec, sealed_env: bytes | None, now: int, place: Place
) -> tuple[Any, ...]:
    """The row of `Job.new` without making the job, which is on the path of every Create."""
    body = b'{"history":[[%d,"pending",null,null,0]]}' % now
    stored = encode_spec(spec)
    key = _key(job_id)
    said = "pending", None, 0, now, now, stored, sealed_env, body, None
    return key, node, 1, 1, *said, *place, None


def _key(job_id: str) -> bytes:
    # What UUID(job_id).bytes is, for ids in canonical form, at a fraction of its cost.
    return bytes.fromhex(job_id.replace("-", ""))


def encode_spec(spec: Spec) -> bytes:
    """The spec as stored: what its caller has set, and never the environment."""
    # What is not set is not looked at, which the model's own serialiser would do field by field.
    values = spec.__dict__
    said = {name: values[name] for name in sorted(_STORED & spec.model_fields_set)}
    return orjson.dumps(said, default=_said)


def _said(value: object) -> dict[str, Any]:
    """A part of the spec that is a model of its own, for the encoder."""
    if not isinstance(value, Model):
        raise TypeError
    return {name: getattr(value, name) for name in sorted(value.model_fields_set)}


def _body(job: Job) -> bytes:
    body: dict[str, Any] = {
        "history": [(e.at, e.status, e.phase, e.reason, e.attempt) for e in job.history]
    }
    for name in _SAID:
        if value := getattr(job, name):
            body[name] = value
    if job.container is not None:
        body["container"] = job.container
    return orjson.dumps(body)


def _job(values: tuple[Any, ...]) -> Job:
    id_, node, epoch, revision, status, phase, _, created_at, updated_at = values[:9]
    spec, sealed, body = values[9:12]
    document = orjson.loads(body)
    container = document.get("container")
    return Job(
        id=job_id_of(id_),
        node=node,
        epoch=epoch,
        revision=revision,
        status=_STATUSES[status],
        phase=phase and _PHASES[phase],
        created_at=created_at,
        updated_at=updated_at,
        spec=Spec.model_validate_json(spec),
        sealed_env=sealed,
        container=container and _container(container),
        history=tuple(
            Entry(at, _STATUSES[status], phase and _PHASES[phase], reason, attempt)
            for at, status, phase, reason, attempt in document["history"]
        ),
        **_known(document, _SAID),
    )


def _container(said: dict[str, Any]) -> Container:
    known = _known(said, _CONTAINER)
    if ports := known.pop("ports", None):
        known["ports"] = tuple(Port(**_known(port, _PORT)) for port in ports)
    return Container(**known)


def _known(said: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """What this version knows of it: the owner of the job may be of a later one."""
    return {name: value for name, value in said.items() if name in names}


# -- reading and writing ---------------------------------------------------------------------------


def insert(connection: Connection, values: tuple[Any, ...]) -> bool:
    """Keep a job, given as its `row`; False where a job of that id is there already."""
    connection.execute(_INSERT, values)
    return connection.changes() == 1


def update(
    connection: Connection, job: Job, before: Place, place: Place, expires_at: int | None
) -> None:
    """Keep a job's newer state, which is told of at another place than the one before."""
    values = row(job, place, expires_at)
    if before.feed != place.feed:
        records.leave(connection, JOB, values[0], before)
    connection.execute(_UPDATE, values)


def get(connection: Connection, job_id: str) -> Job | None:
    """The job of this id."""
    values = connection.execute(_SELECT_ONE, (_key(job_id),)).get
    return None if values is None else _job(values)


def get_placed(connection: Connection, job_id: str) -> tuple[Job, Place] | None:
    """The job of this id, and the place that it stands at."""
    values = connection.execute(_SELECT_ONE, (_key(job_id),)).get
    return None if values is None else (_job(values), Place(values[13], values[14]))


def look_up(connection: Connection, job_id: str) -> tuple[Document, bytes | None] | None:
    """The job of this id in plain values, and the sealed last lines of its container."""
    values = connection.execute(_SELECT_WITH_OUTPUT, (_key(job_id),)).get
    return None if values is None else (document(values), values[-1])


def waiting(connection: Connection, node: str) -> Iterator[tuple[str, int | None]]:
    """Id and due time of a node's jobs that need a worker: those cut short first, then by age."""
    for which in ("status = 'running' AND followed = 0", "status = 'pending'"):
        query = f"SELECT id, body FROM job WHERE {which} AND node = ? ORDER BY id"  # noqa: S608
        for id_, body in connection.execute(query, (node,)):
            yield job_id_of(id_), orjson.loads(body).get("due_at")


def followed_ids(connection: Connection, node: str) -> list[str]:
    """The ids of a node's jobs whose containers have to be watched."""
    rows = connection.execute("SELECT id FROM job WHERE followed = 1 AND node = ?", (node,))
    return [job_id_of(id_) for (id_,) in rows]


def page(connection: Connection, wanted: Filter, limit: int, cursor: str | None) -> Page:
    """Up to `limit` jobs that fit `wanted`, older than the one `cursor` names, newest first."""
    before = _key(cursor) if cursor else b"\xff" * 16
    since = max(wanted.since or 0, 0) // 1000
    # A UUIDv7 begins with the milliseconds of its making.
    oldest = since.to_bytes(6, "big") + bytes(10)
    jobs: list[Document] = []
    rows = _newest_first(connection, wanted.status, oldest, before)
    for looked_at, values in enumerate(rows, start=1):
        before = values[0]
        job = document(values)
        if _fits(job, wanted):
            jobs.append(job)
        if len(jobs) == limit or looked_at == SCAN_LIMIT:
            return Page(jobs, job_id_of(before))
    return Page(jobs, None)


def _newest_first(
    connection: Connection, status: frozenset[Status], oldest: bytes, before: bytes
) -> Iterator[tuple[Any, ...]]:
    if not status:
        query = f"{_SELECT} WHERE id >= ? AND id < ? ORDER BY id DESC"
        yield from connection.execute(query, (oldest, before))
        return
    # A branch for each status walks its own stretch of the index; the merge needs no sorting.
    branch = "SELECT id FROM job WHERE status = ? AND id >= ? AND id < ?"
    union = " UNION ALL ".join([branch] * len(status))
    ids = f"{union} ORDER BY id DESC LIMIT {SCAN_LIMIT}"
    parameters = [value for s in sorted(status) for value in (s.value, oldest, before)]
    for (id_,) in connection.execute(ids, parameters):
        if (values := connection.execute(_SELECT_ONE, (id_,)).get) is not None:
            yield values


def _fits(job: Document, wanted: Filter) -> bool:
    if wanted.since is not None and job["created_at"] < wanted.since:
        return False
    labels = job["spec"].get("labels", {})
    return all(key in labels and value in (None, labels[key]) for key, value in wanted.labels)


# -- what goes when its time has come --------------------------------------------------------------


def due_removals(connection: Connection, node: str, now: int, limit: int) -> list[Job]:
    """A node's jobs whose ended containers are to be removed by now, the longest overdue first."""
    query = f"{_SELECT} WHERE removal_due <= ? AND node = ? ORDER BY removal_due LIMIT ?"
    return [_job(values) for values in connection.execute(query, (now, node, limit))]


def next_removal(connection: Connection, node: str, after: int) -> int | None:
    """When the next of a node's containers is to be removed that was not due yet at `after`."""
    query = "SELECT min(removal_due) FROM job WHERE removal_due > ? AND node = ?"
    found: int | None = connection.execute(query, (after, node)).get
    return found


_DONE = "followed = 0 AND status NOT IN ('pending', 'running')"


def outdated(
    connection: Connection, node: str, *, now: int, before: int, most: int, limit: int
) -> list[bytes]:
    """The keys of jobs to be forgotten.

    Those that have had the time that their owner gives them, this node's own that were done with
    before `before`, and of all that are done with those beyond the newest `most`.
    """
    done = f"SELECT id FROM job WHERE {_DONE}"  # noqa: S608 - a constant
    expired = "SELECT id FROM job WHERE expires_at <= ? LIMIT ?"
    keys = [key for (key,) in connection.execute(expired, (now, limit))]
    if len(keys) < limit:
        query = f"{done} AND updated_at < ? AND node = ? ORDER BY updated_at LIMIT ?"
        keys += [key for (key,) in connection.execute(query, (before, node, limit))]
    if len(keys) < limit:
        count: int = connection.execute(f"SELECT count(*) FROM job WHERE {_DONE}").get  # noqa: S608
        if (excess := min(count - most, limit)) > len(keys):
            found = connection.execute(f"{done} ORDER BY updated_at LIMIT ?", (excess,))
            keys = [key for (key,) in found]
    return keys


def forget(connection: Connection, node: str, keys: Sequence[bytes]) -> int:
    """Drop those of these jobs that are still done with, and all that is kept about them."""
    # Who has never met another node has nobody to tell that a job is to be dropped.
    others = connection.execute("SELECT 1 FROM feed WHERE node <> ? LIMIT 1", (node,)).get
    # A job that was taken up again meanwhile does not expire any more.
    done = f"SELECT 1 FROM job WHERE id = ? AND (({_DONE}) OR expires_at IS NOT NULL)"  # noqa: S608
    dropped = [key for key in keys if connection.execute(done, (key,)).get]
    for key in dropped:
        if others:
            records.drop(connection, JOB, key)
        else:
            job_records.delete(connection, key)
            records.forget_places(connection, JOB, key)
    return len(dropped)


# -- output ----------------------------------------------------------------------------------------


def set_output(connection: Connection, job_id: str, sealed: bytes) -> None:
    """Keep the last lines of a job's container, in place of those that were kept before."""
    connection.execute("INSERT OR REPLACE INTO output VALUES (?, ?)", (_key(job_id), sealed))


def output(connection: Connection, job_id: str) -> bytes | None:
    """The last lines of a job's container, sealed, if any were kept."""
    query = "SELECT lines FROM output WHERE job_id = ?"
    found: bytes | None = connection.execute(query, (_key(job_id),)).get
    return found


# -- idempotency keys ------------------------------------------------------------------------------


def recall(connection: Connection, key: str, now: int) -> tuple[bytes, str] | None:
    """The fingerprint and the job's id that were kept under this key, unless it has expired."""
    query = "SELECT fingerprint, job_id FROM idempotency WHERE key = ? AND expires_at > ?"
    found = connection.execute(query, (key, now)).get
    return None if found is None else (found[0], job_id_of(found[1]))


def remember(
    connection: Connection,
    key: str,
    fingerprint: bytes,
    job_id: str,
    now: int,
    expires_at: int,
) -> None:
    """Keep a key until it expires, and drop those that have."""
    connection.execute("DELETE FROM idempotency WHERE expires_at <= ?", (now,))
    connection.execute(
        "INSERT INTO idempotency VALUES (?, ?, ?, ?)",
        (key, fingerprint, _key(job_id), expires_at),
    )
