"""Labels and environment variables: texts by name."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from container_manager.spec.model import LABEL_PREFIX, at


def _env(value: dict[str, str]) -> dict[str, str]:
    for key, text in value.items():
        if not key or "=" in key:
            raise ValueError("a variable's name must not be empty or contain '='")
        if "\0" in key or "\0" in text:
            raise at(key, ValueError("must not contain a NUL character"))
    return value


def _labels(value: dict[str, str]) -> dict[str, str]:
    for key, text in value.items():
        if not key or key.startswith(LABEL_PREFIX):
            raise ValueError(f"a label must not be empty or begin with '{LABEL_PREFIX}'")
        if "\0" in key or "\0" in text:
            raise at(key, ValueError("must not contain a NUL character"))
    return value


# One call for all of it: Create is asked for thousands of times a second.
Env = Annotated[dict[str, str], Field(max_length=4096), AfterValidator(_env)]
Labels = Annotated[dict[str, str], Field(max_length=1024), AfterValidator(_labels)]
