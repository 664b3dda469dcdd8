"""Calls from node to node over their link: a method, its params, and the answer or the refusal.

Which methods there are, and whether the caller may, is decided where the call is carried out.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import structlog

from container_manager.cluster.errors import LinkClosed
from container_manager.cluster.frames import FrameError
from container_manager.cluster.link import Link
from container_manager.errors import ApplicationError

CALL, ANSWER = 22, 23
"""Kinds of frames."""
MOST = 256
"""Calls of one peer that are carried out at a time."""

_INTERNAL_ERROR = (-32603, "Internal error", {"name": "internal_error"})

log = structlog.get_logger()

T = TypeVar("T")
Method = Callable[[dict[str, Any]], Awaitable[Any]]


class Refused(ApplicationError):
    """What the node that was asked has refused, in its own words and by its own code."""

    name = "refused"

    def __init__(self, code: int, message: str, data: dict[str, Any]) -> None:
        super().__init__(message)
        vars(self)["code"] = code  # of this one error, where others have theirs by their class
        self.data = data


class Unanswered(Exception):
    """No answer came: the link is gone, or it took too long."""


_Answer = tuple[Any, Refused | None]
"""What the other node gives, or why it does not."""


class Calls:
    """The calls that go out, and those that come in."""

    def __init__(self, methods: dict[str, Method]) -> None:
        """Carry out `methods` for other nodes."""
        self._methods = methods
        self._numbers = itertools.count(1)
        self._waiting: dict[tuple[Link, int], asyncio.Future[_Answer]] = {}
        self._under_way: dict[Link, set[asyncio.Task[None]]] = {}

    async def call(self, link: Link, method: str, params: dict[str, Any], timeout: float) -> Any:
        """The answer of the node at the other end of a link.

        Raises:
            Refused: it refuses.
            Unanswered: nothing came within `timeout` seconds.
            FrameError: the params are too large for a frame, or cannot be written in one.
        """
        number = next(self._numbers)
        answer: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._waiting[link, number] = answer
        closed = asyncio.create_task(link.closed.wait())
        try:
            async with asyncio.timeout(timeout):
                await link.send(CALL, (number, method, params))
                await asyncio.wait((answer, closed), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise Unanswered
            result, refused = answer.result()
        except (TimeoutError, LinkClosed) as error:
            raise Unanswered from error
        finally:
            closed.cancel()
            del self._waiting[link, number]
        if refused is not None:
            raise refused
        return result

    def received(self, link: Link, kind: int, content: Any) -> None:
        """Take a frame that has come over a link.

        Raises:
            FrameError: it is malformed.
        """
        try:
            if kind == CALL:
                number, method, params = _of(list, content)[:3]
                self._carry_out(link, _of(int, number), _of(str, method), _of(dict, params))
            elif kind == ANSWER:
                number, result, refusal = _of(list, content)[:3]
                self._answered(link, _of(int, number), result, refusal)
        except (TypeError, ValueError) as error:
            raise FrameError(f"a frame of kind {kind} is malformed") from error

    def _answered(self, link: Link, number: int, result: Any, refusal: Any) -> None:
        answer = self._waiting.get((link, number))
        if answer is None or answer.done():
            return  # it came too late
        refused = None
        if refusal is not None:
            code, message, data = _of(list, refusal)[:3]
            refused = Refused(_of(int, code), _of(str, message), _of(dict, data))
        answer.set_result((result, refused))

    def _carry_out(self, link: Link, number: int, method: str, params: dict[str, Any]) -> None:
        under_way = self._under_way.setdefault(link, set())
        if len(under_way) >= MOST:
            return  # whoever asks so much finds that no answer comes
        work = self._answer(link, number, method, params)
        task = asyncio.get_running_loop().create_task(work, name=f"call-of-{link.peer.node}")
        under_way.add(task)
        task.add_done_callback(lambda _: self._done(link, task))

    def _done(self, link: Link, task: asyncio.Task[None]) -> None:
        under_way = self._under_way[link]
        under_way.discard(task)
        if not under_way:
            del self._under_way[link]

    async def _answer(self, link: Link, number: int, method: str, params: dict[str, Any]) -> None:
        result, refusal = None, None
        try:
            if (carry_out := self._methods.get(method)) is None:
                refusal = (-32601, "Method not found", {"name": "method_not_found"})
            else:
                result = await carry_out(params)
        except ApplicationError as error:
            refusal = (error.code, error.message, error.data)
        except Exception:
            log.exception("call of another node broke", method=method, peer=link.peer.node)
            refusal = _INTERNAL_ERROR
        try:
            try:
                await link.send(ANSWER, (number, result, refusal))
            except FrameError as error:
                log.error("answer cannot be sent", method=method, reason=str(error))
                await link.send(ANSWER, (number, None, _INTERNAL_ERROR))
        except LinkClosed:
            log.debug("answer not sent", peer=link.peer.node)


def _of(kind: type[T], value: Any) -> T:
    if type(value) is not kind:
        raise TypeError
    return value
