"""Sizes, as Docker's flags read them (package `units` of https://github.com/docker/go-units)."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

MIN_MEMORY = 6 * 1024 * 1024
"""The least memory, in bytes, that the engine limits a container to."""

_MAX = 2**63 - 1
_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+) ?(?:b|([kmgtp])(?:i?b)?)?", re.ASCII | re.IGNORECASE)
_BINARY = {unit: 1024 ** (power + 1) for power, unit in enumerate("kmgtp")}
_HINT = 'a plain number is bytes: write "512m" for 512 MiB'


def parse_size(value: Any) -> int:
    """Bytes of a number, or of a text such as "512m", "1.5g" or "64 KiB"; units are binary.

    Raises:
        ValueError: it is no size.
    """
    if type(value) is int:
        size: float = value
    elif isinstance(value, str) and len(value) <= 32 and (match := _SIZE.fullmatch(value)):
        size = float(match[1]) * _BINARY.get((match[2] or "").lower(), 1)
    else:
        raise ValueError('is no size; write bytes as a number, or "64k", "512m", "1.5g"')
    if not 0 < size <= _MAX:
        raise ValueError("a size has to be more than 0 and less than 2^63 bytes")
    return int(size)


def _memory(value: Any) -> int:
    size = parse_size(value)
    if size >= MIN_MEMORY:
        return size
    plain = type(value) is int or value.isdecimal()
    raise ValueError(
        f"the least that the engine takes is 6m (6 MiB){'; ' + _HINT if plain else ''}"
    )


_PATTERN = r"^(\d+(\.\d*)?|\.\d+) ?([bB]|[kKmMgGtTpP]([iI]?[bB])?)?$"
_Input = Annotated[int, Field(gt=0)] | Annotated[str, Field(pattern=_PATTERN)]
Size = Annotated[int, BeforeValidator(parse_size, json_schema_input_type=_Input)]
Memory = Annotated[int, BeforeValidator(_memory, json_schema_input_type=_Input)]
