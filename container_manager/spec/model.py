"""What all of the interface's models share."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

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


Text = Annotated[str, AfterValidator(_text)]
Seconds = Annotated[float, Field(gt=0, le=MAX_SECONDS, allow_inf_nan=False)]
