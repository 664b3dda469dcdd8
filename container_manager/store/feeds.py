"""Feeds: what each run of each node has written, in the order of the last change.

A feed is named `node.run`: the node's id, and a random name that each start of its daemon takes
anew. So a feed only ever grows at its end, whatever becomes of data directories: one that was put
back from an older copy goes on in a feed of its own, and so does each of two copies.

Who *holds* a feed up to `seq` has, of each record that was written at a place up to there, that
writing or one that counts more. Each record stands at one place, that of its last writing: what is
written again moves to the end of a feed. So a part of a feed is nothing to hold on to; only who has
been sent all of it, to its end, holds it. Where a writer is gone for good with only a part of its
feed told, who has that part adopts it: tells it on in a feed of its own.

When a later writing puts a record at a place of another feed, a *husk* keeps the place that it had:
whoever is told of the older feed is told of this record too, as it is by then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from container_manager.record import Entry, Record
from container_manager.store import records
from container_manager.store.database import Connection
from container_manager.store.records import Place, Standing


class OwnFeed:
    """The feed that this run of this node writes. Used in the event loop."""

    def __init__(self, id: int, name: str, seq: int) -> None:  # noqa: A002 - what it is
        """Go on after `seq`."""
        self.id = id
        self.name = name
        self.seq = seq
        """Up to where all is on disk."""
        self._next = seq
        self._told: list[Callable[[], None]] = []

    @property
    def run(self) -> str:
        """The name of the run."""
        return self.name.partition(".")[2]

    def next_place(self) -> Place:
        """The place of the next writing.

        It has to be handed to the writer thread in the same round of the event loop, so that places
        are committed in their order.
        """
        self._next += 1
        return Place(self.id, self._next)

    def next_places(self, number: int) -> list[Place]:
        """As many places one behind the other; else as `next_place`."""
        return [self.next_place() for _ in range(number)]

    def committed(self, seq: int) -> None:
        """What stands at this place is on disk, and so is all before it that ever will be."""
        if seq > self.seq:
            self.seq = seq
            for told in self._told:
                told()

    def on_commit(self, told: Callable[[], None]) -> None:
        """Have `told` called whenever the feed has grown."""
        self._told.append(told)


def feed_name(node: str, run: str) -> str:
    """The name of what one run of a node writes."""
    return f"{node}.{run}"


def own_feed(connection: Connection, node: str, run: str) -> OwnFeed:
    """The feed of a run that begins. Nothing is written yet: see `begin_own`."""
    name = feed_name(node, run)
    # What was there before there were feeds is this run's.
    if (seq := connection.execute("SELECT seq FROM feed WHERE node = ''").get) is not None:
        return OwnFeed(1, name, seq)
    return OwnFeed(connection.execute("SELECT coalesce(max(id), 0) + 1 FROM feed").get, name, 0)


def begin_own(connection: Connection, feed: OwnFeed) -> None:
    """Note that a run has begun, in the transaction of its first writing."""
    node, _, run = feed.name.partition(".")
    connection.execute(f"UPDATE feed SET seq = max(seq, ({_TOP})), open = 0 WHERE open = 1")  # noqa: S608
    # Of a run that has written nothing nobody knows.
    connection.execute("DELETE FROM feed WHERE node = ? AND seq = 0 AND id <> ?", (node, feed.id))
    begun = (feed.id, node, run, feed.seq, 1)
    connection.execute("INSERT OR REPLACE INTO feed VALUES (?, ?, ?, ?, ?)", begun)


def meet(connection: Connection, feed: str) -> None:
    """Know of a feed before anything of it has come: from now on there is somebody to tell."""
    query = "INSERT OR IGNORE INTO feed VALUES (NULL, ?, ?, 0, 0)"
    connection.execute(query, tuple(feed.split(".", 1)))


_TOP = """
    SELECT max(
        coalesce((SELECT max(seq) FROM job WHERE feed = feed.id), 0),
        coalesce((SELECT max(seq) FROM record WHERE feed = feed.id), 0),
        coalesce((SELECT max(seq) FROM husk WHERE feed = feed.id), 0)
    )
"""
"""The last place of a feed at which something stands."""


def forget_hollow(connection: Connection, node: str) -> list[str]:
    """Forget feeds of which nothing is left here; gives their names.

    But for the open one, and one of another node than `node`: that there are others is not
    forgotten (see `jobs.forget`).
    """
    hollow = (
        f"NOT open AND node <> '' AND ({_TOP}) = 0"  # noqa: S608 - constants
        " AND id <> coalesce((SELECT max(id) FROM feed WHERE node <> ?1), 0)"
    )
    query = f"SELECT node, run FROM feed WHERE {hollow}"  # noqa: S608 - constants
    names = [feed_name(*found) for found in connection.execute(query, (node,))]
    if names:
        connection.execute(f"DELETE FROM feed WHERE {hollow}", (node,))  # noqa: S608 - constants
    return names


def vector(connection: Connection) -> dict[str, int]:
    """Up to where each feed is held."""
    # What was there before there were feeds has no name yet.
    query = f"""
        SELECT node, run, CASE open WHEN 1 THEN max(seq, ({_TOP})) ELSE seq END
        FROM feed WHERE node <> ''
    """  # noqa: S608 - constants
    return {feed_name(node, run): seq for node, run, seq in connection.execute(query)}


def entries(connection: Connection, feed: str, after: int, limit: int) -> tuple[list[Entry], bool]:
    """What stands in a feed behind `after`, and whether that is all.

    Args:
        connection: of the store.
        feed: its name.
        after: where to begin.
        limit: entries at most, from 1.
    """
    if (known := _known(connection, feed)) is None:
        return [], True
    found = [Entry(*one) for one in records.in_feed(connection, known.feed, after, limit)]
    query = "SELECT seq, kind, id FROM husk WHERE feed = ? AND seq > ? ORDER BY seq LIMIT ?"
    for seq, kind, id_ in list(connection.execute(query, (known.feed, after, limit))):
        record, standing = records.get(connection, kind, id_), records.find(connection, kind, id_)
        if record is not None and standing is not None:
            found.append(Entry(seq, record, _home(connection, standing.place)))
    found.sort(key=lambda entry: entry.seq)
    return found[:limit], len(found) < limit


def merge(
    connection: Connection, feed: str, told: Sequence[Entry], holds: int, now: int
) -> list[Record]:
    """Take in what stands in a feed; gives the records that count from now on.

    Args:
        connection: of the store.
        feed: its name.
        told: what stands there, or a part of it.
        holds: up to where it is held with this part.
        now: the time in microseconds since 1970.
    """
    known = _met(connection, feed)
    taken = []
    for entry in told:
        if entry.seq <= known.seq:
            continue
        # What has had its time is not to rise again.
        expired = entry.record.expired(now)
        record = entry.record.dropped() if expired else entry.record
        place = Place(known.feed, entry.seq)
        if entry.home is not None:
            # It stands where it does at the sender: there it is looked for where this is all that
            # is left of it.
            home, seq = entry.home
            stands = Place(_met(connection, home).feed, seq)
            if _take_in(connection, record, stands, now):
                taken.append(record)
            _note(connection, record, place)
        elif _take_in(connection, record, place, now):
            taken.append(record)
    if holds > known.seq:
        connection.execute("UPDATE feed SET seq = ? WHERE id = ?", (holds, known.feed))
    return taken


def parts(connection: Connection) -> dict[str, int]:
    """The last places of feeds at which something stands beyond what is held of them."""
    query = f"""
        SELECT node, run, top FROM (SELECT node, run, seq, open, ({_TOP}) AS top FROM feed)
        WHERE top > seq AND NOT open
    """  # noqa: S608 - constants
    return {feed_name(node, run): top for node, run, top in connection.execute(query)}


def adopt(connection: Connection, feed: str, places: Sequence[Place]) -> int:
    """Move what stands in a feed beyond what is held of it to these places of the own feed.

    As many as there are places for; gives how many.
    """
    if (known := _known(connection, feed)) is None:
        return 0
    standing = records.in_feed(connection, known.feed, known.seq, len(places))
    standing.sort(key=lambda place: place[0])
    for (_, record), place in zip(standing, places, strict=False):
        records.move(connection, record.kind, record.id, place)
    return min(len(standing), len(places))


def _known(connection: Connection, feed: str) -> Place | None:
    """A feed's number, and up to where it is held."""
    query = "SELECT id, seq FROM feed WHERE node = ? AND run = ?"
    node, _, run = feed.partition(".")
    row = connection.execute(query, (node, run)).get
    return None if row is None else Place(*row)


def _met(connection: Connection, feed: str) -> Place:
    """As `_known`, of a feed that is known from now on."""
    if (known := _known(connection, feed)) is not None:
        return known
    meet(connection, feed)
    return Place(connection.last_insert_rowid(), 0)


def _home(connection: Connection, place: Place) -> tuple[str, int]:
    """The name of the feed, and the place in it."""
    query = "SELECT node, run FROM feed WHERE id = ?"
    return feed_name(*connection.execute(query, (place.feed,)).get), place.seq


def _note(connection: Connection, record: Record, place: Place) -> None:
    """Keep that a record is told of at a place, wherever it stands."""
    standing = records.find(connection, record.kind, record.id)
    if standing is None:
        return
    if standing.place.feed != place.feed:
        records.leave(connection, record.kind, record.id, place)
    elif place.seq > standing.place.seq:
        records.move(connection, record.kind, record.id, place)


def _take_in(connection: Connection, record: Record, place: Place, now: int) -> bool:
    """Merge one record that stands at `place`; whether it counts from now on."""
    standing = records.find(connection, record.kind, record.id)
    if standing is None:
        records.put(connection, record, place, first=True)
        return True
    elsewhere = standing.place.feed != place.feed
    if _counts(connection, record, standing, now):
        if elsewhere:
            records.leave(connection, record.kind, record.id, standing.place)
        # In one feed a thing only moves towards the end: a place that comes by a slower way is not
        # to bring it back before what somebody holds already.
        later = not elsewhere and standing.place.seq > place.seq
        records.put(connection, record, standing.place if later else place)
        return True
    _note(connection, record, place)
    return False


def _counts(connection: Connection, record: Record, standing: Standing, now: int) -> bool:
    """Whether a record counts more than the one that stands."""
    old = standing.epoch, standing.revision, standing.writer
    new = record.epoch, record.revision, record.writer
    if new != old:
        return new > old
    known = records.get(connection, record.kind, record.id)
    if known is None or record.rank != known.rank:
        return known is None or record.rank > known.rank
    # The same telling; somebody has dropped it. Before its time that is his affair.
    return record.body is None and known.body is not None and record.expired(now)
