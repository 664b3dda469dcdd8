"""What all of the interface's models share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import InitErrorDetails

LABEL_PREFIX = "io.container-manager."
"""Labels under this prefix are the manager's own, and identify its containers."""

MAX_SECONDS = 30 * 24 * 3600.0


class Model(BaseModel):
    """The strictness that all of the interface's models share."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, hide_input_in_errors=True, defer_build=False
    )


def _text(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    return value


def listed(value: Any) -> tuple[Any, ...]:
    """A list as a tuple.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, tuple):
        return value
    raise ValueError("is a list: […]")


def at(place: int | str, error: ValueError) -> ValidationError:
    """The same error, said of one item of what a validator was given.

    For validators of whole fields, whose errors would otherwise name the field alone.
    """
    if isinstance(error, ValidationError):
        lines = [
            InitErrorDetails(
                type=one["type"], loc=(place, *one["loc"]), input=None, ctx=one.get("ctx", {})
            )
            for one in error.errors(include_url=False, include_input=False)
        ]
    else:
        lines = [
            InitErrorDetails(type="value_error", loc=(place,), input=None, ctx={"error": error})
        ]
    return ValidationError.from_exception_data("spec", lines, hide_input=True)


Text = Annotated[str, AfterValidator(_text)]
LISTED = BeforeValidator(listed)
"""For tuples: they are lists in JSON, and tuples here, since models do not change."""
Seconds = Annotated[float, Field(gt=0, le=MAX_SECONDS, allow_inf_nan=False)]
