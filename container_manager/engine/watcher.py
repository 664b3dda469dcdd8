"""Keeps the connection to the engine, and passes on what happens there. For ever.

Subscribe first, then look at everything, and only then say that the engine is available: what
happens during the look is heard, what happened before is seen. Events are hints that say "look
again"; they are never replayed and never trusted for what they say. After each loss of the
connection everything is looked at anew, so that nothing depends on events that were missed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import structlog

from container_manager.engine.docker import Engine
from container_manager.engine.errors import EngineError, EngineUnavailable
from container_manager.spec import LABEL_PREFIX

FIRST_DELAY = 0.1
LONGEST_DELAY = 5.0

Hint = Callable[[str, str], None]
"""Called with a job's id and the engine's word for what happened: start, die, destroy, …"""

log = structlog.get_logger()


class Watcher:
    """The one task that connects to the engine."""

    def __init__(self, engine: Engine, *, look: Callable[[], Awaitable[None]], hint: Hint) -> None:
        """Watch `engine`; `look` looks at everything there, `hint` hears of single containers."""
        self._engine = engine
        self._look = look
        self._hint = hint

    async def run(self) -> None:
        """Connect, watch, and connect again."""
        delay = FIRST_DELAY
        said: str | None = None
        while True:
            reason = ""
            try:
                async for _ in self._watch():
                    delay, said = FIRST_DELAY, None
            except EngineError as error:
                reason = str(error)
            except Exception as error:
                # A defect, or a store that cannot be read: deploying waits, the daemon stays.
                log.exception("look at the engine broke")
                reason = f"the look at its containers broke ({type(error).__name__})"
            self._engine.set_unavailable(reason)
            if reason != said:
                log.warning("engine unavailable", reason=reason)
                said = reason
            # Jitter: many nodes may share the engine that has just come back.
            await asyncio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311
            delay = min(delay * 2, LONGEST_DELAY)

    async def _watch(self) -> AsyncIterator[None]:
        """One connection, from its making to its loss; yields when all is looked at."""
        engine = self._engine
        await engine.connect()
        async with engine.events() as events:
            reader = asyncio.create_task(self._read(events), name="engine-events")
            try:
                await self._look()
                engine.set_available()
                version = engine.version
                log.info(
                    "engine available",
                    address=engine.endpoint and engine.endpoint.url,
                    found_by=engine.endpoint and engine.endpoint.source,
                    version=version.get("Version"),
                    api_version=version.get("ApiVersion"),
                )
                yield
                while not reader.done():
                    doubted = asyncio.create_task(engine.doubted())
                    try:
                        await asyncio.wait((reader, doubted), return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        doubted.cancel()
                    if not reader.done():
                        await engine.ping()
                await reader
            finally:
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)

    async def _read(self, events: AsyncIterator[dict[str, Any]]) -> None:
        async for event in events:
            labels = event.get("Actor", {}).get("Attributes", {})
            if job_id := labels.get(f"{LABEL_PREFIX}job"):
                self._hint(job_id, event.get("Action", ""))
        raise EngineUnavailable("the engine closed its stream of events")
