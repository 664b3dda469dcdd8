"""ContainerService: the calls that create containers and ask after the jobs that do it."""

from __future__ import annotations

from typing import Any

from container_manager.api import views
from container_manager.api.calls import Call
from container_manager.api.params import (
    CreateParams,
    JobParams,
    ListParams,
    WaitParams,
    several,
    wanted_labels,
)
from container_manager.engine.docker import Engine
from container_manager.engine.pulls import Pulls
from container_manager.errors import Conflict
from container_manager.job import Job, Phase, Status
from container_manager.store.document import Document, document
from container_manager.store.jobs import Filter, row
from container_manager.work.ledger import Ledger
from container_manager.work.tracker import Tracker


class ContainerService:
    """Creating containers, and asking after the jobs that do it."""

    def __init__(self, ledger: Ledger, tracker: Tracker, engine: Engine, pulls: Pulls) -> None:
        """Answer from `ledger`, cancel by way of `tracker`; tell of `engine` and `pulls`."""
        self._ledger = ledger
        self._tracker = tracker
        self._engine = engine
        self._pulls = pulls

    def calls(self) -> list[Call[Any]]:
        """All calls of this service."""
        name = "ContainerService."
        return [
            Call(name + "Create", CreateParams, views.CreateView, self.create),
            Call(name + "Status", JobParams, views.StatusView, self.status),
            Call(name + "List", ListParams, views.ListView, self.list),
            Call(name + "Cancel", JobParams, views.JobView, self.cancel),
            Call(name + "Retry", JobParams, views.JobView, self.retry),
            Call(name + "Wait", WaitParams, views.WaitView, self.wait),
        ]

    async def create(self, params: CreateParams) -> views.CreateView:
        """Queue a container. The answer comes once the job is on disk."""
        job_id = await self._ledger.create(params, params.idempotency_key)
        status = Status.PENDING
        if params.idempotency_key is not None:
            # A job that its key has brought back may be further on, and even forgotten.
            if (job := self._ledger.find(job_id)) is None:
                raise Conflict(
                    "The job that was made under this idempotency_key has ended, and its record "
                    "is not kept any more. Use a new key for another one.",
                    field="idempotency_key",
                    job_id=job_id,
                )
            status = job.status
        return {"job_id": job_id, "message": "Job created successfully", "status": status.value}

    async def status(self, params: JobParams) -> views.StatusView:
        """How a job stands, and what the engine last said of its container."""
        job, output = self._ledger.look_up(params.job_id)
        return {**self._view(job), "output": output}

    async def list(self, params: ListParams) -> views.ListView:
        """The jobs, newest first, page by page.

        A page can hold fewer jobs than its limit, even none, and still have a next_cursor.
        """
        wanted = Filter(
            status=frozenset(map(Status, several(params.status))),
            labels=wanted_labels(params.label),
            since=None if params.since is None else views.parse_time(params.since),
        )
        page = await self._ledger.page(wanted, params.limit, params.cursor)
        return {"jobs": [self._view(job) for job in page.jobs], "next_cursor": page.next_cursor}

    async def cancel(self, params: JobParams) -> views.JobView:
        """Cancel a job, in whatever phase; one that runs is ended, which Wait awaits."""
        return self._view(_plain(await self._tracker.cancel(params.job_id)))

    async def retry(self, params: JobParams) -> views.JobView:
        """Try a failed, cancelled or lost job again from the start."""
        return self._view(_plain(await self._ledger.retry(params.job_id)))

    async def wait(self, params: WaitParams) -> views.WaitView:
        """Answer when the job is final; after `timeout` seconds with how it stands then."""
        job = await self._ledger.wait(params.job_id, params.timeout)
        output, timed_out = self._ledger.output(job), not job.status.final
        return {**self._view(_plain(job)), "output": output, "timed_out": timed_out}

    def _view(self, job: Document) -> views.JobView:
        progress = None
        if job["phase"] == Phase.PULLING:
            progress = self._pulls.progress(self._ledger.get(job["id"]).spec)
        return views.job_view(job, self._engine.unavailable, progress)


def _plain(job: Job) -> Document:
    """A job as the store would give it back, so that there is one way to show one."""
    return document(row(job))
