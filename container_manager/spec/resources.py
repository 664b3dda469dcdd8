"""How much of a node a container may take."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

_MAX_CPU = 8191
"""The highest number of a processor that Linux knows (`NR_CPUS`)."""
_CPUSET = re.compile(r"\d{1,4}(?:-\d{1,4})?(?:,\d{1,4}(?:-\d{1,4})?)*", re.ASCII)


def _cpuset(value: str) -> str:
    if not _CPUSET.fullmatch(value):
        raise ValueError('is no list of processors; write "0-3" or "0,2,4-5"')
    for part in value.split(","):
        first, _, last = part.partition("-")
        if not int(first) <= int(last or first) <= _MAX_CPU:
            raise ValueError(f"a range of processors rises, up to {_MAX_CPU} at most")
    return value


Cpus = Annotated[float, Field(ge=0.01, le=_MAX_CPU + 1, allow_inf_nan=False)]
Cpuset = Annotated[str, Field(max_length=1024), AfterValidator(_cpuset)]
Pids = Annotated[int, Field(ge=1, le=4_194_304)]  # Linux has no more (`PID_MAX_LIMIT`)
