"""What happens when a deployment fails, and when a container that was up ends."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from container_manager.spec.model import Model, Seconds


class Retry(Model):
    """How often and when a failed deployment is tried again."""

    max_attempts: Annotated[int, Field(ge=1, le=100)] = Field(
        default=3, description="Deployments that may fail before the job does, the first included."
    )
    backoff: Seconds = Field(
        default=1.0, description="Seconds before the second attempt; doubled with each further one."
    )
    max_backoff: Seconds = Field(
        default=60.0, description="The most seconds that are waited between two attempts."
    )
    on_exit: bool = Field(
        default=False,
        description="For type batch: also try again when the container exits with another code "
        "than 0.",
    )


class RestartPolicy(Model):
    """When the engine itself starts the container again, as `docker run --restart` has it."""

    name: Literal["no", "always", "unless-stopped", "on-failure"] = Field(
        description="When it is started again."
    )
    maximum_retry: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(
        default=0, description="With on-failure: how often at most; 0 is without end."
    )

    @model_validator(mode="after")
    def _only_on_failure(self) -> Self:
        if self.maximum_retry and self.name != "on-failure":
            raise ValueError('maximum_retry goes with "on-failure" alone')
        return self


def _form(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    name, colon, number = value.partition(":")
    if not colon:
        return {"name": name}
    if not re.fullmatch("[0-9]{1,10}", number):
        raise ValueError('write "on-failure:3"')
    return {"name": name, "maximum_retry": int(number)}


RestartForm = Annotated[
    RestartPolicy, BeforeValidator(_form, json_schema_input_type=str | RestartPolicy)
]
