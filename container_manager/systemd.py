"""What is said to the service manager that has started the daemon, if one has: sd_notify.

The protocol is that of sd_notify(3) and sd_watchdog_enabled(3), which systemd promises to keep:
https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html. Without a service manager
all of it does nothing, and nothing that goes wrong here is the daemon's concern.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Self

import structlog

STATUS_INTERVAL = 2.0
"""Seconds between two looks at whether there is something new to say."""

_SEND_SECONDS = 1.0
_MAX_STATUS = 500

log = structlog.get_logger()


class ServiceManager:
    """The one at the other end of `NOTIFY_SOCKET`, or nobody."""

    def __init__(self, address: str = "", watchdog: float | None = None) -> None:
        """Speak to `address`, a path or @ and an abstract name; to nobody where it is empty.

        Args:
            address: where it listens for datagrams.
            watchdog: seconds after the last sign of life at which it ends us; None for never.
        """
        self._address = address.replace("@", "\0", 1) if address.startswith("@") else address
        self.watchdog = watchdog if address else None

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> Self:
        """As the environment names it; its variables are taken out, they are not for children."""
        address = environ.pop("NOTIFY_SOCKET", "")
        microseconds, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        # Of another kind than these two (vsock:) are only those of virtual machines.
        if not address.startswith(("/", "@")):
            return cls()
        ours = pid in ("", str(os.getpid()))
        valid = microseconds.isascii() and microseconds.isdigit() and int(microseconds) > 0
        return cls(address, int(microseconds) / 1e6 if ours and valid else None)

    def notify(self, *assignments: str) -> None:
        """Send assignments such as `READY=1`, each of one line. Never raises."""
        if not self._address:
            return
        lines = (" ".join(one.split()) for one in assignments)
        message = "\n".join(line[:_MAX_STATUS] for line in lines).encode(errors="replace")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                # The receiver's queue may be full at the moment; it is no reason to hang.
                sender.settimeout(_SEND_SECONDS)
                sender.sendto(message, os.fsencode(self._address))
        except OSError as error:
            log.debug("service manager not reached", reason=str(error))

    async def keep_informed(
        self, status: Callable[[], str], answers: Callable[[], Awaitable[None]]
    ) -> None:
        """Say how things stand whenever that changes, and give signs of life in time. For ever.

        Args:
            status: how things stand, in one line for people.
            answers: returns once all that has to be alive has answered. There is no sign of life
                as long as it does not, nor while the event loop is held up.
        """
        if not self._address:
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell(status), name="service-manager-status")
            if self.watchdog is not None:
                # Half the time, as sd_watchdog_enabled(3) asks.
                group.create_task(self._live(answers, self.watchdog / 2), name="watchdog")

    async def _tell(self, status: Callable[[], str]) -> None:
        said = None
        while True:
            if (now := status()) != said:
                self.notify(f"STATUS={now}")
                said = now
            await asyncio.sleep(STATUS_INTERVAL)

    async def _live(self, answers: Callable[[], Awaitable[None]], interval: float) -> None:
        while True:
            await answers()
            self.notify("WATCHDOG=1")
            await asyncio.sleep(interval)
