"""A job: one container to deploy, its status and its history. Pure.

A job's *status* says how the job stands; its *container* is what the engine last said. They are
different things: a service job that was deployed stays `complete` when its container dies later,
and its container says `exited`.

    pending ──► running ──► complete
       ▲  │      │  │  └──► failed ──┐
       │  │      │  ├─────► lost ────┤  Retry
       │  └──────┼──┴─────► cancelled┤
       └─────────┴───────────────────┘
        tried again

Each step is a method that returns the job as it is afterwards, or refuses. Times are microseconds
since 1970 in UTC. Nothing here looks at a clock, a disk or an engine.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Self

from container_manager.errors import Conflict
from container_manager.spec import LABEL_PREFIX, Spec

BATCH_KEEP = 24 * 3600.0
"""Seconds that the container of a batch job stays when it has ended, unless its spec says so."""
HISTORY_LENGTH = 32
"""Entries that a history keeps: the first one and the newest ones."""


class Status(StrEnum):
    """How the job stands."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"

    @property
    def final(self) -> bool:
        """Whether nothing more happens to the job by itself."""
        return self not in (Status.PENDING, Status.RUNNING)


class Phase(StrEnum):
    """What is being done about a running job."""

    PLACING = "placing"
    PULLING = "pulling"
    CREATING = "creating"
    STARTING = "starting"
    VERIFYING = "verifying"
    """The container was started and has to prove itself; no worker is held."""
    RUNNING = "running"
    """The container of a batch job runs; no worker is held."""


# The phases in which a job waits for its container rather than for a worker.
FOLLOWED_PHASES = frozenset({Phase.VERIFYING, Phase.RUNNING})
# The states of a container that can still change by themselves, in the engine's own words.
LIVE_STATES = frozenset({"created", "running", "paused", "restarting", "removing"})
ENDED_STATES = frozenset({"exited", "dead"})
REMOVED = "removed"
"""The state of a container that the engine no longer knows. The other states are the engine's."""

TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.RUNNING, Status.FAILED, Status.CANCELLED}),
    Status.RUNNING: frozenset(Status),
    Status.COMPLETE: frozenset(),
    Status.FAILED: frozenset({Status.PENDING}),
    Status.CANCELLED: frozenset({Status.PENDING}),
    Status.LOST: frozenset({Status.PENDING}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A port of the engine's host that leads to a container."""

    container_port: int
    protocol: str
    """tcp, udp or sctp."""
    host_ip: str
    host_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """What the engine last said of a container."""

    id: str
    name: str
    state: str
    """As the engine says it: created, running, paused, restarting, exited, dead; or `removed`."""
    exit_code: int | None = None
    oom_killed: bool = False
    health: str | None = None
    """starting, healthy or unhealthy; None without a health check."""
    health_output: str | None = None
    """What the last probe said, where it is unhealthy."""
    restarts: int = 0
    """How often the engine has started it again by its restart policy."""
    ports: tuple[Port, ...] = ()
    """What leads to it, while it runs."""
    error: str | None = None
    """The engine's own words on why the container did not start."""
    started_at: int | None = None
    """None until it was started for the first time."""
    finished_at: int | None = None
    seen_at: int

    @property
    def live(self) -> bool:
        """Whether its state can still change by itself."""
        return self.state in LIVE_STATES

    def same_as(self, other: Container | None) -> bool:
        """Whether both say the same, whenever they were seen."""
        return other is not None and replace(other, seen_at=self.seen_at) == self

    def removed(self, now: int) -> Container:
        """This container, gone from its engine."""
        return replace(self, state=REMOVED, health=None, ports=(), seen_at=now)

    @property
    def signal(self) -> str | None:
        """The name of the signal that has ended it, as far as its exit code tells."""
        return signal_name(self.exit_code)

    @property
    def ended(self) -> bool:
        """Whether it has run, and runs no more by itself."""
        return self.state in ENDED_STATES


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a job's history."""

    at: int
    status: Status
    phase: Phase | None
    reason: str | None
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One container to deploy. Its `node` is its owner and the only writer of this record."""

    id: str
    """A UUIDv7 (RFC 9562), so that ids sort by the time of their making."""
    node: str
    epoch: int = 1
    """How often ownership has moved, from 1."""
    revision: int = 1
    """How often the record has changed, from 1."""
    spec: Spec
    """Without its environment, which is only in `sealed_env`."""
    sealed_env: bytes | None = None
    status: Status = Status.PENDING
    phase: Phase | None = None
    reason: str | None = None
    attempts: int = 0
    """Deployments begun. The container of each carries its number."""
    failures: int = 0
    """Deployments that count against `retry.max_attempts`; one cut short by the engine does not."""
    due_at: int | None = None
    """Pending: not to be tried before."""
    cancel_requested: bool = False
    timed_out: bool = False
    """The container of a batch job is being stopped for having run past its `run_timeout`."""
    container: Container | None = None
    created_at: int
    updated_at: int
    history: tuple[Entry, ...] = ()

    @classmethod
    def new(cls, *, id: str, node: str, spec: Spec, sealed_env: bytes | None, now: int) -> Job:  # noqa: A002
        """A job as it stands when it is accepted."""
        return cls(
            id=id,
            node=node,
            spec=spec,
            sealed_env=sealed_env,
            created_at=now,
            updated_at=now,
            history=(Entry(now, Status.PENDING, None, None, 0),),
        )

    # -- what can be read off it ---------------------------------------------------------------

    @property
    def container_name(self) -> str:
        """The name that its container gets: from the spec, else from the id's random digits."""
        return container_name(self.spec.name, self.id)

    @property
    def followed(self) -> bool:
        """Whether its container has to be watched for the job or its record to go on."""
        if self.status is Status.RUNNING:
            return self.phase in FOLLOWED_PHASES
        return self.status.final and self.container is not None and self.container.state != REMOVED

    @property
    def done(self) -> bool:
        """Whether nothing is left of it but its record."""
        return self.status.final and not self.followed

    @property
    def removal_due(self) -> int | None:
        """When its container, having ended, is to be removed; None where it is not.

        It counts from when the end was seen, by this node's own clock.
        """
        container, keep = self.container, _keep_seconds(self.spec)
        if not self.status.final or container is None or not container.ended or keep is None:
            return None
        return self.updated_at + int(keep * 1e6)

    @property
    def needs_worker(self) -> bool:
        """Whether a worker has to take it up, for the first time or after a break."""
        return self.status is Status.PENDING or (
            self.status is Status.RUNNING and self.phase not in FOLLOWED_PHASES
        )

    def deploy_seconds_left(self, now: int) -> float:
        """What is left of the attempt's `deploy_timeout`."""
        limit = self.spec.deploy_timeout
        began = next((e.at for e in self.history if 0 < e.attempt == self.attempts), now)
        # Whatever the clocks say, it is neither more than all of it nor less than nothing.
        return min(max(limit - (now - began) / 1e6, 0.0), limit)

    def labels(self, *, home: str) -> dict[str, str]:
        """The labels by which its container is found again, whatever happens to this process."""
        return {
            **self.spec.labels,
            f"{LABEL_PREFIX}node": self.node,
            f"{LABEL_PREFIX}home": home,
            f"{LABEL_PREFIX}job": self.id,
            f"{LABEL_PREFIX}epoch": str(self.epoch),
            f"{LABEL_PREFIX}attempt": str(self.attempts),
            f"{LABEL_PREFIX}type": self.spec.type,
        }

    # -- its steps -----------------------------------------------------------------------------

    def claimed(self, now: int) -> Self:
        """A worker takes it up: a new attempt begins, or the one that was cut short goes on."""
        if self.status is Status.RUNNING:
            if self.phase in FOLLOWED_PHASES:
                raise Conflict("The job's container is started already.", status=self.status)
            return self
        return self._moved(
            Status.RUNNING, now, phase=Phase.CREATING, attempts=self.attempts + 1, due_at=None
        )

    def entered(self, phase: Phase, now: int, container: Container | None = None) -> Self:
        """The attempt has come to this phase."""
        self._must_run()
        return self._moved(Status.RUNNING, now, phase=phase, container=container or self.container)

    def completed(self, container: Container, now: int) -> Self:
        """It has done what it was for."""
        return self._moved(Status.COMPLETE, now, container=container)

    def failed(self, reason: str, container: Container | None, now: int) -> Self:
        """It has failed for good."""
        return self._moved(
            Status.FAILED, now, reason, container=container, failures=self.failures + 1
        )

    def retrying(
        self, reason: str, container: Container | None, now: int, due_at: int, *, counts: bool
    ) -> Self:
        """The attempt has failed, and the job is tried again not before `due_at`.

        An attempt that was cut short by the engine's own end does not count against the limit.
        """
        self._must_run()
        return self._moved(
            Status.PENDING,
            now,
            reason,
            container=container,
            due_at=due_at,
            failures=self.failures + counts,
        )

    def cancelling(self, now: int) -> Self:
        """A caller wants it cancelled; what runs for it has to be ended first."""
        if self.status is Status.PENDING:
            return self.cancelled(self.container, now)
        if self.status is Status.CANCELLED or self.cancel_requested:
            return self
        if self.status.final:
            raise Conflict(
                f"The job is {self.status} already and cannot be cancelled.", status=self.status
            )
        return self._changed(now, cancel_requested=True)

    def cancelled(self, container: Container | None, now: int) -> Self:
        """It was ended by a call."""
        return self._moved(Status.CANCELLED, now, "cancelled by a call", container=container)

    def lost(self, container: Container, now: int) -> Self:
        """Its owner has looked, and its container is gone without a trace."""
        return self._moved(
            Status.LOST, now, "the container was removed by somebody else", container=container
        )

    def timing_out(self, now: int) -> Self:
        """Its container has run longer than `run_timeout` and is to be stopped."""
        self._must_run()
        return self._changed(now, timed_out=True)

    def retried(self, now: int) -> Self:
        """A caller wants it tried again from the start."""
        if not self.status.final:
            raise Conflict(f"The job is {self.status}: it is being worked on.", status=self.status)
        if self.status is Status.COMPLETE:
            raise Conflict("The job is complete; create another one.", status=self.status)
        return self._moved(
            Status.PENDING,
            now,
            "tried again by a call",
            failures=0,
            due_at=None,
            cancel_requested=False,
            timed_out=False,
        )

    def observed(self, container: Container, now: int) -> Self:
        """The engine says something new of its container, and the job stands as it did."""
        return self._changed(now, container=container)

    def _must_run(self) -> None:
        if self.status is not Status.RUNNING:
            raise Conflict(f"The job is {self.status}, not running.", status=self.status)

    def _changed(self, now: int, **changes: Any) -> Self:
        return replace(self, revision=self.revision + 1, updated_at=now, **changes)

    def _moved(
        self,
        status: Status,
        now: int,
        reason: str | None = None,
        *,
        phase: Phase | None = None,
        **changes: Any,
    ) -> Self:
        if status not in TRANSITIONS[self.status]:
            raise Conflict(
                f"A job that is {self.status} cannot become {status}.", status=self.status
            )
        changes.setdefault("due_at", None)
        attempt = changes.get("attempts", self.attempts)
        history = (*self.history, Entry(now, status, phase, reason, attempt))
        if len(history) > HISTORY_LENGTH:
            history = (history[0], *history[-(HISTORY_LENGTH - 1) :])
        return self._changed(
            now, status=status, phase=phase, reason=reason, history=history, **changes
        )


def container_name(wanted: str | None, job_id: str) -> str:
    """The name of a job's container: as its spec wants it, else from the id's random digits."""
    return wanted or f"cm-{job_id[-12:]}"


def signal_name(exit_code: int | None) -> str | None:
    """The signal that an exit code tells of; None where the program ended by itself."""
    # A shell's convention, and the engine's: 128 and the signal's number.
    if exit_code is None or exit_code <= 128:
        return None
    try:
        return signal.Signals(exit_code - 128).name
    except ValueError:
        return None


def _keep_seconds(spec: Spec) -> float | None:
    """How long an ended container stays; None for good."""
    if spec.remove_on_exit:
        return 0.0
    if spec.keep is None and spec.type == "batch":
        return BATCH_KEEP
    return spec.keep
