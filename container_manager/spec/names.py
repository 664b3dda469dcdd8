"""What the engine lets things be called."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

# Of containers and of volumes (`RestrictedNameChars` in Docker's sources).
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_HOST = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9_.-]*[a-zA-Z0-9])?")

MAX_NAME = 128
MAX_HOST_NAME = 64
"""Linux takes no longer ones (`HOST_NAME_MAX`)."""


def is_name(value: str) -> bool:
    """Whether a container or a volume can be called so."""
    return len(value) <= MAX_NAME and _NAME.fullmatch(value) is not None


def is_host_name(value: str) -> bool:
    """Whether a host can be called so; as far as Docker goes, underscores are no harm."""
    return len(value) <= MAX_HOST_NAME and _HOST.fullmatch(value) is not None


def _container_name(value: str) -> str:
    if not is_name(value):
        raise ValueError("a container's name takes letters, digits, '_', '.' and '-', at least two")
    return value


ContainerName = Annotated[str, Field(max_length=MAX_NAME), AfterValidator(_container_name)]
