"""One connection between two nodes: frames over TLS over TCP, with bounded buffers.

TLS is done here, on `ssl`'s memory buffers, and not by asyncio's transports, because those drop the
alert with which OpenSSL tells the other side why a handshake failed. It also is one layer less, and
the same under each event loop.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from container_manager.cluster.certificates import explain
from container_manager.cluster.errors import FRAME, LinkClosed, LinkError, LinkRefused
from container_manager.cluster.frames import MAX_FRAME, Decoder, Frame, FrameError
from container_manager.cluster.hello import MAX_HELLO, WIRE, refusal

MAX_UNREAD = 1 << 20
"""Bytes of frames that wait for their reader before no more is taken from the network."""
MAX_UNSENT = 1 << 18
"""Bytes that wait for the network before senders wait."""
LINGER = 1.0
"""Seconds in which the other side can take our last words before the connection is cut.

Meanwhile what it still sends is read and dropped: closing with unread bytes would reset the
connection, and take the words away from it.
"""

_RECORD = 16 << 10  # bytes that a record of TLS has at most (RFC 8446, section 5.1)
_SLICE = 64 << 10  # bytes that are encrypted at a time, so that OpenSSL's buffers stay small


class Wire(asyncio.Protocol):
    """The connection, from its first byte to its last."""

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        made: Callable[[Wire], object] | None = None,
    ) -> None:
        """Speak TLS by `context`; `made` is called when there is a connection."""
        self.closed = asyncio.Event()
        """Set when nothing can be sent any more, and nothing will come."""
        self.error: LinkError | None = None
        """Why it was closed, once it is."""
        self.heard = time.monotonic()
        """When bytes last came."""
        self.address = ""
        """The other side's, as `host:port`."""
        self.holding = False
        """Whether nothing is taken from the network, because frames wait for their reader."""
        self.full = False
        """Whether senders have to wait for the network."""
        self._made = made
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._gone = asyncio.Event()
        # TLS
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        self._is_secure = False
        self._settled = asyncio.Event()
        # Receiving
        self._decoder = Decoder(MAX_HELLO)
        self._handler: Callable[[Frame], bool] = lambda _: False
        self._frames: deque[Frame] = deque()
        self._unread = 0
        self._reader: asyncio.Future[None] | None = None
        # Sending
        self._unsent: list[bytes] = []
        self._unsent_size = 0
        self._will_flush = False
        self._writers: deque[asyncio.Future[None]] = deque()

    # What its owner does

    async def secured(self) -> None:
        """Wait until TLS stands.

        Raises:
            LinkError: it failed.
        """
        await self._settled.wait()
        if self.error is not None and not self._is_secure:
            raise self.error

    def hear(self, handler: Callable[[Frame], bool]) -> None:
        """Show each frame to `handler` as it comes; those that it answers True to are done with."""
        self._handler = handler
        frames, self._frames, self._unread = self._frames, deque(), 0
        for frame in frames:
            self._accept(frame)

    async def take(self) -> Frame | None:
        """The next frame; None when all have been taken and no more will come. For one reader."""
        while not self._frames:
            if self.error is not None:
                return None
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        frame = self._frames.popleft()
        self._unread -= frame.size
        if self.holding and self._unread <= MAX_UNREAD // 2:
            self._hold(False)
        return frame

    async def send(self, frame: bytes) -> None:
        """Send a frame, waiting while the network does not take what is to be sent already.

        Raises:
            LinkClosed: nothing can be sent any more. What was sent before may have been lost.
        """
        while self.full and self.error is None:
            writer = self._loop.create_future()
            self._writers.append(writer)
            try:
                await writer
            finally:
                with suppress(ValueError):
                    self._writers.remove(writer)
        self.put(frame)

    def put(self, frame: bytes) -> None:
        """Send a small frame without waiting.

        Raises:
            LinkClosed: as `send`.
        """
        if self.error is not None:
            raise LinkClosed(self.error.reason)
        self._unsent.append(frame)
        self._unsent_size += len(frame)
        if self._unsent_size >= _SLICE:
            self._flush()
        elif not self._will_flush:
            # All that one round of the loop sends goes out together.
            self._will_flush = True
            self._loop.call_soon(self._flush)

    def refuse(self, error: LinkRefused, versions: tuple[int, int] = WIRE) -> None:
        """End it for this reason, and tell the other side, and what versions are spoken here."""
        self.finish(error, refusal(error, versions))

    def finish(self, error: LinkError, last: bytes = b"") -> None:
        """End it for this reason; the other side can still take what was sent, and `last`."""
        if self.error is not None:
            return
        if last:
            self._unsent.append(last)
        self._flush()
        self._end(error)
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        with suppress(ssl.SSLError):
            self.tls.unwrap()  # it only says that no more will come, and is never answered
        self._flow()
        if self.holding:
            self._hold(False)
        with suppress(OSError):
            transport.write_eof()
        self._lingering = self._loop.call_later(LINGER, transport.abort)

    def cut(self, error: LinkError) -> None:
        """End it for this reason, at once."""
        self._end(error)
        if self._transport is not None:
            self._transport.abort()

    async def gone(self) -> None:
        """Wait until a connection that has ended is gone, `LINGER` seconds at most.

        Cancelled, it is cut at once.
        """
        try:
            await self._gone.wait()
        finally:
            if self._transport is not None:
                self._transport.abort()

    # What the event loop does

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # uvloop's transports are no subclasses.
        self._transport = transport = cast(asyncio.Transport, transport)
        if self.error is not None:
            transport.abort()
            return
        transport.set_write_buffer_limits(high=MAX_UNSENT)
        host, port = (transport.get_extra_info("peername") or ("", 0))[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if not self.tls.server_side:
            self.data_received(b"")
        if self._made is not None:
            self._made(self)

    def data_received(self, data: bytes) -> None:
        """Decrypt, decode, and hand on."""
        self.heard = time.monotonic()
        if self.error is not None:
            return
        self._incoming.write(data)
        try:
            self._read()
        except ssl.SSLWantReadError:
            self._flow()  # what the handshake has to answer
        except ssl.SSLZeroReturnError:
            self._ended_by_other()
        except ssl.SSLError as error:
            if self._decoder.limit == MAX_FRAME:
                self.cut(LinkClosed(f"TLS broke ({error.reason})"))
            else:
                self.finish(explain(error))
        except FrameError as error:
            self.refuse(LinkRefused(f"it sent what is not understood: {error}", FRAME))
        if self._unread > MAX_UNREAD and self.error is None:
            self._hold(True)

    def eof_received(self) -> None:
        """It has said all that it wants to say, and so have we."""
        self._ended_by_other()
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        why = f" ({exc.strerror or exc})" if isinstance(exc, OSError) else ""
        self._end(LinkClosed(f"the connection was lost{why}"))
        if self._lingering is not None:
            self._lingering.cancel()
        self._gone.set()

    def pause_writing(self) -> None:
        """Have senders wait."""
        self.full = True

    def resume_writing(self) -> None:
        """Let senders go on."""
        self.full = False
        self._wake_writers()

    # Inside

    def _read(self) -> None:
        if not self._is_secure:
            self.tls.do_handshake()
            self._is_secure = True
            self._settled.set()
        while plain := self.tls.read(_RECORD):
            for frame in self._decoder.feed(plain):
                self._decoder.limit = MAX_FRAME  # only the first one is a hello
                self._accept(frame)
            if self.error is not None:
                return  # by what a frame said
        self._ended_by_other()

    def _accept(self, frame: Frame) -> None:
        if self._handler(frame):
            return
        self._frames.append(frame)
        self._unread += frame.size
        self._wake_reader()

    def _hold(self, hold: bool) -> None:
        self.holding = hold
        if self._transport is None or self._transport.is_closing():
            return
        if hold:
            self._transport.pause_reading()
        else:
            self.heard = time.monotonic()  # the silence was ours
            self._transport.resume_reading()

    def _flush(self) -> None:
        """Encrypt what is to be sent, and hand it to the network."""
        self._will_flush = False
        unsent = memoryview(b"".join(self._unsent))
        self._unsent.clear()
        self._unsent_size = 0
        if self.error is not None or not self._is_secure:
            return
        try:
            for start in range(0, len(unsent), _SLICE):
                self.tls.write(unsent[start : start + _SLICE])
                self._flow()
        except ssl.SSLError as error:
            self.cut(LinkClosed(f"TLS broke ({error.reason})"))

    def _flow(self) -> None:
        """Hand to the network what TLS has for it."""
        if self._outgoing.pending and self._transport and not self._transport.is_closing():
            self._transport.write(self._outgoing.read())

    def _ended_by_other(self) -> None:
        self._end(LinkClosed("it closed the connection"))

    def _end(self, error: LinkError) -> None:
        if self.error is not None:
            return
        self.error = error
        self.closed.set()
        self._settled.set()
        self._wake_reader()
        self._wake_writers()

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _wake_writers(self) -> None:
        for writer in self._writers:
            if not writer.done():
                writer.set_result(None)
