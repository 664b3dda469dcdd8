"""What the calls about networks and about volumes share: names, listings, and whose they are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from container_manager.api.params import wanted_labels
from container_manager.api.views import parse_time, time_view
from container_manager.engine.ownership import NODE_LABEL
from container_manager.errors import Conflict
from container_manager.spec import LABEL_PREFIX, Model

MAX_LISTED = 1000
_NAME = r"[a-zA-Z0-9][a-zA-Z0-9_.-]+"


def _name(value: str) -> str:
    # The engine names volumes like this. It takes any text for a network, which then is no name
    # that other tools, files and the network's own DNS could use.
    if not re.fullmatch(_NAME, value):
        raise ValueError("a name takes letters, digits, '_', '.' and '-', at least two")
    return value


Name = Annotated[str, Field(max_length=128), AfterValidator(_name)]


class ResourceListParams(Model):
    """NetworkService.List and VolumeService.List."""

    label: str | list[str] | None = Field(
        default=None,
        description="Only those with this label, `key` or `key=value`, or all of these.",
    )
    limit: Annotated[int, Field(ge=1, le=MAX_LISTED)] = Field(
        default=MAX_LISTED, description="How many the answer holds at most, the first by name."
    )


class RemovedView(TypedDict):
    """What was removed, by its names."""

    removed: list[str]


def bears(labels: Mapping[str, str], label: str | list[str] | None) -> bool:
    """Whether these labels are those that a listing is to show."""
    return all(
        key in labels and value in (None, labels[key]) for key, value in wanted_labels(label)
    )


def callers_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels less the manager's own."""
    return {key: value for key, value in labels.items() if not key.startswith(LABEL_PREFIX)}


def created_view(text: str | None) -> str | None:
    """The engine's time as all calls give times."""
    return None if text is None else time_view(parse_time(text))


def strangers(kind: Literal["network", "volume"], name: str, labels: Mapping[str, str]) -> Conflict:
    """The refusal to touch what this node has not made."""
    if NODE_LABEL in labels:
        whose, remedy = "belongs to another node on this engine", "Call that node"
    else:
        whose = "was not made by container-manager"
        remedy = f"Remove it with `docker {kind} rm {name}`"
    return Conflict(f"The {kind} {name} {whose} and is left alone. {remedy}.", **{kind: name})
