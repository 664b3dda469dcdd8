"""From a body to the body that answers it: JSON-RPC 2.0 by the letter.

jsonrpcserver calls the method and makes the response. Each element of a batch is dispatched by
itself, because the library would refuse a whole batch for one bad element, where section 6 of the
specification wants the others answered. Its check of the arguments against the signature is left
out: each method here takes whatever comes and refuses by its model, in words that name the field.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import orjson
import structlog
from jsonrpcserver import Error, Success
from jsonrpcserver.async_dispatcher import call
from jsonrpcserver.dispatcher import to_response
from jsonrpcserver.response import to_serializable_one
from jsonrpcserver.result import Result
from jsonrpcserver.sentinels import NOID
from oslash.either import Left

from container_manager.api.envelope import MAX_BATCH, InvalidRequest, ParseError, parse, request
from container_manager.engine import errors as engine
from container_manager.errors import ApplicationError, Conflict, EngineUnavailable

log = structlog.get_logger()

Method = Callable[..., Awaitable[Result]]
"""Takes the context and the request's params, positional or named."""

Observer = Callable[[str, int], None]
"""Told of each call: its method, or "unknown", and the code of its error, or 0."""


class Dispatcher:
    """Answers bodies by calling methods."""

    def __init__(self, methods: Mapping[str, Method], observe: Observer) -> None:
        """Offer `methods`, by their names, and tell `observe` of each call."""
        self._methods = dict(methods)
        self._observe = observe

    async def handle(self, body: bytes, context: Any) -> bytes | None:
        """The answer to a body, or None where there is nothing to answer (notifications)."""
        try:
            document = parse(body)
        except ParseError as error:
            self._observe("unknown", -32700)
            return orjson.dumps(_error(-32700, "Parse error", str(error), None))
        if type(document) is not list:
            answer = await self._answer(document, context)
            return None if answer is None else orjson.dumps(answer)
        if not 0 < len(document) <= MAX_BATCH:
            self._observe("unknown", -32600)
            reason = f"a batch holds at most {MAX_BATCH} requests" if document else ""
            return orjson.dumps(_error(-32600, "Invalid Request", reason, None))
        answers = await asyncio.gather(*(self._answer(one, context) for one in document))
        rest = [answer for answer in answers if answer is not None]
        return orjson.dumps(rest) if rest else None

    async def _answer(self, element: Any, context: Any) -> dict[str, Any] | None:
        try:
            wanted = request(element)
        except InvalidRequest as error:
            self._observe("unknown", -32600)
            return _error(-32600, "Invalid Request", "", error.id)
        if (method := self._methods.get(wanted.method)) is None:
            self._observe("unknown", -32601)
            return None if wanted.id is NOID else _error(-32601, "Method not found", "", wanted.id)
        result = await call(wanted, context, method)
        failed = isinstance(result, Left)
        self._observe(wanted.method, result._error.code if failed else 0)  # noqa: SLF001 - oslash
        if wanted.id is NOID:
            return None
        return cast("dict[str, Any]", to_serializable_one(to_response(wanted, result)))


def guarded(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Result]]:
    """Turn what a method gives or raises into a result; no unexpected error's text goes out."""

    async def guarding(*args: Any, **kwargs: Any) -> Result:
        try:
            return Success(await method(*args, **kwargs))
        except (ApplicationError, engine.EngineError) as error:
            told = _told(error) if isinstance(error, engine.EngineError) else error
            return Error(told.code, told.message, told.data)
        except Exception:
            log.exception("call broke", method=getattr(method, "__qualname__", str(method)))
            return Error(-32603, "Internal error", {"name": "internal_error"})

    return guarding


def _told(error: engine.EngineError) -> ApplicationError:
    """What callers are told of an engine's error.

    Params that come so far are well formed. What the engine refuses then does not go together with
    what it has: a network in use, addresses that are taken, a reserved name.
    """
    if isinstance(error, engine.EngineUnavailable):
        return EngineUnavailable(str(error))
    return Conflict(f"The container engine refused: {error}")


def _error(code: int, message: str, reason: str, id_: Any) -> dict[str, Any]:
    error: dict[str, Any] = {"code": code, "message": message}
    if reason:
        name = message.lower().replace(" ", "_")
        error["data"] = {"name": name, "reason": reason}
    return {"jsonrpc": "2.0", "error": error, "id": id_}
