"""What the calls take. These models are the documentation: `rpc.discover` is made from them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, Field

from container_manager.spec import Model, Spec

StatusName = Literal["pending", "running", "complete", "failed", "cancelled", "lost"]
MAX_WAIT = 3600.0


def _uuid(value: str) -> str:
    try:
        return str(UUID(value))
    except ValueError:
        raise ValueError("is no cursor; hand back next_cursor as it was given") from None


def _moment(value: str) -> str:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError('is no time; write RFC 3339 with an offset: "2030-01-31T12:00:00Z"')
    return value


class CreateParams(Spec):
    """ContainerService.Create: the spec of the container, and how the call may be repeated."""

    idempotency_key: Annotated[str, Field(min_length=1, max_length=256)] | None = Field(
        default=None,
        description="Repeating a call with the same key within 24 hours gives the same job; with "
        "another spec it answers -32007.",
    )


class JobParams(Model):
    """A call about one job."""

    job_id: Annotated[str, Field(max_length=64)] = Field(description="As Create answered it.")


class WaitParams(JobParams):
    """ContainerService.Wait."""

    timeout: Annotated[float, Field(ge=0, le=MAX_WAIT, allow_inf_nan=False)] = Field(
        default=60.0, description="Seconds to wait at most for the job to become final."
    )


class ListParams(Model):
    """ContainerService.List."""

    status: StatusName | list[StatusName] | None = Field(
        default=None, description="Only jobs of this status, or of one of these."
    )
    label: str | list[str] | None = Field(
        default=None,
        description="Only jobs with this label, `key` or `key=value`, or all of these.",
    )
    since: Annotated[str, AfterValidator(_moment)] | None = Field(
        default=None, description="Only jobs made at this time (RFC 3339) or later."
    )
    limit: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=100, description="Jobs in one answer at most."
    )
    cursor: Annotated[str, AfterValidator(_uuid)] | None = Field(
        default=None, description="next_cursor of the answer before."
    )


class NoParams(Model):
    """A call that takes nothing."""


def several(value: str | list[Any] | None) -> list[Any]:
    """What a param that takes one or a list of them was given."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def wanted_labels(value: str | list[str] | None) -> tuple[tuple[str, str | None], ...]:
    """The labels to filter by: `key` as (key, None), `key=value` as (key, value)."""
    parts = (text.partition("=") for text in several(value))
    return tuple((key, value if separator else None) for key, separator, value in parts)
