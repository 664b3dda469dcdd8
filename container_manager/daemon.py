"""The composition root: what there is, what needs what, and in which order it starts and stops."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import secrets
import signal
import socket
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog
import uvloop
from aiohttp import web

from container_manager import __version__, node
from container_manager.api.access import Access, trusted_networks
from container_manager.api.app import App
from container_manager.api.containers import ContainerService
from container_manager.api.dispatch import Dispatcher
from container_manager.api.metrics import Metrics
from container_manager.api.networks import NetworkService
from container_manager.api.nodes import NodeService
from container_manager.api.openrpc import discovery
from container_manager.api.volumes import VolumeService
from container_manager.cluster import interfaces
from container_manager.cluster.secret import ENVIRONMENT_SEALING, TOKEN, ClusterSecret, SecretError
from container_manager.config import Settings, parse_duration, parse_trust
from container_manager.engine.docker import Engine
from container_manager.engine.logins import Logins
from container_manager.engine.networks import Networks
from container_manager.engine.podman import is_podman
from container_manager.engine.pulls import Pulls
from container_manager.engine.volumes import Volumes
from container_manager.engine.watcher import Watcher
from container_manager.errors import StorageUnavailable
from container_manager.log import log_to_stderr
from container_manager.store import feeds
from container_manager.store.credentials import Credentials
from container_manager.store.database import Database
from container_manager.store.directory import (
    KEY_LENGTH,
    SEAL_KEY,
    DataDirectory,
    DirectoryError,
    secret_file,
)
from container_manager.store.feeds import OwnFeed
from container_manager.store.integrity import StoreDamaged
from container_manager.store.schema import MIGRATIONS
from container_manager.store.sealing import Seal
from container_manager.systemd import ServiceManager
from container_manager.work.active import ActiveJobs
from container_manager.work.attempt import Deployer
from container_manager.work.cluster import Cluster, Standing, alone
from container_manager.work.ledger import Ledger
from container_manager.work.outcomes import Outcomes
from container_manager.work.queue import JobQueue
from container_manager.work.retention import Retention
from container_manager.work.slots import Slots
from container_manager.work.tracker import Tracker
from container_manager.work.workers import Workers

SECRET_VARIABLE = "CONTAINER_MANAGER_SECRET"  # noqa: S105 - the name of it
"""The environment variable that may hold the cluster secret itself."""
GRACE = 6.0
"""Seconds that running deployments get at the end: with what else there is to close, less than the
10 of `docker stop`."""

log = structlog.get_logger()


class StartError(Exception):
    """The daemon cannot start, or not go on; the message says why and what to do."""


def now() -> int:
    """The time in microseconds since 1970, UTC."""
    return time.time_ns() // 1000


def run(settings: Settings) -> int:
    """Run the daemon until SIGTERM or SIGINT; gives its exit code.

    Raises:
        StartError: it cannot start, or its job store has proved damaged.
    """
    log_to_stderr(settings.log_level)
    _allow_many_files()
    os.umask(0o077)  # what is kept on disk is this user's alone, SQLite's files as well
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(_serve(settings))
        except StoreDamaged as damage:
            raise StartError(damage.remedy) from damage


async def _serve(settings: Settings) -> int:
    service_manager = ServiceManager.from_environment(os.environ)
    async with AsyncExitStack() as stack:
        kept = _opened(settings, stack)
        directory, me, database = kept.directory, kept.me, kept.database
        structlog.contextvars.bind_contextvars(node=me.id)
        if directory.finished_restore:
            log.warning("finished a restore that had been cut short")

        engine = Engine(settings.docker_host, now)
        stack.push_async_callback(engine.close)
        queue = JobQueue(settings.queue_size)
        retain = parse_duration(settings.retain_age)
        ledger = Ledger(database, kept.seal, queue, me.id, kept.feed, now, retain=retain)
        active = ActiveJobs()
        outcomes = Outcomes(ledger, engine)
        tracker = Tracker(
            ledger,
            engine,
            outcomes,
            active,
            node=me.id,
            directory=directory,
            settle=settings.settle,
        )
        credentials = Credentials(directory.path, kept.seal)
        pulls = Pulls(engine, Logins(credentials.get))
        deployer = Deployer(
            ledger, queue, engine, pulls, outcomes, kept.seal, me.home, settings.settle
        )
        slots = Slots(settings.worker_count)
        workers = Workers(deployer, queue, slots, tracker, active)
        retention = Retention(
            ledger,
            engine,
            outcomes,
            age=retain,
            jobs=settings.retain_jobs,
        )
        ledger.when_brought_back = lambda job: tracker.touch(job.id)
        watcher = Watcher(engine, look=tracker.look_at_everything, hint=tracker.hint)
        metrics = Metrics(ledger, queue, slots, pulls, workers, engine)

        def readiness() -> dict[str, Any]:
            reason = engine.unavailable
            return {
                "ready": reason is None,
                "engine": {"available": reason is None, "reason": reason},
                "queue": {"waiting": len(queue), "size": queue.size},
                "workers": {"busy": slots.used, "count": slots.most, "limit": slots.limit},
            }

        containers = ContainerService(ledger, tracker, engine, pulls)
        cluster = _cluster(settings, kept, ledger, containers)
        calls = containers.calls()
        calls += NodeService(partial(_nodes, cluster, kept), now).calls()
        calls += NetworkService(Networks(engine), me).calls()
        calls += VolumeService(Volumes(engine), me).calls()
        calls.append(discovery(calls))
        methods = {call.name: call.method() for call in calls}
        access = Access(
            tokens=kept.tokens,
            token_file=settings.token_file,
            require_token=settings.require_token,
            trusted=trusted_networks(parse_trust(value) for value in settings.trust),
        )
        app = App(Dispatcher(methods, metrics.count_call), access, metrics, readiness)

        stopping = _stop_signals()
        status = partial(_status, stopping, queue, active, engine)
        database.on_damage(stopping.set)
        if cluster is None:
            ledger.enqueue_waiting()
        runner = app.runner()
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await _listen(runner, settings)
        if cluster is not None:
            await _listen_to_peers(cluster, settings)
        # What there is now stays: no collection is to walk over it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        log.info(
            "started",
            version=__version__,
            address=settings.listen_address,
            port=runner.addresses[0][1],
            p2p_port=None if cluster is None else cluster.port,
            data_dir=str(directory.path),
            waiting=len(queue),
        )
        service_manager.notify("READY=1", f"STATUS={status()}")
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(
                    service_manager.keep_informed(status, partial(_answers, database)),
                    name="service-manager",
                ),
                group.create_task(watcher.run(), name="watcher"),
                group.create_task(tracker.run(), name="tracker"),
                group.create_task(retention.run(), name="retention"),
            ]
            if cluster is not None:
                taking_part = cluster.run(mdns=settings.mdns, interfaces=settings.mdns_interface)
                background.append(group.create_task(taking_part, name="cluster"))
                resuming = _resume(cluster, ledger)
                background.append(group.create_task(resuming, name="resumption"))
                telling = _tell_of_engine(cluster, engine)
                background.append(group.create_task(telling, name="introduction"))
            working = group.create_task(workers.run(), name="workers")
            await stopping.wait()
            log.info("stopping", deploying=len(active))
            service_manager.notify("STOPPING=1", f"STATUS={status()}")
            for site in list(runner.sites):
                await site.stop()
            ledger.stop_waiting()
            await workers.drain(GRACE if database.damage is None else 0)
            working.cancel()
            for task in background:
                task.cancel()
        log.info("stopped")
        if database.damage is not None:
            raise database.damage
    return 0


@dataclass(frozen=True, slots=True)
class _Kept:
    """What a data directory keeps for its daemon."""

    directory: DataDirectory
    me: node.Node
    key: bytes
    """The node's identity key."""
    seal: Seal
    secret: ClusterSecret | None
    tokens: tuple[str, ...]
    database: Database
    feed: OwnFeed


def _opened(settings: Settings, stack: AsyncExitStack) -> _Kept:
    """Open what is kept on disk, to be closed with the stack."""
    try:
        directory = DataDirectory(settings.data_dir)
        stack.callback(directory.close)
        secret = _secret(settings)
        key = directory.secret("node.key", node.new_key)
        me = node.Node.from_key(key, directory.home)
        seal = Seal(
            directory.secret(SEAL_KEY, lambda: secrets.token_bytes(KEY_LENGTH)),
            None if secret is None else secret.key(ENVIRONMENT_SEALING),
        )
        tokens = _tokens(settings.token_file, secret)
        directory.check_store()
        database = Database(directory.database, MIGRATIONS)
    except (DirectoryError, SecretError) as error:
        raise StartError(str(error)) from error
    except StoreDamaged:
        raise
    except StorageUnavailable as error:
        raise StartError(f"{directory.database}: {error.message}") from error
    stack.push_async_callback(database.close)
    run = secrets.token_hex(8)
    feed = database.read(lambda connection: feeds.own_feed(connection, me.id, run))
    database.begin_with(lambda connection: feeds.begin_own(connection, feed))
    return _Kept(directory, me, key, seal, secret, tokens, database, feed)


async def _listen(runner: web.AppRunner, settings: Settings) -> None:
    try:
        await web.TCPSite(runner, settings.listen_address, settings.port, backlog=1024).start()
    except OSError as error:
        where = f"{settings.listen_address} port {settings.port}"
        raise StartError(
            f"Cannot listen on {where} ({os.strerror(error.errno or 0)}). Choose another with "
            "--port or --listen-address."
        ) from error


async def _listen_to_peers(cluster: Cluster, settings: Settings) -> None:
    try:
        interfaces.require(settings.mdns_interface)
        await cluster.listen(settings.listen_address, settings.p2p_port)
    except interfaces.UnknownInterface as error:
        raise StartError(f"{error}.") from error
    except OSError as error:
        where = f"{settings.listen_address} port {settings.p2p_port}"
        raise StartError(
            f"Cannot listen for other nodes on {where} ({os.strerror(error.errno or 0)}). Choose "
            "another port with --p2p-port."
        ) from error


def _status(stopping: asyncio.Event, queue: JobQueue, active: ActiveJobs, engine: Engine) -> str:
    """How things stand, for people, in one line."""
    counts = f"{len(queue)} waiting, {len(active)} deploying"
    if stopping.is_set():
        return f"stopping: {counts}"
    reason = engine.unavailable
    return counts if reason is None else f"engine unavailable: {reason}; {counts}"


async def _answers(database: Database) -> None:
    """Return once the store's writer has taken a turn."""
    # A refusal is an answer: no restart makes room on a full disk.
    with suppress(StorageUnavailable):
        await database.write(lambda connection: None)


def _stop_signals() -> asyncio.Event:
    """An event that the first SIGTERM or SIGINT sets; a second one ends the process at once."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop(number: signal.Signals) -> None:
        if stopping.is_set():
            # What is unfinished is safe on disk: it goes on at the next start.
            os._exit(128 + number)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    return stopping


def _allow_many_files() -> None:
    """Take as many open files as the system allows: each caller's connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):  # macOS allows less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _secret(settings: Settings) -> ClusterSecret | None:
    """What the nodes of the cluster share; None where this node stays alone.

    Raises:
        SecretError: it is weak or cannot be read.
    """
    # Taken out of the environment: no process that is started from here is to have it.
    text = os.environ.pop(SECRET_VARIABLE, None)
    if settings.secret_file is not None:
        return ClusterSecret.from_file(settings.secret_file)
    return None if text is None else ClusterSecret(text)


def _tokens(path: Path, secret: ClusterSecret | None) -> tuple[str, ...]:
    """The tokens that this node takes: its own, and the one that is good at every node."""
    shared = () if secret is None else (secret.key(TOKEN).hex(),)
    content = secret_file(path, lambda: (*shared, secrets.token_urlsafe(32))[0].encode() + b"\n")
    try:
        own = content.decode("ascii").strip()
    except UnicodeDecodeError as error:
        raise StartError(f"The token in {path} is no text in ASCII.") from error
    return (own, *shared)


def _cluster(
    settings: Settings, kept: _Kept, ledger: Ledger, containers: ContainerService
) -> Cluster | None:
    """This node's part in the cluster; None without a secret."""
    if kept.secret is None:
        return None
    cluster = Cluster(
        node=kept.me.id,
        name=socket.gethostname(),
        private_key=kept.key,
        secret=kept.secret,
        database=kept.database,
        feed=kept.feed,
        now=now,
        told=ledger.told,
        methods=containers.methods(),
        peers=settings.peer,
    )
    containers.join(cluster)
    return cluster


async def _resume(cluster: Cluster, ledger: Ledger) -> None:
    """Go on with the jobs of earlier runs, once it is known how they stand."""
    if not await cluster.reminded():
        log.warning("no other node has answered: going on with what is on this disk")
    ledger.enqueue_waiting()


async def _tell_of_engine(cluster: Cluster, engine: Engine) -> None:
    """Let the other nodes know what runs this one's containers."""
    await engine.available()
    name = "Podman" if is_podman(engine.version) else "Docker"
    await cluster.introduce({"name": name, "version": str(engine.version.get("Version", ""))})


def _nodes(cluster: Cluster | None, kept: _Kept) -> list[Standing]:
    if cluster is not None:
        return cluster.nodes()
    return [alone(kept.me.id, socket.gethostname())]
