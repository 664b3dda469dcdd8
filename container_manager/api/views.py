"""What the calls give: jobs as callers see them. Times are RFC 3339 in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from typing_extensions import TypedDict

from container_manager.engine.progress import Progress
from container_manager.job import Status, container_name, signal_name
from container_manager.spec import Spec
from container_manager.store.document import Document

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TYPE: str = Spec.model_fields["type"].default


class PortView(TypedDict):
    """A port of the engine's host that leads to the container."""

    container_port: int
    protocol: str
    host_ip: str
    host_port: int


class ContainerView(TypedDict):
    """What the engine last said of a job's container."""

    id: str
    name: str
    state: str
    exit_code: int | None
    signal: str | None
    oom_killed: bool
    health: str | None
    health_output: str | None
    restarts: int
    ports: list[PortView]
    started_at: str | None
    finished_at: str | None
    seen_at: str


class EntryView(TypedDict):
    """One line of a job's history."""

    at: str
    status: str
    phase: str | None
    reason: str | None
    attempt: int


class ProgressView(TypedDict):
    """How far the pull of a job's image is, in layers and bytes."""

    layers: int
    layers_done: int
    bytes: int
    bytes_total: int
    bytes_per_second: int


class JobView(TypedDict):
    """A job, as its owner knows it."""

    job_id: str
    status: str
    phase: str | None
    reason: str | None
    progress: ProgressView | None
    attempts: int
    node: str
    owner_reachable: bool
    as_of: str | None
    image: str
    type: str
    name: str
    labels: dict[str, str]
    user_data: Any
    cancel_requested: bool
    next_attempt_at: str | None
    container: ContainerView | None
    created_at: str
    updated_at: str
    history: list[EntryView]


class StatusView(JobView):
    """A job, with the last lines that its container has written, once it has ended."""

    output: list[str] | None


class CreateView(TypedDict):
    """A job was queued, and is on disk."""

    job_id: str
    message: str
    status: str


class WaitView(StatusView):
    """A job that is final, or not yet."""

    timed_out: bool


class ListView(TypedDict):
    """A part of a listing, newest first."""

    jobs: list[JobView]
    next_cursor: str | None


class Owner(NamedTuple):
    """What is known of the node that a job belongs to."""

    reachable: bool
    as_of: int | None
    """When it was last heard of, in microseconds; None where that was before this start."""
    engine_unavailable: str | None
    """Why its engine cannot be used at present, if that is known."""


def job_view(job: Document, owner: Owner, progress: Progress | None) -> JobView:
    """The job for its caller.

    Args:
        job: the job as it is stored.
        owner: how its owner stands.
        progress: how far its image is, if it is being pulled.
    """
    spec, container = job["spec"], job["container"]
    return {
        "job_id": job["id"],
        "status": job["status"],
        "phase": job["phase"],
        "reason": _reason(job, owner, progress),
        "progress": None if progress is None else _progress_view(progress),
        "attempts": job["attempts"],
        "node": job["node"],
        "owner_reachable": owner.reachable,
        "as_of": time_view(owner.as_of),
        "image": spec["image"],
        "type": spec.get("type", _TYPE),
        "name": container_name(spec.get("name"), job["id"]),
        "labels": spec.get("labels", {}),
        "user_data": spec.get("user_data"),
        "cancel_requested": job["cancel_requested"],
        "next_attempt_at": time_view(job["due_at"]),
        "container": None if container is None else _container_view(container),
        "created_at": _time(job["created_at"]),
        "updated_at": _time(job["updated_at"]),
        "history": [
            {"at": _time(at), "status": status, "phase": phase, "reason": why, "attempt": attempt}
            for at, status, phase, why, attempt in job["history"]
        ],
    }


def _reason(job: Document, owner: Owner, progress: Progress | None) -> str | None:
    """Why the job stands as it does; whoever waits is always told for what."""
    status, reason = Status(job["status"]), job["reason"]
    if status.final:
        return reason
    if not owner.reachable:
        return "its node cannot be reached; this is how it stood when that was last heard of"
    if owner.engine_unavailable is not None:
        return f"waiting for the container engine: {owner.engine_unavailable}"
    if status is Status.RUNNING:
        if job["cancel_requested"]:
            return "being cancelled"
        return reason if progress is None else f"pulling the image: {progress}"
    if job["due_at"] is not None:
        return f"waiting to be tried again: {reason}"
    return "waiting for a free worker"


def _container_view(container: dict[str, Any]) -> ContainerView:
    # One that was stored by an earlier version lacks what later ones have added.
    said = container.get
    return {
        "id": container["id"],
        "name": container["name"],
        "state": container["state"],
        "exit_code": said("exit_code"),
        "signal": signal_name(said("exit_code")),
        "oom_killed": said("oom_killed", False),
        "health": said("health"),
        "health_output": said("health_output"),
        "restarts": said("restarts", 0),
        "ports": [_port_view(port) for port in said("ports", ())],
        "started_at": time_view(said("started_at")),
        "finished_at": time_view(said("finished_at")),
        "seen_at": _time(container["seen_at"]),
    }


def _port_view(port: dict[str, Any]) -> PortView:
    return {
        "container_port": port["container_port"],
        "protocol": port["protocol"],
        "host_ip": port["host_ip"],
        "host_port": port["host_port"],
    }


def _progress_view(progress: Progress) -> ProgressView:
    return {
        "layers": progress.layers,
        "layers_done": progress.layers_done,
        "bytes": progress.bytes,
        "bytes_total": progress.bytes_total,
        "bytes_per_second": round(progress.bytes_per_second),
    }


def time_view(microseconds: int | None) -> str | None:
    """A time for people and programs: `2030-01-31T12:00:00.000000Z`."""
    return None if microseconds is None else _time(microseconds)


def _time(microseconds: int) -> str:
    seconds, fraction = divmod(microseconds, 1_000_000)
    return f"{_second(seconds)}.{fraction:06}Z"


# Both are remembered: a job has a dozen times, most of them within a second or two of each other,
# and to write them was half of what a Status took.
@lru_cache(4096)
def _second(seconds: int) -> str:
    days, rest = divmod(seconds, 86_400)
    return f"{_date(days)}T{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"


@lru_cache(1024)
def _date(days: int) -> str:
    return (_EPOCH + timedelta(days)).date().isoformat()


def parse_time(text: str) -> int:
    """Microseconds since 1970 of a time with an offset."""
    delta = datetime.fromisoformat(text) - _EPOCH
    return delta // timedelta(microseconds=1)
