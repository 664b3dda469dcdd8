"""The ledger: the one door through which a job comes to be and changes.

Each change is a pure step of `container_manager.job`, applied to the job as the store has it,
inside the transaction that writes it: two changes at once cannot overwrite each other, and none is
reported before it is on disk. After the commit the queue and those who wait are told, whether or
not the one who asked is still there.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from uuid import UUID

import orjson

from container_manager.errors import ApplicationError, Conflict, JobNotFound, NodeUnreachable
from container_manager.job import Job, Status
from container_manager.record import Record
from container_manager.spec import Spec
from container_manager.store import jobs, records
from container_manager.store.database import Connection, Database
from container_manager.store.document import Document, job_id_of
from container_manager.store.feeds import OwnFeed
from container_manager.store.records import JOB, Place
from container_manager.store.sealing import Seal, SealBroken
from container_manager.work.ids import JobIds
from container_manager.work.queue import JobQueue

IDEMPOTENCY_SECONDS = 24 * 3600
MAX_WAITERS = 2000
"""Calls that may wait for jobs at a time."""

_CANONICAL = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Step = Callable[[Job], Job]


class Ledger:
    """All jobs of this node, behind the rules by which they change."""

    def __init__(
        self,
        database: Database,
        seal: Seal,
        queue: JobQueue,
        node: str,
        feed: OwnFeed,
        now: Callable[[], int],
        *,
        retain: float,
    ) -> None:
        """Keep the jobs of `node` in `database`.

        Args:
            database: the open job store.
            seal: closes the environments of new jobs.
            queue: is told what waits for a worker.
            node: this node's id, the owner of its jobs.
            feed: takes all that is written, for other nodes to be told of it.
            now: the time in microseconds since 1970, UTC.
            retain: seconds after which everybody forgets a job that is done with.
        """
        self._database = database
        self._seal = seal
        self._queue = queue
        self.node = node
        """The id of the node whose jobs these are."""
        self._feed = feed
        self._retain = int(retain * 1e6)
        self._ids = JobIds()
        self._waiters: dict[str, set[asyncio.Future[Job]]] = {}
        self._waiting_callers = 0
        self._expected: dict[str, set[asyncio.Future[None]]] = {}
        self._stopping = False
        self.now = now
        self.created = 0
        """Jobs made since the start."""
        self.outcomes: Counter[Status] = Counter()
        """Jobs that have come to each final status since the start."""
        self.when_brought_back: Callable[[Job], None] | None = None
        """Called with a job of this node's own that other nodes knew better."""
        self.when_removal_due: Callable[[], None] | None = None
        """Called when a job's container has come to have a time at which it is to be removed."""

    # -- making and changing -------------------------------------------------------------------

    async def create(self, spec: Spec, idempotency_key: str | None = None) -> str:
        """Keep a new job and give its id once it is on disk; with a known key, that of its job.

        Raises:
            QueueFull: too many jobs wait.
            Conflict: the key was used for another spec.
            StorageUnavailable: it could not be written; nothing was queued.
        """
        if idempotency_key is not None and (known := self._recall(idempotency_key, spec)):
            return known
        now = self.now()
        job_id = self._ids.new(now)
        self._queue.admit(job_id)
        sealed = self._seal.close(spec.env, job_id)
        place = self._feed.next_place()
        values = jobs.new_row(job_id, self.node, spec, sealed, now, place)

        def then(kept_id: str | None, error: BaseException | None) -> None:
            if error is None and kept_id in (None, job_id):
                self._feed.committed(place.seq)
                self.created += 1
                self._queue.add(job_id)
            else:
                self._queue.discard(job_id)

        if idempotency_key is None:
            await self._database.append(jobs.TABLE, values, then)
            return job_id

        def insert_once(connection: Connection) -> str:
            fingerprint = self._fingerprint(spec)
            if (kept := jobs.recall(connection, idempotency_key, now)) is not None:
                return _same(kept, fingerprint)
            expires_at = now + IDEMPOTENCY_SECONDS * 1_000_000
            jobs.remember(connection, idempotency_key, fingerprint, job_id, now, expires_at)
            jobs.insert(connection, values)
            return job_id

        return await self._database.write(insert_once, then)

    def change(
        self, job_id: str, step: Step, output: list[str] | None = None
    ) -> asyncio.Future[Job]:
        """Apply `step` to the job; awaiting gives the job as it is then, once that is on disk.

        A step that returns the job it was given changes nothing; else `output` is kept as the last
        lines that its container has written, if it is given. The write happens also when the one
        who awaits it is cancelled.

        Raises (when awaited):
            JobNotFound: there is none of this id.
            Conflict: the step refuses.
            StorageUnavailable: it could not be written; the job is as it was.
        """
        moved = False
        if (canonical := _canonical(job_id)) is None:
            raise JobNotFound
        sealed = None if output is None else self._seal.close_output(output, canonical)
        place = self._feed.next_place()

        def apply(connection: Connection) -> Job:
            nonlocal moved
            before, stood = self._own(connection, canonical)
            after = step(before)
            if after is not before:
                jobs.update(connection, after, stood, place, self._expires_at(after))
                if sealed is not None:
                    jobs.set_output(connection, canonical, sealed)
            moved = after.status is not before.status
            return after

        def then(job: Job, error: BaseException | None) -> None:
            if error is not None:
                return
            self._feed.committed(place.seq)
            if moved:
                self._tell(job)
            if job.removal_due is not None and self.when_removal_due:
                self.when_removal_due()

        return self._database.write(apply, then)

    def _own(self, connection: Connection, job_id: str) -> tuple[Job, Place]:
        """A job that this node may change, and the place that it stands at."""
        if (found := jobs.get_placed(connection, job_id)) is None:
            raise JobNotFound
        if found[0].node != self.node:
            raise NodeUnreachable(found[0].node)
        return found

    async def retry(self, job_id: str) -> Job:
        """Let a job that has ended be tried again from the start.

        Raises:
            JobNotFound: there is none of this id.
            Conflict: it has not ended, or it is complete.
            QueueFull: too many jobs wait.
        """
        self.get(job_id).retried(self.now())  # a refusal is not to depend on a full queue
        self._queue.check_room()
        return await self.change(job_id, lambda job: job.retried(self.now()))

    async def restore(self, job: Job) -> bool:
        """Keep a job that was found by its container's labels; False when it is known after all."""
        sealed = self._seal.close(job.spec.env, job.id)
        place = self._feed.next_place()
        values = jobs.row(replace(job, sealed_env=sealed), place, self._expires_at(job))
        inserted = await self._database.write(lambda c: jobs.insert(c, values))
        self._feed.committed(place.seq)
        if inserted and job.needs_worker:
            self._queue.add(job.id)
        return inserted

    # -- reading -------------------------------------------------------------------------------

    def find(self, job_id: str) -> Job | None:
        """The job of this id, if there is one."""
        if (canonical := _canonical(job_id)) is None:
            return None
        return self._database.read(lambda connection: jobs.get(connection, canonical))

    def get(self, job_id: str) -> Job:
        """The job of this id.

        Raises:
            JobNotFound: there is none.
        """
        if (job := self.find(job_id)) is None:
            raise JobNotFound
        return job

    def look_up(self, job_id: str) -> tuple[Document, list[str] | None]:
        """A job in plain values, and the last lines that its container has written, if any.

        Raises:
            JobNotFound: there is none of this id.
        """
        if (canonical := _canonical(job_id)) is None:
            raise JobNotFound
        found = self._database.read(lambda connection: jobs.look_up(connection, canonical))
        if found is None:
            raise JobNotFound
        job, sealed = found
        return job, self._lines(sealed, job["id"])

    def output(self, job: Job) -> list[str] | None:
        """The last lines that a job's container has written; None where none were kept."""
        sealed = self._database.read(lambda connection: jobs.output(connection, job.id))
        return self._lines(sealed, job.id)

    def _lines(self, sealed: bytes | None, job_id: str) -> list[str] | None:
        try:
            return None if sealed is None else self._seal.open_output(sealed, job_id)
        except SealBroken:
            return None

    async def page(self, wanted: jobs.Filter, limit: int, cursor: str | None) -> jobs.Page:
        """A part of a listing, newest first."""
        return await self._database.scan(
            lambda connection: jobs.page(connection, wanted, limit, cursor)
        )

    async def followed_ids(self) -> list[str]:
        """The ids of all jobs whose containers have to be watched."""
        return await self._database.scan(lambda c: jobs.followed_ids(c, self.node))

    async def due_removals(self, limit: int) -> list[Job]:
        """Jobs whose ended containers are to be removed by now."""
        now = self.now()
        return await self._database.scan(lambda c: jobs.due_removals(c, self.node, now, limit))

    async def seconds_to_next_removal(self) -> float | None:
        """Seconds until a container is to be removed that is not due yet; None if there is none."""
        now = self.now()
        due = await self._database.scan(lambda c: jobs.next_removal(c, self.node, now))
        return None if due is None else (due - now) / 1e6

    async def forget(self, *, age: float, most: int, limit: int) -> int:
        """Drop jobs that are done with: older than `age` seconds, or beyond the newest `most`.

        At most `limit` of them; gives how many there were.
        """
        now = self.now()
        before = now - int(age * 1e6)
        keys = await self._database.scan(
            lambda c: jobs.outdated(c, self.node, now=now, before=before, most=most, limit=limit)
        )
        if keys:
            return await self._database.write(lambda c: jobs.forget(c, self.node, keys))
        # And for good what was dropped so long ago that nobody can bring it back.
        dropped = now - self._retain
        while await self._database.scan(lambda c: records.any_dropped(c, dropped)):
            await self._database.write(lambda c: records.forget_dropped(c, dropped, limit))
        return 0

    def enqueue_waiting(self) -> None:
        """Queue every job that needs a worker, as at a start."""
        for job_id, due_at in self._database.read(lambda c: list(jobs.waiting(c, self.node))):
            self._queue.add(job_id, self._delay(due_at))

    async def wait(self, job_id: str, timeout: float) -> Job:
        """The job once it is final, or as it is after `timeout` seconds.

        Raises:
            JobNotFound: there is none.
            Conflict: too many callers wait already.
        """
        job = self.get(job_id)
        if job.status.final or timeout <= 0 or self._stopping:
            return job
        if self._waiting_callers >= MAX_WAITERS:
            raise Conflict(
                f"{MAX_WAITERS} callers wait for jobs already; ask for the Status instead.",
                limit=MAX_WAITERS,
            )
        future: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
        # No await stands between the look above and this line, so no change is missed.
        waiters = self._waiters.setdefault(job.id, set())
        waiters.add(future)
        self._waiting_callers += 1
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            return self.get(job.id)
        finally:
            self._waiting_callers -= 1
            waiters.discard(future)
            if not waiters and self._waiters.get(job.id) is waiters:
                del self._waiters[job.id]

    async def arrival(self, job_id: str, timeout: float) -> None:
        """Wait until a job has come that another node has; at most `timeout` seconds."""
        if (canonical := _canonical(job_id)) is None or self.find(canonical) is not None:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        expected = self._expected.setdefault(canonical, set())
        expected.add(future)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await future
        expected.discard(future)
        if not expected and self._expected.get(canonical) is expected:
            del self._expected[canonical]

    def stop_waiting(self) -> None:
        """Answer all who wait, now and later, with how things stand: the daemon is to end."""
        self._stopping = True
        for job_id, futures in self._waiters.items():
            for future in futures:
                if not future.done():
                    try:
                        future.set_result(self.get(job_id))
                    except ApplicationError as error:  # the store cannot be read
                        future.set_exception(error)

    # -- after a commit ------------------------------------------------------------------------

    def told(self, taken: Sequence[Record]) -> None:
        """Other nodes' records have come, and are on disk.

        Also of this node's own jobs, where it has lost its latest writings: they are taken up as
        they stand.
        """
        for record in taken:
            if record.kind != JOB or record.body is None:
                continue
            job_id = job_id_of(record.id)
            for future in self._expected.pop(job_id, ()):
                if not future.done():
                    future.set_result(None)
            mine = record.writer == self.node
            if (mine or job_id in self._waiters) and (job := self.find(job_id)) is not None:
                if mine and self.when_brought_back is not None:
                    self.when_brought_back(job)
                self._tell(job, mine=mine)

    def _tell(self, job: Job, *, mine: bool = True) -> None:
        """Tell of a job's new status."""
        if job.status is Status.PENDING:
            if mine:
                self._queue.add(job.id, self._delay(job.due_at))
            return
        self._queue.discard(job.id)
        if job.status.final:
            self.outcomes[job.status] += mine
            for future in self._waiters.pop(job.id, ()):
                if not future.done():
                    future.set_result(job)

    def _expires_at(self, job: Job) -> int | None:
        """When everybody drops the job; None as long as something may come of it."""
        return job.updated_at + self._retain if job.done else None

    def _delay(self, due_at: int | None) -> float:
        return 0.0 if due_at is None else max(0.0, (due_at - self.now()) / 1e6)

    # -- idempotency keys ----------------------------------------------------------------------

    def _recall(self, key: str, spec: Spec) -> str | None:
        """The id of a key's job, looked up before a place in the queue is asked for."""
        now = self.now()
        kept = self._database.read(lambda connection: jobs.recall(connection, key, now))
        return None if kept is None else _same(kept, self._fingerprint(spec))

    def _fingerprint(self, spec: Spec) -> bytes:
        # By what is set alone: a later version with more fields comes to the same.
        document = spec.model_dump(mode="json", exclude_defaults=True)
        return self._seal.fingerprint(orjson.dumps(document, option=orjson.OPT_SORT_KEYS))


def _canonical(job_id: str) -> str | None:
    """The id as the store has it; None where it is none."""
    if _CANONICAL.fullmatch(job_id):  # as Create gave it, which nearly all are
        return job_id
    try:
        return str(UUID(job_id))
    except ValueError:
        return None


def _same(kept: tuple[bytes, str], fingerprint: bytes) -> str:
    """The id of the job that was kept under a key, if it was made from the same spec."""
    if kept[0] != fingerprint:
        raise Conflict(
            "The idempotency_key was used within 24 hours for another spec. Use a new key.",
            field="idempotency_key",
            job_id=kept[1],
        )
    return kept[1]
