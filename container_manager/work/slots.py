"""Slots: who may deploy now. As many as the engine gains from, and never more than is allowed."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from container_manager.work.limit import ConcurrencyLimit


class Slots:
    """The slots of one engine. Used in one event loop."""

    def __init__(self, most: int) -> None:
        """Let at most `most` deploy at a time."""
        self.most = most
        self.used = 0
        """Slots that are taken."""
        self._limit = ConcurrencyLimit(most)
        self._takers: deque[asyncio.Future[None]] = deque()
        self._under_way = 0
        self._begun = 0

    @property
    def limit(self) -> int:
        """How many may deploy at a time now."""
        return self._limit.value

    async def take(self) -> Slot:
        """Wait for a slot and take it."""
        await self._take(first=False)
        return Slot(self)

    async def _take(self, *, first: bool) -> None:
        if self.used < self.limit and not self._takers:
            self.used += 1
            return
        taker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if first:
            self._takers.appendleft(taker)
        else:
            self._takers.append(taker)
        try:
            await taker
        except asyncio.CancelledError:
            if taker.done() and not taker.cancelled():
                self._free()  # it was given one that it does not use any more
            elif taker in self._takers:
                self._takers.remove(taker)
            raise

    def _free(self) -> None:
        self.used -= 1
        self._pass_on()

    def _pass_on(self) -> None:
        while self._takers and self.used < self.limit:
            taker = self._takers.popleft()
            if not taker.done():
                self.used += 1
                taker.set_result(None)

    def _begin(self) -> _Begun:
        self._begun += 1
        self._under_way += 1
        return _Begun(time.monotonic(), self._begun, alone=self._under_way == 1)

    def _end(self, begun: _Begun, *, well: bool) -> None:
        self._under_way -= 1
        if well:  # only what went well tells what a deployment takes
            self._limit.sample(
                time.monotonic() - begun.at,
                alone=begun.alone and begun.number == self._begun,
                contended=bool(self._takers),
            )
            self._pass_on()


@dataclass(frozen=True, slots=True)
class _Begun:
    """The begin of a deployment's time at the engine."""

    at: float
    number: int
    alone: bool


class Slot:
    """The right of one deployment to be under way."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._begun: _Begun | None = None
        self.held = True

    def free(self) -> None:
        """Let another have it, for good."""
        self._end(well=False)
        if self.held:
            self.held = False
            self._slots._free()  # noqa: SLF001 - one concept in two classes

    @asynccontextmanager
    async def left(self) -> AsyncIterator[None]:
        """Let another have it for a while, and go before those who come new afterwards.

        Where the block raises, it is not taken again: to clean up needs none.
        """
        self.free()
        yield
        await self.take_again()

    async def take_again(self) -> None:
        """Wait for the slot where it is not held, before those who come new."""
        if not self.held:
            await self._slots._take(first=True)  # noqa: SLF001 - see above
            self.held = True

    def begin(self) -> None:
        """The engine begins with the deployment, or once more from the start."""
        self._end(well=False)
        self._begun = self._slots._begin()  # noqa: SLF001 - see above

    def finish(self) -> None:
        """The engine has done what it had begun."""
        self._end(well=True)

    def _end(self, *, well: bool) -> None:
        if self._begun is not None:
            self._slots._end(self._begun, well=well)  # noqa: SLF001 - see above
            self._begun = None
