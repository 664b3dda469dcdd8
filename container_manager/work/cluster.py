"""This node's part in the cluster: who it says it is, whom it finds, what it tells and is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any

import orjson
import structlog

from container_manager import __version__
from container_manager.cluster import interfaces
from container_manager.cluster.calls import Calls, Method, Refused, Unanswered
from container_manager.cluster.certificates import Identity
from container_manager.cluster.hello import Hello
from container_manager.cluster.members import ALIVE
from container_manager.cluster.peers import Peers
from container_manager.cluster.secret import ClusterSecret
from container_manager.cluster.signing import Signer
from container_manager.errors import NodeUnreachable, StorageUnavailable
from container_manager.record import Record
from container_manager.store import records
from container_manager.store.database import Database
from container_manager.store.feeds import OwnFeed
from container_manager.work.replication import Replication, Told

ANSWER_SECONDS = 30.0
"""Seconds that another node has for an answer."""
REMINDING_SECONDS = 10.0
"""Seconds that others have to tell a node at its start what it may have forgotten."""
NODE = "node"
"""The kind of the records in which nodes say what they are."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a node stands, as this one knows it."""

    node: str
    name: str
    version: str
    state: str
    addresses: tuple[str, ...]
    engine: dict[str, Any] | None
    """What it last said of its engine: its name and version."""
    heard: float | None
    """Seconds since the last word of it; None where there was none since the start."""
    lag: int | None
    """Changes of this node that it has not got yet; None without a link."""
    clock_skew: float | None
    """Seconds that its clock is ahead of this one's."""
    reason: str | None
    """Why there is no link with it, where that is known."""
    is_self: bool


class Cluster:
    """All that this node has to do with others."""

    def __init__(
        self,
        *,
        node: str,
        name: str,
        private_key: bytes,
        secret: ClusterSecret,
        database: Database,
        feed: OwnFeed,
        now: Callable[[], int],
        told: Told,
        methods: dict[str, Method],
        peers: Sequence[str],
    ) -> None:
        """Take part as `node`.

        Args:
            node: this node's id.
            name: what people call it.
            private_key: its identity key.
            secret: what the members share.
            database: the open store.
            feed: what this run writes.
            now: the time in microseconds since 1970, UTC.
            told: is told of other nodes' records, once they are on disk.
            methods: what other nodes may have this one do.
            peers: addresses to dial, as `host:port`.
        """
        self._node = node
        self._name = name
        self._database = database
        self._feed = feed
        self._host = ""
        self._port = 0
        self._engine: dict[str, Any] | None = None
        identity = Identity.from_key(private_key, secret)
        self._fingerprint = identity.cluster
        signer = Signer(private_key)
        self._calls = Calls(methods)
        self._replication = Replication(
            database, feed, node, signer, now, told, self._calls.received
        )
        self.peers = Peers(identity, self._hello, self._replication.serve, peers)

    @property
    def port(self) -> int:
        """Where other nodes call."""
        return self._port

    # -- its life ------------------------------------------------------------------------------

    async def listen(self, host: str, port: int) -> None:
        """Take calls of other nodes.

        Raises:
            OSError: it cannot be listened there.
        """
        self._host = host
        self._port = await self.peers.listen(host, port)
        for record in self._database.read(lambda c: records.of_kind(c, NODE)):
            said = _said(record)
            if record.writer == self._node:
                self._engine = said.get("engine")
            else:
                addresses = [one for one in said.get("addresses", ()) if type(one) is str]
                self.peers.remembered(record.writer, addresses, str(said.get("name", "")))

    async def reminded(self) -> bool:
        """Wait until another node has told this one what it may have forgotten of itself.

        A data directory that was put back from an older copy does not know of its later jobs, nor
        that some of those it knows have ended since. Gives whether that can be ruled out; also
        where no other node is known, or none answers in time.
        """
        if not self.peers.members:
            return True
        try:
            async with asyncio.timeout(REMINDING_SECONDS):
                await self._replication.knows_itself.wait()
        except TimeoutError:
            return False
        return True

    async def run(self, *, mdns: bool, interfaces: Sequence[str]) -> None:
        """Take part until cancelled; then say goodbye."""
        self.peers.start()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._replication.run(), name="replication")
                group.create_task(self.introduce(), name="introduction")
                if mdns:
                    group.create_task(self._discover(interfaces), name="discovery")
        finally:
            await self.peers.close()

    async def _discover(self, names: Sequence[str]) -> None:
        # Imported here: it takes a tenth of a second, and not everybody wants it.
        from container_manager.cluster.announcement import Sighting
        from container_manager.cluster.discovery import Discovery

        def seen(sighting: Sighting) -> None:
            if sighting.cluster == self._fingerprint:
                addresses = [_address(host, port) for host, port in sighting.addresses]
                self.peers.found(sighting.node, addresses)
            else:
                self.peers.strange(sighting.node, sighting.version)

        await Discovery(
            self._node,
            run=self._feed.run,
            version=__version__,
            cluster=self._fingerprint,
            port=self._port,
            interfaces=names,
            seen=seen,
            gone=lambda node: None,
        ).run()

    async def introduce(self, engine: dict[str, Any] | None = None) -> None:
        """Tell the others what this node is, where that is news."""
        self._engine = engine or self._engine
        said = {
            "name": self._name,
            "version": __version__,
            "addresses": self._addresses(),
            "engine": self._engine,
        }
        body = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
        place = self._feed.next_place()
        with suppress(StorageUnavailable):
            # A start that says nothing new leaves no feed behind for everybody to keep in mind.
            if await self._database.write(
                lambda c: records.write(c, NODE, bytes.fromhex(self._node), body, self._node, place)
            ):
                self._feed.committed(place.seq)

    def _hello(self) -> Hello:
        return Hello(
            node=self._node,
            run=self._feed.run,
            name=self._name,
            version=__version__,
            addresses=self._addresses(),
            vector=self._replication.vector,
        )

    def _addresses(self) -> tuple[str, ...]:
        """Where other nodes can call."""
        if not ip_address(self._host).is_unspecified:
            return (_address(self._host, self._port),)
        chosen = interfaces.choose(interfaces.look())
        return tuple(
            _address(str(one.ip), self._port)
            for adapter in chosen
            for one in adapter.hosts
            if not one.is_link_local
        )

    # -- who there is --------------------------------------------------------------------------

    def reachable(self, node: str) -> bool:
        """Whether a node can be asked now."""
        if node == self._node:
            return True
        member = self.peers.member(node)
        return member.linked and member.state(time.monotonic()) == ALIVE

    def heard(self, node: str) -> float | None:
        """Seconds since the last word of a node; None where there was none since the start."""
        if node == self._node:
            return 0.0
        heard = self.peers.member(node).heard
        return None if heard is None else max(0.0, time.monotonic() - heard)

    async def ask(self, node: str, method: str, params: dict[str, Any]) -> Any:
        """Have another node do something; its answer.

        Raises:
            Refused: it refuses.
            NodeUnreachable: it cannot be reached, or does not answer; then nobody knows whether it
                has done what was asked.
        """
        if not self.peers.linked(node):
            raise NodeUnreachable(node)
        try:
            return await self._calls.call(self.peers.links[node], method, params, ANSWER_SECONDS)
        except Unanswered as error:
            raise NodeUnreachable(node) from error

    async def ask_all(self, method: str, params: dict[str, Any], timeout: float) -> Any:
        """The first answer of any node that does not refuse; None where there is none in time."""
        links = [link for node, link in self.peers.links.items() if self.peers.linked(node)]
        asking = [
            asyncio.create_task(self._calls.call(link, method, params, timeout)) for link in links
        ]
        try:
            for next_one in asyncio.as_completed(asking):
                with suppress(Refused, Unanswered):
                    return await next_one
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        return None

    def nodes(self) -> list[Standing]:
        """All nodes that this one knows of, itself among them."""
        told = {
            record.writer: _said(record)
            for record in self._database.read(lambda c: records.of_kind(c, NODE))
        }
        others = sorted((self.peers.members.keys() | told.keys()) - {self._node})
        return [self._self(), *(self._standing(node, told.get(node, {})) for node in others)]

    def _self(self) -> Standing:
        return replace(
            alone(self._node, self._name), addresses=self._addresses(), engine=self._engine
        )

    def _standing(self, node: str, said: dict[str, Any]) -> Standing:
        member = self.peers.member(node)
        link = self.peers.links.get(node)
        engine = said.get("engine")
        return Standing(
            node=node,
            name=member.name or str(said.get("name", "")),
            version=member.version or str(said.get("version", "")),
            state=member.state(time.monotonic()),
            addresses=member.addresses,
            engine=engine if isinstance(engine, dict) else None,
            heard=self.heard(node),
            lag=self._replication.lag(node),
            clock_skew=None if link is None else link.clock_skew,
            reason=member.refusal or None,
            is_self=False,
        )


def alone(node: str, name: str) -> Standing:
    """How this node itself stands, without others."""
    return Standing(
        node=node,
        name=name,
        version=__version__,
        state=ALIVE,
        addresses=(),
        engine=None,
        heard=0.0,
        lag=0,
        clock_skew=0.0,
        reason=None,
        is_self=True,
    )


def _said(record: Record) -> dict[str, Any]:
    """What a node says of itself; nothing where it is not to be read."""
    try:
        said = orjson.loads(record.body or b"{}")
    except orjson.JSONDecodeError:
        return {}
    return said if isinstance(said, dict) else {}


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
