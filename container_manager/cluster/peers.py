"""The peers: finds other nodes, keeps one link to each, and knows how each of them stands.

Addresses come from a person (`--peer`), from mDNS, and from what was known before. Each is dialled
until there is a link with the node that answers there. Where two nodes dial each other at once, the
link stays that the one with the lower id has dialled; so both keep the same.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

import structlog

from container_manager.cluster.certificates import Identity
from container_manager.cluster.errors import BROKEN_OFF, BUSY, SILENT, LinkError, LinkRefused
from container_manager.cluster.hello import Hello
from container_manager.cluster.link import HANDSHAKE, Link, SayHello, connect
from container_manager.cluster.listener import Listener
from container_manager.cluster.members import Member

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 15.0
SHORT_PAUSE, LATELY = 1.0, 600.0
"""The longest pause between two calls of a node that was heard or told of in so many seconds: when
a network comes back, there are links again as soon as that."""
CONNECTING = 2.0
"""Seconds that a connection to an address may take. TCP tries for the second time after one second
and for the third time after three, when it is better to begin anew."""
YIELD = 1.0
"""Seconds that the node with the higher id leaves the other one to dial, when both have just seen
each other."""
MOST = 1000
"""Nodes that are kept in mind."""
TWICE = 3.0
"""Seconds in which a link must have been heard of for its node to be taken for alive twice."""

DUPLICATE, CLONED = "duplicate", "cloned"
"""Kinds of refusals."""
PASSING = frozenset({DUPLICATE, BROKEN_OFF, BUSY, SILENT})
"""Refusals that may be over at the next call."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Target:
    """Somewhere a node may be."""

    addresses: tuple[str, ...]
    node: str | None = None
    """Which one, as far as it is known."""
    since: float = field(default_factory=time.monotonic)
    """When it was told of, by `time.monotonic`."""
    connecting: float = CONNECTING
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it is worth while to dial at once."""


class Peers:
    """All other nodes, as this one knows them. Used in one event loop."""

    def __init__(
        self,
        identity: Identity,
        hello: SayHello,
        serve: Callable[[Link], Awaitable[None]],
        static: Sequence[str] = (),
    ) -> None:
        """Keep links as `identity`.

        Args:
            identity: this node's.
            hello: what to say of this node.
            serve: carries a link to its end. A node has one link at a time.
            static: addresses to dial, as `host:port`.
        """
        self._identity = identity
        self._hello = hello
        self._serve = serve
        self.members: dict[str, Member] = {}
        self.links: dict[str, Link] = {}
        self.refusals: Counter[str] = Counter()
        """How many links were refused, by the kind of refusal."""
        self._serving: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # A name may stand for several addresses, which share the time.
        self._static = [_Target((address,), connecting=HANDSHAKE) for address in static]
        self._found: dict[str, _Target] = {}
        self._logged: dict[str, str] = {}
        self._listener = Listener(
            identity, hello, on_link=self._take, on_refused=self._refused, admit=self._admit
        )

    # -- coming and going ----------------------------------------------------------------------

    async def listen(self, host: str, port: int) -> int:
        """Take calls of other nodes; gives the port.

        Raises:
            OSError: it cannot be listened there.
        """
        await self._listener.start(host, port)
        return self._listener.ports[0]

    def start(self) -> None:
        """Begin to dial."""
        for target in self._static:
            self._spawn(self._dial(target, YIELD), f"dial-{target.addresses[0]}")

    async def close(self) -> None:
        """Say goodbye to all."""
        await self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(link.close(left=True) for link in self.links.values()))
        await asyncio.gather(*self._tasks, *self._serving.values(), return_exceptions=True)

    def _spawn(self, work: Awaitable[None], name: str) -> None:
        task = asyncio.ensure_future(work)
        task.set_name(name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- who there may be ----------------------------------------------------------------------

    def found(
        self, node: str, addresses: Iterable[str], *, name: str = "", patience: float = YIELD
    ) -> None:
        """There may be a node at these addresses: it was announced, or known before.

        Args:
            node: its id.
            addresses: where, as `host:port`.
            name: what people call it.
            patience: seconds that it is left to call, if its id is the lower one.
        """
        addresses = tuple(addresses)
        if node == self._identity.node or not addresses:
            return
        if (member := self.members.get(node)) is None:
            if len(self.members) >= MOST:
                return
            member = self.members[node] = Member(node)
        member.addresses = addresses
        member.name = member.name or name
        if (target := self._found.get(node)) is None:
            target = self._found[node] = _Target(addresses, node)
            self._spawn(self._dial(target, patience), f"dial-{node}")
        target.addresses = addresses
        target.news.set()

    def remembered(self, node: str, addresses: Iterable[str], name: str) -> None:
        """A node was a member before this start."""
        # It does not know yet that this one is back.
        self.found(node, addresses, name=name, patience=0.0)
        if (member := self.members.get(node)) is not None:
            member.trusted = True

    def strange(self, node: str, version: str) -> None:
        """A node of another cluster, or of none, has announced itself."""
        if node not in self.members and len(self.members) < MOST and node != self._identity.node:
            self.members[node] = Member(
                node, version=version, refusal="it is of another cluster, or has no cluster secret"
            )

    def member(self, node: str) -> Member:
        """What is known of a node, as of now."""
        if (member := self.members.get(node)) is None:
            return Member(node)
        if (link := self.links.get(node)) is not None:
            member.heard = max(member.heard or 0.0, link.heard())
        return member

    def linked(self, node: str) -> bool:
        """Whether there is a link with a node, of which something was heard lately."""
        link = self.links.get(node)
        return link is not None and not link.closed.is_set()

    # -- dialling ------------------------------------------------------------------------------

    async def _dial(self, target: _Target, patience: float) -> None:
        pause = FIRST_PAUSE
        if target.node is not None and target.node < self._identity.node:
            await asyncio.sleep(patience)
        while True:
            if target.node is not None and (link := self.links.get(target.node)) is not None:
                await link.closed.wait()
                pause = FIRST_PAUSE if not link.left else LONGEST_PAUSE
            else:
                pause = await self._dial_once(target, pause)
            target.news.clear()
            try:
                async with asyncio.timeout(pause * random.uniform(0.7, 1.0)):  # noqa: S311
                    await target.news.wait()
            except TimeoutError:
                continue

    async def _dial_once(self, target: _Target, pause: float) -> float:
        """Try each address; gives the pause that is to follow."""

        def admit(hello: Hello) -> None:
            target.node = hello.node
            self._admit(hello)

        longest = self._longest_pause(target)
        for address in target.addresses:
            try:
                link = await connect(
                    address,
                    self._identity,
                    self._hello,
                    admit=admit,
                    connecting=target.connecting,
                )
            except LinkRefused as error:
                if error.kind not in PASSING:
                    longest = LONGEST_PAUSE
                if error.kind != DUPLICATE:
                    self._refused(address, error, target.node)
            except LinkError as error:
                log.debug("no link", address=address, reason=error.reason)
            else:
                self._take(link)
                return FIRST_PAUSE
        return min(2 * pause, longest)

    def _longest_pause(self, target: _Target) -> float:
        member = self.members.get(target.node or "")
        last = target.since if member is None else max(target.since, member.heard or 0.0)
        return SHORT_PAUSE if time.monotonic() - last < LATELY else LONGEST_PAUSE

    # -- links ---------------------------------------------------------------------------------

    def _admit(self, hello: Hello) -> None:
        if hello.node == self._identity.node:
            raise LinkRefused(
                "it has this node's id: one data directory is a copy of the other. Remove "
                "`node.key` from one of them, which makes it another node",
                CLONED,
            )
        if not self.linked(hello.node):
            return
        link = self.links[hello.node]
        if link.peer.run == hello.run:
            raise LinkRefused("there is a link already", DUPLICATE)
        if time.monotonic() - link.heard() < TWICE:
            raise LinkRefused(
                f"a node of this id is alive already, at {link.address}: one data directory is a "
                "copy of the other. Remove `node.key` from one of them, which makes it another "
                "node",
                CLONED,
            )

    def _refused(self, address: str, error: LinkRefused, node: str | None = None) -> None:
        self.refusals[error.kind] += 1
        if node is not None and (member := self.members.get(node)) is not None:
            member.refusal = error.reason
        host = address.rpartition(":")[0]  # a caller's port is another one each time
        if self._logged.get(host) != error.kind:
            if len(self._logged) >= MOST:
                self._logged.clear()
            self._logged[host] = error.kind
            log.warning("no link", address=address, reason=error.reason)

    def _take(self, link: Link) -> None:
        peer = link.peer.node
        other = self.links.get(peer)
        if other is not None and not other.closed.is_set():
            # Two that were dialled at once. An older one from the same side is dead.
            lower = self._identity.node < peer
            if other.dialled != link.dialled and other.dialled == lower:
                self._spawn(link.close(), f"close-{peer}")
                return
            self._spawn(other.close(), f"close-{peer}")
        self.links[peer] = link
        before = self._serving.get(peer)
        task = asyncio.get_running_loop().create_task(
            self._carry(link, before), name=f"link-{peer}"
        )
        self._serving[peer] = task
        task.add_done_callback(lambda _: self._served(peer, task))

    async def _carry(self, link: Link, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.gather(before, return_exceptions=True)
        member = self._joined(link)
        try:
            await self._serve(link)
        except Exception:
            log.exception("link broke", peer=link.peer.node)
        finally:
            await link.close()
            member.heard = max(member.heard or 0.0, link.heard())
            member.left = link.left
            if self.links.get(link.peer.node) is link:
                del self.links[link.peer.node]
                member.linked = False
                log.info("peer lost", peer=link.peer.node, reason=link.reason)

    def _joined(self, link: Link) -> Member:
        said = link.peer
        member = self.members.setdefault(said.node, Member(said.node))
        member.name, member.version = said.name, said.version
        member.addresses = said.addresses or member.addresses
        member.linked, member.trusted, member.left = True, True, False
        member.refusal = ""
        member.heard = link.heard()
        log.info("peer linked", peer=said.node, name=said.name, address=link.address)
        if said.addresses and said.node not in self._found:
            self.found(said.node, said.addresses)  # so that it is dialled when this link breaks
        return member

    def _served(self, peer: str, task: asyncio.Task[None]) -> None:
        if self._serving.get(peer) is task:
            del self._serving[peer]
