"""A TCP proxy that sees all bytes, and can stop carrying them without closing anything."""

from __future__ import annotations

import asyncio
from typing import Literal

Way = Literal["there", "back"]


class TcpProxy:
    """Listens on a port of its own, `address`; use it as an async context manager."""

    def __init__(self, target: str) -> None:
        self._target = target
        self.seen: dict[Way, bytearray] = {"there": bytearray(), "back": bytearray()}
        self._open: dict[Way, asyncio.Event] = {"there": asyncio.Event(), "back": asyncio.Event()}
        for gate in self._open.values():
            gate.set()
        self._server: asyncio.Server | None = None
        self._carrying: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.address = ""

    async def __aenter__(self) -> TcpProxy:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._carrying:
            task.cancel()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._carrying, return_exceptions=True)

    def stop(self, *ways: Way) -> None:
        """Carry nothing more these ways; nobody is told."""
        for way in ways:
            self._open[way].clear()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._target.rpartition(":")
        self._writers.add(writer)
        other_reader, other_writer = await asyncio.open_connection(host, int(port))
        self._writers.add(other_writer)
        for way, source, sink in (
            ("there", reader, other_writer),
            ("back", other_reader, writer),
        ):
            task = asyncio.create_task(self._carry(way, source, sink))  # type: ignore[arg-type]
            self._carrying.add(task)

    async def _carry(
        self, way: Way, source: asyncio.StreamReader, sink: asyncio.StreamWriter
    ) -> None:
        try:
            while data := await source.read(1 << 16):
                await self._open[way].wait()
                self.seen[way] += data
                sink.write(data)
                await sink.drain()
            await self._open[way].wait()
            sink.write_eof()
        except OSError:
            sink.transport.abort()
