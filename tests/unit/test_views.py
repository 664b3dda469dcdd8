"""What callers are shown of a job is what the job says, whichever way it was read."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from container_manager.api.views import Owner, job_view, parse_time, time_view
from container_manager.errors import Conflict
from container_manager.job import Container, Job, Port, Status
from container_manager.spec import Spec
from container_manager.store import jobs
from container_manager.store.document import document, job_id_of
from container_manager.work.ids import JobIds
from tests.unit.builders import (
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

OWNER = Owner(True, NOW, None)
PORT = Port(container_port=80, protocol="tcp", host_ip="0.0.0.0", host_port=8080)


@st.composite
def walked(draw: st.DrawFn) -> Job:
    """A job that has come somewhere."""
    spec: Spec = draw(specs)
    stored = spec.model_copy(update={"env": {}})
    job = Job.new(id=JobIds().new(NOW), node=NODE, spec=stored, sealed_env=None, now=NOW)
    now = NOW
    taken: list[Step] = draw(st.lists(steps, max_size=12))
    for step in taken:
        now += draw(st.integers(0, 10**12))
        with suppress(Conflict):
            job = step(job, now)
    return job


def shown(job: Job) -> Any:
    return job_view(document(jobs.row(job)), OWNER, None)


@given(walked())
def test_a_view_says_what_the_job_says(job: Job) -> None:
    view = shown(job)
    assert view["job_id"] == job.id
    assert view["status"] == job.status
    assert view["phase"] == job.phase
    assert view["attempts"] == job.attempts
    assert view["node"] == job.node
    assert view["image"] == job.spec.image
    assert view["type"] == job.spec.type
    assert view["name"] == job.container_name
    assert view["labels"] == job.spec.labels
    assert view["user_data"] == job.spec.user_data
    assert view["cancel_requested"] == job.cancel_requested
    assert view["next_attempt_at"] == time_view(job.due_at)
    assert view["created_at"] == time_view(job.created_at)
    assert view["updated_at"] == time_view(job.updated_at)
    assert view["history"] == [
        {"at": time_view(one.at), "status": one.status, "phase": one.phase, "reason": one.reason,
         "attempt": one.attempt}
        for one in job.history
    ]  # fmt: skip
    if job.status.final:
        assert view["reason"] == job.reason
    assert_says(view["container"], job.container)


def assert_says(view: Any, seen: Container | None) -> None:
    """Each field as the container has it, the times as callers read them."""
    if seen is None:
        assert view is None
        return
    for name, value in view.items():
        expected = getattr(seen, name)
        if name.endswith("_at"):
            expected = time_view(expected)
        elif name == "ports":
            fields = ("container_port", "protocol", "host_ip", "host_port")
            expected = [{key: getattr(port, key) for key in fields} for port in expected]
        assert value == expected, name


def test_a_view_tells_the_ports() -> None:
    job = job_in(Status.COMPLETE).observed(container(ports=(PORT, PORT)), NOW)
    view = shown(job)["container"]
    assert len(view["ports"]) == 2
    assert_says(view, job.container)


async def looked_up(job: Job) -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with opened(Path(directory), Clock()) as rooms:
            assert await rooms.database.write(lambda c: jobs.insert(c, jobs.row(job)))
            plain, output = rooms.ledger.look_up(job.id)
            assert plain == document(jobs.row(job))
            assert output is None
            assert rooms.ledger.get(job.id) == job


@settings(max_examples=25)
@given(walked())
def test_the_store_gives_back_what_it_was_given_either_way(job: Job) -> None:
    asyncio.run(looked_up(job))


def test_a_row_of_an_earlier_version_is_shown() -> None:
    """Its container lacks what later versions have added to it."""
    body = {
        "history": [[NOW, "pending", None, None, 0]],
        "container": {"id": "c0ffee", "name": "web", "state": "exited", "exit_code": 137,
                      "oom_killed": False, "health": None, "error": None, "started_at": NOW,
                      "finished_at": NOW, "seen_at": NOW},
    }  # fmt: skip
    values = [*jobs.row(new_job())]
    values[11] = orjson.dumps(body)
    view = job_view(document(tuple(values)), OWNER, None)
    assert view["container"] is not None
    assert view["container"]["signal"] == "SIGKILL"
    assert view["container"]["restarts"] == 0
    assert view["container"]["ports"] == []


@pytest.mark.parametrize(
    ("job", "unavailable", "reason"),
    [
        (job_in(Status.PENDING), None, "waiting for a free worker"),
        (job_in(Status.PENDING), "gone", "waiting for the container engine: gone"),
        (job_in(Status.RUNNING).retrying("no luck", None, NOW, NOW, counts=True), None,
         "waiting to be tried again: no luck"),
        (job_in(Status.RUNNING).cancelling(NOW), None, "being cancelled"),
        (job_in(Status.RUNNING), None, None),
        (job_in(Status.FAILED), "gone", "no luck"),
    ],
)  # fmt: skip
def test_whoever_waits_is_told_for_what(
    job: Job, unavailable: str | None, reason: str | None
) -> None:
    assert (
        job_view(document(jobs.row(job)), Owner(True, NOW, unavailable), None)["reason"] == reason
    )


@given(st.integers(-(2**55), 2**57))
def test_times_are_rfc_3339_to_the_microsecond(microseconds: int) -> None:
    text = time_view(microseconds)
    assert text is not None
    assert text.endswith("Z")
    assert len(text) == len("2030-01-31T12:00:00.000000Z")
    assert parse_time(text) == microseconds


@given(st.uuids())
def test_an_id_is_written_as_its_standard_says(id_: Any) -> None:
    assert job_id_of(id_.bytes) == str(id_)


def test_every_signal_is_named_by_its_exit_code() -> None:
    assert container("exited", exit_code=137).signal == "SIGKILL"
    assert container("exited", exit_code=143).signal == "SIGTERM"
    for code in (None, -1, 0, 1, 127, 128, 255):
        assert container("exited", exit_code=code).signal is None
