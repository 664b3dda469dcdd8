"""The side that is called: takes connections, and makes links of those that may be."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence

import structlog

from container_manager.cluster.certificates import Identity
from container_manager.cluster.errors import BUSY, SILENT, LinkClosed, LinkRefused
from container_manager.cluster.link import (
    BEAT,
    HANDSHAKE,
    SILENCE,
    Admit,
    Link,
    SayHello,
    greet,
)
from container_manager.cluster.wire import Wire

MAX_HANDSHAKES = 64
"""Callers that are in their handshakes at a time; for one more the oldest is dropped.

A handshake takes milliseconds. So the oldest is the one most likely to come to nothing, and who
only takes places keeps nobody out.
"""

log = structlog.get_logger()


class Listener:
    """Takes the calls of other nodes."""

    def __init__(
        self,
        identity: Identity,
        hello: SayHello,
        *,
        on_link: Callable[[Link], object],
        on_refused: Callable[[str, LinkRefused], object] | None = None,
        admit: Admit | None = None,
        handshake: float = HANDSHAKE,
        silence: float = SILENCE,
        beat: float = BEAT,
    ) -> None:
        """Hand each link to `on_link`, whose it is from then on.

        Args:
            identity: this node's.
            hello: what to say of this node.
            on_link: called with each new link.
            on_refused: called with the caller's address and the reason where there is no link.
            admit: refuses by what the other side says of itself.
            handshake: seconds that TLS and the hellos may take together.
            silence: see `connect`.
            beat: see `connect`.
        """
        self.refusals: Counter[str] = Counter()
        """How many calls were refused, by the kind of refusal."""
        self._identity, self._hello = identity, hello
        self._on_link, self._on_refused, self._admit = on_link, on_refused, admit
        self._handshake, self._silence, self._beat = handshake, silence, beat
        self._server: asyncio.Server | None = None
        self._greetings: set[asyncio.Task[None]] = set()
        self._unfinished: dict[Wire, None] = {}  # the oldest one first

    async def start(self, hosts: str | Sequence[str] | None, port: int) -> None:
        """Listen.

        Args:
            hosts: the addresses to listen on; None is all.
            port: 0 picks a free one for each address.

        Raises:
            OSError: it cannot be listened there.
        """
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Wire(self._identity.server, server_side=True, made=self._take),
            hosts,
            port,
        )

    @property
    def ports(self) -> list[int]:
        """The port of each address."""
        sockets = self._server.sockets if self._server is not None else ()
        return [one.getsockname()[1] for one in sockets]

    async def close(self) -> None:
        """Listen no more, and break off the handshakes; links that were handed over stay."""
        if self._server is not None:
            self._server.close()  # `wait_closed` would wait for the links too
        for task in self._greetings:
            task.cancel()
        await asyncio.gather(*self._greetings, return_exceptions=True)

    def _take(self, wire: Wire) -> None:
        if len(self._unfinished) >= MAX_HANDSHAKES:
            oldest = next(iter(self._unfinished))
            del self._unfinished[oldest]
            oldest.cut(LinkRefused("too many others came during its handshake", BUSY))
        self._unfinished[wire] = None
        task = asyncio.get_running_loop().create_task(self._greet(wire), name="link-handshake")
        self._greetings.add(task)
        task.add_done_callback(self._greetings.discard)

    async def _greet(self, wire: Wire) -> None:
        try:
            async with asyncio.timeout(self._handshake):
                link = await greet(
                    wire,
                    self._identity,
                    self._hello,
                    dialled=False,
                    admit=self._admit,
                    silence=self._silence,
                    beat=self._beat,
                )
            self._on_link(link)
        except TimeoutError:
            late = f"its handshake was not done within {self._handshake:g} s"
            error = LinkRefused(late, SILENT)
            wire.refuse(error)
            self._refused(wire, error)
            await wire.gone()
        except LinkRefused as error:
            self._refused(wire, error)
            await wire.gone()
        except BaseException as error:  # also what is wrong with a callback
            wire.cut(LinkClosed("closed by this node"))
            if not isinstance(error, Exception):
                raise
            log.exception("a call of another node broke", address=wire.address)
        finally:
            self._unfinished.pop(wire, None)

    def _refused(self, wire: Wire, error: LinkRefused) -> None:
        self.refusals[error.kind] += 1
        if self._on_refused is not None:
            self._on_refused(wire.address, error)
