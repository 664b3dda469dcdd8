"""Fixtures of the tests on a real engine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest_asyncio

from tests.integration.resources import Resources

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiodocker

    from tests.support.engine import Engine

SYSTEMD = Path("/run/systemd/system").is_dir()


@pytest_asyncio.fixture
async def resources(
    engine: Engine, docker: aiodocker.Docker, image: str
) -> AsyncIterator[Resources]:
    """Names for networks and volumes, and containers that use them."""
    made = Resources(engine, docker, image)
    try:
        yield made
    finally:
        made.remove_all()


@pytest_asyncio.fixture
async def health_timers(engine: Engine) -> AsyncIterator[None]:
    """Have health checks run where nobody does: Podman leaves that to timers of systemd's."""
    if not engine.podman or SYSTEMD:
        yield
        return

    async def tick() -> None:
        while True:
            await asyncio.to_thread(engine.check_health)
            await asyncio.sleep(0.2)

    ticking = asyncio.create_task(tick())
    try:
        yield
        assert not ticking.done(), ticking.exception()
    finally:
        ticking.cancel()
