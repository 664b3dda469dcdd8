"""The whole of what is to run: one container and how its deployment goes."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from container_manager.spec.image import Image
from container_manager.spec.model import LABEL_PREFIX, Model, Seconds, Text

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("a container's name takes letters, digits, '_', '.' and '-', at least two")
    return value


def _env(value: dict[str, str]) -> dict[str, str]:
    for key in value:
        if not key or "=" in key:
            raise ValueError("a variable's name must not be empty or contain '='")
    return value


def _labels(value: dict[str, str]) -> dict[str, str]:
    for key in value:
        if not key or key.startswith(LABEL_PREFIX):
            raise ValueError(f"a label must not be empty or begin with '{LABEL_PREFIX}'")
    return value


Labels = Annotated[dict[Text, Text], Field(max_length=1024), AfterValidator(_labels)]


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


class Spec(Model):
    """What is to run: one container, given by its image and how it is started."""

    image: Image = Field(
        description="The image: [registry/]name[:tag][@digest]. Without a tag it is `latest`.",
        examples=["nginx"],
    )
    arguments: list[Text] = Field(
        default_factory=list,
        max_length=4096,
        description="What follows the image in `docker run`: it replaces the image's own command.",
    )
    env: Annotated[dict[Text, Text], AfterValidator(_env)] = Field(
        default_factory=dict,
        max_length=4096,
        description="Environment variables. Their values are sealed on disk and shown nowhere.",
    )
    name: Annotated[str, Field(max_length=128), AfterValidator(_name)] | None = Field(
        default=None, description="The container's name; without one it is `cm-` and a short id."
    )
    type: Literal["service", "batch"] = Field(
        default="service",
        description="`service`: complete once the container is up. `batch`: complete when it ends "
        "with exit code 0.",
    )
    labels: Labels = Field(
        default_factory=dict,
        description="Labels for the container; ContainerService.List filters by them.",
    )
    pull: Literal["missing", "always", "never"] = Field(
        default="missing", description="When the image is pulled before the container is created."
    )
    platform: str | None = None
    credential: str | None = None
    user_data: Any = None
    remove_on_exit: bool = False
    keep: float | None = None
    stop_timeout: int | None = None
    retry: Retry = Field(default=Retry(), description="How failed deployments are retried.")
    deploy_timeout: Seconds = Field(
        default=900.0,
        description="Seconds that one attempt may take from its start until the container is up, "
        "the pull included. For type batch: until it is pulled.",
    )
    run_timeout: Seconds | None = Field(
        default=None,
        description="For type batch: seconds after which a container that still runs is stopped "
        "and the job fails.",
    )

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        if self.type != "batch":
            if self.run_timeout is not None:
                raise ValueError('run_timeout is for jobs of "type": "batch"')
            if self.retry.on_exit:
                raise ValueError('retry.on_exit is for jobs of "type": "batch"')
        return self
