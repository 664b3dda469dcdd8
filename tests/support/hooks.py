"""What a test can say to the proxy in front of the engine: points, actions, gates."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from tests.support.wire import Wire


class Cut(Enum):
    """Said by an action: end this connection, now."""

    CUT = "cut"


CUT = Cut.CUT


@dataclass(frozen=True)
class Answer:
    """Said by an action: tell the client this, whatever the engine says or would say."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def encode(self, *, bodiless: bool = False) -> bytes:
        """As an HTTP/1.1 message; bodiless, as the answer to HEAD is, it is the head alone."""
        content = b"" if self.body is None else json.dumps(self.body).encode()
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
            **self.headers,
        }
        lines = [f"HTTP/1.1 {self.status} Canned", *(f"{k}: {v}" for k, v in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode() + (b"" if bodiless else content)


@dataclass(eq=False)
class Exchange:
    """One request and, once it is there, its answer's status."""

    name: str
    client: Wire
    engine: Wire
    status: int | None = None


Verdict = Cut | Answer | None
Action = (
    Cut
    | Answer
    | Callable[[], Verdict | Awaitable[Verdict]]
    | Callable[[Exchange], Verdict | Awaitable[Verdict]]
)


@dataclass(eq=False)
class Hook:
    """What is done at a point, and how often it has been done."""

    when: Literal["before", "after"]
    pattern: re.Pattern[str]
    action: Action
    times: int | None
    fired: int = 0

    def takes(self, when: str, exchange: Exchange) -> bool:
        """Whether it is its turn."""
        due = self.times is None or self.fired < self.times
        return due and when == self.when and self.pattern.match(exchange.name) is not None

    async def verdict(self, exchange: Exchange) -> Verdict:
        """Do it, and give what it says shall become of the exchange."""
        self.fired += 1
        said: Any = self.action
        if callable(said):
            said = said(exchange) if _wants_one(said) else said()
            said = await said if inspect.isawaitable(said) else said
        # An action may give anything, as `list.append` or `Daemon.terminate` do.
        return said if isinstance(said, Cut | Answer) else None


@dataclass(eq=False)
class Gate:
    """A point at which requests wait until the test lets them go on."""

    _reached: asyncio.Event = field(default_factory=asyncio.Event)
    _open: asyncio.Event = field(default_factory=asyncio.Event)

    async def reached(self, timeout: float = 10.0) -> None:
        """Return once a request stands at the gate."""
        async with asyncio.timeout(timeout):
            await self._reached.wait()

    def release(self) -> None:
        """Let go on what stands there; nothing is held from now on."""
        self._open.set()

    async def stand(self) -> None:
        self._reached.set()
        await self._open.wait()


def _wants_one(action: Callable[..., Any]) -> bool:
    """Whether the action must be given the exchange: it has a parameter without a default."""
    parameters = inspect.signature(action).parameters.values()
    return any(one.default is one.empty and one.kind < one.KEYWORD_ONLY for one in parameters
               if one.kind is not one.VAR_POSITIONAL)  # fmt: skip
