"""One attempt to deploy a job: image, container, start, first look.

The intention is on disk before the engine is touched, and the container carries job and attempt as
labels. An attempt that was cut short, by a crash of this process or of the engine, is taken up
again from what its labels find there: it goes on where it stopped, and nothing is made twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from container_manager.engine.answers import Inspected
from container_manager.engine.docker import Engine
from container_manager.engine.document import container_document, further_networks
from container_manager.engine.errors import (
    ContainerMissing,
    EngineRefused,
    EngineRejected,
    ImageMissing,
    NameTaken,
)
from container_manager.engine.pulls import Pulls
from container_manager.job import REMOVED, Container, Job, Phase
from container_manager.spec import LABEL_PREFIX
from container_manager.store.sealing import Seal, SealBroken
from container_manager.work.judgement import Kind, judge
from container_manager.work.ledger import Ledger
from container_manager.work.outcomes import Outcomes
from container_manager.work.queue import JobQueue
from container_manager.work.slots import Slot

T = TypeVar("T")

_NAME_TRIES = 3


class Cancelled(Exception):
    """The job's cancelling was asked for while its attempt waited."""


@dataclass(frozen=True, slots=True)
class Deployer:
    """What an attempt works with."""

    ledger: Ledger
    queue: JobQueue
    engine: Engine
    pulls: Pulls
    outcomes: Outcomes
    seal: Seal
    home: str
    """What the containers' labels say of where they were deployed from."""
    settle: float
    """Seconds that a service has to keep running before it counts as up."""

    async def attempt(
        self, job: Job, slot: Slot, cancel: asyncio.Event, *, resumed: bool, after_outage: bool
    ) -> Job:
        """Carry the job's current attempt as far as a worker has to; gives the job as it is then.

        Args:
            job: a running job.
            slot: the right to deploy now.
            cancel: set when the job's cancelling is asked for.
            resumed: whether the attempt was begun before, so that it may have left a container.
            after_outage: whether it was the engine's end that cut it short.

        Raises:
            EngineUnavailable: the engine went away; what it did last is not known.
            StorageUnavailable: the outcome could not be kept; the attempt can be resumed.

        A job that is given back running and not followed was asked to be cancelled at the last
        moment: another round ends it.
        """
        container: Container | None = None
        try:
            # An attempt that begins in this moment cannot have left anything; earlier ones can.
            if resumed or job.attempts > 1:
                container = await self._find(job)
            after_outage = after_outage and container is not None
            if job.cancel_requested or cancel.is_set():
                return await self.outcomes.cancel(job, container)
            if container is None and job.phase is Phase.STARTING and job.container is not None:
                # It may have run, and must not run again: whoever removed it knows.
                container = job.container.removed(self.ledger.now())
            if container is None:
                container = await self._create(job, slot, cancel)
            if container.started_at is None and container.state != REMOVED:
                if cancel.is_set():
                    return await self.outcomes.cancel(job, container)
                container = await self._start(job, container)
                slot.finish()
        except Cancelled:
            return await self.outcomes.cancel(job, container)
        except (EngineRefused, EngineRejected, ContainerMissing, SealBroken) as error:
            return await self.outcomes.attempt_failed(
                job,
                str(error),
                await self._leftover(job, container),
                heals=isinstance(error, EngineRefused | ContainerMissing),
                pause=error.retry_after if isinstance(error, EngineRefused) else 0.0,
            )
        return await self._after_start(job, container, after_outage=after_outage)

    async def _after_start(self, job: Job, container: Container, *, after_outage: bool) -> Job:
        verdict = judge(job, container, settled=self.settle == 0, after_outage=after_outage)
        if verdict.kind is not Kind.WAIT:
            return await self.outcomes.apply(job, verdict, container)
        phase = Phase.RUNNING if job.spec.type == "batch" else Phase.VERIFYING
        return await self.ledger.change(
            job.id, lambda j: j.entered(phase, self.ledger.now(), container)
        )

    async def _find(self, job: Job) -> Container | None:
        """The container that this attempt has made already; those of earlier ones are removed."""
        found = None
        for listed in await self.engine.list_jobs(job.id):
            if listed.name != job.container_name:
                continue  # labels are inherited by images made of a container; names are not
            if listed.attempt < job.attempts:
                await self.engine.remove(listed.id)
                continue
            try:
                found = (await self.engine.inspect(listed.id)).container
            except ContainerMissing:
                continue
        return found

    async def _leftover(self, job: Job, container: Container | None) -> Container | None:
        """What a failed attempt has left at the engine, as it is now."""
        if container is None:
            return None
        try:
            return (await self.engine.inspect(container.id)).container
        except ContainerMissing:
            return container.removed(self.ledger.now())

    async def _create(self, job: Job, slot: Slot, cancel: asyncio.Event) -> Container:
        spec = job.spec
        env = self.seal.open(job.sealed_env, job.id)
        document = container_document(spec, env, job.labels(home=self.home))
        pulled = spec.pull == "always" or (
            spec.pull == "missing" and self.pulls.progress(spec) is not None
        )
        if pulled:
            await self._pull(job, slot, cancel)
        name = job.container_name
        for _ in range(_NAME_TRIES):
            slot.begin()
            try:
                id_ = await self.engine.create(document, name, spec.platform)
                return Container(id=id_, name=name, state="created", seen_at=self.ledger.now())
            except ImageMissing:
                if pulled or spec.pull == "never":
                    raise
                await self._pull(job, slot, cancel)
                pulled = True
            except NameTaken as taken:
                if (ours := await self._yield_name(job, name, taken)) is not None:
                    return ours.container
        raise EngineRefused(f"the name {name} is taken again and again")

    async def _yield_name(self, job: Job, name: str, taken: NameTaken) -> Inspected | None:
        """See who has the name: an earlier attempt (removed), this one (adopted), a stranger."""
        try:
            holder = await self.engine.inspect(name)
        except ContainerMissing:
            return None
        if holder.labels.get(f"{LABEL_PREFIX}job") != job.id:
            raise EngineRejected(str(taken)) from taken
        attempt = holder.labels.get(f"{LABEL_PREFIX}attempt", "")
        if attempt.isdecimal() and int(attempt) < job.attempts:
            await self.engine.remove(holder.container.id)
            return None
        return holder  # of a later attempt, where the store is an older copy of itself

    async def _pull(self, job: Job, slot: Slot, cancel: asyncio.Event) -> None:
        """Wait for the image, without the slot: others can deploy meanwhile what is at hand."""
        now = self.ledger.now
        await self.ledger.change(job.id, lambda j: j.entered(Phase.PULLING, now()))
        limit = job.spec.deploy_timeout
        with self.queue.outside():
            async with slot.left():
                try:
                    async with asyncio.timeout(job.deploy_seconds_left(now())):
                        await _unless(cancel, self.pulls.pull(job.spec))
                except TimeoutError as error:
                    raise EngineRefused(
                        f"the image was not pulled within the deploy_timeout of {limit:g} s"
                    ) from error
        await self.ledger.change(job.id, lambda j: j.entered(Phase.CREATING, now()))

    async def _start(self, job: Job, container: Container) -> Container:
        # Noted while the engine works: what the start is based on, the attempt, is on disk since
        # before the container was made.
        noted = self.ledger.change(
            job.id, lambda j: j.entered(Phase.STARTING, self.ledger.now(), container)
        )
        try:
            for network, endpoint in further_networks(job.spec):
                await self.engine.connect_network(container.id, network, endpoint)
            await self.engine.start(container.id)
        finally:
            await noted
        try:
            return (await self.engine.inspect(container.id)).container
        except ContainerMissing:
            return container.removed(self.ledger.now())


async def _unless(event: asyncio.Event, work: Awaitable[T]) -> T:
    """Await `work`, given up when `event` is set.

    Raises:
        Cancelled: it was.
    """
    working = asyncio.ensure_future(work)
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Cancelled
        return working.result()
    finally:
        waiting.cancel()
        working.cancel()
        await asyncio.gather(working, waiting, return_exceptions=True)
