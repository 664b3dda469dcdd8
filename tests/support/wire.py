"""As much of HTTP/1.1 as a proxy needs which looks at each request and passes it on unchanged."""

from __future__ import annotations

import select
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator

HEAD_LIMIT = 1 << 20


class PeerGoneError(ConnectionError):
    """The connection ended within a message."""


@dataclass(frozen=True)
class Head:
    """The first lines of a message, as they came and as they read."""

    raw: bytes
    first: tuple[str, str, str]
    headers: dict[str, str]

    @classmethod
    def parse(cls, raw: bytes) -> Head:
        """From everything up to and including the empty line."""
        line, *rest = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
        a, b, c = [*line.split(" ", 2), "", ""][:3]
        pairs = (one.partition(":") for one in rest)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        return cls(raw, (a, b, c), headers)

    @property
    def status(self) -> int:
        """Of a response."""
        return int(self.first[1])

    @property
    def chunked(self) -> bool:
        """Whether the body comes in chunks."""
        return "chunked" in self.headers.get("transfer-encoding", "").lower()


class Wire:
    """One connection, read by messages."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._buffer = bytearray()

    @property
    def gone(self) -> bool:
        """Whether the peer has hung up, asked of the kernel: the event loop may not know it yet."""
        if self._writer.is_closing() or self._reader.at_eof():
            return True
        poll = select.poll()
        poll.register(self._writer.get_extra_info("socket").fileno(), select.POLLRDHUP)
        return any(seen & (select.POLLRDHUP | select.POLLHUP) for _, seen in poll.poll(0))

    async def head(self) -> Head | None:
        """The next message's head; None when the connection ends before it."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > HEAD_LIMIT:
                raise PeerGoneError("a head without end")
            if not await self._fill():
                return None
            if not self._buffer[:1].isalpha():
                # Engines try TLS first also where they take plain HTTP, and wait for its answer.
                raise PeerGoneError("no HTTP")
        return Head.parse(self._take(end + 4))

    async def body(self, head: Head, *, until_end: bool = False) -> AsyncIterator[bytes]:
        """The body in pieces, chunk framing included; the last chunk comes by itself."""
        if head.chunked:
            last = False
            while not last:
                line = await self._line()
                last = int(line.split(b";")[0], 16) == 0
                if not last:
                    yield line + await self._exactly(int(line.split(b";")[0], 16) + 2)
                    continue
                while not line.endswith(b"\r\n\r\n"):
                    line += await self._line()
                yield line
        elif "content-length" in head.headers:
            left = int(head.headers["content-length"])
            while left:
                if not self._buffer and not await self._fill():
                    raise PeerGoneError("the connection ended within a body")
                piece = self._take(min(left, len(self._buffer)))
                left -= len(piece)
                yield piece
        elif until_end:
            while self._buffer or await self._fill():
                yield self._take(len(self._buffer))

    async def until_gone(self) -> None:
        """Return when the peer hangs up; what it sends before that stays to be read."""
        while await self._fill():
            pass

    async def send(self, data: bytes) -> None:
        """Write and let the peer keep up."""
        self._writer.write(data)
        await self._writer.drain()

    async def pump_to(self, other: Wire) -> None:
        """Pass on whatever comes, until it ends."""
        while self._buffer or await self._fill():
            await other.send(self._take(len(self._buffer)))

    def close(self) -> None:
        """End the connection when everything sent has gone out."""
        self._writer.close()

    def cut(self) -> None:
        """End the connection at once."""
        self._writer.transport.abort()

    async def _fill(self) -> bool:
        # Safe to cancel: a read that was cancelled has taken nothing.
        data = await self._reader.read(1 << 16)
        self._buffer += data
        return bool(data)

    async def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if not await self._fill():
                raise PeerGoneError("the connection ended within a chunk's head")
        return self._take(end + 2)

    async def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            if not await self._fill():
                raise PeerGoneError("the connection ended within a chunk")
        return self._take(size)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken
