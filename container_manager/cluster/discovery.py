"""Nodes of one network find each other by mDNS (RFC 6762) and DNS-SD (RFC 6763).

Each node announces itself and listens to the others. What is heard is a hint about where to call;
who answers there proves itself on the link. Nor does it say who lives: a node that was killed
stays announced for up to 75 minutes.

Decisions:

- Announced without probing first (RFC 6762, section 8.1), which would take 1.2 of the 2 seconds
  that a node may take to be seen. The name is the hash of the node's key, so nobody else comes by
  it. The copy of a node's data directory does, and is found out on the link, where it can be
  explained. And whoever likes can answer a probe, which would keep a node from announcing itself.
- Asked with multicast answers (QM) from the first question on: of two daemons on one machine, both
  listening on port 5353, an answer sent to one of them reaches either.
- Asked again each minute. zeroconf asks four times in its first quarter of a minute and then only
  for what it knows; two nodes that were cut off from each other by then would never meet. It names
  what it knows, so nobody answers who is known.
- Made anew when interfaces change. zeroconf's own `async_update_interfaces` tells them apart by
  address: one that was unplugged and comes back with its address under another index stays deaf.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence

import structlog
from zeroconf import DNSQuestionType, Error, ServiceInfo, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from container_manager.cluster.announcement import (
    MOST_ADDRESSES,
    SERVICE,
    Sighting,
    node_of,
    properties,
    sighting,
)
from container_manager.cluster.interfaces import Adapter, choose, look, require, senders

LOOK_EVERY = 3.0
"""Seconds between two looks at the interfaces."""

ASK_EVERY = 60.0
"""Seconds after which everybody is asked again who is there."""

MOST_NODES = 1000
"""So many names are believed to be on one network; more are a flood."""

FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0
SETTLED = 10.0
"""Seconds after a change in which a node is looked at again; that old addresses end is no event."""

QUIET = 3600.0
"""Seconds in which one reason is told once."""

REMEDY = "nodes can be named by --peer HOST:PORT; --no-mdns turns mDNS off"
_FLUSHED = 1100
"""Milliseconds: addresses that were replaced stay in zeroconf's cache for one second."""

log = structlog.get_logger()


class _TroubleError(Exception):
    """mDNS does not work now, for a reason in words for people."""


class Discovery:
    """Announces this node, and tells of the others."""

    def __init__(
        self,
        node: str,
        *,
        run: str,
        version: str,
        cluster: str,
        port: int,
        interfaces: Sequence[str] = (),
        ask_every: float = ASK_EVERY,
        seen: Callable[[Sighting], None],
        gone: Callable[[str], None],
    ) -> None:
        """Prepare to announce `node`, at `port` of this machine's addresses.

        `seen` is called for a node that was not known, and for one of which anything has changed;
        after a change of this machine's interfaces for all of them anew. `gone` is called with the
        id of a node that said goodbye, or that nobody has announced for 75 minutes. Both are
        called from `run`, and what they raise ends it.

        Raises:
            ValueError: a value is not of a form that can be announced.
        """
        self._node = node
        self._properties = properties(node, run=run, version=version, cluster=cluster)
        self._port = port
        self._names = tuple(interfaces)
        self._ask_every = ask_every
        self._seen = seen
        self._gone = gone
        self._known: dict[str, tuple[float, Sighting]] = {}
        self._heard: dict[str, ServiceStateChange] = {}
        self._added = 0
        self._wake = asyncio.Event()
        self._doubts: list[str] = []
        self._told: dict[str, float] = {}

    async def run(self) -> None:
        """Announce and listen, for ever; where mDNS does not work, log why, once, and try on.

        A cancellation says goodbye to the others, which takes a quarter of a second.

        Raises:
            UnknownInterface: a named interface does not exist, at the start.
        """
        require(self._names)
        delay = FIRST_DELAY
        with self._library_log():
            while True:
                chosen: tuple[Adapter, ...] = ()
                began = time.monotonic()
                try:
                    chosen = self._choose()
                    await self._take_part(chosen)
                except _TroubleError as trouble:
                    self._tell(str(trouble))
                    if time.monotonic() - began > LONGEST_DELAY:
                        delay = FIRST_DELAY
                    await self._pause(delay * random.uniform(0.8, 1.2), chosen)  # noqa: S311
                    delay = min(delay * 2, LONGEST_DELAY)
                else:
                    delay = FIRST_DELAY

    def _choose(self) -> tuple[Adapter, ...]:
        try:
            return choose(look(), self._names)
        except OSError as error:
            raise _TroubleError(f"network interfaces cannot be listed: {error}") from error

    async def _pause(self, seconds: float, chosen: tuple[Adapter, ...]) -> None:
        """Wait so long, or until there are other interfaces."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, LOOK_EVERY))
            with contextlib.suppress(_TroubleError):
                if self._choose() != chosen:
                    return

    # One set of interfaces

    async def _take_part(self, chosen: tuple[Adapter, ...]) -> None:
        """Announce and listen on these interfaces; return when there are others."""
        if not chosen:
            of = f"of {', '.join(self._names)} " if self._names else ""
            raise _TroubleError(f"no network interface {of}is up and has an address")
        self._known.clear()
        self._heard.clear()
        self._doubts.clear()
        try:
            wanted = senders(chosen, look())
            zeroconf = AsyncZeroconf(wanted)
        except (OSError, RuntimeError) as error:
            raise _TroubleError(_reason(error)) from error
        goodbye = True
        announcing: asyncio.Task[None] | None = None
        try:
            try:
                announcing = await self._announce(zeroconf, chosen)
            except (OSError, RuntimeError, Error) as error:
                raise _TroubleError(_reason(error)) from error
            names = [one.name for one in chosen]
            if (working := len(zeroconf.zeroconf.engine.senders)) < len(wanted):
                self._tell(f"{working} of {len(wanted)} sockets work on {', '.join(names)}")
            log.info("announced by mDNS", interfaces=names, port=self._port)
            await self._listen(zeroconf.zeroconf, chosen)
            goodbye = False
        except _TroubleError:
            goodbye = False
            raise
        finally:
            if announcing is not None:
                announcing.cancel()
                await asyncio.gather(announcing, return_exceptions=True)
            if not goodbye:
                zeroconf.zeroconf.registry.async_remove(
                    zeroconf.zeroconf.registry.async_get_service_infos()
                )
            await zeroconf.async_close()

    async def _announce(
        self, zeroconf: AsyncZeroconf, chosen: Sequence[Adapter]
    ) -> asyncio.Task[None]:
        """Say that this node is here; gives back the task that says so thrice more."""
        hosts = [str(one.ip) for adapter in chosen for one in adapter.hosts]
        info = ServiceInfo(
            SERVICE,
            f"{self._node}.{SERVICE}",
            port=self._port,
            properties=self._properties,
            server=f"{self._node}.local.",
            parsed_addresses=hosts[:MOST_ADDRESSES],
        )
        announced = await zeroconf.async_register_service(info, cooperating_responders=True)

        async def repeat() -> None:
            await announced  # twice more, within half a second
            # A second later (RFC 6762, section 8.3): what is younger than that, as addresses that
            # this node had a moment ago may be, is not replaced by what is announced (10.2).
            await asyncio.sleep(1.0)
            zeroconf.zeroconf.async_send(zeroconf.zeroconf.generate_service_broadcast(info, None))

        return asyncio.create_task(repeat(), name="mdns-announcement")

    async def _listen(self, zeroconf: Zeroconf, chosen: tuple[Adapter, ...]) -> None:
        while True:
            self._added = 0
            browser = AsyncServiceBrowser(
                zeroconf, SERVICE, handlers=[self._hear], question_type=DNSQuestionType.QM
            )
            try:
                ask_again = time.monotonic() + self._ask_every * random.uniform(0.8, 1.2)  # noqa: S311
                while time.monotonic() < ask_again:
                    if self._choose() != chosen:
                        return  # which is why packets could not be sent, if that is so
                    for reason in self._doubts:
                        self._tell(reason)
                    self._doubts.clear()
                    for node, (changed, _) in list(self._known.items()):
                        if time.monotonic() - changed < SETTLED:
                            self._look_at(node, zeroconf, chosen)
                    await self._attend(
                        zeroconf, chosen, min(ask_again, time.monotonic() + LOOK_EVERY)
                    )
            finally:
                await browser.async_cancel()

    def _hear(
        self,
        zeroconf: Zeroconf,
        service_type: str,
        name: str,
        state_change: ServiceStateChange,
    ) -> None:
        """Note what to look at; called while zeroconf takes a packet apart."""
        self._added += state_change is ServiceStateChange.Added
        node = node_of(name)
        if node is not None and node != self._node and len(self._heard) <= MOST_NODES:
            self._heard[node] = state_change
        self._wake.set()

    async def _attend(self, zeroconf: Zeroconf, at: Sequence[Adapter], until: float) -> None:
        """Follow what is heard, up to a point of monotonic time or until there is a doubt."""
        while (left := until - time.monotonic()) > 0 and not self._doubts:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._wake.wait()
            self._wake.clear()
            if self._added > MOST_NODES:
                raise _TroubleError(f"more than {MOST_NODES} nodes are announced: a flood")
            heard, self._heard = self._heard, {}
            for node, change in heard.items():
                if change is ServiceStateChange.Removed:
                    if self._known.pop(node, None):
                        self._gone(node)
                else:
                    self._look_at(node, zeroconf, at)

    def _look_at(self, node: str, zeroconf: Zeroconf, at: Sequence[Adapter]) -> None:
        _, before = self._known.get(node, (0.0, None))
        found = _look_up(zeroconf, node, at)
        if found and found != before:
            self._known[node] = (time.monotonic(), found)
            self._seen(found)

    # What is logged

    def _tell(self, reason: str) -> None:
        now = time.monotonic()
        if now - self._told.get(reason, -QUIET) >= QUIET and len(self._told) < 100:
            self._told[reason] = now
            log.warning("mDNS does not work", reason=reason, remedy=REMEDY)

    def _doubt(self, reason: str) -> None:
        """Take up a trouble that zeroconf has met; whether it is told is seen at the next look."""
        if reason not in self._doubts and len(self._doubts) < 10:
            self._doubts.append(reason)
        self._wake.set()

    @contextlib.contextmanager
    def _library_log(self) -> Iterator[None]:
        """Have what zeroconf logs go through here: it tells nowhere else of a failing socket."""
        library = logging.getLogger("zeroconf")
        handler = _LibraryHandler(self._doubt)
        library.addHandler(handler)
        library.propagate = False
        try:
            yield
        finally:
            library.removeHandler(handler)


class _LibraryHandler(logging.Handler):
    def __init__(self, doubt: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._doubt = doubt

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno > logging.WARNING:
            return  # zeroconf raises it as well
        error = record.exc_info[1] if record.exc_info else None
        if error:
            self._doubt(f"sending or receiving failed: {_reason(error)}")
        else:
            # Not with its arguments: addresses and packets, which strangers choose.
            self._doubt(str(record.msg))


def _look_up(zeroconf: Zeroconf, node: str, at: Sequence[Adapter]) -> Sighting | None:
    """What zeroconf has heard of this node, as it will be when replaced addresses are dropped."""
    info = AsyncServiceInfo(SERVICE, f"{node}.{SERVICE}")
    now = time.monotonic() * 1000  # zeroconf's clock, in milliseconds
    if not info.load_from_cache(zeroconf, now + _FLUSHED):
        return None
    return sighting(node, info.properties, info.parsed_scoped_addresses(), info.port, at=at)


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return "UDP port 5353 is taken by a program that does not share it"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
