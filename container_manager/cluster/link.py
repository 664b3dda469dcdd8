"""A link: what two nodes of one cluster say to each other, once each knows who the other is.

The dialling side says hello; the other one answers with its own, or refuses; the dialling side
says welcome, or refuses. So a link that either side has got is one that both have agreed to.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from container_manager.cluster.certificates import Identity, peer_id
from container_manager.cluster.errors import (
    BROKEN_OFF,
    FRAME,
    ITSELF,
    POSED_ID,
    LinkClosed,
    LinkRefused,
    LinkUnreachable,
)
from container_manager.cluster.frames import Frame, FrameError, encode
from container_manager.cluster.hello import (
    BYE,
    FIRST_KIND,
    HELLO,
    MAX_HELLO,
    PING,
    REFUSED,
    WELCOME,
    WIRE,
    Hello,
    common,
    refused,
)
from container_manager.cluster.wire import Wire

HANDSHAKE = 5.0
"""Seconds that connecting, TLS and the hellos may take together."""
SILENCE = 5.0
"""Seconds without a byte after which a link is given up.

More than a process that is stopped for three seconds is silent. And no longer: when the network
comes back, TCP waits as long again as it was away before it tries anew, and a new link does not.
"""
BEAT = 1.0
"""Seconds between pings."""

_PINGS = 10

SayHello = Callable[[], Hello]
"""What to say of this node; asked when it is said, so that the vector is of that moment."""
Admit = Callable[[Hello], object]
"""Asked about the other side's hello; raises `LinkRefused` to have no link with it."""


class Link:
    """An open connection to a node that is who it says it is. Made by `connect` and `Listener`."""

    def __init__(
        self, wire: Wire, peer: Hello, version: int, *, dialled: bool, silence: float, beat: float
    ) -> None:
        self.peer = peer
        """What the other side said of itself."""
        self.version = version
        """Of the wire: the highest one that both speak."""
        self.dialled = dialled
        """Whether this side has dialled."""
        self.address = wire.address
        """The other side's end of the connection, as `host:port`."""
        self.left = False
        """Whether the other side has said goodbye."""
        self.closed = wire.closed
        """Set when nothing can be sent any more and nothing more will come."""
        self._wire = wire
        self._silence, self._beat = silence, beat
        self._is_closing = False
        self._looked = time.monotonic()
        self._skews: deque[float] = deque(maxlen=_PINGS)
        wire.hear(self._own)
        self._timer = asyncio.get_running_loop().call_soon(self._look)

    @property
    def reason(self) -> str:
        """Why it was closed, told of the other side ("it …"); empty while it is open."""
        error = self._wire.error
        return "" if error is None else error.reason

    @property
    def clock_skew(self) -> float | None:
        """Seconds that the other side's clock is ahead of this one's; None before it has told.

        The way of a message makes it look less, so it is the most of what the last pings say.
        """
        return max(self._skews, default=None)

    def heard(self) -> float:
        """When the last byte came, by `time.monotonic`."""
        return self._wire.heard

    async def send(self, kind: int, content: Any) -> None:
        """Send a frame; waits while the other side does not read.

        Frames of one task arrive in the order in which they were sent.

        Args:
            kind: 16 to 255; those below are the link's own.
            content: see `frames.encode`.

        Raises:
            LinkClosed: it has ended. What was sent before may have been lost.
            FrameError: the content is too large for a frame, or cannot be written in one.
        """
        if not FIRST_KIND <= kind <= 255:
            raise ValueError(f"kind {kind} is not from {FIRST_KIND} to 255")
        await self._wire.send(encode(kind, content))

    async def frames(self) -> AsyncIterator[tuple[int, Any]]:
        """Kind and content of each frame that comes, in order, to the end of the link.

        For one reader. Unknown kinds come too: neighbouring versions may know them.
        """
        while not self._is_closing and (frame := await self._wire.take()) is not None:
            yield frame.kind, frame.content

    async def close(self, *, left: bool = False) -> None:
        """Close it, and let the other side take what was sent before: a second at most.

        Args:
            left: say goodbye: this node leaves, and does not just lose the connection.
        """
        self._is_closing = True
        self._wire.finish(LinkClosed("closed by this node"), encode(BYE, {}) if left else b"")
        self._timer.cancel()
        await self._wire.gone()

    def _own(self, frame: Frame) -> bool:
        """Take the link's own frames."""
        if frame.kind >= FIRST_KIND:
            return False
        if frame.kind == PING:
            sent = frame.content.get("time") if isinstance(frame.content, dict) else None
            if isinstance(sent, int | float) and math.isfinite(sent):
                self._skews.append(sent - time.time())
        elif frame.kind == BYE:
            self.left = True
            self._wire.finish(LinkClosed("it has left"))
        elif frame.kind == REFUSED:
            self._wire.finish(refused(frame.content))
        return True

    def _look(self) -> None:
        """Close a link that is silent, and say something so that this side is not."""
        if self.closed.is_set():
            return
        wire, now = self._wire, time.monotonic()
        if now - self._looked > 2 * self._beat:
            # This process itself was stopped: what came meanwhile is not read yet.
            wire.heard = now
        self._looked = now
        if not wire.holding and now - wire.heard >= self._silence:
            wire.cut(LinkClosed(f"it was silent for {self._silence:g} s"))
            return
        if not wire.full:
            wire.put(encode(PING, {"time": time.time()}))
        self._timer = asyncio.get_running_loop().call_later(self._beat, self._look)


async def connect(
    address: str,
    identity: Identity,
    hello: SayHello,
    *,
    admit: Admit | None = None,
    connecting: float = HANDSHAKE,
    handshake: float = HANDSHAKE,
    silence: float = SILENCE,
    beat: float = BEAT,
) -> Link:
    """Dial a node.

    Args:
        address: `host:port`, `[host]:port` for IPv6.
        identity: this node's.
        hello: what to say of this node.
        admit: refuses by what the other side says of itself.
        connecting: seconds of that until there is a connection.
        handshake: seconds that it may take in all.
        silence: seconds without a byte after which the link is closed.
        beat: seconds between pings.

    Raises:
        LinkUnreachable: nobody answers there.
        LinkRefused: one side wants no link with the other.
    """
    wire = Wire(identity.client, server_side=False)
    try:
        host, port = _host_and_port(address)
        async with asyncio.timeout(handshake):
            async with asyncio.timeout(connecting):
                await asyncio.get_running_loop().create_connection(lambda: wire, host, port)
            return await greet(
                wire, identity, hello, dialled=True, admit=admit, silence=silence, beat=beat
            )
    except LinkRefused:
        await wire.gone()
        raise
    except TimeoutError:
        if wire.address:
            error = LinkUnreachable(f"nothing was heard from {address} within {handshake:g} s")
        else:
            limit = min(connecting, handshake)
            error = LinkUnreachable(f"no connection to {address} within {limit:g} s")
        wire.cut(error)
        raise error from None
    except OSError as failed:
        raise LinkUnreachable(f"no connection to {address} ({failed.strerror or failed})") from None
    except BaseException:
        wire.cut(LinkClosed("closed by this node"))
        raise


async def greet(
    wire: Wire,
    identity: Identity,
    hello: SayHello,
    *,
    dialled: bool,
    admit: Admit | None,
    silence: float,
    beat: float,
) -> Link:
    """Make a link of a connection. The caller limits the time, and cuts what is cancelled.

    Raises:
        LinkRefused: there is none; the other side has been told why, where TLS stands.
    """
    versions = WIRE
    try:
        await wire.secured()
        node = peer_id(wire.tls)
        if dialled:
            mine = hello()
            versions = mine.wire
            wire.put(_said(mine))
            content = await _expect(wire, HELLO, versions)
        else:
            content = await _expect(wire, HELLO, versions)
            mine = hello()
            versions = mine.wire
        peer = Hello.from_content(content, versions)
        _check(peer, node, mine)
        if admit is not None:
            admit(peer)
        if dialled:
            wire.put(encode(WELCOME, {}))
        else:
            wire.put(_said(mine))
            await _expect(wire, WELCOME, versions)
    except LinkRefused as error:
        wire.refuse(error, versions)
        raise
    except LinkClosed as error:
        raise LinkRefused(f"the handshake was broken off: {error.reason}", BROKEN_OFF) from None
    version = common(mine.wire, peer.wire)
    return Link(wire, peer, version, dialled=dialled, silence=silence, beat=beat)


async def _expect(wire: Wire, kind: int, versions: tuple[int, int]) -> Any:
    """The content of the next frame, which has to be of this kind."""
    frame = await wire.take()
    if frame is None:
        raise wire.error or LinkClosed("it closed the connection")
    if frame.kind == REFUSED:
        raise refused(frame.content, versions)
    if frame.kind != kind:
        raise LinkRefused(f"it sent a frame of kind {frame.kind} where {kind} is due", FRAME)
    return frame.content


def _said(hello: Hello) -> bytes:
    try:
        return encode(HELLO, hello.to_content(), MAX_HELLO)
    except FrameError as error:
        raise LinkRefused(f"this node's own hello cannot be sent: {error}", FRAME) from error


def _check(peer: Hello, node: str, mine: Hello) -> None:
    if peer.node != node:
        raise LinkRefused(
            f"it poses as node {peer.node}, and its certificate is that of node {node}", POSED_ID
        )
    if (peer.node, peer.run) == (mine.node, mine.run):
        raise LinkRefused("it is this very daemon", ITSELF)


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 65536):
        raise LinkUnreachable(f"{address!r} is no address; write host:port, or [host]:port")
    return host.removeprefix("[").removesuffix("]"), int(port)
