"""A proxy in front of the real engine, so that a test can say "and just then …".

    proxy.before("POST /containers/create", node.kill)      # and what follows never reaches it
    proxy.after("POST /containers/[^/]+/start", CUT)        # done, but nobody hears of it
    proxy.before("GET /images/", Answer(500, {"message": "no"}))
    gate = proxy.hold("POST /containers/create"); await gate.reached(); gate.release()

Patterns are regular expressions, matched from the start against "METHOD /path?query" without the
API version and with the query unquoted. "Before" is when a request's head has come and nothing of
it has gone to the engine. "After" is when the engine has answered to the last byte and nothing of
that has gone to the client (of a pull, an import and a wait: all but the last chunk); for streams
without an end, when the answer's head has come.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
from collections.abc import Awaitable, Coroutine
from typing import Any, Literal, TypeVar
from urllib.parse import unquote, urlsplit

from tests.support.hooks import CUT, Action, Answer, Exchange, Gate, Hook
from tests.support.wire import Head, PeerGoneError, Wire

T = TypeVar("T")

ENDLESS = re.compile(r"GET /(events|containers/[^/]+/(logs|stats|attach))|POST .*/(attach|exec/)")
SLOW = re.compile(r"POST /(images/(create|load|[^ ]*push)|build|containers/[^/]+/wait)")


class EngineProxy:
    """Listens on a Unix socket of its own, `url`; use it as an async context manager."""

    def __init__(self, engine_url: str) -> None:
        self._engine = urlsplit(engine_url)
        # Not below the test's directory: a socket's path has at most 108 bytes.
        self._directory = tempfile.mkdtemp(prefix="cm-proxy-")
        self._path = f"{self._directory}/s"
        self.url = f"unix://{self._path}"
        self.requests: list[str] = []
        self.open: set[Exchange] = set()
        self.errors: list[BaseException] = []
        self._hooks: list[Hook] = []
        self._gates: list[Gate] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._news = asyncio.Condition()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> EngineProxy:
        await self.come_back()
        return self

    async def __aexit__(self, *_: object) -> None:
        for gate in self._gates:
            gate.release()
        await self.go_away()
        shutil.rmtree(self._directory, ignore_errors=True)
        if self.errors:
            raise BaseExceptionGroup("actions at the proxy failed", self.errors)

    # What a test says

    def before(self, pattern: str, action: Action, *, times: int | None = 1) -> Hook:
        """Do it when such a request has come; `times=None` is always."""
        return self._hook("before", pattern, action, times)

    def after(self, pattern: str, action: Action, *, times: int | None = 1) -> Hook:
        """Do it when the engine has answered such a request and the client doesn't know yet."""
        return self._hook("after", pattern, action, times)

    def hold(
        self,
        pattern: str,
        *,
        when: Literal["before", "after"] = "before",
        times: int | None = 1,
    ) -> Gate:
        """Hold such requests (or their answers) until the gate is released."""
        gate = Gate()
        self._gates.append(gate)
        self._hook(when, pattern, gate.stand, times)
        return gate

    def cut(self, pattern: str = "") -> int:
        """Cut the connections which are within such a request, an event stream say; how many."""
        found = [one for one in self.open if re.match(pattern, one.name)]
        for exchange in found:
            exchange.client.cut()
            exchange.engine.cut()
        return len(found)

    async def go_away(self) -> None:
        """Refuse new connections and cut all that are open, as an engine that was killed does."""
        if self._server is not None:
            self._server.close()
            self._server = None
        # Said by an action, this runs within one of the connections; that one is cut after it.
        others = self._connections - {asyncio.current_task()}
        for connection in others:
            connection.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def come_back(self) -> None:
        """Listen (again)."""
        self._server = await asyncio.start_unix_server(self._accept, self._path)

    async def seen(self, pattern: str, timeout: float = 10.0, *, since: int = 0) -> str:
        """Wait for such a request among `requests[since:]`, and give it back."""

        def found() -> str | None:
            return next((one for one in self.requests[since:] if re.match(pattern, one)), None)

        try:
            async with asyncio.timeout(timeout), self._news:
                await self._news.wait_for(lambda: found() is not None)
        except TimeoutError:
            raise AssertionError(f"no {pattern!r} among {self.requests[since:]}") from None
        return found() or ""

    # One connection

    def _hook(
        self, when: Literal["before", "after"], pattern: str, action: Action, times: int | None
    ) -> Hook:
        hook = Hook(when, re.compile(pattern), action, times)
        self._hooks.append(hook)
        return hook

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        client = Wire(reader, writer)
        engine: Wire | None = None
        try:
            engine = Wire(*await self._connect())
            while (head := await _unless_gone(client.head(), engine)) is not None:
                await self._serve(head, client, engine)
            client.close()
        except (OSError, asyncio.CancelledError):
            client.cut()  # Either side has gone, or the test wants this one cut.
        except Exception as error:  # noqa: BLE001 -- told to the test when the proxy is closed
            self.errors.append(error)
            client.cut()
        finally:
            if engine is not None:
                engine.cut()
            self._connections.discard(task)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._engine.scheme == "unix":
            return await asyncio.open_unix_connection(self._engine.path)
        return await asyncio.open_connection(self._engine.hostname, self._engine.port)

    async def _serve(self, head: Head, client: Wire, engine: Wire) -> None:
        method, target, _ = head.first
        name = f"{method} {unquote(re.sub(r'^/v[0-9.]+(?=/)', '', target))}"
        exchange = Exchange(name, client, engine)
        self.open.add(exchange)
        try:
            async with self._news:
                self.requests.append(name)
                self._news.notify_all()
            answer = await self._fire("before", exchange)
            if answer is None:
                await self._pass_on(head, exchange)
                return
            async for _ in client.body(head):
                pass
            await client.send(answer.encode())
        finally:
            self.open.discard(exchange)

    async def _pass_on(self, request: Head, exchange: Exchange) -> None:
        client, engine, name = exchange.client, exchange.engine, exchange.name
        await engine.send(request.raw)
        async for piece in client.body(request):
            await engine.send(piece)
        # A client that hangs up, because it cancelled a pull say, hangs up on the engine too.
        head = await _unless_gone(engine.head(), client)
        if head is None:
            raise PeerGoneError(name)
        exchange.status = head.status
        endless = head.status == 101 or ENDLESS.match(name)
        if endless and (answer := await self._fire("after", exchange)) is not None:
            await client.send(answer.encode())
            raise PeerGoneError(name)
        if head.status == 101:
            await client.send(head.raw)
            await _unless_gone(engine.pump_to(client), client, client.pump_to(engine))
            raise PeerGoneError(name)
        keep = 0 if endless else 1 if SLOW.match(name) else None
        held = await self._relay(head, exchange, keep, empty=request.first[0] == "HEAD")
        answer = None if endless else await self._fire("after", exchange)
        if answer is not None and keep is not None:
            raise ValueError(f"half of the answer to {name} has been sent; only CUT is left")
        await client.send(held if answer is None else answer.encode())

    async def _relay(
        self, head: Head, exchange: Exchange, keep: int | None, *, empty: bool
    ) -> bytes:
        """Send the answer on as it comes, but for its last `keep` pieces (None: all of it)."""
        held = [head.raw]
        if empty or head.status in {204, 304}:
            return head.raw
        if keep is not None:
            await exchange.client.send(held.pop())
        body = exchange.engine.body(head, until_end=True)
        while (piece := await _unless_gone(anext(body, None), exchange.client)) is not None:
            held.append(piece)
            while keep is not None and len(held) > keep:
                await exchange.client.send(held.pop(0))
        return b"".join(held)

    async def _fire(self, when: Literal["before", "after"], exchange: Exchange) -> Answer | None:
        for hook in [one for one in self._hooks if one.takes(when, exchange)]:
            verdict = await hook.verdict(exchange)
            if verdict is CUT:
                raise PeerGoneError("cut by the test")
            if isinstance(verdict, Answer):
                return verdict
        # Killed by an action, or tired of waiting at a gate: nothing more happens in its name.
        if self._server is None or exchange.client.gone:
            raise PeerGoneError(exchange.name)
        return None


async def _unless_gone(
    work: Awaitable[T], peer: Wire, watch: Coroutine[Any, Any, None] | None = None
) -> T:
    """What `work` gives, unless the `peer` hangs up first; then `PeerGoneError`."""
    doing = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(watch or peer.until_gone())
    try:
        await asyncio.wait({doing, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise PeerGoneError("the other side hung up")
        return doing.result()
    finally:
        for task in (doing, watching):
            task.cancel()
        await asyncio.gather(doing, watching, return_exceptions=True)
