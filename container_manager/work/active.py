"""Which jobs are in the hands of a worker, so that nobody else touches them meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class ActiveJobs:
    """The jobs that workers hold."""

    def __init__(self) -> None:
        self._cancels: dict[str, asyncio.Event] = {}
        self._dirty: set[str] = set()
        self._changed = asyncio.Event()
        self.when_released: Callable[[str], None] | None = None
        """Called with the id of a job to whose container something happened while it was held."""

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._cancels

    def __len__(self) -> int:
        return len(self._cancels)

    @contextmanager
    def hold(self, job_id: str) -> Iterator[asyncio.Event]:
        """Hold a job; the event is set when its cancelling is asked for."""
        if job_id in self._cancels:
            raise RuntimeError(f"job {job_id} is held already")
        cancel = self._cancels[job_id] = asyncio.Event()
        try:
            yield cancel
        finally:
            del self._cancels[job_id]
            self._changed.set()
            if job_id in self._dirty:
                self._dirty.discard(job_id)
                if self.when_released is not None:
                    self.when_released(job_id)

    def cancel(self, job_id: str) -> bool:
        """Ask the holder of a job to end it; False when nobody holds it."""
        if (cancel := self._cancels.get(job_id)) is None:
            return False
        cancel.set()
        return True

    def mark_dirty(self, job_id: str) -> None:
        """Have a held job looked at once it is released."""
        self._dirty.add(job_id)

    async def changed(self, timeout: float) -> None:
        """Wait until a job is released, or for `timeout` seconds."""
        self._changed.clear()
        try:
            async with asyncio.timeout(timeout):
                await self._changed.wait()
        except TimeoutError:
            return
