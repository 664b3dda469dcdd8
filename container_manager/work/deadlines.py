"""The moments at which something is decided about a running job though nothing happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from container_manager.job import Container, Job

NEVER = float("inf")


@dataclass(slots=True)
class Moments:
    """The deadlines of one job, by the event loop's clock."""

    settled: float
    """A service that still runs is up."""
    overdue: float
    """The attempt at a service has used up its `deploy_timeout`."""
    timed_out: float
    """A batch container has run for its `run_timeout`."""
    started_at: int | None = None
    """The container's start that the settle time counts from."""
    timers: list[asyncio.TimerHandle] = field(default_factory=list)


class Deadlines:
    """The deadlines of all jobs whose containers were started."""

    def __init__(self, touch: Callable[[str], None], now: Callable[[], int], settle: float) -> None:
        """Have a job looked at by `touch` at each of its moments.

        Args:
            touch: called with the job's id.
            now: the time in microseconds since 1970, UTC.
            settle: seconds that a service has to keep running before it counts as up.
        """
        self._touch = touch
        self._now = now
        self._settle = settle
        self._loop = asyncio.get_running_loop()
        self._moments: dict[str, Moments] = {}

    def set(self, job: Job) -> Moments:
        """Set the moments of a job.

        The settle time counts from now: at a new start of this process a container proves itself
        once more. The others count from what this process may not have seen: the attempt's begin
        and the container's start.
        """
        now = self._loop.time()
        if job.spec.type == "service":
            left = job.deploy_seconds_left(self._now())
            moments = Moments(now + self._settle, now + left, NEVER)
        else:
            left = job.spec.run_timeout or NEVER
            if job.container is not None and job.container.started_at is not None:
                ran = (self._now() - job.container.started_at) / 1e6
                # Whatever the clocks say, it is neither more than all of it nor less than nothing.
                left = min(max(left - ran, 0.0), left)
            moments = Moments(NEVER, NEVER, now + left)
        if job.container is not None:
            moments.started_at = job.container.started_at
        self.forget(job.id)
        self._moments[job.id] = moments
        for moment in (moments.settled, moments.overdue, moments.timed_out):
            self._call_at(job.id, moments, moment)
        return moments

    def of(self, job: Job, container: Container) -> Moments:
        """The moments of a job whose container is now seen like this.

        A container that was started again, by its engine or by somebody, begins to settle anew.
        """
        moments = self._moments.get(job.id) or self.set(job)
        if container.started_at != moments.started_at and moments.settled != NEVER:
            moments.started_at = container.started_at
            moments.settled = self._loop.time() + self._settle
            self._call_at(job.id, moments, moments.settled)
        return moments

    def forget(self, job_id: str) -> None:
        """Let nothing more be decided about a job."""
        if (moments := self._moments.pop(job_id, None)) is not None:
            for timer in moments.timers:
                timer.cancel()

    def _call_at(self, job_id: str, moments: Moments, moment: float) -> None:
        if moment != NEVER:
            moments.timers.append(self._loop.call_at(moment, self._touch, job_id))
