"""A job is in one worker's hands at most."""

from __future__ import annotations

import pytest

from container_manager.work.active import ActiveJobs


def test_a_job_is_held_once_and_let_go() -> None:
    active = ActiveJobs()
    with active.hold("a") as cancel:
        assert "a" in active
        assert len(active) == 1
        with pytest.raises(RuntimeError), active.hold("a"):
            pass
        assert "a" in active
        assert active.cancel("a")
        assert cancel.is_set()
    assert "a" not in active
    assert not active.cancel("a")


def test_what_happened_meanwhile_is_told_when_it_is_let_go() -> None:
    told: list[str] = []
    active = ActiveJobs()
    active.when_released = told.append
    with active.hold("a"), active.hold("b"):
        active.mark_dirty("a")
        assert told == []
    assert told == ["a"]
    with active.hold("a"):
        pass
    assert told == ["a"]
