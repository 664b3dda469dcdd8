"""Follows what was deployed: looks when something may have happened, and decides by what it sees.

Level-triggered: a hint (an event, a timer, a call, the periodic look) only says which job to look
at, and any number of hints before the look are one. A look asks the engine, judges, and commits;
it is the same look whatever it was that called for it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from functools import partial

import structlog

from container_manager.engine.answers import Listed
from container_manager.engine.docker import Engine
from container_manager.engine.errors import ContainerMissing, EngineError, EngineUnavailable
from container_manager.errors import ApplicationError
from container_manager.job import LIVE_STATES, Job, Status
from container_manager.store.directory import DataDirectory
from container_manager.work.active import ActiveJobs
from container_manager.work.deadlines import Deadlines
from container_manager.work.judgement import judge
from container_manager.work.ledger import Ledger
from container_manager.work.outcomes import Outcomes
from container_manager.work.recovery import recover, stray

PERIOD = 30.0
"""Seconds between two looks at everything: the backstop for hints that never came."""
LOOKERS = 8
"""Jobs that are looked at at the same time."""
BREATH = 50
"""Jobs that are compared before the event loop has its turn."""

# Events that come with no change of a container's state; docker's own list has them all.
_TELLING_NOTHING = ("attach", "create", "exec_", "resize", "top")

log = structlog.get_logger()


class Tracker:
    """Watches the containers of started jobs, each until nothing more can come of it."""

    def __init__(
        self,
        ledger: Ledger,
        engine: Engine,
        outcomes: Outcomes,
        active: ActiveJobs,
        *,
        node: str,
        directory: DataDirectory,
        settle: float,
    ) -> None:
        """Follow jobs of `ledger` at `engine`.

        Args:
            ledger: where the jobs are.
            engine: where their containers are.
            outcomes: carries out what is decided.
            active: the jobs that are in a worker's hands, which are not ours to touch.
            node: this node's id.
            directory: where it keeps its data, and whether it is new there.
            settle: seconds that a service has to keep running before it counts as up.
        """
        self._ledger = ledger
        self._engine = engine
        self._outcomes = outcomes
        self._active = active
        self._node = node
        self._directory = directory
        self._loop = asyncio.get_running_loop()
        self._due: dict[str, bool] = {}
        self._something_due = asyncio.Event()
        self._looking: set[str] = set()
        self._deadlines = Deadlines(self.touch, ledger.now, settle)
        self._ending: dict[str, asyncio.Task[None]] = {}
        self._was_connected = False
        active.when_released = self.touch

    async def run(self) -> None:
        """Look whenever there is a reason to, and at everything from time to time."""
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(LOOKERS):
                    group.create_task(self._look_for_ever(), name=f"looker-{number}")
                group.create_task(self._look_periodically(), name="periodic-look")
        finally:
            for task in self._ending.values():
                task.cancel()
            await asyncio.gather(*self._ending.values(), return_exceptions=True)

    # -- reasons to look -----------------------------------------------------------------------

    def touch(self, job_id: str, *, after_outage: bool = False) -> None:
        """Have a job looked at soon."""
        self._due[job_id] = self._due.get(job_id, False) or after_outage
        self._something_due.set()

    def hint(self, job_id: str, action: str) -> None:
        """The engine says that something happened to the container of a job."""
        if action.startswith(_TELLING_NOTHING):
            return
        if job_id in self._active:
            # A worker looks after its own start by itself.
            if action != "start":
                self._active.mark_dirty(job_id)
            return
        # A look under way may have seen it as it was before.
        if action == "start" and job_id not in self._looking:
            job = self._ledger.find(job_id)
            if job is None or job.container is None or job.container.state == "running":
                return  # our own start, told late
        self.touch(job_id)

    def follow(self, job: Job) -> None:
        """Follow a job whose container was just started, until it is up, ended or overdue."""
        if job.status is Status.RUNNING:
            self._deadlines.set(job)
            if job.cancel_requested:
                self.touch(job.id)

    async def cancel(self, job_id: str) -> Job:
        """Cancel a job: at once if it waits, else as soon as what runs for it has ended.

        Raises:
            JobNotFound: there is none of this id.
            Conflict: it has ended already.
        """
        job = await self._ledger.change(job_id, lambda j: j.cancelling(self._ledger.now()))
        if job.status is Status.RUNNING and not self._active.cancel(job.id):
            self.touch(job.id)
        return job

    async def look_at_everything(self) -> None:
        """Compare all containers of jobs with what is recorded, and look at what may differ.

        Called by the watcher on each new connection. Nobody has listened before it, so that a
        container which runs may have been started again since, with other ports.
        """
        outage, self._was_connected = self._was_connected, True
        await self._compare(await self._engine.list_jobs(), after_outage=outage, unheard=True)

    # -- looking -------------------------------------------------------------------------------

    async def _look_periodically(self) -> None:
        while True:
            await asyncio.sleep(PERIOD)
            if self._engine.unavailable is not None:
                continue  # the watcher looks when it is back
            try:
                await self._compare(
                    await self._engine.list_jobs(), after_outage=False, unheard=False
                )
            except (EngineError, ApplicationError) as error:
                log.warning("periodic look failed", reason=str(error))
                self._engine.doubt()

    async def _compare(
        self, listed: Sequence[Listed], *, after_outage: bool, unheard: bool
    ) -> None:
        by_job: defaultdict[str, list[Listed]] = defaultdict(list)
        for one in listed:
            by_job[one.job_id].append(one)
        for job_id in await self._ledger.followed_ids():
            if job_id not in by_job:
                self.touch(job_id, after_outage=after_outage)
        all_dealt_with = True
        for number, (job_id, containers) in enumerate(by_job.items()):
            if number % BREATH == 0:
                await asyncio.sleep(0)  # thousands of ended containers must not hold up the loop
            if job_id not in self._active:
                all_dealt_with &= await self._compare_job(
                    job_id, containers, after_outage=after_outage, unheard=unheard
                )
        if all_dealt_with:
            self._directory.set_known()

    async def _compare_job(
        self, job_id: str, containers: Sequence[Listed], *, after_outage: bool, unheard: bool
    ) -> bool:
        """Compare a job with its containers; False where one could not be dealt with.

        One that cannot is no reason to leave out the others.
        """
        try:
            for one in containers:
                await self._compare_one(job_id, one, after_outage=after_outage, unheard=unheard)
        except EngineUnavailable:
            raise
        except (EngineError, ApplicationError) as error:
            log.warning("container left for later", job_id=job_id, reason=str(error))
            return False
        return True

    async def _compare_one(
        self, job_id: str, one: Listed, *, after_outage: bool, unheard: bool
    ) -> None:
        if (job := self._ledger.find(job_id)) is None:
            await self._recover(one)
            return
        if stray(job, one):
            await self._engine.remove(one.id)
            log.info("stray container removed", job_id=job.id, container=one.id)
        known = job.container
        if known is None or known.id != one.id:
            return
        restarted = unheard and one.state in LIVE_STATES
        if known.state != one.state or restarted or job.status is Status.RUNNING:
            self.touch(job.id, after_outage=after_outage)

    async def _recover(self, listed: Listed) -> None:
        """Bring back the job of a container that was deployed from here, if the job is gone."""
        ours = listed.node == self._node or (
            self._directory.is_new and listed.home == self._directory.home
        )
        if not ours:
            return
        try:
            found = await self._engine.inspect(listed.id)
        except ContainerMissing:
            return
        job = recover(found, node=self._node, now=self._ledger.now())
        if job is not None and await self._ledger.restore(job):
            log.warning("job brought back from its container's labels", job_id=job.id)
            self.touch(job.id)

    async def _look_for_ever(self) -> None:
        while True:
            while (job_id := self._next_due()) is None:
                self._something_due.clear()
                await self._something_due.wait()
            after_outage = self._due.pop(job_id)
            self._looking.add(job_id)
            try:
                await self._look(job_id, after_outage=after_outage)
            except EngineUnavailable:
                self._engine.doubt()
                self._loop.call_later(1.0, partial(self.touch, job_id, after_outage=after_outage))
            except (EngineError, ApplicationError) as error:
                log.warning("look failed", job_id=job_id, reason=str(error))
                self._loop.call_later(1.0, self.touch, job_id)
            except Exception:
                log.exception("look broke", job_id=job_id)
            finally:
                self._looking.discard(job_id)
                self._something_due.set()

    def _next_due(self) -> str | None:
        return next((job_id for job_id in self._due if job_id not in self._looking), None)

    async def _look(self, job_id: str, *, after_outage: bool) -> None:
        job = self._ledger.find(job_id)
        if job is None or job.container is None or job.needs_worker or job_id in self._active:
            return
        try:
            container = (await self._engine.inspect(job.container.id)).container
        except ContainerMissing:
            container = job.container.removed(self._ledger.now())
        if job.status is not Status.RUNNING:
            await self._outcomes.observe(job, container)
            return
        deadlines = self._deadlines.of(job, container)
        now = self._loop.time()
        if job.cancel_requested:
            self._end(job)
            return
        verdict = judge(
            job,
            container,
            settled=now >= deadlines.settled,
            overdue=now >= deadlines.overdue,
            after_outage=after_outage,
        )
        job = await self._outcomes.apply(job, verdict, container)
        if job.status is not Status.RUNNING:
            self._deadlines.forget(job_id)
        elif job.cancel_requested or (now >= deadlines.timed_out and container.live):
            self._end(job)

    # -- ending --------------------------------------------------------------------------------

    def _end(self, job: Job) -> None:
        """End a job's container, in a task of its own: a container may take its time to stop."""
        if job.id not in self._ending:
            task = asyncio.create_task(self._end_now(job), name=f"ending-{job.id}")
            self._ending[job.id] = task

    async def _end_now(self, job: Job) -> None:
        try:
            if job.cancel_requested:
                ended = await self._outcomes.cancel(job, job.container)
                if ended.status is not Status.RUNNING:
                    self._deadlines.forget(job.id)
            else:
                await self._outcomes.time_out(job)
            self.touch(job.id)
        except (EngineError, ApplicationError) as error:
            log.warning("container not ended", job_id=job.id, reason=str(error))
            self._loop.call_later(1.0, self.touch, job.id)
        finally:
            del self._ending[job.id]
