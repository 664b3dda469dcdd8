"""A job's row in plain values: what callers are shown of it, without making the job."""

from __future__ import annotations

from typing import Any

import orjson
from typing_extensions import TypedDict


class Document(TypedDict):
    """A job as its row has it. To make it costs a third of what the job itself does."""

    id: str
    node: str
    status: str
    phase: str | None
    reason: str | None
    attempts: int
    due_at: int | None
    cancel_requested: bool
    spec: dict[str, Any]
    """What its caller has set, without the environment."""
    container: dict[str, Any] | None
    created_at: int
    updated_at: int
    history: list[tuple[int, str, str | None, str | None, int]]
    """Of each entry: at, status, phase, reason, attempt."""


def document(values: tuple[Any, ...]) -> Document:
    """The document of a row of the jobs' table."""
    body = orjson.loads(values[11])
    return {
        "id": job_id_of(values[0]),
        "node": values[1],
        "status": values[4],
        "phase": values[5],
        "reason": body.get("reason"),
        "attempts": body.get("attempts", 0),
        "due_at": body.get("due_at"),
        "cancel_requested": body.get("cancel_requested", False),
        "spec": orjson.loads(values[9]),
        "container": body.get("container"),
        "created_at": values[7],
        "updated_at": values[8],
        "history": body["history"],
    }


def job_id_of(key: bytes) -> str:
    """The id whose 16 bytes are the key."""
    digits = key.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
