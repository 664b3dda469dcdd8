"""Which node tells which of what: the protocol by which feeds get everywhere. Pure.

A feed is what one run of one node has written, in order (see `store.feeds`). Its writer sends it to
each peer that it is linked with, as it grows. Where that way is cut, or the writer gone, whoever
lacks something finds from what its peers say they hold who has it, and subscribes to the feed at
one of them, so that nothing is sent twice. Catching up and following are one thing: a feed is sent
from where the receiver holds it, in batches, each of which says where it begins; one that does not
join on is dropped, and asked for again.

What is written again moves to the end of its feed. So the receiver holds a feed up to some place
only when it has been sent all that the sender had of it; a part of it gives it no more to hold.
Where nobody is left who has the rest, those who have such a part adopt it.

Times are seconds on any clock that only rises.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from container_manager.record import Entry

GRACE = 1.0
"""Seconds that something may be missing before it is asked for elsewhere than at its writer."""
STALLED = 5.0
"""Seconds after which a source that sends nothing is given up for another."""
ABANDONED = 2.0
"""Seconds after which a part of a feed is adopted of which nobody has the rest."""
WINDOW = 4
"""Batches on their way to a peer that have not been acknowledged."""

Vector = Mapping[str, int]
"""Up to where each feed is held, by its name."""


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Send me this feed from here on, and what it grows by."""

    feed: str
    after: int
    stream: int
    """A number that the batches bear which answer to this."""


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Send me no more of this feed: I have it from elsewhere."""

    feed: str


@dataclass(frozen=True, slots=True)
class Offer:
    """What I hold of feeds of which you hold less, as far as I know."""

    holds: dict[str, int]


@dataclass(frozen=True, slots=True)
class Held:
    """What I hold, of what you have offered: so much is on disk."""

    holds: dict[str, int]


@dataclass(frozen=True, slots=True)
class Received:
    """The batch that ended there is on disk, and so much of the feed I hold."""

    feed: str
    upto: int
    holds: int


@dataclass(frozen=True, slots=True)
class Adopt:
    """To this node itself: tell on what it has of a feed beyond what it holds."""

    feed: str


Control = Subscribe | Unsubscribe | Offer | Held | Received


@dataclass(frozen=True, slots=True)
class Batch:
    """A part of a feed."""

    feed: str
    stream: int
    """As it was subscribed to; 0 where the writer sends it unasked."""
    after: int
    """Where it begins: behind this place."""
    upto: int
    """Where the next one is to begin."""
    holds: int
    """Up to where the receiver holds the feed with this part; 0 where more has to come first."""
    entries: list[Entry]


@dataclass(slots=True)
class _Part:
    """Something of a feed beyond what is held of it."""

    top: int
    """Its last place."""
    since: float = 0.0
    """When it came, or somebody last was there to send the rest."""


@dataclass(slots=True)
class _Wanted:
    """A feed of which others hold more than this node."""

    since: float
    """When this node last got something of it, or first knew that it lacks something."""
    source: str | None = None


@dataclass(slots=True)
class _Sending:
    """A feed on its way to a peer."""

    stream: int
    sent: int
    whole: bool = True
    """Whether all that there was has been sent."""
    held: int = 0
    """Up to where this node held it when it began to send what there was."""
    on_their_way: list[int] = field(default_factory=list)
    """Where the batches end that were sent, and are not on its disk yet."""


@dataclass(slots=True)
class _Stream:
    """A feed on its way from a peer."""

    number: int = 0
    got: int = 0
    """Where the next batch has to begin at the latest."""


@dataclass(slots=True)
class _Peer:
    holds: dict[str, int]
    """As far as it has said so."""
    sending: dict[str, _Sending] = field(default_factory=dict)
    streams: dict[str, _Stream] = field(default_factory=dict)


class Sync:
    """One node's part in it. Whoever uses it reads and merges feeds, and carries what is sent."""

    def __init__(self, node: str, own: str, holds: dict[str, int], parts: Vector) -> None:
        """Take part in it.

        Args:
            node: its id.
            own: the feed that this run writes.
            holds: up to where it holds each feed; kept up to date by `advanced`.
            parts: the last places of feeds at which it has something beyond that.
        """
        self._node = node
        self._own = own
        self.holds = holds
        self._parts = {feed: _Part(top) for feed, top in parts.items()}
        self._peers: dict[str, _Peer] = {}
        self._wanted: dict[str, _Wanted] = {}
        self._streams = 0
        self._hollow: set[str] = set()

    # -- peers ---------------------------------------------------------------------------------

    def linked(self, peer: str, holds: Vector, now: float) -> None:
        """A link to a peer stands, which has said what it holds."""
        self._peers[peer] = _Peer(dict(holds))
        for feed in self.holds:
            if self._is_mine(feed):
                self._send_from(peer, feed, holds.get(feed, 0))
        self._look(holds, now)

    def unlinked(self, peer: str) -> None:
        """The link to a peer is gone."""
        del self._peers[peer]
        for wanted in self._wanted.values():
            if wanted.source == peer:
                wanted.source = None

    def peer_holds(self, peer: str, feed: str) -> int:
        """Up to where a linked peer holds a feed, as far as it has said so."""
        return self._peers[peer].holds.get(feed, 0)

    def knows_itself(self) -> bool:
        """Whether some peer has nothing of this node's own that it lacks itself.

        It may: a node whose directory was put back from an older copy.
        """
        return any(
            all(self.holds.get(f, 0) >= upto for f, upto in peer.holds.items() if self._is_mine(f))
            for peer in self._peers.values()
        )

    # -- feeds that have come to nothing -------------------------------------------------------

    def hollowed(self, feeds: Iterable[str]) -> None:
        """Of these feeds nothing is left here: all that they told of has moved on, or is gone.

        Nobody is told any more that this node holds them, so that they are forgotten everywhere:
        each start of each node begins one.
        """
        self._hollow.update(feeds)

    def vector(self) -> dict[str, int]:
        """What this node holds, for others to be told."""
        return {f: upto for f, upto in self.holds.items() if upto and f not in self._hollow}

    # -- what comes in -------------------------------------------------------------------------

    def offered(self, peer: str, holds: Vector, now: float) -> Held | None:
        """A peer says what it holds; gives what to answer where this node holds no less."""
        known = self._peers[peer].holds
        for feed, upto in holds.items():
            known[feed] = max(known.get(feed, 0), upto)
        self._look(holds, now)
        mine = {f: self.holds[f] for f, upto in holds.items() if self.holds.get(f, 0) >= upto}
        return Held(mine) if mine else None

    def subscribed(self, peer: str, asked: Subscribe) -> None:
        """A peer asks for a feed; also for one that is sent already, from where it stands."""
        self._send_from(peer, asked.feed, asked.after, asked.stream)

    def unsubscribed(self, peer: str, feed: str) -> None:
        """A peer wants no more of a feed."""
        if not self._is_mine(feed):
            self._peers[peer].sending.pop(feed, None)

    def held(self, peer: str, holds: Vector) -> None:
        """A peer has feeds on disk, up to there."""
        state = self._peers[peer]
        for feed, upto in holds.items():
            state.holds[feed] = max(state.holds.get(feed, 0), upto)

    def received(self, peer: str, said: Received) -> None:
        """A peer has a batch on disk."""
        self.held(peer, {said.feed: said.holds})
        if (sending := self._peers[peer].sending.get(said.feed)) is not None:
            sending.on_their_way = [end for end in sending.on_their_way if end > said.upto]

    def joins(self, peer: str, batch: Batch) -> bool:
        """Whether a batch goes on from what has come before it, so that it may be merged."""
        stream = self._peers[peer].streams.setdefault(batch.feed, _Stream())
        if batch.stream != stream.number:
            return False
        if batch.after > max(self.holds.get(batch.feed, 0), stream.got):
            return False
        stream.got = max(stream.got, batch.upto)
        return True

    def merged(self, batch: Batch, now: float) -> Received:
        """A batch is on disk; gives what to answer."""
        if (wanted := self._wanted.get(batch.feed)) is not None:
            wanted.since = now
        known = batch.feed in self.holds or batch.feed in self._parts
        if not (known or batch.entries):
            self._hollow.add(batch.feed)
        self.advanced(batch.feed, batch.holds, now)
        self._note_part(batch, now)
        return Received(batch.feed, batch.upto, self.holds.get(batch.feed, 0))

    def advanced(self, feed: str, upto: int, now: float) -> None:
        """This node has a feed on disk up to there: it has written, or merged what came."""
        if upto <= self.holds.get(feed, 0):
            return
        known = feed in self.holds
        self.holds[feed] = upto
        if not known and self._is_mine(feed):
            for peer, state in self._peers.items():
                self._send_from(peer, feed, state.holds.get(feed, 0))

    # -- what goes out -------------------------------------------------------------------------

    def next_batch(self, peer: str) -> tuple[str, int] | None:
        """The feed to be sent to a peer next, and from where; None where there is nothing now."""
        if (state := self._peers.get(peer)) is None:
            return None
        for feed, sending in state.sending.items():
            more = not sending.whole or sending.sent < self.holds.get(feed, 0)
            if more and len(sending.on_their_way) < WINDOW:
                # The others have their turn before it has its next.
                state.sending[feed] = state.sending.pop(feed)
                return feed, sending.sent
        return None

    def batch(
        self, peer: str, feed: str, after: int, entries: list[Entry], *, held: int, whole: bool
    ) -> Batch | None:
        """A batch for a peer, of what was read of a feed; None where it is not wanted any more.

        Args:
            peer: to whom it goes.
            feed: its name.
            after: as `next_batch` gave it.
            entries: what stands in the feed behind that.
            held: up to where this node held the feed before it was read.
            whole: whether that is all that there was.
        """
        state = self._peers.get(peer)
        sending = None if state is None else state.sending.get(feed)
        if sending is None or sending.sent != after:
            return None
        if sending.whole:
            sending.held = held
        last = entries[-1].seq if entries else after
        holds = 0
        if whole:
            # Of any feed but that of this run there may be parts beyond what is held, and between
            # them something may still come: what follows begins again where it is held.
            holds = max(held, last) if feed == self._own else sending.held
        sending.sent, sending.whole = (holds if whole else last), whole
        sending.on_their_way.append(sending.sent)
        return Batch(feed, sending.stream, after, sending.sent, holds, entries)

    def tick(self, now: float) -> Iterator[tuple[str, Control | Adopt]]:
        """What is to be told to which peer; to be called about once a second."""
        for feed in list(self._wanted):
            yield from self._see_to(feed, now)
        for feed, part in list(self._parts.items()):
            if self._most(feed) > self.holds.get(feed, 0):
                part.since = now
            elif now - part.since >= ABANDONED:
                del self._parts[feed]
                yield self._node, Adopt(feed)
        for name, state in self._peers.items():
            # Said again until it answers: it costs little, and nothing while all is quiet.
            more = {f: upto for f, upto in self.vector().items() if state.holds.get(f, 0) < upto}
            if more:
                yield name, Offer(more)

    def _note_part(self, batch: Batch, now: float) -> None:
        """Remember that there is something of feeds beyond what is held, or not any more."""
        tops = {batch.feed: 0}
        for entry in batch.entries:
            feed, seq = entry.home or (batch.feed, entry.seq)
            tops[feed] = max(tops.get(feed, 0), seq)
        if batch.entries:
            self._hollow -= tops.keys()
        for feed, top in tops.items():
            if (part := self._parts.get(feed)) is not None:
                top = max(top, part.top)  # noqa: PLW2901 - the later of the two
            if top <= self.holds.get(feed, 0):
                self._parts.pop(feed, None)
            else:
                self._parts[feed] = _Part(top, now)

    def _see_to(self, feed: str, now: float) -> Iterator[tuple[str, Control]]:
        """Find a source for a feed of which something is missing, or let go of one."""
        wanted = self._wanted[feed]
        held = self.holds.get(feed, 0)
        writer, most = self._peers.get(_writer(feed)), self._most(feed)
        by_writer = writer is not None and writer.holds.get(feed, 0) >= most
        if wanted.source is not None and (by_writer or now - wanted.since >= STALLED):
            yield wanted.source, Unsubscribe(feed)
            wanted.source = None
        if most <= held:
            if wanted.source is None:
                del self._wanted[feed]
            else:
                wanted.since = now
            return
        patience = STALLED if by_writer else 0.0 if self._is_mine(feed) else GRACE
        if wanted.source is None and now - wanted.since >= patience:
            wanted.since = now
            if by_writer:  # something was lost on the way
                yield self._subscribe(_writer(feed), feed, held)
                return
            wanted.source = self._source(feed, held)
            yield self._subscribe(wanted.source, feed, held)

    def _subscribe(self, peer: str, feed: str, held: int) -> tuple[str, Subscribe]:
        self._streams += 1
        self._peers[peer].streams[feed] = _Stream(self._streams)
        return peer, Subscribe(feed, held, self._streams)

    def _source(self, feed: str, held: int) -> str:
        """A peer that holds more of a feed: not the same one for everybody."""
        having = [name for name, peer in self._peers.items() if peer.holds.get(feed, 0) > held]

        def preference(peer: str) -> bytes:
            return hashlib.sha256(f"{self._node} {peer} {feed} {held}".encode()).digest()

        return min(having, key=preference)

    def _look(self, holds: Vector, now: float) -> None:
        for feed, upto in holds.items():
            if upto > self.holds.get(feed, 0) and feed not in self._wanted:
                self._wanted[feed] = _Wanted(now)

    def _send_from(self, peer: str, feed: str, after: int, stream: int = 0) -> None:
        self._peers[peer].sending[feed] = _Sending(stream, after)

    def _is_mine(self, feed: str) -> bool:
        return _writer(feed) == self._node

    def _most(self, feed: str) -> int:
        """The most that a peer holds of a feed."""
        return max((peer.holds.get(feed, 0) for peer in self._peers.values()), default=0)


def _writer(feed: str) -> str:
    return feed.partition(".")[0]
