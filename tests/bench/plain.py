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
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n", re.IGNORECASE)


class PlainClient:
    """Requests over one kept connection, one at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def post(self, path: str, document: Any) -> Any:
        """What is answered to a document, both of them JSON."""
        body = orjson.dumps(document)
        self._writer.write(
            b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (path.encode(), len(body), body)
        )
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        assert length is not None, head
        return orjson.loads(await self._reader.readexactly(int(length[1])))

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a JSON-RPC call."""
        answer = await self.post("/jrpc", _call(method, params))
        assert "result" in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    async def batch(self, method: str, several: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """The results of one method called several times in one request, answered together."""
        answers = await self.post("/jrpc", [_call(method, params) for params in several])
        assert all("result" in one for one in answers), answers
        return [one["result"] for one in answers]


def _call(method: str, params: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": [params]}


@asynccontextmanager
async def plain_client(port: int) -> AsyncIterator[PlainClient]:
    """A client of the daemon at this loopback port."""
    async with _closing(*await asyncio.open_connection("127.0.0.1", port)) as client:
        yield client


@asynccontextmanager
async def plain_engine_client(socket: Path) -> AsyncIterator[PlainClient]:
    """A client of the engine at this socket."""
    async with _closing(*await asyncio.open_unix_connection(socket)) as client:
        yield client


@asynccontextmanager
async def _closing(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> AsyncIterator[PlainClient]:
    try:
        yield PlainClient(reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()
