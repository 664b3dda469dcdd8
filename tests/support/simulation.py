"""A cluster in one thread and in virtual time, on the real store and the real protocol.

Each node has a database in memory, written by the store's own functions, and its own part in
`cluster.sync`; what is simulated is the network between them, the clock and the faults. A seed
decides everything, so that a run that fails is run again by its number.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import apsw

from container_manager.cluster import sync
from container_manager.cluster.sync import Sync
from container_manager.errors import Conflict
from container_manager.job import Job, Status
from container_manager.record import SHARED, Record
from container_manager.spec import Spec
from container_manager.store import feeds, jobs, records
from container_manager.store.schema import MIGRATIONS
from container_manager.work.ids import JobIds

if TYPE_CHECKING:
    from collections.abc import Callable

    from container_manager.store.feeds import OwnFeed

EPOCH = 1_900_000_000_000_000
"""The time at which every run begins, in microseconds since 1970."""
NOTICE = 3.0
"""Seconds in which a node notices at the latest that a link is dead."""
FORGETTING = 0.2
"""How likely a node forgets in a second which feeds have come to nothing."""
RETAIN = 5.0
"""Seconds after which a job that is done with is forgotten."""
SPEC = Spec(image="busybox", labels={"team": "a"})


@dataclass
class Faults:
    """How bad the network is, as shares of all frames."""

    lost: float = 0.0
    doubled: float = 0.0
    delay: float = 0.05
    """Seconds at most; frames on one link overtake each other where `reordered`."""
    reordered: bool = False


@dataclass
class Host:
    """A node: what survives a crash, and what does not."""

    name: str
    id: str
    connection: apsw.Connection
    feed: OwnFeed
    sync: Sync
    alive: bool = True
    links: dict[str, int] = field(default_factory=dict)
    """The number of the link to each peer's name."""


class World:
    """The nodes, the network and the clock."""

    def __init__(self, seed: int, names: str = "abcde") -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.faults = Faults()
        self.cut: set[tuple[str, str]] = set()
        """Ways that carry nothing: from, to."""
        self.written: dict[bytes, tuple[str, int]] = {}
        """Of each job that was acknowledged and may not be lost: its owner, its revision."""
        self._ids = JobIds()
        self._ids._random = random.Random(seed)  # a run is the same each time
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._arrivals: dict[tuple[int, str], float] = {}
        self.hosts = {name: self._new_host(name) for name in names}
        for host in self.hosts.values():
            self._tick_later(host.name, self.random.random())

    # -- time ----------------------------------------------------------------------------------

    def later(self, seconds: float, event: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (self.now + seconds, self._number, event))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = end

    def clock(self) -> int:
        return EPOCH + int(self.now * 1e6)

    def _tick_later(self, name: str, seconds: float) -> None:
        def tick() -> None:
            self._tick(self.hosts[name])
            self._tick_later(name, 1.0)

        self.later(seconds, tick)

    def _tick(self, host: Host) -> None:
        if not host.alive:
            return
        for peer in self.hosts.values():
            if peer is not host and peer.name not in host.links and self._joined(host, peer):
                self._link(host, peer)
        for id_, told in list(host.sync.tick(self.now)):
            if isinstance(told, sync.Adopt):
                self._adopt(host, told.feed)
            else:
                self._send(host, self._named(id_), told)
        expired = jobs.outdated(
            host.connection, host.id, now=self.clock(), before=0, most=10**9, limit=1000
        )
        with host.connection:
            jobs.forget(host.connection, host.id, expired)
            if self.random.random() < FORGETTING:
                host.sync.hollowed(feeds.forget_hollow(host.connection, host.id))
        self._pump(host)

    # -- nodes ---------------------------------------------------------------------------------

    def _new_host(self, name: str) -> Host:
        connection = apsw.Connection(":memory:")
        connection.deserialize("main", _empty_store())
        return self._started(name, self._hex(32), connection)

    def _started(self, name: str, id_: str, connection: apsw.Connection) -> Host:
        feed = feeds.own_feed(connection, id_, self._hex(16))
        with connection:
            feeds.begin_own(connection, feed)
        sync_ = Sync(id_, feed.name, feeds.vector(connection), feeds.parts(connection))
        return Host(name, id_, connection, feed, sync_)

    def _hex(self, digits: int) -> str:
        return f"{self.random.getrandbits(4 * digits):0{digits}x}"

    def _named(self, id_: str) -> Host:
        return next(host for host in self.hosts.values() if host.id == id_)

    def crash(self, host: Host) -> None:
        """End a node; what it had on disk is there when it starts again."""
        host.alive = False
        self._unlink_all(host)

    def start(self, host: Host) -> None:
        self.hosts[host.name] = self._started(host.name, host.id, host.connection)

    def wipe(self, host: Host) -> None:
        """Its disk is gone, and with it its key."""
        self.crash(host)
        self.hosts[host.name] = self._new_host(host.name)
        self._forgive(host.id)

    def copy(self, host: Host) -> bytes:
        return host.connection.serialize("main")

    def restore(self, host: Host, copy: bytes) -> None:
        """An older copy of its disk is put back."""
        self.crash(host)
        connection = apsw.Connection(":memory:")
        connection.deserialize("main", copy)
        self.hosts[host.name] = self._started(host.name, host.id, connection)
        self._forgive(host.id)

    def _forgive(self, id_: str) -> None:
        """What only a disk had that is gone may be lost."""
        self.written = {key: own for key, own in self.written.items() if own[0] != id_}

    # -- what nodes write ----------------------------------------------------------------------

    def create(self, host: Host) -> None:
        job_id = self._ids.new(self.clock())
        place = host.feed.next_place()
        row = jobs.new_row(job_id, host.id, SPEC, None, self.clock(), place)
        with host.connection:
            assert jobs.insert(host.connection, row)
        self.written[row[0]] = (host.id, 1)
        self._committed(host, place.seq)

    def change(self, host: Host) -> None:
        """Take one of its own jobs a step further."""
        rows = host.connection.execute("SELECT id FROM job WHERE node = ? ORDER BY id", (host.id,))
        if not (keys := [key for (key,) in rows]):
            return
        key = self.random.choice(keys)
        found = jobs.get_placed(host.connection, jobs.job_id_of(key))
        assert found is not None
        job, stood = found
        job = self._step(job)
        place = host.feed.next_place()
        expires_at = job.updated_at + int(RETAIN * 1e6) if job.done else None
        with host.connection:
            jobs.update(host.connection, job, stood, place, expires_at)
        self.written[key] = (host.id, job.revision)
        self._committed(host, place.seq)

    def _step(self, job: Job) -> Job:
        now = self.clock()
        match job.status:
            case Status.PENDING:
                return job.claimed(now)
            case Status.RUNNING:
                if self.random.random() < 0.5:
                    return job.retrying("once more", None, now, now, counts=True)
                return job.failed("no", None, now)
            case _:
                return job.retried(now)

    def write_shared(self, host: Host) -> None:
        """Write one of three records that every node may write."""
        id_ = b"shared-%d" % self.random.randrange(3)
        before = records.find(host.connection, "thing", id_)
        revision = 1 if before is None else before.revision + 1
        place = host.feed.next_place()
        body = b"%s at %d" % (host.name.encode(), self.clock())
        with host.connection:
            if before is not None and before.place.feed != place.feed:
                records.leave(host.connection, "thing", id_, before.place)
            record = Record("thing", id_, SHARED, revision, host.id, None, body)
            records.put(host.connection, record, place)
        self._committed(host, place.seq)

    def _adopt(self, host: Host, feed: str) -> None:
        places = host.feed.next_places(100)
        with host.connection:
            number = feeds.adopt(host.connection, feed, places)
        assert number < len(places)
        self._committed(host, places[-1].seq)

    def _committed(self, host: Host, seq: int) -> None:
        host.feed.committed(seq)
        host.sync.advanced(host.feed.name, seq, self.now)
        self._pump(host)

    # -- the network ---------------------------------------------------------------------------

    def _joined(self, one: Host, other: Host) -> bool:
        ways = {(one.name, other.name), (other.name, one.name)}
        return one.alive and other.alive and not ways & self.cut

    def part(self, *groups: str) -> None:
        """Cut all ways between these groups of nodes, which then notice it."""
        side = {name: number for number, group in enumerate(groups) for name in group}
        self.cut_ways({(a, b) for a in side for b in side if side[a] != side[b]})

    def cut_ways(self, ways: set[tuple[str, str]]) -> None:
        self.cut |= ways
        for one, other in sorted(ways):
            if (number := self.hosts[one].links.get(other)) is not None:
                self.later(self.random.random() * NOTICE, self._dropper(one, other, number))

    def heal(self) -> None:
        self.cut.clear()
        self.faults = Faults()

    def _dropper(self, one: str, other: str, number: int) -> Callable[[], None]:
        def drop() -> None:
            if self.hosts[one].links.get(other) == number:
                self._unlink(self.hosts[one], self.hosts[other])

        return drop

    def _link(self, one: Host, other: Host) -> None:
        self._number += 1
        one.links[other.name] = other.links[one.name] = self._number
        for host, peer in ((one, other), (other, one)):
            with host.connection:
                feeds.meet(host.connection, peer.feed.name)
        holds = one.sync.vector(), other.sync.vector()
        one.sync.linked(other.id, holds[1], self.now)
        other.sync.linked(one.id, holds[0], self.now)
        self._pump(one)
        self._pump(other)

    def _unlink(self, one: Host, other: Host) -> None:
        for host, peer in ((one, other), (other, one)):
            del host.links[peer.name]
            host.sync.unlinked(peer.id)

    def _unlink_all(self, host: Host) -> None:
        for name in list(host.links):
            self._unlink(host, self.hosts[name])

    def _send(self, host: Host, peer: Host, frame: Any) -> None:
        number, faults = host.links[peer.name], self.faults
        copies = 1 + (self.random.random() < faults.doubled)
        for _ in range(copies):
            if self.random.random() < faults.lost or (host.name, peer.name) in self.cut:
                continue
            arrival = self.now + self.random.random() * faults.delay
            if not faults.reordered:
                arrival = max(arrival, self._arrivals.get((number, host.name), 0.0))
                self._arrivals[number, host.name] = arrival
            self.later(arrival - self.now, self._arriver(host.name, peer.name, number, frame))

    def _arriver(self, one: str, other: str, number: int, frame: Any) -> Callable[[], None]:
        def arrive() -> None:
            peer = self.hosts[other]
            if peer.alive and peer.links.get(one) == number:
                self._receive(peer, self.hosts[one], frame)
                self._pump(peer)

        return arrive

    def _pump(self, host: Host) -> None:
        for name in list(host.links):
            peer = self.hosts[name]
            while (due := host.sync.next_batch(peer.id)) is not None:
                feed, after = due
                limit = self.random.choice((1, 2, 5, 50))
                held = host.sync.holds[feed]
                entries, whole = feeds.entries(host.connection, feed, after, limit)
                batch = host.sync.batch(peer.id, feed, after, entries, held=held, whole=whole)
                self._send(host, peer, batch)

    def _receive(self, host: Host, peer: Host, frame: Any) -> None:
        match frame:
            case sync.Subscribe():
                host.sync.subscribed(peer.id, frame)
            case sync.Unsubscribe(feed):
                host.sync.unsubscribed(peer.id, feed)
            case sync.Offer(holds):
                if (answer := host.sync.offered(peer.id, holds, self.now)) is not None:
                    self._send(host, peer, answer)
            case sync.Held(holds):
                host.sync.held(peer.id, holds)
            case sync.Received():
                host.sync.received(peer.id, frame)
            case sync.Batch() if host.sync.joins(peer.id, frame):
                with host.connection:
                    feeds.merge(
                        host.connection, frame.feed, frame.entries, frame.holds, self.clock()
                    )
                self._send(host, peer, host.sync.merged(frame, self.now))

    # -- what is asked of it -------------------------------------------------------------------

    def told(self, host: Host) -> dict[tuple[str, bytes], Record]:
        """All that a node knows and that has not had its time."""
        known = [row[0] for row in host.connection.execute("SELECT id FROM job")]
        kinds = [*host.connection.execute("SELECT kind, id FROM record")]
        found = {}
        for kind, id_ in [*(("job", key) for key in known), *kinds]:
            record = records.get(host.connection, kind, id_)
            assert record is not None
            if record.body is not None and not record.expired(self.clock()):
                found[kind, id_] = record
        return found

    def disagreement(self) -> str | None:
        """In what two nodes differ, or what was lost; None where all are equal."""
        first, *others = (host for host in self.hosts.values() if host.alive)
        reference = self.told(first)
        for host in others:
            known = self.told(host)
            for thing in reference.keys() | known.keys():
                one, other = reference.get(thing), known.get(thing)
                if one != other:
                    return f"{thing} at {first.name}: {one}; at {host.name}: {other}"
        for key, (owner, revision) in self.written.items():
            record = records.get(first.connection, "job", key)
            if record is None or record.body is None:
                if not self._expired(key, owner):
                    return f"job {key.hex()} of {owner} is lost"
            elif record.revision < revision:
                return f"job {key.hex()} of {owner} is at {record.revision}, not {revision}"
        return None

    def _expired(self, key: bytes, owner: str) -> bool:
        """Whether a job is gone because its owner has let it go."""
        host = self._named(owner)
        record = records.get(host.connection, "job", key)
        return record is None or record.body is None


@cache
def _empty_store() -> bytes:
    connection = apsw.Connection(":memory:")
    for statements in MIGRATIONS:
        connection.execute(statements)
    connection.pragma("user_version", len(MIGRATIONS))
    return connection.serialize("main")


__all__ = ["Conflict", "Faults", "Host", "World"]
