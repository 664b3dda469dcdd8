"""Nodes in the test's own process: ledger, store and links, without engine and API."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from container_manager import node as identity
from container_manager.cluster.secret import ClusterSecret
from container_manager.store import feeds
from container_manager.store.database import Database
from container_manager.store.schema import MIGRATIONS
from container_manager.store.sealing import Seal
from container_manager.work.cluster import Cluster
from container_manager.work.ledger import Ledger
from container_manager.work.queue import JobQueue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

SECRET = ClusterSecret("a secret that all nodes of the tests share")
RETAIN = 7 * 86_400.0


def now() -> int:
    return time.time_ns() // 1000


@dataclass(frozen=True, slots=True)
class Node:
    """A node, as tests see it."""

    id: str
    database: Database
    ledger: Ledger
    cluster: Cluster

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.cluster.port}"

    def linked(self) -> int:
        """How many others it is linked with."""
        return sum(self.cluster.peers.linked(peer) for peer in self.cluster.peers.links)

    def rows(self) -> set[tuple[bytes, int, str]]:
        """Id, revision and status of each job that it knows."""
        query = "SELECT id, revision, status FROM job"
        return set(self.database.read(lambda c: list(c.execute(query))))


def _key(directory: Path) -> bytes:
    """The key of the node whose directory this is."""
    directory.mkdir(exist_ok=True)
    file = directory / "node.key"
    if not file.exists():
        file.write_bytes(identity.new_key())
    return file.read_bytes()


@asynccontextmanager
async def running(
    directory: Path, peers: Sequence[str] = (), *, queue_size: int = 10_000
) -> AsyncIterator[Node]:
    """A node on a directory, until the block ends; it dials `peers`."""
    key = _key(directory)
    me = identity.Node.from_key(key, str(directory))
    async with AsyncExitStack() as stack:
        database = Database(directory / "jobs.sqlite", MIGRATIONS)
        stack.push_async_callback(database.close)
        run = identity.new_key().hex()[:16]
        feed = database.read(lambda connection: feeds.own_feed(connection, me.id, run))
        database.begin_with(lambda connection: feeds.begin_own(connection, feed))
        ledger = Ledger(
            database, Seal(bytes(32)), JobQueue(queue_size), me.id, feed, now, retain=RETAIN
        )
        cluster = Cluster(
            node=me.id,
            name=directory.name,
            private_key=key,
            secret=SECRET,
            database=database,
            feed=feed,
            now=now,
            told=ledger.told,
            methods={},
            peers=peers,
        )
        await cluster.listen("127.0.0.1", 0)
        task = asyncio.create_task(cluster.run(mdns=False, interfaces=()))
        try:
            yield Node(me.id, database, ledger, cluster)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
