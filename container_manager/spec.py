"""The spec: what a caller says of the container that is to run. Pure; the model is the document.

Everything that a field accepts is named here, and everything else is refused. What an engine is
finally asked for is compiled from these fields alone (`engine.document`), so that a capability
which no field grants cannot be asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from container_manager.errors import PolicyDenied

LABEL_PREFIX = "io.container-manager."
"""Labels under this prefix are the manager's own, and identify its containers."""

MAX_SECONDS = 30 * 24 * 3600.0

_LABEL = r"[a-zA-Z0-9]+(?:-+[a-zA-Z0-9]+)*"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?:{_DOMAIN}/)?{_COMPONENT}(?:/{_COMPONENT})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@[a-z0-9+._-]+:[0-9a-fA-F]{32,128})?"
)
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")

# What people know from `docker run` and from Docker's own documents, and what no spec can ask for.
# Any of these fields set to something answers -32009 with the rule; unset they are merely unknown.
DENIED_FIELDS: dict[str, str] = {
    **dict.fromkeys(("privileged",), "no privileged containers"),
    **dict.fromkeys(
        ("pid", "pid_mode", "ipc", "ipc_mode", "uts", "uts_mode", "userns", "userns_mode"),
        "no host namespaces",
    ),
    **dict.fromkeys(("cgroupns", "cgroupns_mode", "cgroup_parent"), "no host namespaces"),
    **dict.fromkeys(("net", "network_mode"), "no host namespaces"),
    **dict.fromkeys(("devices", "device_requests", "device_cgroup_rules", "gpus"), "no devices"),
    **dict.fromkeys(("binds", "mounts", "volumes", "volumes_from"), "no host paths"),
    **dict.fromkeys(("cap_add", "security_opt", "sysctls", "runtime"), "no added privileges"),
    **dict.fromkeys(("host_config", "HostConfig"), "no raw engine documents"),
}


def _image(value: str) -> str:
    if not _IMAGE.fullmatch(value):
        raise ValueError("is no image reference; write [registry/]name[:tag][@digest]")
    return value


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("a container's name takes letters, digits, '_', '.' and '-', at least two")
    return value


def _text(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
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


Text = Annotated[str, AfterValidator(_text)]
Labels = Annotated[dict[Text, Text], Field(max_length=1024), AfterValidator(_labels)]
Seconds = Annotated[float, Field(gt=0, le=MAX_SECONDS, allow_inf_nan=False)]


class Model(BaseModel):
    """The strictness that all of the interface's models share."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, hide_input_in_errors=True, defer_build=False
    )


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

    image: Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_image)] = Field(
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


def check_policy(fields: dict[str, Any], denied: Mapping[str, str] = DENIED_FIELDS) -> None:
    """Refuse what nobody may ask for, by name, before it is called an unknown field.

    Args:
        fields: as a caller sent them.
        denied: the fields that are never granted, each with its rule; by default a spec's.

    Raises:
        PolicyDenied: naming the first such field and the rule.
    """
    for field, value in fields.items():
        if value and (rule := denied.get(field)):
            raise PolicyDenied(
                f"{field} is denied: {rule}. Leave the field out.", field=field, rule=rule
            )
