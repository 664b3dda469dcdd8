"""A proxy in front of the real registry: slow, refusing or breaking off where a test says so.

    async with RegistryProxy(registry) as proxy:          # or the fixture `registry_proxy`
        await publish(registry, "team/app", [4_000_000])  # tests.support.images; past the proxy
        image = f"{proxy.address}/team/app:latest"        # so an engine pulls it through the proxy

        proxy.rate = 1_000_000                            # bytes a second, all blobs together
        proxy.answer(MANIFEST, refusal(429, "TOOMANYREQUESTS", headers={"Retry-After": "2"}))
        proxy.answer(BLOB, refusal(503, "UNAVAILABLE"), skip=1, times=2)  # the 2nd and the 3rd
        proxy.cut(BLOB, after=100_000)                    # head and so many bytes, then nothing
        gate = proxy.hold(BLOB); await gate.reached(); gate.release()
        proxy.require("user", "password")                 # 401 for whoever shows something else

        proxy.requests                                    # ["GET /v2/", "HEAD /v2/team/app/…", …]
        proxy.count(BLOB)                                 # how many of them match

Patterns are regular expressions, matched from the start against "METHOD /path?query". Each rule
counts the requests that match it; of several that are due, the one said first acts. Plain HTTP on
loopback, which engines take from a registry without being told. Names of calls and error codes:
https://distribution.github.io/distribution/spec/api/.

dockerd repeats a cut blob by itself, the first time after 5 s.
"""

from __future__ import annotations

import asyncio
import base64
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.hooks import Answer, Gate
from tests.support.wire import Head, PeerGoneError, Wire

if TYPE_CHECKING:
    from collections.abc import Mapping

PING = r"GET /v2/$"
MANIFEST = r"(GET|HEAD) /v2/.+/manifests/"
BLOB = r"GET /v2/.+/blobs/"

_TICK = 0.02
"""Seconds between two pieces of a slowed blob: short, so that progress comes evenly."""


def refusal(
    status: int, code: str, message: str = "", *, headers: Mapping[str, str] | None = None
) -> Answer:
    """An answer with an error as registries write it, `code` being UNAUTHORIZED, say."""
    error = {"code": code, "message": message or code.replace("_", " ").lower()}
    return Answer(status, {"errors": [error]}, headers or {})


@dataclass(frozen=True, slots=True)
class _CutAfter:
    size: int


@dataclass(slots=True)
class _Rule:
    """What is done to the requests that match, from the one after `skip` others, `times` times."""

    pattern: re.Pattern[str]
    action: Answer | _CutAfter | Gate
    skip: int
    times: int | None
    matched: int = 0

    def takes(self, name: str) -> bool:
        """Whether it is its turn; counts the request."""
        if self.pattern.match(name) is None:
            return False
        self.matched += 1
        return self.skip < self.matched and (
            self.times is None or self.matched <= self.skip + self.times
        )


class _CutShortError(Exception):
    """So much of a body was to be sent, and no more."""


class RegistryProxy:
    """Listens on a port of its own, `address`; use it as an async context manager."""

    def __init__(self, registry: str) -> None:
        self._host, _, self._port = registry.rpartition(":")
        self.address = ""
        """HOST:PORT, for names of images."""
        self.rate: float | None = None
        """Bytes a second that all blobs together are sent at; None is as fast as it goes."""
        self.requests: list[str] = []
        """All requests so far, refused ones included."""
        self.errors: list[BaseException] = []
        self._authorization: str | None = None
        self._rules: list[_Rule] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._free_at = 0.0
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> RegistryProxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        if self.errors:
            raise BaseExceptionGroup("the proxy before the registry failed", self.errors)

    # What a test says

    def answer(self, pattern: str, answer: Answer, *, skip: int = 0, times: int | None = 1) -> None:
        """Answer such requests in the registry's stead; `times=None` is always."""
        self._rules.append(_Rule(re.compile(pattern), answer, skip, times))

    def cut(self, pattern: str, *, after: int, skip: int = 0, times: int | None = 1) -> None:
        """End the connection once `after` bytes of the body have been sent."""
        self._rules.append(_Rule(re.compile(pattern), _CutAfter(after), skip, times))

    def hold(self, pattern: str, *, skip: int = 0, times: int | None = 1) -> Gate:
        """Hold such requests until the gate is released."""
        gate = Gate()
        self._rules.append(_Rule(re.compile(pattern), gate, skip, times))
        return gate

    def require(self, user: str, password: str) -> None:
        """Refuse (401) whoever doesn't show these by HTTP's Basic authentication."""
        credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._authorization = f"Basic {credentials}"

    def count(self, pattern: str) -> int:
        """How many requests so far match."""
        return sum(re.match(pattern, one) is not None for one in self.requests)

    # One connection

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        client = Wire(reader, writer)
        registry: Wire | None = None
        try:
            registry = Wire(*await asyncio.open_connection(self._host, int(self._port)))
            while (head := await client.head()) is not None:
                await self._serve(head, client, registry)
            client.close()
        except _CutShortError:
            client.close()  # What was sent arrives: an abort would drop some of it.
        except (OSError, asyncio.CancelledError):
            client.cut()  # Either side has gone, or the test wants this one cut.
        except Exception as error:  # noqa: BLE001 -- told to the test when the proxy is closed
            self.errors.append(error)
            client.cut()
        finally:
            if registry is not None:
                registry.cut()
            self._connections.discard(task)

    async def _serve(self, request: Head, client: Wire, registry: Wire) -> None:
        name = " ".join(request.first[:2])
        bodiless = request.first[0] == "HEAD"
        self.requests.append(name)
        action = self._action(name, request)
        if isinstance(action, Gate):
            await action.stand()
        if isinstance(action, Answer):
            async for _ in client.body(request):
                pass
            await client.send(action.encode(bodiless=bodiless))
            return
        await registry.send(request.raw)
        async for piece in client.body(request):
            await registry.send(piece)
        head = await registry.head()
        if head is None:
            raise PeerGoneError(name)
        await client.send(head.raw)
        if bodiless or head.status in {204, 304}:
            return
        left = action.size if isinstance(action, _CutAfter) else None
        blob = re.match(BLOB, name) is not None
        async for piece in registry.body(head, until_end=True):
            await self._deliver(piece[:left], client, blob=blob)
            if left is not None and (left := left - len(piece)) <= 0:
                raise _CutShortError

    def _action(self, name: str, request: Head) -> Answer | _CutAfter | Gate | None:
        # All of them asked, since each counts the requests for itself.
        due = [rule.action for rule in self._rules if rule.takes(name)]
        if due:
            return due[0]
        if self._authorization in (None, request.headers.get("authorization")):
            return None
        challenge = {"WWW-Authenticate": 'Basic realm="registry"'}
        return refusal(401, "UNAUTHORIZED", "authentication required", headers=challenge)

    async def _deliver(self, piece: bytes, client: Wire, *, blob: bool) -> None:
        """Send it on, a blob's bytes at the rate that all blobs share."""
        loop = asyncio.get_running_loop()
        while piece:
            if not blob or self.rate is None:
                await client.send(piece)
                return
            part = piece[: max(1, int(self.rate * _TICK))]
            piece = piece[len(part) :]
            # Taken from the common rate before it is waited for: no two take the same time.
            begins = max(self._free_at, loop.time())
            self._free_at = begins + len(part) / self.rate
            await asyncio.sleep(self._free_at - loop.time())
            await client.send(part)
