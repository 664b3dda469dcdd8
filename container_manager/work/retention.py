"""Removes what has had its time: ended containers first, then the records of jobs.

A job's record stays as long as its container is there. Were it dropped before, the container would
bring the job back by its labels.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog

from container_manager.engine.docker import Engine
from container_manager.engine.errors import EngineError, EngineUnavailable
from container_manager.errors import ApplicationError
from container_manager.job import Job
from container_manager.work.ledger import Ledger
from container_manager.work.outcomes import Outcomes

PERIOD = 60.0
"""Seconds between two looks at the records, and until what failed is tried again."""
CONTAINERS_AT_A_TIME = 100
RECORDS_AT_A_TIME = 500
"""Rows that are dropped in one commit: others wait for it."""

log = structlog.get_logger()


class Retention:
    """The one task that cleans up behind finished jobs."""

    def __init__(
        self, ledger: Ledger, engine: Engine, outcomes: Outcomes, *, age: float, jobs: int
    ) -> None:
        """Keep what is done with for `age` seconds, and of that only the newest `jobs`."""
        self._ledger = ledger
        self._engine = engine
        self._outcomes = outcomes
        self._age = age
        self._jobs = jobs
        self._postponed: set[str] = set()
        self._something_due = asyncio.Event()
        ledger.when_removal_due = self._something_due.set

    async def run(self) -> None:
        """Clean up whenever something is due."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._remove_for_ever(), name="container-retention")
            group.create_task(self._forget_for_ever(), name="record-retention")

    # -- containers ----------------------------------------------------------------------------

    async def _remove_for_ever(self) -> None:
        while True:
            await self._engine.available()
            self._something_due.clear()
            pause = PERIOD
            try:
                await self._remove_due()
                left = await self._ledger.seconds_to_next_removal()
                pause = PERIOD if left is None else min(left, PERIOD)
            except EngineUnavailable:
                self._engine.doubt()
            except ApplicationError as error:
                log.warning("ended containers not removed", reason=error.message)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._something_due.wait()

    async def _remove_due(self) -> None:
        while True:
            found = await self._ledger.due_removals(CONTAINERS_AT_A_TIME + len(self._postponed))
            due = [job for job in found if job.id not in self._postponed]
            if not due:
                return
            for job in due:
                await self._remove(job)

    async def _remove(self, job: Job) -> None:
        container = job.container
        if container is None:
            return
        try:
            # Without force: somebody may have started it again in this moment.
            await self._engine.remove(container.id, force=False)
        except EngineUnavailable:
            raise
        except EngineError as error:
            log.warning("ended container not removed", job_id=job.id, reason=str(error))
            self._postponed.add(job.id)
            asyncio.get_running_loop().call_later(PERIOD, self._resume, job.id)
            return
        await self._outcomes.observe(job, container.removed(self._ledger.now()))

    def _resume(self, job_id: str) -> None:
        self._postponed.discard(job_id)
        self._something_due.set()

    # -- records -------------------------------------------------------------------------------

    async def _forget_for_ever(self) -> None:
        while True:
            try:
                await self._forget()
            except ApplicationError as error:
                log.warning("old jobs not dropped", reason=error.message)
            await asyncio.sleep(PERIOD)

    async def _forget(self) -> None:
        dropped = 0
        while number := await self._ledger.forget(
            age=self._age, most=self._jobs, limit=RECORDS_AT_A_TIME
        ):
            dropped += number
            await asyncio.sleep(0.05)  # whoever creates jobs meanwhile goes first
        if dropped:
            log.info("old jobs dropped", jobs=dropped)
