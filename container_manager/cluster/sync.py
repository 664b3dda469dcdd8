"""Which node tells which of what: the protocol by which feeds get everywhere. Pure.

A feed is what one run of one node has written, in order (see `store.feeds`). Its writer sends it to
each peer that it is linked with, as it grows. Where that way is cut, or the writer gone, whoever
lacks something finds from what its peers say they hold who has it, and subscribes to the feed at
one of them, so that nothing is sent twice. Catching up and following are one thing: a feed is sent
from where the receiver stands, in batches, each of which says where it begins; one that does not
join on is dropped, and asked for again.

Times are seconds on any clock that only rises.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

GRACE = 1.0
"""Seconds that something may be missing before it is asked for elsewhere than at its writer."""
STALLED = 5.0
"""Seconds after which a source that sends nothing is given up for another."""
WINDOW = 4
"""Batches on their way to a peer that have not been acknowledged."""

Vector = Mapping[str, int]
"""Up to where each feed is held, by its name."""


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Send me this feed from here on, and what it grows by."""

    feed: str
    after: int


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
    """What I hold, of what you have sent or offered: so much is on disk."""

    holds: dict[str, int]


Control = Subscribe | Unsubscribe | Offer | Held


@dataclass(slots=True)
class _Wanted:
    """A feed of which others hold more than this node."""

    since: float
    """When this node last got something of it, or first knew that it lacks something."""
    source: str | None = None


@dataclass(slots=True)
class _Sending:
    """A feed on its way to a peer."""

    sent: int
    on_their_way: list[int] = field(default_factory=list)
    """Where the batches end that were sent, and are not on its disk yet."""


@dataclass(slots=True)
class _Peer:
    holds: dict[str, int]
    """As far as it has said so."""
    sending: dict[str, _Sending] = field(default_factory=dict)


class Sync:
    """One node's part in it. Whoever uses it reads and merges feeds, and carries what is sent."""

    def __init__(self, node: str, holds: dict[str, int]) -> None:
        """Take part as `node`, which holds feeds as far as `holds` says.

        `holds` is kept up to date by `advanced`.
        """
        self._node = node
        self.holds = holds
        self._peers: dict[str, _Peer] = {}
        self._wanted: dict[str, _Wanted] = {}

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

    # -- what comes in -------------------------------------------------------------------------

    def offered(self, peer: str, holds: Vector, now: float) -> Held | None:
        """A peer says what it holds; gives what to answer where this node holds no less."""
        known = self._peers[peer].holds
        for feed, upto in holds.items():
            known[feed] = max(known.get(feed, 0), upto)
        self._look(holds, now)
        mine = {f: self.holds[f] for f, upto in holds.items() if self.holds.get(f, 0) >= upto}
        return Held(mine) if mine else None

    def subscribed(self, peer: str, feed: str, after: int) -> None:
        """A peer asks for a feed; also for one that is sent already, from where it stands."""
        self._send_from(peer, feed, after)

    def unsubscribed(self, peer: str, feed: str) -> None:
        """A peer wants no more of a feed."""
        if not self._is_mine(feed):
            self._peers[peer].sending.pop(feed, None)

    def held(self, peer: str, holds: Vector) -> None:
        """A peer has feeds on disk, up to there."""
        state = self._peers[peer]
        for feed, upto in holds.items():
            state.holds[feed] = max(state.holds.get(feed, 0), upto)
            if (sending := state.sending.get(feed)) is not None:
                sending.on_their_way = [end for end in sending.on_their_way if end > upto]

    def advanced(self, feed: str, upto: int, now: float) -> None:
        """This node has a feed on disk up to there: it has written, or merged what came."""
        if upto <= self.holds.get(feed, 0):
            return
        known = feed in self.holds
        self.holds[feed] = upto
        if (wanted := self._wanted.get(feed)) is not None:
            wanted.since = now
        if not known and self._is_mine(feed):
            for peer, state in self._peers.items():
                self._send_from(peer, feed, state.holds.get(feed, 0))

    # -- what goes out -------------------------------------------------------------------------

    def next_batch(self, peer: str) -> tuple[str, int] | None:
        """The feed to be sent to a peer next, and from where; None where there is nothing now."""
        if (state := self._peers.get(peer)) is None:
            return None
        for feed, sending in state.sending.items():
            if len(sending.on_their_way) < WINDOW and sending.sent < self.holds.get(feed, 0):
                # The others have their turn before it has its next.
                state.sending[feed] = state.sending.pop(feed)
                return feed, sending.sent
        return None

    def sent(self, peer: str, feed: str, after: int, upto: int) -> None:
        """A batch of a feed is on its way to a peer."""
        state = self._peers.get(peer)
        sending = None if state is None else state.sending.get(feed)
        if sending is not None and sending.sent == after:
            sending.sent = upto
            sending.on_their_way.append(upto)

    def tick(self, now: float) -> Iterator[tuple[str, Control]]:
        """What is to be told to which peer; to be called about once a second."""
        for feed in list(self._wanted):
            yield from self._see_to(feed, now)
        for name, state in self._peers.items():
            # Said again until it answers: it costs little, and nothing while all is quiet.
            more = {f: upto for f, upto in self.holds.items() if state.holds.get(f, 0) < upto}
            if more:
                yield name, Offer(more)

    def _see_to(self, feed: str, now: float) -> Iterator[tuple[str, Control]]:
        """Find a source for a feed of which something is missing, or let go of one."""
        wanted = self._wanted[feed]
        held = self.holds.get(feed, 0)
        writer = self._peers.get(feed.partition(".")[0])
        most = max((peer.holds.get(feed, 0) for peer in self._peers.values()), default=0)
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
        patience = STALLED if by_writer else GRACE
        if wanted.source is None and now - wanted.since >= patience:
            wanted.since = now
            if by_writer:  # something was lost on the way
                yield feed.partition(".")[0], Subscribe(feed, held)
                return
            wanted.source = self._source(feed, held)
            yield wanted.source, Subscribe(feed, held)

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

    def _send_from(self, peer: str, feed: str, after: int) -> None:
        self._peers[peer].sending[feed] = _Sending(after)

    def _is_mine(self, feed: str) -> bool:
        return feed.partition(".")[0] == self._node
