"""Records as the store keeps them: jobs in the jobs' table, all other kinds in one of their own.

Whatever kind, a record stands at a place of a feed (see `store.feeds`), and of one thing there is
never more than one record: the one that counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from container_manager.record import Record
from container_manager.store import job_records
from container_manager.store.database import Connection

JOB = job_records.KIND


class Place(NamedTuple):
    """Where in a feed a record stands."""

    feed: int
    """The number under which this store keeps the feed."""
    seq: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How a record stands in the store."""

    epoch: int
    revision: int
    writer: str
    place: Place


_COLUMNS = "epoch, revision, writer, expires_at, body, signature, digest, feed, seq, kind, id"


def find(connection: Connection, kind: str, id_: bytes) -> Standing | None:
    """How the record of a thing stands, if there is one."""
    row = None
    if kind == JOB:
        row = connection.execute(
            "SELECT epoch, revision, node, feed, seq FROM job WHERE id = ?", (id_,)
        ).get
    if row is None:
        row = connection.execute(
            "SELECT epoch, revision, writer, feed, seq FROM record WHERE kind = ? AND id = ?",
            (kind, id_),
        ).get
    if row is None:
        return None
    epoch, revision, writer, feed, seq = row
    return Standing(epoch, revision, writer, Place(feed, seq))


def get(connection: Connection, kind: str, id_: bytes) -> Record | None:
    """The record of a thing, if there is one."""
    if kind == JOB and (row := connection.execute(job_records.SELECT_ONE, (id_,)).get):
        return job_records.record(row)
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM record WHERE kind = ? AND id = ?",  # noqa: S608 - constants
        (kind, id_),
    ).get
    return None if row is None else _record(row)


def of_kind(connection: Connection, kind: str) -> list[Record]:
    """All records of a kind other than jobs."""
    query = f"SELECT {_COLUMNS} FROM record WHERE kind = ? AND body IS NOT NULL ORDER BY id"  # noqa: S608
    return [_record(row) for row in connection.execute(query, (kind,))]


def put(connection: Connection, record: Record, place: Place, *, first: bool = False) -> None:
    """Keep a record at a place, instead of what was told of the thing before.

    With `first` nothing was.
    """
    if record.kind == JOB:
        if record.body is not None and job_records.put(connection, record, place, first=first):
            if not first:
                query = "DELETE FROM record WHERE kind = ? AND id = ?"
                connection.execute(query, (JOB, record.id))
            return
        # Dropped, or written by a later version in a way that this one cannot read: then it is kept
        # and passed on, and shown by nodes that can.
        job_records.delete(connection, record.id)
    connection.execute(
        f"INSERT OR REPLACE INTO record ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?)",  # noqa: S608
        (
            record.epoch,
            record.revision,
            record.writer,
            record.expires_at,
            record.body,
            record.signature,
            record.digest_of_dropped,
            *place,
            record.kind,
            record.id,
        ),
    )


def move(connection: Connection, kind: str, id_: bytes, place: Place) -> None:
    """Have a record stand at another place."""
    if kind == JOB:
        connection.execute("UPDATE job SET feed = ?, seq = ? WHERE id = ?", (*place, id_))
    query = "UPDATE record SET feed = ?, seq = ? WHERE kind = ? AND id = ?"
    connection.execute(query, (*place, kind, id_))


def leave(connection: Connection, kind: str, id_: bytes, place: Place) -> None:
    """Keep the place at which a record stood, as it is to stand in another feed from now on.

    Of several places in one feed the last one is kept: all who lack an earlier one are told of it.
    """
    query = "SELECT max(seq) FROM husk WHERE kind = ? AND id = ? AND feed = ?"
    kept = connection.execute(query, (kind, id_, place.feed)).get
    if kept is not None and kept >= place.seq:
        return
    query = "DELETE FROM husk WHERE kind = ? AND id = ? AND feed = ?"
    connection.execute(query, (kind, id_, place.feed))
    connection.execute("INSERT OR REPLACE INTO husk VALUES (?, ?, ?, ?)", (*place, kind, id_))


def write(
    connection: Connection, kind: str, id_: bytes, body: bytes, writer: str, place: Place
) -> bool:
    """Write a record that is this node's own, of epoch 1; False where it says so already."""
    before, standing = get(connection, kind, id_), find(connection, kind, id_)
    if before is not None and before.body == body:
        return False
    if standing is not None and standing.place.feed != place.feed:
        leave(connection, kind, id_, standing.place)
    revision = 1 if before is None else before.revision + 1
    put(connection, Record(kind, id_, 1, revision, writer, None, body), place)
    return True


def drop(connection: Connection, kind: str, id_: bytes) -> None:
    """Drop what a record says, and keep that it was there."""
    record, standing = get(connection, kind, id_), find(connection, kind, id_)
    if record is not None and standing is not None:
        put(connection, record.dropped(), standing.place)


def any_dropped(connection: Connection, before: int) -> bool:
    """Whether there is anything for `forget_dropped`."""
    query = "SELECT 1 FROM record WHERE expires_at < ? LIMIT 1"
    return connection.execute(query, (before,)).get is not None


def forget_dropped(connection: Connection, before: int, limit: int) -> None:
    """Forget, places and all, what had expired before that time: what is left of jobs that were
    dropped, and what this version cannot read.
    """
    query = "SELECT kind, id FROM record WHERE expires_at < ? LIMIT ?"
    forgotten = list(connection.execute(query, (before, limit)))
    connection.executemany("DELETE FROM record WHERE kind = ? AND id = ?", forgotten)
    for kind, id_ in forgotten:
        forget_places(connection, kind, id_)


def forget_places(connection: Connection, kind: str, id_: bytes) -> None:
    """Forget where the record of a thing stood that is gone for good."""
    connection.execute("DELETE FROM husk WHERE kind = ? AND id = ?", (kind, id_))


def in_feed(connection: Connection, feed: int, after: int, limit: int) -> list[tuple[int, Record]]:
    """What stands in a feed behind `after`: places and records, the first `limit` of either."""
    jobs = connection.execute(job_records.SELECT_IN_FEED, (feed, after, limit))
    found = [(job_records.seq(row), job_records.record(row)) for row in jobs]
    query = (
        f"SELECT {_COLUMNS} FROM record WHERE feed = ? AND seq > ? "  # noqa: S608 - constants
        "ORDER BY seq LIMIT ?"
    )
    found += [(row[8], _record(row)) for row in connection.execute(query, (feed, after, limit))]
    return found


def _record(row: tuple[Any, ...]) -> Record:
    epoch, revision, writer, expires_at, body, signature, digest, _, _, kind, id_ = row
    return Record(kind, id_, epoch, revision, writer, expires_at, body, signature, digest)
