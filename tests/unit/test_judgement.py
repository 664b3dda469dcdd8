"""Judgement: what follows from what the engine says of a container."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from container_manager.job import Container, Job, Phase, Status
from container_manager.spec import Retry
from container_manager.work.judgement import MAX_RESTARTS, Kind, exit_words, judge, retry_delay
from tests.unit.builders import NOW, container, containers, job_in, new_job, seconds

WAIT, COMPLETE, FAILED, LOST = Kind.WAIT, Kind.COMPLETE, Kind.FAILED, Kind.LOST
AGAIN = Kind.ATTEMPT_FAILED


@pytest.mark.parametrize(
    ("state", "health", "settled", "overdue", "kind"),
    [
        ("running", None, True, False, COMPLETE),
        ("running", None, False, False, WAIT),
        ("running", "healthy", True, False, COMPLETE),
        ("running", "healthy", False, False, WAIT),
        ("running", "starting", True, False, WAIT),
        ("running", "starting", True, True, AGAIN),
        ("running", "unhealthy", True, False, AGAIN),
        ("running", "unhealthy", False, False, AGAIN),
        ("running", None, True, True, COMPLETE),  # up at the last moment is up
        ("running", None, False, True, AGAIN),
        ("created", None, True, False, WAIT),
        ("created", None, True, True, AGAIN),
        ("restarting", None, True, False, WAIT),
        ("paused", None, True, False, WAIT),
        ("paused", "healthy", True, True, AGAIN),
        ("exited", None, True, False, AGAIN),
        ("exited", "healthy", True, False, AGAIN),
        ("dead", None, False, False, AGAIN),
        ("removed", None, True, False, AGAIN),
        ("removing", None, True, False, WAIT),
    ],
)
def test_a_service_is_complete_once_it_is_up_and_settled(
    state: str, health: str | None, settled: bool, overdue: bool, kind: Kind
) -> None:
    seen = container(state, health=health)
    verdict = judge(job_in(Status.RUNNING), seen, settled=settled, overdue=overdue)
    assert verdict.kind is kind
    assert verdict.counts
    assert bool(verdict.reason) == (kind is AGAIN)


@pytest.mark.parametrize("state", ["exited", "dead"])
@pytest.mark.parametrize("overdue", [False, True])
def test_a_service_that_ended_with_the_engine_is_not_to_blame(state: str, overdue: bool) -> None:
    verdict = judge(
        job_in(Status.RUNNING), container(state), settled=True, overdue=overdue, after_outage=True
    )
    assert (verdict.kind, verdict.counts) == (AGAIN, False)


@pytest.mark.parametrize("state", ["running", "removed"])
def test_an_outage_excuses_only_what_has_ended(state: str) -> None:
    job, seen = job_in(Status.RUNNING), container(state)
    assert judge(job, seen, settled=True, after_outage=True) == judge(job, seen, settled=True)


def test_a_service_that_ends_by_itself_is_told_of_type_batch() -> None:
    job = job_in(Status.RUNNING)
    assert '"type": "batch"' in judge(job, container("exited", exit_code=0), settled=True).reason
    assert "batch" not in judge(job, container("exited", exit_code=1), settled=True).reason


def test_an_unhealthy_service_is_told_with_what_its_probe_said() -> None:
    job = job_in(Status.RUNNING)
    seen = container(health="unhealthy", health_output="wget: 503 Service Unavailable")
    verdict = judge(job, seen, settled=True)
    assert verdict.kind is AGAIN
    assert verdict.reason == "the container is unhealthy: wget: 503 Service Unavailable"
    silent = judge(job, container(health="unhealthy"), settled=True)
    assert silent.reason == "the container is unhealthy"


@pytest.mark.parametrize(
    ("state", "restarts", "settled", "health", "kind"),
    [
        ("restarting", MAX_RESTARTS - 1, True, None, WAIT),
        ("restarting", MAX_RESTARTS, True, None, AGAIN),
        ("restarting", MAX_RESTARTS, False, None, AGAIN),
        ("running", MAX_RESTARTS - 1, False, None, WAIT),
        ("running", MAX_RESTARTS, False, None, AGAIN),
        # It has settled since its newest start, and is up all the same.
        ("running", MAX_RESTARTS, True, None, COMPLETE),
        ("running", MAX_RESTARTS + 1, True, "healthy", COMPLETE),
        ("running", MAX_RESTARTS, True, "starting", AGAIN),
        ("exited", 2, True, None, AGAIN),
        ("removed", MAX_RESTARTS, True, None, AGAIN),
    ],
)
def test_a_service_may_be_started_again_by_its_engine_so_many_times(
    state: str, restarts: int, settled: bool, health: str | None, kind: Kind
) -> None:
    seen = container(state, restarts=restarts, health=health)
    assert judge(job_in(Status.RUNNING), seen, settled=settled).kind is kind


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"state": "restarting", "exit_code": 3}, "; it last exited with code 3"),
        (
            {"state": "restarting", "exit_code": 137, "oom_killed": True},
            "; it last exited with code 137 (SIGKILL, out of memory)",
        ),
        ({"state": "running", "exit_code": None}, ""),
    ],
)
def test_a_service_that_keeps_ending_is_told_with_its_last_end(
    fields: dict[str, object], words: str
) -> None:
    seen = replace(container(restarts=5), **fields)
    verdict = judge(job_in(Status.RUNNING), seen, settled=False)
    assert verdict.reason == f"the container keeps ending: restarted 5 times{words}"


@pytest.mark.parametrize(("restarts", "how"), [(1, "once"), (3, "3 times")])
def test_a_service_that_its_engine_gave_up_is_told_with_its_restarts(
    restarts: int, how: str
) -> None:
    seen = container("exited", exit_code=0, restarts=restarts)
    reason = judge(job_in(Status.RUNNING), seen, settled=True).reason
    assert reason.startswith(f"the container exited with code 0, restarted {how} before; for a ")


def batch(*, on_exit: bool = False, timed_out: bool = False) -> Job:
    job = new_job(type="batch", run_timeout=90, retry={"on_exit": on_exit}).claimed(NOW)
    job = job.entered(Phase.RUNNING, NOW, container())
    return job.timing_out(NOW) if timed_out else job


@pytest.mark.parametrize(
    ("state", "code", "on_exit", "timed_out", "kind"),
    [
        ("running", None, False, False, WAIT),
        ("created", None, False, False, WAIT),
        ("paused", None, False, False, WAIT),
        ("removing", None, False, False, WAIT),
        ("exited", 0, False, False, COMPLETE),
        ("exited", 0, True, False, COMPLETE),
        ("exited", 1, False, False, FAILED),
        ("exited", 1, True, False, AGAIN),
        ("dead", 137, False, False, FAILED),
        ("running", None, False, True, WAIT),
        ("exited", 0, False, True, FAILED),  # it ended well, and too late
        ("exited", 143, True, True, FAILED),  # no second try for what takes too long
        ("removed", None, False, False, LOST),
        ("removed", None, True, False, LOST),
        ("removed", None, False, True, FAILED),
    ],
)
def test_a_batch_is_complete_on_exit_code_0(
    state: str, code: int | None, on_exit: bool, timed_out: bool, kind: Kind
) -> None:
    seen = container(state, exit_code=code)
    verdict = judge(batch(on_exit=on_exit, timed_out=timed_out), seen, settled=False)
    assert verdict.kind is kind
    if timed_out and kind is FAILED:
        assert verdict.reason == "timed out: stopped after running for 90 s"


@pytest.mark.parametrize("restarts", [1, MAX_RESTARTS, 1000])
def test_a_batch_is_waited_for_as_long_as_its_engine_starts_it_again(restarts: int) -> None:
    seen = container("restarting", exit_code=1, restarts=restarts)
    assert judge(batch(), seen, settled=False).kind is WAIT
    ended = container("exited", exit_code=1, restarts=restarts)
    assert judge(batch(), ended, settled=False).reason == "exited with code 1"


@given(containers, st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_neither_settling_nor_lateness_nor_an_outage_matters_to_a_batch(
    seen: Container, settled: bool, overdue: bool, after_outage: bool, timed_out: bool
) -> None:
    job = batch(timed_out=timed_out)
    verdict = judge(job, seen, settled=settled, overdue=overdue, after_outage=after_outage)
    assert verdict == judge(job, seen, settled=False)


@given(containers, st.booleans(), st.booleans())
def test_a_container_that_cannot_change_any_more_is_never_waited_for(
    seen: Container, settled: bool, overdue: bool
) -> None:
    for job in (job_in(Status.RUNNING), batch()):
        if judge(job, seen, settled=settled, overdue=overdue).kind is WAIT:
            assert seen.live


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"exit_code": 0}, "exited with code 0"),
        ({"exit_code": 1}, "exited with code 1"),
        ({"exit_code": 128}, "exited with code 128"),
        ({"exit_code": 143}, "exited with code 143 (SIGTERM)"),
        ({"exit_code": 137}, "exited with code 137 (SIGKILL)"),
        ({"exit_code": 137, "oom_killed": True}, "exited with code 137 (SIGKILL, out of memory)"),
        ({"exit_code": 255}, "exited with code 255"),  # 127 is no signal
        ({"exit_code": 127, "error": "no such file"}, "exited with code 127 (no such file)"),
    ],
)
def test_an_end_is_told_in_words(fields: dict[str, object], words: str) -> None:
    assert exit_words(replace(container("exited"), **fields)) == words


@given(
    seconds,
    seconds,
    st.integers(1, 12) | st.integers(1, 2**62),
    st.randoms(use_true_random=False),
)
def test_the_delay_doubles_up_to_its_limit_less_half_at_most(
    backoff: float, max_backoff: float, failures: int, rng: random.Random
) -> None:
    retry = Retry(backoff=backoff, max_backoff=max_backoff)
    longest = min(backoff * 2 ** min(failures - 1, 60), max_backoff)
    assert longest / 2 <= retry_delay(retry, failures, rng) <= longest <= max_backoff


def test_jobs_that_failed_together_do_not_come_back_together() -> None:
    rng = random.Random(1)
    delays = [retry_delay(Retry(backoff=8), 1, rng) for _ in range(200)]
    assert len(set(delays)) == 200
    assert min(delays) < 4.5
    assert max(delays) > 7.5
