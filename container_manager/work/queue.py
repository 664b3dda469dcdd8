"""The queue: which jobs wait for their turn, in the order of their coming, and how many may.

Only ids are held: the jobs themselves are in the store, and are read when their turn comes.
Everything here can be made anew from the store at any time.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from container_manager.errors import QueueFull

_FIRST_GUESS = 1.0
_LONGEST_WAIT = 600.0


class JobQueue:
    """Ids of jobs that are not yet deployed. Used in one event loop, with one taker."""

    def __init__(self, size: int) -> None:
        """Let `size` jobs wait; those that come back for another attempt are always let in."""
        self.size = size
        self._loop = asyncio.get_running_loop()
        # A waiting job's timer while it is not due, else None.
        self._waiting: dict[str, asyncio.TimerHandle | None] = {}
        self._ready: OrderedDict[str, None] = OrderedDict()
        self._something_ready = asyncio.Event()
        self._outside = 0
        self._pace = _FIRST_GUESS
        self._last_taken: float | None = None

    def __len__(self) -> int:
        """How many jobs wait: not yet due, for their turn, or for their image."""
        return len(self._waiting) + self._outside

    def admit(self, job_id: str) -> None:
        """Hold a place for a job that is being written.

        Raises:
            QueueFull: there is none.
        """
        self.check_room()
        self._waiting[job_id] = None

    def check_room(self) -> None:
        """Make sure that another job may wait.

        Raises:
            QueueFull: it may not.
        """
        if len(self) >= self.size:
            raise QueueFull(self.size, self.expected_wait())

    def add(self, job_id: str, delay: float = 0.0) -> None:
        """Let a job wait for its turn, from `delay` seconds from now."""
        self._drop_timer(job_id)
        if delay > 0:
            self._ready.pop(job_id, None)
            self._waiting[job_id] = self._loop.call_later(delay, self.add, job_id)
            return
        self._waiting[job_id] = None
        self._ready[job_id] = None
        self._something_ready.set()

    def discard(self, job_id: str) -> None:
        """Let a job wait no longer, if it does."""
        self._drop_timer(job_id)
        self._waiting.pop(job_id, None)
        self._ready.pop(job_id, None)

    async def ready(self) -> None:
        """Wait until it is a job's turn."""
        while not self._ready:
            self._something_ready.clear()
            await self._something_ready.wait()

    def take(self) -> str | None:
        """Take out the job whose turn it is, if there is one."""
        if not self._ready:
            return None
        job_id, _ = self._ready.popitem(last=False)
        del self._waiting[job_id]
        self._note_pace()
        return job_id

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Count one as waiting that was taken out and cannot go on, as long as the block lasts."""
        self._outside += 1
        try:
            yield
        finally:
            self._outside -= 1

    def expected_wait(self) -> float:
        """Seconds until a place is likely to be free."""
        return min(max(self._pace, 1.0), _LONGEST_WAIT)

    def _drop_timer(self, job_id: str) -> None:
        if (timer := self._waiting.get(job_id)) is not None:
            timer.cancel()

    def _note_pace(self) -> None:
        """Keep a moving average of the seconds between two jobs taken."""
        now = self._loop.time()
        if self._last_taken is not None:
            self._pace += 0.2 * (now - self._last_taken - self._pace)
        # The time in which nobody waited is no pace.
        self._last_taken = now if self._waiting else None
