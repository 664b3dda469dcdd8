"""What the labels of containers tell of jobs that the store has lost. Pure.

When the data directory is gone, or an older copy of it was put back, the containers are still
there. Their labels name job, attempt and type; the engine knows image, arguments and environment.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pydantic import ValidationError

from container_manager.engine.answers import Inspected, Listed
from container_manager.job import Entry, Job, Phase, Status
from container_manager.spec import LABEL_PREFIX, Spec


def recover(found: Inspected, *, node: str, now: int) -> Job | None:
    """The job that a container was made for, as far as the container tells; None if it doesn't.

    Its `retry`, its timeouts and its history are gone with the store. Its environment is in
    `spec.env`, for the ledger to seal.
    """
    labels, container = found.labels, found.container
    fields: dict[str, Any] = {
        "image": found.image,
        "arguments": found.arguments,
        "env": found.env,
        "name": container.name,
        "type": labels.get(f"{LABEL_PREFIX}type", "service"),
        "labels": {k: v for k, v in labels.items() if not k.startswith(LABEL_PREFIX)},
    }
    try:
        job_id = UUID(labels.get(f"{LABEL_PREFIX}job", ""))
        spec = Spec.model_validate(fields)
        attempt = int(labels.get(f"{LABEL_PREFIX}attempt", "1"))
        epoch = int(labels.get(f"{LABEL_PREFIX}epoch", "1"))
    except (ValueError, ValidationError):
        return None
    created_at = (job_id.int >> 80) * 1000  # a UUIDv7 begins with the milliseconds of its making
    status = Status.RUNNING
    phase: Phase | None = Phase.RUNNING
    if container.started_at is None:
        phase = Phase.CREATING  # a worker goes on with the attempt
    elif spec.type == "service":
        phase = Phase.VERIFYING
        if not container.live:
            # It was up once, for all that its container tells: nothing is to be tried again.
            status, phase = Status.COMPLETE, None
    reason = "brought back from the labels of its container"
    return Job(
        id=str(job_id),
        node=node,
        epoch=max(epoch, 1),
        spec=spec,
        status=status,
        phase=phase,
        reason=reason,
        attempts=max(attempt, 1),
        container=container,
        created_at=created_at,
        updated_at=now,
        history=(Entry(now, status, phase, reason, max(attempt, 1)),),
    )


def stray(job: Job, listed: Listed) -> bool:
    """Whether a container of a known job has no business to be there any more.

    A call whose answer never came may have made one after the job had gone on without it, and one
    that could not be removed at the time may be still there.
    """
    known = job.container
    if known is not None and known.id == listed.id:
        # Batch containers that have run are kept, with their logs; nothing else of a failed job is.
        kept = job.spec.type == "batch" and known.started_at is not None
        return job.status in (Status.FAILED, Status.CANCELLED) and not kept
    if listed.name != job.container_name or listed.attempt > job.attempts:
        # Somebody's own, from an image made of a container of ours, whose labels it inherits; or
        # of a time that this store, an older copy of itself, does not know of yet.
        return False
    return listed.attempt < job.attempts or job.status is Status.PENDING or job.status.final
