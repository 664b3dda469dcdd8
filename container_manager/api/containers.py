"""ContainerService: the calls that create containers and ask after the jobs that do it."""

from __future__ import annotations

from typing import Any, cast

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
from container_manager.cluster.calls import Method
from container_manager.engine.docker import Engine
from container_manager.engine.pulls import Pulls
from container_manager.errors import Conflict, JobNotFound, NodeUnreachable
from container_manager.job import Job, Phase, Status
from container_manager.store.document import Document, document
from container_manager.store.jobs import Filter, row
from container_manager.work.cluster import Cluster
from container_manager.work.ledger import Ledger
from container_manager.work.tracker import Tracker

STATUS, CANCEL, RETRY = (f"ContainerService.{name}" for name in ("Status", "Cancel", "Retry"))
ASKING_SECONDS = 0.5
"""Seconds in which other nodes may tell of a job that this one has not heard of."""


class ContainerService:
    """Creating containers, and asking after the jobs that do it."""

    def __init__(self, ledger: Ledger, tracker: Tracker, engine: Engine, pulls: Pulls) -> None:
        """Answer from `ledger`, cancel by way of `tracker`; tell of `engine` and `pulls`."""
        self._cluster: Cluster | None = None
        self._ledger = ledger
        self._tracker = tracker
        self._engine = engine
        self._pulls = pulls

    def join(self, cluster: Cluster) -> None:
        """Ask other nodes what they know better, from now on."""
        self._cluster = cluster

    def calls(self) -> list[Call[Any]]:
        """All calls of this service."""
        name = "ContainerService."
        return [
            Call(name + "Create", CreateParams, views.CreateView, self.create),
            Call(STATUS, JobParams, views.StatusView, self.status),
            Call(name + "List", ListParams, views.ListView, self.list),
            Call(CANCEL, JobParams, views.JobView, self.cancel),
            Call(RETRY, JobParams, views.JobView, self.retry),
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
        try:
            return self._status(params.job_id)
        except JobNotFound:
            return await self._asked_for(params.job_id)

    async def _asked_for(self, job_id: str) -> views.StatusView:
        """A job that this node has not heard of: made elsewhere a moment ago, it is on its way."""
        found = None
        if self._cluster is not None:
            found = await self._cluster.ask_all(STATUS, {"job_id": job_id}, ASKING_SECONDS)
        if found is None:
            raise JobNotFound
        return cast("views.StatusView", found)

    def _status(self, job_id: str) -> views.StatusView:
        job, output = self._ledger.look_up(job_id)
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
        return await self._by_owner(CANCEL, params.job_id)

    async def retry(self, params: JobParams) -> views.JobView:
        """Try a failed, cancelled or lost job again from the start."""
        return await self._by_owner(RETRY, params.job_id)

    async def _by_owner(self, method: str, job_id: str) -> views.JobView:
        """Have the node do it that owns the job."""
        if (job := self._ledger.find(job_id)) is not None:
            node, status = job.node, job.status.value
        else:
            asked = await self._asked_for(job_id)
            node, status = asked["node"], asked["status"]
        if node == self._ledger.node:
            return await self._here(method, job_id)
        if self._cluster is None:
            raise NodeUnreachable(node, status=status)
        try:
            answer = await self._cluster.ask(node, method, {"job_id": job_id})
        except NodeUnreachable:
            raise NodeUnreachable(node, status=status) from None
        return cast("views.JobView", answer)

    async def _here(self, method: str, job_id: str) -> views.JobView:
        if method == CANCEL:
            return self._view(_plain(await self._tracker.cancel(job_id)))
        return self._view(_plain(await self._ledger.retry(job_id)))

    def methods(self) -> dict[str, Method]:
        """What other nodes may have this one do with its own jobs."""

        async def status(params: dict[str, Any]) -> Any:
            return self._status(str(params.get("job_id")))

        async def cancel(params: dict[str, Any]) -> Any:
            return await self._here(CANCEL, str(params.get("job_id")))

        async def retry(params: dict[str, Any]) -> Any:
            return await self._here(RETRY, str(params.get("job_id")))

        return {STATUS: status, CANCEL: cancel, RETRY: retry}

    async def wait(self, params: WaitParams) -> views.WaitView:
        """Answer when the job is final; after `timeout` seconds with how it stands then."""
        if self._cluster is not None and self._ledger.find(params.job_id) is None:
            told = await self._asked_for(params.job_id)
            await self._ledger.arrival(params.job_id, params.timeout)
            if self._ledger.find(params.job_id) is None:
                return {**told, "timed_out": not Status(told["status"]).final}
        job = await self._ledger.wait(params.job_id, params.timeout)
        output, timed_out = self._ledger.output(job), not job.status.final
        return {**self._view(_plain(job)), "output": output, "timed_out": timed_out}

    def _view(self, job: Document) -> views.JobView:
        progress = None
        if job["node"] != self._ledger.node:
            return views.job_view(job, self._owner(job["node"]), None)
        if job["phase"] == Phase.PULLING:
            progress = self._pulls.progress(self._ledger.get(job["id"]).spec)
        owner = views.Owner(True, self._ledger.now(), self._engine.unavailable)
        return views.job_view(job, owner, progress)

    def _owner(self, node: str) -> views.Owner:
        """How another node stands."""
        heard = None if self._cluster is None else self._cluster.heard(node)
        if self._cluster is None or heard is None:
            return views.Owner(False, None, None)
        as_of = self._ledger.now() - int(heard * 1e6)
        return views.Owner(self._cluster.reachable(node), as_of, None)


def _plain(job: Job) -> Document:
    """A job as the store would give it back, so that there is one way to show one."""
    return document(row(job))
