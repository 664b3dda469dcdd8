"""Labels: texts by name."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from container_manager.spec.model import LABEL_PREFIX, Text


def _labels(value: dict[str, str]) -> dict[str, str]:
    for key in value:
        if not key or key.startswith(LABEL_PREFIX):
            raise ValueError(f"a label must not be empty or begin with '{LABEL_PREFIX}'")
    return value


Labels = Annotated[dict[Text, Text], Field(max_length=1024), AfterValidator(_labels)]
