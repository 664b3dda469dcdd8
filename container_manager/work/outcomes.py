"""Carries out what was decided about a job: clean up at the engine, then commit what it means.

Cleaning up comes before the commit, so that a job which says `failed` has left nothing behind. A
crash in between does no harm: whoever takes the job up again finds nothing to clean up and comes
to the same end.

Each commit looks once more at the job as it is then. A step that finds it changed since the
decision (cancelled by a call, tried again) leaves it alone.
"""

from __future__ import annotations

import random

import structlog

from container_manager.engine.docker import STOP_GRACE, Engine
from container_manager.engine.errors import ContainerMissing, EngineRefused, EngineRejected
from container_manager.job import REMOVED, Container, Job, Status
from container_manager.work.judgement import Kind, Verdict, retry_delay
from container_manager.work.ledger import Ledger, Step

log = structlog.get_logger()


class Outcomes:
    """The ends that an attempt can come to."""

    def __init__(self, ledger: Ledger, engine: Engine) -> None:
        """Commit to `ledger` and clean up at `engine`."""
        self._ledger = ledger
        self._engine = engine
        self._rng = random.Random()  # noqa: S311 - spreads retries, guards nothing

    async def apply(self, job: Job, verdict: Verdict, container: Container) -> Job:
        """Do what the verdict says of a running job; gives the job as it is then."""
        now = self._ledger.now
        match verdict.kind:
            case Kind.WAIT:
                return await self.observe(job, container)
            case Kind.ATTEMPT_FAILED:
                return await self.attempt_failed(
                    job, verdict.reason, container, heals=True, counts=verdict.counts
                )
            case Kind.COMPLETE:
                step: Step = lambda j: j.completed(container, now())  # noqa: E731
            case Kind.FAILED:
                step = lambda j: j.failed(verdict.reason, container, now())  # noqa: E731
            case Kind.LOST:
                step = lambda j: j.lost(container, now())  # noqa: E731
        output = await self._output(container) if container.ended else None
        return await self._conclude(job, step, output)

    async def observe(self, job: Job, container: Container) -> Job:
        """Note what the engine says of a job's container, where that is new."""

        def step(current: Job) -> Job:
            known = current.container
            if known is None or known.id != container.id or container.same_as(known):
                return current
            return current.observed(container, self._ledger.now())

        # Most looks find what is known already, and need no write to learn it.
        if step(job) is job:
            return job
        known = job.container
        ended = container.ended and not (known is not None and known.ended)
        output = await self._output(container) if ended else None
        return await self._ledger.change(job.id, step, output)

    async def attempt_failed(
        self,
        job: Job,
        reason: str,
        container: Container | None,
        *,
        heals: bool,
        counts: bool = True,
        pause: float = 0.0,
    ) -> Job:
        """Clean up after an attempt, and have the job tried again where that may help.

        Args:
            job: the running job.
            reason: what went wrong, for people.
            container: what the attempt has made, if anything.
            heals: whether trying again may help at all.
            counts: whether the attempt counts against `retry.max_attempts`.
            pause: seconds before which trying again is of no use.
        """
        output = await self._output(container)
        ended_batch = job.spec.type == "batch" and container is not None and container.ended
        if container is not None and not ended_batch:
            container = await self._remove(container)

        def step(current: Job) -> Job:
            now, retry = self._ledger.now(), current.spec.retry
            failures = current.failures + counts
            if not heals or failures >= retry.max_attempts:
                return current.failed(reason, container, now)
            delay = max(retry_delay(retry, max(failures, 1), self._rng), pause)
            due_at = now + int(delay * 1e6)
            return current.retrying(reason, container, now, due_at, counts=counts)

        return await self._conclude(job, step, output)

    async def cancel(self, job: Job, container: Container | None) -> Job:
        """End what runs for a job whose cancelling was asked for, and say so.

        A batch container that has been running is stopped and kept, with its exit code and its
        logs; everything else is removed.
        """
        kept = (
            job.spec.type == "batch" and container is not None and container.started_at is not None
        )
        if container is not None and kept:
            container = await self._stop(job, container)
        output = await self._output(container)
        if container is not None and not kept:
            container = await self._remove(container)

        def step(current: Job) -> Job:
            if not current.cancel_requested or current.status is not Status.RUNNING:
                return current
            return current.cancelled(container, self._ledger.now())

        return self._logged(await self._ledger.change(job.id, step, output))

    async def time_out(self, job: Job) -> None:
        """Stop the container of a batch job that has run past its `run_timeout`.

        That this is why it ends is on disk before it is stopped; how it ended is for the next look.
        """
        job = await self._conclude(job, lambda j: j.timing_out(self._ledger.now()))
        if job.timed_out and job.container is not None:
            await self._stop(job, job.container)

    async def _conclude(self, job: Job, step: Step, output: list[str] | None = None) -> Job:
        def guarded(current: Job) -> Job:
            same = current.status is Status.RUNNING and current.attempts == job.attempts
            return step(current) if same and not current.cancel_requested else current

        return self._logged(await self._ledger.change(job.id, guarded, output))

    def _logged(self, job: Job) -> Job:
        if job.status is not Status.RUNNING:
            log.info("job " + job.status, job_id=job.id, attempt=job.attempts, reason=job.reason)
        return job

    async def _remove(self, container: Container) -> Container:
        try:
            await self._engine.remove(container.id)
        except (EngineRefused, EngineRejected) as error:
            # A container that cannot be removed now (a busy mount) is left to the periodic look;
            # the job itself must not hang on it.
            log.warning("container not removed", container=container.id, reason=str(error))
            return container
        return container.removed(self._ledger.now())

    async def _output(self, container: Container | None) -> list[str] | None:
        """The last lines that a container which has been running has written."""
        if container is None or container.started_at is None or container.state == REMOVED:
            return None
        try:
            return await self._engine.last_output(container.id)
        except (EngineRefused, EngineRejected, ContainerMissing) as error:
            # Gone meanwhile, or its log driver keeps nothing: that is no reason to hold up a job.
            log.debug("no output kept", container=container.id, reason=str(error))
            return None

    async def _stop(self, job: Job, container: Container) -> Container:
        try:
            await self._engine.stop(container.id, job.spec.stop_timeout or STOP_GRACE)
            return (await self._engine.inspect(container.id)).container
        except ContainerMissing:
            return container.removed(self._ledger.now())
