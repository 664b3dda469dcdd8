"""Deployments by the engine's own calls, which ours are measured against."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from container_manager.engine.document import container_document
from container_manager.spec import LABEL_PREFIX, Spec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import aiodocker


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """One deployment, as its client saw it."""

    job: str = ""
    container: str
    began: float
    ended: float
    acknowledged: float = 0.0
    """Seconds that Create took to answer."""
    asked: float = 0.0
    """Seconds that Wait takes where there is nothing to wait for."""

    @property
    def seconds(self) -> float:
        return self.ended - self.began


class Raw:
    """The other side: the same document, asked of the engine with nothing in between."""

    def __init__(self, docker: aiodocker.Docker, image: str, *, home: str) -> None:
        self._docker = docker
        self._home = home
        self._names = f"cm-raw-{os.urandom(3).hex()}"
        self.spec = Spec(image=image)

    async def deploy(self, number: int) -> Deployed:
        """Create, start, inspect."""
        name = f"{self._names}-{number}"
        # As many as a job's, but for the one that would make it a job in the daemon's eyes.
        labels = {
            f"{LABEL_PREFIX}node": "0" * 32,
            f"{LABEL_PREFIX}home": self._home,
            f"{LABEL_PREFIX}epoch": "1",
            f"{LABEL_PREFIX}attempt": "1",
            f"{LABEL_PREFIX}type": "service",
            "bench": name,
        }
        began = time.perf_counter()
        document = container_document(self.spec, {}, labels)
        container = await self._docker.containers.create(document, name=name)
        await container.start()
        seen = await container.show()
        ended = time.perf_counter()
        assert seen["State"]["Running"], seen["State"]
        return Deployed(container=container.id, began=began, ended=ended)

    async def deploy_all(self, numbers: Iterable[int], at_once: int) -> list[Deployed]:
        """Deploy them all, `at_once` at a time."""
        left = iter(numbers)

        async def work() -> list[Deployed]:
            return [await self.deploy(number) for number in left]

        deployed = await asyncio.gather(*(work() for _ in range(at_once)))
        return [one for several in deployed for one in several]

    async def remove(self, container: str) -> None:
        """Remove a container of either side, running as it is."""
        await self._docker.containers.container(container).delete(force=True, v=True)

    async def remove_all(self, containers: Iterable[str]) -> None:
        """Remove many, a few at a time: the engine is no faster with more."""
        left = iter(containers)

        async def work() -> None:
            for container in left:
                await self.remove(container)

        await asyncio.gather(*(work() for _ in range(4)))


@contextmanager
def no_collections() -> Iterator[None]:
    """A collection of the test's own garbage must not fall into either side's time."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
