"""The workers: each job whose turn it is gets a slot, and is carried through in its own task."""

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
from container_manager.work.slots import Slot, Slots
from container_manager.work.tracker import Tracker

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 5.0
STORAGE_PAUSE = 1.0
"""Seconds before a job is taken up again whose store could not be written."""

log = structlog.get_logger()


class Workers:
    """Deploys what waits. A job is in the hands of one worker at most."""

    def __init__(
        self,
        deployer: Deployer,
        queue: JobQueue,
        slots: Slots,
        tracker: Tracker,
        active: ActiveJobs,
    ) -> None:
        """Have what is in `queue` deployed, `slots` at a time, and `tracker` follow it."""
        self._deployer = deployer
        self._queue = queue
        self._slots = slots
        self._tracker = tracker
        self._active = active
        self._tasks: dict[asyncio.Task[None], Slot] = {}
        self._closing = False
        self.deployments = 0
        """Attempts carried out since the start."""
        self.deployment_seconds = 0.0
        """The time they took together."""

    async def run(self) -> None:
        """Work until `drain` is called."""
        engine = self._deployer.engine
        async with asyncio.TaskGroup() as group:
            while True:
                await engine.available()
                await self._queue.ready()
                slot = await self._slots.take()
                if self._closing:
                    return
                if engine.unavailable or (job_id := self._queue.take()) is None:
                    slot.free()  # things have changed while there was none
                    continue
                task = group.create_task(self._work(job_id, slot), name=f"worker-{job_id}")
                self._tasks[task] = slot
                task.add_done_callback(self._tasks.pop)

    async def drain(self, grace: float) -> None:
        """Take no more jobs, and let those in hand finish for up to `grace` seconds.

        What is unfinished then stays as it is on disk and goes on at the next start. So does at
        once what waits for an image.
        """
        self._closing = True
        for task, slot in self._tasks.items():
            if not slot.held:
                task.cancel()
        deadline = asyncio.get_running_loop().time() + grace
        while self._tasks and (left := deadline - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(self._tasks, timeout=left)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _work(self, job_id: str, slot: Slot) -> None:
        if job_id in self._active:
            # Due again before its last holder has let go of it.
            slot.free()
            self._queue.add(job_id, FIRST_PAUSE)
            return
        begun = time.monotonic()
        try:
            with self._active.hold(job_id) as cancel:
                job = await self._deploy(job_id, slot, cancel)
        except (Conflict, JobNotFound):
            return  # cancelled, or otherwise done with, while it waited
        except StorageUnavailable as error:
            log.error("job store not writable", job_id=job_id, reason=error.message)
            self._queue.add(job_id, STORAGE_PAUSE)
        except Exception:
            # A defect of this program must not end the others, nor be tried for ever.
            log.exception("deployment broke", job_id=job_id)
            await self._give_up(job_id)
        else:
            # After the hold: the tracker leaves alone what is in a worker's hands.
            self._tracker.follow(job)
        finally:
            slot.free()
            self.deployments += 1
            self.deployment_seconds += time.monotonic() - begun

    async def _deploy(self, job_id: str, slot: Slot, cancel: asyncio.Event) -> Job:
        deployer = self._deployer
        ledger = deployer.ledger
        resumed = ledger.get(job_id).status is Status.RUNNING
        job = await ledger.change(job_id, lambda j: j.claimed(ledger.now()))
        after_outage = False
        pause = FIRST_PAUSE
        while True:
            try:
                job = await deployer.attempt(
                    job, slot, cancel, resumed=resumed, after_outage=after_outage
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
            slot.free()  # an end of the daemon need not wait for who waits for the engine
            deployer.engine.doubt()
            # An engine that answers, and yet breaks off this call each time, is not to be hurried.
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
            await deployer.engine.available()
            await slot.take_again()
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
