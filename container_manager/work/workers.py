"""The workers: so many deployments at a time, each taken from the queue and carried through."""

from __future__ import annotations

import asyncio
import time

import structlog

from container_manager.engine.errors import EngineError
from container_manager.errors import ApplicationError, Conflict, JobNotFound, StorageUnavailable
from container_manager.job import Job, Status
from container_manager.work.active import ActiveJobs
from container_manager.work.attempt import Deployer
from container_manager.work.queue import JobQueue
from container_manager.work.tracker import Tracker

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 5.0
STORAGE_PAUSE = 1.0
"""Seconds before a job is taken up again whose store could not be written."""

log = structlog.get_logger()


class Workers:
    """A bounded pool of workers. A job is in the hands of one of them at most."""

    def __init__(
        self, deployer: Deployer, queue: JobQueue, tracker: Tracker, active: ActiveJobs, count: int
    ) -> None:
        """Have `count` workers deploy what is in `queue`, and `tracker` follow what they made."""
        self._deployer = deployer
        self._queue = queue
        self._tracker = tracker
        self._active = active
        self._count = count
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self.deployments = 0
        """Attempts carried out since the start."""
        self.deployment_seconds = 0.0
        """The time they took together."""

    @property
    def count(self) -> int:
        """How many deploy at a time."""
        return self._count

    async def run(self) -> None:
        """Work until `drain` is called."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._count):
                task = group.create_task(self._work(), name=f"worker-{number}")
                self._tasks.add(task)

    async def drain(self, grace: float) -> None:
        """Take no more jobs, and let those in hand finish for up to `grace` seconds.

        What is unfinished then stays as it is on disk and goes on at the next start.
        """
        self._closing = True
        deadline = asyncio.get_running_loop().time() + grace
        while self._active and (left := deadline - asyncio.get_running_loop().time()) > 0:
            await self._active.changed(left)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _work(self) -> None:
        engine = self._deployer.engine
        while True:
            await engine.available()
            job_id = await self._queue.take()
            if self._closing:
                return
            if job_id in self._active:
                # Due again before its last holder has let go of it.
                self._queue.add(job_id, FIRST_PAUSE)
                continue
            with self._active.hold(job_id) as cancel:
                begun = time.monotonic()
                try:
                    job = await self._deploy(job_id, cancel)
                except (Conflict, JobNotFound):
                    continue  # cancelled, or otherwise done with, while it waited
                except StorageUnavailable as error:
                    log.error("job store not writable", job_id=job_id, reason=error.message)
                    self._queue.add(job_id, STORAGE_PAUSE)
                    continue
                except Exception:
                    # A defect of this program must not end a worker, nor be tried for ever.
                    log.exception("deployment broke", job_id=job_id)
                    await self._give_up(job_id)
                    continue
                finally:
                    self.deployments += 1
                    self.deployment_seconds += time.monotonic() - begun
            # After the hold: the tracker leaves alone what is in a worker's hands.
            self._tracker.follow(job)

    async def _deploy(self, job_id: str, cancel: asyncio.Event) -> Job:
        deployer = self._deployer
        ledger = deployer.ledger
        resumed = ledger.get(job_id).status is Status.RUNNING
        job = await ledger.change(job_id, lambda j: j.claimed(ledger.now()))
        after_outage = False
        pause = FIRST_PAUSE
        while True:
            try:
                job = await deployer.attempt(
                    job, cancel, resumed=resumed, after_outage=after_outage
                )
                if job.status is not Status.RUNNING or job.followed:
                    return job
                # Its cancelling came while the outcome was on its way: once more, to end it.
                resumed = True
                continue
            except EngineError as error:
                # Unavailable, or refusing to clean up: what the attempt itself fails of never gets
                # here. Either way the same attempt is taken up again.
                log.warning("deployment interrupted", job_id=job_id, reason=str(error))
            deployer.engine.doubt()
            # An engine that answers, and yet breaks off this call each time, is not to be hurried.
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
            await deployer.engine.available()
            resumed = after_outage = True
            job = ledger.get(job_id)

    async def _give_up(self, job_id: str) -> None:
        ledger = self._deployer.ledger
        reason = "internal error; the node's log has the details"
        try:
            await ledger.change(
                job_id,
                lambda j: (
                    j.failed(reason, j.container, ledger.now()) if j.status is Status.RUNNING else j
                ),
            )
        except ApplicationError as error:
            log.error("job not failed", job_id=job_id, reason=error.message)
            self._queue.add(job_id, STORAGE_PAUSE)
