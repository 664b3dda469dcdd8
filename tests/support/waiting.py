"""The one place where tests poll, for what nothing announces; all else awaits a signal."""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import TYPE_CHECKING, Any, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


@overload
async def eventually(
    fn: Callable[[], Awaitable[T]], timeout: float = ..., interval: float = ...
) -> T: ...
@overload
async def eventually(fn: Callable[[], T], timeout: float = ..., interval: float = ...) -> T: ...
async def eventually(fn: Callable[[], Any], timeout: float = 10.0, interval: float = 0.02) -> Any:
    """Call `fn` until it answers something true, and give that back.

    For conditions that nothing announces, such as "a port answers". An `AssertionError` counts
    as "not yet", so that asserts can be written inside `fn`; any other exception is passed on.
    """
    deadline = time.monotonic() + timeout
    while True:
        seen: Any
        try:
            found = fn()
            seen = await found if inspect.isawaitable(found) else found
        except AssertionError as error:
            seen = error
        else:
            if seen:
                return seen
        if time.monotonic() >= deadline:
            cause = seen if isinstance(seen, AssertionError) else None
            raise AssertionError(f"not within {timeout} s; last seen: {seen!r}") from cause
        await asyncio.sleep(interval)


def eventually_now(fn: Callable[[], T], timeout: float = 10.0, interval: float = 0.02) -> T:
    """As `eventually`, for fixtures that run without an event loop."""
    deadline = time.monotonic() + timeout
    while not (seen := fn()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {timeout} s; last seen: {seen!r}")
        time.sleep(interval)
    return seen
