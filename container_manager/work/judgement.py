"""What follows from what the engine says of a job's container. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum, auto

from container_manager.job import REMOVED, Container, Job
from container_manager.spec import Retry

MAX_RESTARTS = 5
"""Restarts by the engine's own restart policy that a service may need until it is up."""


class Kind(Enum):
    """What is to be done about a job."""

    WAIT = auto()
    """Nothing yet: note what was seen and look again when something happens."""
    COMPLETE = auto()
    ATTEMPT_FAILED = auto()
    """Clean up and try again, up to the limit."""
    FAILED = auto()
    """It has failed for good."""
    LOST = auto()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done about a job, and the words for it."""

    kind: Kind
    reason: str = ""
    counts: bool = True
    """Whether a failed attempt counts against `retry.max_attempts`."""


WAIT = Verdict(Kind.WAIT)


def judge(
    job: Job,
    container: Container,
    *,
    settled: bool,
    overdue: bool = False,
    after_outage: bool = False,
) -> Verdict:
    """Decide about a running job whose container was started.

    Args:
        job: the job, as the store has it.
        container: what the engine says now; state `removed` when it knows the container no more.
        settled: whether the settle time has passed since the newest start.
        overdue: whether the attempt has used up its `deploy_timeout`.
        after_outage: whether the engine was away since the last look, so that a container which
            has ended meanwhile has probably ended with the engine.
    """
    if job.spec.type == "batch":
        return _judge_batch(job, container)
    return _judge_service(container, settled, overdue, after_outage)


def _judge_batch(job: Job, container: Container) -> Verdict:
    timed_out = (
        f"timed out: stopped after running for {job.spec.run_timeout:g} s"
        if (job.timed_out and job.spec.run_timeout)
        else None
    )
    if container.state == REMOVED:
        return Verdict(Kind.FAILED, timed_out) if timed_out else Verdict(Kind.LOST)
    if not container.ended:
        return WAIT
    if timed_out:
        return Verdict(Kind.FAILED, timed_out)
    if container.exit_code == 0:
        return Verdict(Kind.COMPLETE)
    kind = Kind.ATTEMPT_FAILED if job.spec.retry.on_exit else Kind.FAILED
    return Verdict(kind, exit_words(container))


def _judge_service(
    container: Container, settled: bool, overdue: bool, after_outage: bool
) -> Verdict:
    if container.state == REMOVED:
        return Verdict(Kind.ATTEMPT_FAILED, "the container was removed while it was verified")
    if container.ended:
        if after_outage:
            return Verdict(Kind.ATTEMPT_FAILED, "the container ended with the engine", counts=False)
        hint = '; for a command that ends by itself use "type": "batch"'
        when = (
            f", restarted {_times(container.restarts)} before" if container.restarts else " at once"
        )
        return Verdict(
            Kind.ATTEMPT_FAILED,
            f"the container {exit_words(container)}{when}"
            + (hint if container.exit_code == 0 else ""),
        )
    if container.health == "unhealthy":
        said = f": {container.health_output}" if container.health_output else ""
        return Verdict(Kind.ATTEMPT_FAILED, f"the container is unhealthy{said}")
    up = container.state == "running" and settled and container.health in (None, "healthy")
    if up:
        return Verdict(Kind.COMPLETE)
    if container.restarts >= MAX_RESTARTS:
        last = "" if container.exit_code is None else f"; it last {exit_words(container)}"
        words = f"the container keeps ending: restarted {_times(container.restarts)}{last}"
        return Verdict(Kind.ATTEMPT_FAILED, words)
    if overdue:
        return Verdict(Kind.ATTEMPT_FAILED, "the container was not up within deploy_timeout")
    return WAIT


def exit_words(container: Container) -> str:
    """How a container has ended, in words: "exited with code 137 (SIGKILL, out of memory)"."""
    code = container.exit_code or 0
    notes = [] if container.signal is None else [container.signal]
    if container.oom_killed:
        notes.append("out of memory")
    if container.error:
        notes.append(container.error)
    return f"exited with code {code}" + (f" ({', '.join(notes)})" if notes else "")


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def retry_delay(retry: Retry, failures: int, rng: random.Random) -> float:
    """Seconds before the attempt that follows so many failures: doubled each time, with jitter.

    The jitter takes up to half of the time away, so that jobs which failed together do not come
    back together.
    """
    # 2 ** 40 seconds is beyond every limit that a spec can set; more would only overflow.
    longest = min(retry.backoff * 2.0 ** min(failures - 1, 40), retry.max_backoff)
    return longest * rng.uniform(0.5, 1.0)
