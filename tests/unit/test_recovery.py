"""What the labels of containers tell, and which containers have no business to be there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from container_manager.engine.answers import Inspected, Listed
from container_manager.job import Job, Status
from container_manager.spec import LABEL_PREFIX
from container_manager.work.recovery import recover, stray
from tests.unit.builders import NODE, NOW, container, job_in, new_job


def listed(job: Job, attempt: int, *, id_: str = "other", name: str = "") -> Listed:
    labels = {f"{LABEL_PREFIX}job": job.id, f"{LABEL_PREFIX}attempt": str(attempt)}
    return Listed(id=id_, name=name or job.container_name, state="running", labels=labels)


@pytest.mark.parametrize("status", [Status.COMPLETE, Status.FAILED, Status.CANCELLED])
def test_another_container_of_a_job_that_has_ended_is_stray(status: Status) -> None:
    job = job_in(status)
    assert stray(job, listed(job, job.attempts))


def test_a_container_of_an_earlier_attempt_is_stray_and_one_of_this_attempt_is_not() -> None:
    job = replace(new_job().claimed(NOW), attempts=2)
    assert stray(job, listed(job, 1))
    assert not stray(job, listed(job, 2))


def test_a_container_of_an_attempt_that_an_older_store_does_not_know_is_let_be() -> None:
    for job in (new_job(), job_in(Status.FAILED)):
        assert not stray(job, listed(job, job.attempts + 1))


def test_a_container_of_another_name_only_inherits_the_labels() -> None:
    job = job_in(Status.COMPLETE)
    assert not stray(job, listed(job, job.attempts, name="dbg"))


def found(job: Job, **state: object) -> Inspected:
    shown = replace(container(), **{"started_at": NOW, **state})
    return Inspected(shown, "nginx", [], {"A": "1"}, job.labels(home="h:/d"))


def test_a_service_that_has_ended_is_brought_back_as_complete() -> None:
    job = new_job().claimed(NOW)
    again = recover(found(job, state="exited", exit_code=6), node=NODE, now=NOW)
    assert again is not None
    assert (again.status, again.phase, again.id) == (Status.COMPLETE, None, job.id)


def test_what_is_no_job_is_not_brought_back() -> None:
    labels = {f"{LABEL_PREFIX}job": "nonsense"}
    assert recover(replace(found(new_job()), labels=labels), node=NODE, now=NOW) is None
