"""Fixtures of the tests on a real engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio

from tests.integration.resources import Resources

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiodocker

    from tests.support.engine import Engine


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
