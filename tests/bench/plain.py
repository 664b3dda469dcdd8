"""The least that a client needs: one connection, and HTTP/1.1 written by hand.

A client library takes about as long as the daemon it asks. What a bench measures is the daemon.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n", re.IGNORECASE)


class PlainClient:
    """Calls over one kept connection, one at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a JSON-RPC call."""
        body = orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": [params]})
        self._writer.write(
            b"POST /jrpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        assert length is not None, head
        answer = orjson.loads(await self._reader.readexactly(int(length[1])))
        assert "result" in answer, answer
        result: dict[str, Any] = answer["result"]
        return result


@asynccontextmanager
async def plain_client(port: int) -> AsyncIterator[PlainClient]:
    """A client of the daemon at this loopback port."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield PlainClient(reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()
