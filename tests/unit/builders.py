"""Makes what the tests work on: specs, jobs and containers, by hand and by hypothesis."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from container_manager.api.calls import Call
from container_manager.api.containers import ContainerService
from container_manager.api.networks import NetworkService
from container_manager.api.volumes import VolumeService
from container_manager.engine.docker import Engine
from container_manager.engine.logins import Logins
from container_manager.engine.networks import Networks
from container_manager.engine.pulls import Pulls
from container_manager.engine.volumes import Volumes
from container_manager.job import Container, Job, Phase, Port, Status
from container_manager.node import Node
from container_manager.spec import LABEL_PREFIX, Spec
from container_manager.store import feeds
from container_manager.store.database import Database
from container_manager.store.directory import DataDirectory
from container_manager.store.schema import MIGRATIONS
from container_manager.store.sealing import Seal
from container_manager.work.active import ActiveJobs
from container_manager.work.ids import JobIds
from container_manager.work.ledger import Ledger
from container_manager.work.outcomes import Outcomes
from container_manager.work.queue import JobQueue
from container_manager.work.tracker import Tracker
from tests.unit import spec_forms
from tests.unit.spec_forms import fitting, forms, names, seconds, texts, words

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NOW = 1_900_000_000_000_000
RETAIN = 7 * 86_400
NODE = "0123456789abcdef0123456789abcdef"
CANARY = spec_forms.CANARY


class Clock:
    """Microseconds since 1970, as a test sets them."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += int(seconds * 1e6)


@dataclass(frozen=True, slots=True)
class Rooms:
    """A ledger and what it stands on."""

    ledger: Ledger
    queue: JobQueue
    database: Database
    directory: DataDirectory


@asynccontextmanager
async def opened(directory: Path, clock: Clock, queue_size: int = 100) -> AsyncIterator[Rooms]:
    """A ledger on the database in `directory`, until the block ends."""
    data = DataDirectory(directory)
    database = Database(data.database, MIGRATIONS)
    queue = JobQueue(queue_size)
    feed = database.read(lambda connection: feeds.own_feed(connection, NODE, f"{clock():016x}"))
    database.begin_with(lambda connection: feeds.begin_own(connection, feed))
    ledger = Ledger(database, Seal(bytes(32)), queue, NODE, feed, clock, retain=RETAIN)
    try:
        yield Rooms(ledger, queue, database, data)
    finally:
        await database.close()
        data.close()


def service(rooms: Rooms) -> ContainerService:
    """The calls, on these rooms and an engine that was never connected."""
    ledger = rooms.ledger
    engine = Engine(None, ledger.now)
    outcomes = Outcomes(ledger, engine)
    pulls = Pulls(engine, Logins(lambda _: None))
    tracker = Tracker(
        ledger, engine, outcomes, ActiveJobs(), node=NODE, directory=rooms.directory, settle=0
    )
    return ContainerService(ledger, tracker, engine, pulls)


async def take(queue: JobQueue) -> str | None:
    """The job whose turn is next, once it is."""
    await queue.ready()
    return queue.take()


def all_calls(rooms: Rooms) -> list[Call[Any]]:
    """The calls of all services, on these rooms and an engine that was never connected."""
    engine, me = Engine(None, rooms.ledger.now), Node(NODE, "host:/data")
    return [
        *service(rooms).calls(),
        *NetworkService(Networks(engine), me).calls(),
        *VolumeService(Volumes(engine), me).calls(),
    ]


# By hand


def new_job(now: int = NOW, **fields: Any) -> Job:
    spec = Spec(**{"image": "nginx", **fields})
    return Job.new(id=JobIds().new(now), node=NODE, spec=spec, sealed_env=None, now=now)


def container(state: str = "running", **fields: Any) -> Container:
    known = {"id": "c0ffee", "name": "web", "started_at": NOW, "seen_at": NOW}
    return Container(**{**known, "state": state, **fields})


def job_in(status: Status, **fields: Any) -> Job:
    """A job that has come to this status; a running one is being verified."""
    job = new_job(**fields)
    running = job.claimed(NOW).entered(Phase.VERIFYING, NOW, container())
    match status:
        case Status.PENDING:
            return job
        case Status.RUNNING:
            return running
        case Status.COMPLETE:
            return running.completed(container(), NOW)
        case Status.FAILED:
            return running.failed("no luck", container("exited", exit_code=1), NOW)
        case Status.CANCELLED:
            return running.cancelled(container("removed"), NOW)
        case Status.LOST:
            return running.lost(container("removed"), NOW)


async def create(ledger: Ledger, spec: Spec, key: str | None = None) -> Job:
    """A new job, as it is kept."""
    return ledger.get(await ledger.create(spec, key))


async def bring(ledger: Ledger, job: Job, status: Status) -> Job:
    """Take a new job to a status, by way of the ledger."""
    if status is Status.PENDING:
        return job
    now = ledger.now()
    job = await ledger.change(job.id, lambda j: j.claimed(now))
    seen = container("exited", exit_code=0)
    match status:
        case Status.COMPLETE:
            return await ledger.change(job.id, lambda j: j.completed(seen, now))
        case Status.FAILED:
            return await ledger.change(job.id, lambda j: j.failed("no", seen, now))
        case Status.CANCELLED:
            return await ledger.change(job.id, lambda j: j.cancelled(seen, now))
        case Status.LOST:
            return await ledger.change(job.id, lambda j: j.lost(seen, now))
    return job


# By hypothesis

times = st.integers(1, 2**52)
images = st.sampled_from(
    ["nginx", "docker.io/library/nginx:1.25", f"localhost:5000/a/b@sha256:{'0a' * 32}"]
)

_retries: dict[str, st.SearchStrategy[Any]] = {
    "max_attempts": st.integers(1, 100),
    "backoff": seconds,
    "max_backoff": seconds,
}
_fields: dict[str, st.SearchStrategy[Any]] = {
    **forms,
    "arguments": st.lists(texts, max_size=4),
    "env": st.dictionaries(words.filter(lambda key: "=" not in key), texts, max_size=4),
    "name": names | st.none(),
    "labels": st.dictionaries(
        words.filter(lambda key: not key.startswith(LABEL_PREFIX)), texts, max_size=4
    ),
    "pull": st.sampled_from(["missing", "always", "never"]),
    "deploy_timeout": seconds,
}
_services = st.fixed_dictionaries(
    {"image": images},
    optional={**_fields, "retry": st.fixed_dictionaries({}, optional=_retries)},
)
_batches = st.fixed_dictionaries(
    {"image": images, "type": st.just("batch")},
    optional={
        **_fields,
        "run_timeout": seconds,
        "retry": st.fixed_dictionaries({}, optional={**_retries, "on_exit": st.booleans()}),
    },
)
spec_fields = (_services | _batches).map(fitting)
"""The fields of a spec, as a caller writes them."""
specs = spec_fields.map(Spec.model_validate)

ports = st.builds(
    Port,
    container_port=st.integers(1, 65535),
    protocol=st.sampled_from(["tcp", "udp", "sctp"]),
    host_ip=st.sampled_from(["0.0.0.0", "::", "127.0.0.1", ""]),
    host_port=st.integers(0, 65535),
)
containers = st.builds(
    Container,
    id=words,
    name=words,
    state=st.sampled_from(
        ["created", "running", "paused", "restarting", "removing", "exited", "dead", "removed"]
    ),
    exit_code=st.none() | st.integers(-1, 255),
    oom_killed=st.booleans(),
    health=st.sampled_from([None, "starting", "healthy", "unhealthy"]),
    health_output=st.none() | words,
    restarts=st.integers(0, 2**31),
    ports=st.lists(ports, max_size=3).map(tuple),
    error=st.none() | words,
    started_at=st.none() | times,
    finished_at=st.none() | times,
    seen_at=times,
)


@dataclass(frozen=True)
class Step:
    """A step of a job, with what it is told."""

    name: str
    told: dict[str, Any] = field(default_factory=dict)

    def __call__(self, job: Job, now: int) -> Job:
        after: Job = getattr(job, self.name)(now=now, **self.told)
        return after


def _step(name: str, **told: st.SearchStrategy[Any]) -> st.SearchStrategy[Step]:
    return st.builds(Step, st.just(name), st.fixed_dictionaries(told))


_maybe = st.none() | containers
steps = st.one_of(
    _step("claimed"),
    _step("entered", phase=st.sampled_from(Phase), container=_maybe),
    _step("completed", container=containers),
    _step("failed", reason=words, container=_maybe),
    _step("retrying", reason=words, container=_maybe, due_at=times, counts=st.booleans()),
    _step("cancelling"),
    _step("cancelled", container=_maybe),
    _step("lost", container=containers),
    _step("timing_out"),
    _step("retried"),
    _step("observed", container=containers),
)
