"""What the unit tests share: a clock that is set by hand, and a ledger on a real database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.unit.builders import Clock, Rooms, opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

# How long an example takes says something of the machine, and nothing of the program.
settings.register_profile("unit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unit")


@pytest.fixture
def clock() -> Clock:
    """The time, which passes when a test says so."""
    return Clock()


@pytest.fixture
async def rooms(tmp_path: Path, clock: Clock) -> AsyncIterator[Rooms]:
    """A ledger with its queue and its database."""
    async with opened(tmp_path, clock) as made:
        yield made
