"""Replication: this node's feed to its peers, and theirs into the store.

`cluster.sync` decides what goes where; here it is read, signed, sent, checked and merged. What
comes is acknowledged when it is on disk, and never announced as this node's own.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import structlog

from container_manager.cluster import messages
from container_manager.cluster.errors import LinkClosed
from container_manager.cluster.frames import FrameError
from container_manager.cluster.link import Link
from container_manager.cluster.messages import Message
from container_manager.cluster.signing import Signer, is_genuine
from container_manager.cluster.sync import (
    Adopt,
    Batch,
    Control,
    Held,
    Offer,
    Received,
    Subscribe,
    Sync,
    Unsubscribe,
)
from container_manager.errors import StorageUnavailable
from container_manager.record import Entry, Record
from container_manager.store import feeds
from container_manager.store.database import Connection, Database
from container_manager.store.feeds import OwnFeed, feed_name
from container_manager.store.records import Place

TICK = 1.0
"""Seconds between two looks at what is missing where."""
HOLLOW_EVERY = 60.0
"""Seconds between two looks at which feeds have come to nothing."""
BATCH = 256
"""Records that one batch has at most."""
BATCH_BYTES = 1 << 20
"""Bytes after which a batch takes no more records."""
ADOPTED = 500
"""Records that are adopted at a time."""

log = structlog.get_logger()

Other = Callable[[Link, int, Any], None]
"""Takes frames that are about something else; raises `FrameError` where one is malformed."""
Told = Callable[[Sequence[Record]], None]
"""Called with the records of other nodes that count from now on."""


@dataclass(slots=True)
class _Peer:
    """A peer that there is a link with."""

    link: Link
    outbox: deque[Message] = field(default_factory=deque)
    """What goes out before the next batch. Small, and bounded by what came and by the ticks."""
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def say(self, message: Message) -> None:
        self.outbox.append(message)
        self.wake.set()


class Replication:
    """The one place where records come from and go to other nodes."""

    def __init__(
        self,
        database: Database,
        feed: OwnFeed,
        node: str,
        signer: Signer,
        now: Callable[[], int],
        told: Told,
        other: Other,
    ) -> None:
        """Replicate the store of `node`.

        Args:
            database: the open store.
            feed: what this run writes.
            node: this node's id.
            signer: signs what this node has written.
            now: the time in microseconds since 1970, UTC.
            told: is told what came, after it is on disk.
            other: takes frames that are not about feeds.
        """
        self._database = database
        self._feed = feed
        self._node = node
        self._signer = signer
        self._now = now
        self._told = told
        self._other = other
        self._peers: dict[str, _Peer] = {}
        self.knows_itself = asyncio.Event()
        """Set once a peer has been met that has nothing of this node's own that it lacks."""
        holds = database.read(feeds.vector)
        holds[feed.name] = feed.seq
        self._sync = Sync(node, feed.name, holds, database.read(feeds.parts))
        feed.on_commit(self._grown)

    @property
    def vector(self) -> dict[str, int]:
        """Up to where each feed is held that there is something of."""
        return self._sync.vector()

    def lag(self, peer: str) -> int | None:
        """How many places of this node's feed a linked peer is behind; None without a link."""
        if peer not in self._peers:
            return None
        return max(0, self._feed.seq - self._sync.peer_holds(peer, self._feed.name))

    async def serve(self, link: Link) -> None:
        """Replicate over a link until it ends. A peer has one link at a time."""
        peer = link.peer.node
        met = feed_name(peer, link.peer.run)
        with suppress(StorageUnavailable):  # it is noted with the first thing that comes
            await self._database.write(lambda connection: feeds.meet(connection, met))
        state = self._peers[peer] = _Peer(link)
        self._sync.linked(peer, messages.vector(link.peer.vector), time.monotonic())
        self._look_at_itself()
        sending = asyncio.create_task(self._send(peer, state), name=f"replication-to-{peer}")
        try:
            await self._receive(peer, state)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            del self._peers[peer]
            self._sync.unlinked(peer)

    def _look_at_itself(self) -> None:
        if not self.knows_itself.is_set() and self._sync.knows_itself():
            self.knows_itself.set()

    async def run(self) -> None:
        """See to what is missing where, for ever."""
        looked = time.monotonic()
        while True:
            await asyncio.sleep(TICK)
            if time.monotonic() - looked >= HOLLOW_EVERY:
                looked = time.monotonic()
                with suppress(StorageUnavailable):
                    hollow = await self._database.write(
                        lambda connection: feeds.forget_hollow(connection, self._node)
                    )
                    self._sync.hollowed(hollow)
            for peer, message in list(self._sync.tick(time.monotonic())):
                if isinstance(message, Adopt):
                    await self._adopt(message.feed)
                elif (state := self._peers.get(peer)) is not None:
                    state.say(message)
            self._wake_all()

    # -- out -----------------------------------------------------------------------------------

    def _grown(self) -> None:
        self._sync.advanced(self._feed.name, self._feed.seq, time.monotonic())
        self._wake_all()

    def _wake_all(self) -> None:
        for state in self._peers.values():
            state.wake.set()

    async def _send(self, peer: str, state: _Peer) -> None:
        try:
            await self._send_for_ever(peer, state)
        except LinkClosed:
            return
        except (StorageUnavailable, FrameError) as error:
            # The next link begins where this one has come to.
            log.warning("feeds not sent", peer=peer, reason=str(error))
            await state.link.close()

    async def _send_for_ever(self, peer: str, state: _Peer) -> None:
        link, ready = state.link, None
        while True:
            state.wake.clear()
            while state.outbox:
                await link.send(*messages.encode(state.outbox.popleft()))
            if (due := self._sync.next_batch(peer)) is None:
                if ready is None:
                    await state.wake.wait()
                    continue
                reading = None
            else:
                feed, after = due
                held = self._sync.holds[feed]
                reading = self._database.scan(partial(self._read, feed, after))
            # While one is sent the next one is read.
            if ready is not None:
                await link.send(*messages.encode(ready))
                ready = None
            if reading is not None:
                entries, whole = await reading
                ready = self._sync.batch(peer, feed, after, entries, held=held, whole=whole)

    def _read(self, feed: str, after: int, connection: Connection) -> tuple[list[Entry], bool]:
        found, whole = feeds.entries(connection, feed, after, BATCH)
        size = 0
        for number, entry in enumerate(found):
            size += len(entry.record.body or b"")
            if number and size > BATCH_BYTES:
                found, whole = found[:number], False
                break
        signed = self._signer.signed([entry.record for entry in found])
        both = zip(found, signed, strict=True)
        return [replace(entry, record=record) for entry, record in both], whole

    # -- in ------------------------------------------------------------------------------------

    async def _receive(self, peer: str, state: _Peer) -> None:
        link = state.link
        async for kind, content in link.frames():
            try:
                message = messages.decode(kind, content)
                if message is None:
                    self._other(link, kind, content)
            except FrameError as error:
                log.warning("peer sends what cannot be read", peer=peer, reason=str(error))
                await link.close()
                return
            if isinstance(message, Batch):
                if self._sync.joins(peer, message):
                    await self._take_in(peer, state, message)
            elif message is not None:
                self._hear(peer, state, message)

    def _hear(self, peer: str, state: _Peer, message: Control) -> None:
        sync = self._sync
        match message:
            case Received():
                sync.received(peer, message)
            case Subscribe():
                sync.subscribed(peer, message)
            case Unsubscribe(feed):
                sync.unsubscribed(peer, feed)
            case Offer(holds):
                if (answer := sync.offered(peer, holds, time.monotonic())) is not None:
                    state.say(answer)
            case Held(holds):
                sync.held(peer, holds)
        state.wake.set()

    async def _take_in(self, peer: str, state: _Peer, batch: Batch) -> None:
        told = batch.entries
        if any(one.record.writer != peer for one in told):
            told = await asyncio.to_thread(_genuine, told, peer)
            if len(told) < len(batch.entries):
                # They are nobody's: neither kept nor handed on.
                number = len(batch.entries) - len(told)
                log.warning("records that their writers have not signed", peer=peer, number=number)

        def merge(connection: Connection) -> list[Record]:
            return feeds.merge(connection, batch.feed, told, batch.holds, self._now())

        def then(taken: list[Record], error: BaseException | None) -> None:
            if error is None:
                answer = self._sync.merged(batch, time.monotonic())
                self._look_at_itself()
                if self._peers.get(peer) is state:
                    state.say(answer)
                self._told(taken)

        writing = self._database.write(merge, then)
        writing.add_done_callback(lambda done: self._merged(state, done))

    def _merged(self, state: _Peer, done: asyncio.Future[list[Record]]) -> None:
        """Break off where something could not be written: the next link begins where it failed."""
        if not done.cancelled() and (error := done.exception()) is not None:
            log.warning("records of a peer not kept", peer=state.link.peer.node, reason=str(error))
            closing = asyncio.get_running_loop().create_task(state.link.close())
            closing.add_done_callback(lambda _: None)

    async def _adopt(self, feed: str) -> None:
        adopted = ADOPTED
        with suppress(StorageUnavailable):
            while adopted == ADOPTED:
                places = self._feed.next_places(ADOPTED)
                adopted = await self._database.write(partial(_adopt, feed, places))
                self._feed.committed(places[-1].seq)


def _adopt(feed: str, places: list[Place], connection: Connection) -> int:
    return feeds.adopt(connection, feed, places)


def _genuine(told: list[Entry], peer: str) -> list[Entry]:
    """Those that `peer` has written itself, and those that their writers have signed."""
    return [one for one in told if one.record.writer == peer or is_genuine(one.record)]
