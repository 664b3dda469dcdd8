"""Nodes that link to each other, and that are left without a socket or a task of theirs."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from container_manager.cluster.certificates import Identity
from container_manager.cluster.hello import WIRE, Hello
from container_manager.cluster.link import connect
from container_manager.cluster.listener import Listener
from container_manager.cluster.secret import ClusterSecret
from container_manager.node import new_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from container_manager.cluster.errors import LinkRefused
    from container_manager.cluster.link import Link

TEXT = "a secret that all nodes of the tests share"
OTHER_TEXT = "another secret, which only outsiders have"


class LinkNode:
    """A node with nothing but its links."""

    def __init__(
        self,
        name: str = "node",
        *,
        secret: str = TEXT,
        identity: Identity | None = None,
        run: str = "0123456789abcdef",
        **said: Any,
    ) -> None:
        self.name = name
        self._secret = secret
        self._identity = identity
        self._said = {"name": name, "version": "1.2.3", "run": run, **said}
        self.links: asyncio.Queue[Link] = asyncio.Queue()
        self.refused: asyncio.Queue[tuple[str, LinkRefused]] = asyncio.Queue()
        self.address = ""
        self.listener: Listener | None = None
        self.made: list[Link] = []

    @cached_property
    def identity(self) -> Identity:
        return self._identity or Identity.from_key(new_key(), ClusterSecret(self._secret))

    def hello(self) -> Hello:
        return Hello(**{"node": self.identity.node, "wire": WIRE, **self._said})

    @asynccontextmanager
    async def listening(self, host: str = "127.0.0.1", **options: Any) -> AsyncIterator[LinkNode]:
        """Take calls at `address`; what was not closed is, at the end."""

        def keep(link: Link) -> None:
            self.made.append(link)
            self.links.put_nowait(link)

        self.listener = Listener(
            self.identity,
            self.hello,
            on_link=keep,
            on_refused=lambda *refused: self.refused.put_nowait(refused),
            **options,
        )
        await self.listener.start(host, 0)
        port = self.listener.ports[0]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            yield self
        finally:
            await self.listener.close()
            await self.close()

    async def dial(self, other: LinkNode | str, **options: Any) -> Link:
        address = other if isinstance(other, str) else other.address
        link = await connect(address, self.identity, self.hello, **options)
        self.made.append(link)
        return link

    async def close(self) -> None:
        await asyncio.gather(*(link.close() for link in self.made))
