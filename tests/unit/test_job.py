"""The job: which steps it takes, which it refuses, and what each keeps true."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from container_manager.errors import Conflict
from container_manager.job import BATCH_KEEP, HISTORY_LENGTH, Job, Phase, Status
from container_manager.spec import Spec
from container_manager.store import jobs
from container_manager.store.records import Place
from tests.unit.builders import (
    CANARY,
    NODE,
    NOW,
    Clock,
    Step,
    container,
    job_in,
    new_job,
    opened,
    specs,
    steps,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

P, R = Status.PENDING, Status.RUNNING
ENDED = (Status.COMPLETE, Status.FAILED, Status.CANCELLED, Status.LOST)
# Written out once more, so that a slip in the table of the module does not go unseen.
LEGAL = {
    *((P, to) for to in (R, Status.FAILED, Status.CANCELLED)),
    *((R, to) for to in (P, *ENDED)),
    *((ended, P) for ended in (Status.FAILED, Status.CANCELLED, Status.LOST)),
}


def walk(job: Job, taken: Iterable[Step]) -> Iterator[tuple[Step, Job, Job]]:
    """Take the steps one after the other, those that are refused left out."""
    for moment, step in enumerate(taken, start=1):
        before = job
        try:
            job = step(before, NOW + moment)
        except Conflict:
            continue
        yield step, before, job


walks = st.lists(steps, max_size=60)


@given(walks)
def test_no_sequence_of_steps_makes_an_illegal_transition(taken: list[Step]) -> None:
    for step, before, after in walk(new_job(), taken):
        assert after.status is before.status or (before.status, after.status) in LEGAL, step


@given(walks)
def test_every_change_raises_the_revision_by_one_and_nothing_else_does(taken: list[Step]) -> None:
    for step, before, after in walk(new_job(), taken):
        changed = replace(after, revision=before.revision) != before
        assert after.revision == before.revision + (after is not before), step
        assert changed == (after is not before), step


@given(walks)
def test_identity_and_ownership_never_change(taken: list[Step]) -> None:
    first = new_job()
    for _, _, job in walk(first, taken):
        assert (job.id, job.node, job.epoch, job.spec) == (
            first.id,
            first.node,
            first.epoch,
            first.spec,
        )
        assert job.created_at == first.created_at


@settings(max_examples=25)
@given(st.lists(steps, min_size=40, max_size=100))
def test_the_history_keeps_its_first_entry_and_the_newest_within_its_bound(
    taken: list[Step],
) -> None:
    first = new_job()
    for _, before, job in walk(first, taken):
        assert 1 <= len(job.history) <= HISTORY_LENGTH
        assert job.history[0] == first.history[0]
        if job.status is not before.status:
            assert job.history[-1].status is job.status
        assert [e.at for e in job.history] == sorted(e.at for e in job.history)


def test_a_long_history_drops_its_second_entry_first() -> None:
    job = new_job()
    for moment in range(HISTORY_LENGTH):
        job = job.claimed(NOW) if job.status is P else job
        job = job.entered(Phase.PULLING, NOW + moment)
    assert len(job.history) == HISTORY_LENGTH
    assert job.history[0].status is P
    assert job.history[-1].at == NOW + HISTORY_LENGTH - 1


@given(walks)
def test_a_job_that_has_ended_changes_only_when_observed_or_retried(taken: list[Step]) -> None:
    for step, before, after in walk(new_job(), taken):
        if before.status.final and after is not before:
            assert step.name in ("observed", "retried")


@given(walks)
def test_only_a_running_job_has_a_phase(taken: list[Step]) -> None:
    for step, _, job in walk(new_job(), taken):
        assert (job.phase is not None) == (job.status is R), step


@given(walks)
def test_no_job_runs_that_was_not_claimed(taken: list[Step]) -> None:
    for step, before, after in walk(new_job(), taken):
        if after.status is R and before.status is not R:
            assert step.name == "claimed"
            assert after.attempts == before.attempts + 1


@given(walks)
def test_only_a_waiting_job_has_a_time_of_its_next_attempt(taken: list[Step]) -> None:
    for step, _, job in walk(new_job(), taken):
        assert job.status is P or job.due_at is None, step


@pytest.mark.parametrize(
    ("status", "step"),
    [
        *((ended, "claimed") for ended in ENDED),
        (R, "claimed"),  # its container was started already
        *((ended, "cancelling") for ended in ENDED if ended is not Status.CANCELLED),
        (P, "retried"),
        (R, "retried"),
        (Status.COMPLETE, "retried"),
        *((ended, "timing_out") for ended in ENDED),
        (P, "timing_out"),
    ],
)
def test_a_step_that_does_not_fit_the_status_is_a_conflict(status: Status, step: str) -> None:
    job = job_in(status)
    with pytest.raises(Conflict) as refusal:
        getattr(job, step)(NOW)
    assert refusal.value.data == {"name": "conflict", "status": status}


def test_an_attempt_that_was_cut_short_goes_on_with_the_same_number() -> None:
    job = new_job().claimed(NOW)
    assert job.claimed(NOW + 1) is job
    assert job.attempts == 1


def test_an_attempt_that_does_not_count_leaves_the_failures_alone() -> None:
    job = new_job().claimed(NOW)
    spared = job.retrying("the engine went away", None, NOW, NOW + 1, counts=False)
    assert (spared.failures, spared.attempts, spared.due_at) == (0, 1, NOW + 1)
    assert job.retrying("no", None, NOW, NOW + 1, counts=True).failures == 1


def test_who_retries_a_complete_job_is_told_what_to_do_instead() -> None:
    with pytest.raises(Conflict, match="create another one"):
        job_in(Status.COMPLETE).retried(NOW)


def test_cancelling_ends_a_waiting_job_and_marks_a_running_one() -> None:
    assert job_in(P).cancelling(NOW).status is Status.CANCELLED
    marked = job_in(R).cancelling(NOW)
    assert (marked.status, marked.cancel_requested) == (R, True)
    assert marked.cancelling(NOW) is marked
    cancelled = job_in(Status.CANCELLED)
    assert cancelled.cancelling(NOW) is cancelled


def test_a_retried_job_starts_afresh() -> None:
    job = job_in(R, type="batch").cancelling(NOW).timing_out(NOW).cancelled(container(), NOW)
    again = job.retried(NOW)
    assert (again.status, again.failures, again.cancel_requested) == (P, 0, False)
    assert (again.timed_out, again.due_at, again.attempts) == (False, None, 1)


def test_its_container_is_named_by_the_spec_or_by_the_random_end_of_the_id() -> None:
    assert new_job(name="web").container_name == "web"
    job = new_job()
    assert job.container_name == f"cm-{job.id[-12:]}"


def test_the_labels_of_a_container_say_whose_it_is() -> None:
    job = new_job(labels={"team": "a"}).claimed(NOW)
    prefix = "io.container-manager."
    assert job.labels(home="host:/data") == {
        "team": "a",
        prefix + "node": NODE,
        prefix + "home": "host:/data",
        prefix + "job": job.id,
        prefix + "epoch": "1",
        prefix + "attempt": "1",
        prefix + "type": "service",
    }


# What is followed, and what is removed


@given(walks)
def test_a_container_that_is_there_is_followed_and_removed_only_when_it_has_ended(
    taken: list[Step],
) -> None:
    for spec in ({}, {"type": "batch"}, {"keep": 60}, {"remove_on_exit": True}):
        for step, _, job in walk(new_job(**spec), taken):
            there = job.container is not None and job.container.state != "removed"
            if job.status.final:
                assert job.followed == there, step
            if job.removal_due is not None:
                assert job.status.final, step
                assert job.container is not None
                assert job.container.ended, step
                assert job.removal_due >= job.updated_at


@pytest.mark.parametrize(
    ("phase", "followed"),
    [
        (Phase.CREATING, False),
        (Phase.PULLING, False),
        (Phase.STARTING, False),
        (Phase.VERIFYING, True),
        (Phase.RUNNING, True),
    ],
)
def test_a_running_job_is_followed_once_its_container_was_started(
    phase: Phase, followed: bool
) -> None:
    assert new_job().claimed(NOW).entered(phase, NOW, container()).followed is followed


@pytest.mark.parametrize("state", ["running", "restarting", "paused", "exited", "dead", "removed"])
@pytest.mark.parametrize("status", ENDED)
def test_a_job_that_has_ended_is_followed_as_long_as_its_container_is_there(
    status: Status, state: str
) -> None:
    assert job_in(status).observed(container(state), NOW).followed is (state != "removed")
    assert not new_job().cancelling(NOW).followed  # there never was one


@pytest.mark.parametrize("state", ["exited", "dead"])
@pytest.mark.parametrize(
    ("fields", "keep"),
    [
        ({}, None),
        ({"keep": 0}, 0),
        ({"keep": 90.5}, 90.5),
        ({"remove_on_exit": True}, 0),
        ({"type": "batch"}, BATCH_KEEP),
        ({"type": "batch", "keep": 5}, 5),
        ({"type": "batch", "keep": 0}, 0),
        ({"type": "batch", "remove_on_exit": True}, 0),
    ],
)
def test_an_ended_container_is_removed_when_it_was_kept_for_its_time(
    fields: dict[str, object], keep: float | None, state: str
) -> None:
    running = new_job(**fields).claimed(NOW).entered(Phase.RUNNING, NOW, container())
    assert running.removal_due is None
    seen = container(state, exit_code=0)
    seen_at = NOW + 3_000_000
    due = None if keep is None else seen_at + int(keep * 1e6)
    assert running.completed(seen, seen_at).removal_due == due
    assert running.failed("no", seen, seen_at).removal_due == due
    assert running.cancelled(seen, seen_at).removal_due == due
    later = running.completed(container(), NOW).observed(seen, seen_at)
    assert later.removal_due == due
    assert later.observed(seen.removed(seen_at), seen_at).removal_due is None


@pytest.mark.parametrize("state", ["running", "restarting", "paused", "removed"])
def test_a_container_that_has_not_ended_is_not_removed(state: str) -> None:
    for status in ENDED:
        job = job_in(status, remove_on_exit=True).observed(container(state, exit_code=1), NOW)
        assert job.removal_due is None
    again = job_in(Status.FAILED, type="batch").retried(NOW)
    assert again.removal_due is None


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (None, None),
        (0, None),
        (1, None),
        (127, None),
        (128, None),
        (129, "SIGHUP"),
        (130, "SIGINT"),
        (134, "SIGABRT"),
        (137, "SIGKILL"),
        (139, "SIGSEGV"),
        (143, "SIGTERM"),
        (255, None),
        (-1, None),
    ],
)
def test_an_exit_code_names_the_signal(code: int | None, name: str | None) -> None:
    assert container("exited", exit_code=code).signal == name


# The store


async def through_the_store(job: Job) -> Job | None:
    with tempfile.TemporaryDirectory() as directory:
        async with opened(Path(directory), Clock()) as rooms:
            place = Place(1, 0)
            await rooms.database.write(lambda c: jobs.insert(c, jobs.row(new_job_of(job))))
            await rooms.database.write(lambda c: jobs.update(c, job, place, place, None))
            return rooms.database.read(lambda c: jobs.get(c, job.id))


def new_job_of(job: Job) -> Job:
    return Job.new(id=job.id, node=NODE, spec=job.spec, sealed_env=None, now=NOW)


@settings(max_examples=40)
@given(specs, walks, st.none() | st.binary(min_size=1, max_size=64))
def test_the_store_gives_back_the_job_that_it_was_given(
    spec: Spec, taken: list[Step], sealed: bytes | None
) -> None:
    job = replace(new_job(), spec=spec.model_copy(update={"env": {}}), sealed_env=sealed)
    for _, _, after in walk(job, taken):
        job = after
    assert asyncio.run(through_the_store(job)) == job


def test_the_environment_is_never_in_a_row() -> None:
    job = new_job(env={"PASSWORD": CANARY})
    assert CANARY not in repr(jobs.row(job))
