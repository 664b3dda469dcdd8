"""Pulls: one for all who wait for an image, with its progress, and its failures told apart."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

from container_manager.engine.docker import Engine
from container_manager.engine.errors import (
    EngineError,
    EngineRefused,
    EngineRejected,
)
from container_manager.engine.logins import Logins
from container_manager.engine.progress import Progress, PullProgress
from container_manager.spec import Spec
from container_manager.spec.image import Reference

MAX_PULLS = 8
"""Pulls at a time. An engine downloads three layers at a time by default, whatever it is asked."""
RATE_LIMIT_PAUSE = 30.0
"""Seconds to wait at least where a registry says "too many requests" and not for how long."""


@dataclass(frozen=True, slots=True)
class _Key:
    """What makes two pulls the same."""

    image: Reference
    platform: str | None
    credential: str | None


class _Pull:
    """A pull under way, and how many wait for it."""

    def __init__(self, run: Callable[[PullProgress], Coroutine[Any, Any, None]]) -> None:
        self.progress = PullProgress(time.monotonic())
        self.waiters = 0
        self.task = asyncio.create_task(run(self.progress), name="pull")


class Pulls:
    """The pulls of one engine."""

    def __init__(self, engine: Engine, logins: Logins) -> None:
        """Pull to `engine`, logging in by `logins`."""
        self._engine = engine
        self._logins = logins
        self._pulls: dict[_Key, _Pull] = {}
        self._places = asyncio.Semaphore(MAX_PULLS)

    def __len__(self) -> int:
        """Pulls under way."""
        return len(self._pulls)

    def progress(self, spec: Spec) -> Progress | None:
        """How far the pull of a spec's image is; None when none is under way."""
        pull = self._pulls.get(_key(spec))
        return None if pull is None else pull.progress.state

    async def pull(self, spec: Spec) -> None:
        """Pull a spec's image, or wait for the pull that is under way.

        It takes as long as it takes: callers set the limit. A pull that nobody waits for any more
        is given up.

        Raises:
            EngineRejected: there is no such image, or no right to it.
            EngineRefused: registry or engine failed in a way that may heal.
            EngineUnavailable: the engine went away.
        """
        key = _key(spec)
        if (pull := self._pulls.get(key)) is None:
            pull = self._pulls[key] = _Pull(partial(self._pull, key))
        pull.waiters += 1
        try:
            await asyncio.shield(pull.task)
        finally:
            pull.waiters -= 1
            if not pull.waiters:
                pull.task.cancel()
            if self._pulls.get(key) is pull and (pull.task.done() or not pull.waiters):
                del self._pulls[key]

    async def _pull(self, key: _Key, progress: PullProgress) -> None:
        async with self._places:
            login = await self._logins.header(key.image.registry, key.credential)
            try:
                async with self._engine.pulling(
                    key.image.name, key.image.tag_or_digest, platform=key.platform, login=login
                ) as messages:
                    # The engine answers 200 at once and reports a failure inside the stream.
                    async for message in messages:
                        if "error" in message:
                            raise EngineRefused(str(message["error"]))
                        progress.note(message, time.monotonic())
            except (EngineRefused, EngineRejected) as error:
                raise pull_failed(key.image, str(error), logged_in=login is not None) from error


def _key(spec: Spec) -> _Key:
    return _Key(Reference.parse(spec.image), spec.platform, spec.credential)


# -- why a pull failed -----------------------------------------------------------------------------

_LIMITED = re.compile(r"too ?many ?requests|rate limit", re.IGNORECASE)
_WAIT = re.compile(r"(?:retry[- ]after|try again in|wait)\D{0,10}(\d{1,6})", re.IGNORECASE)
_DISK_FULL = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
_UNAUTHORIZED = re.compile(
    r"unauthorized|authentication required|no basic auth credentials|denied|forbidden"
    r"|incorrect username or password",
    re.IGNORECASE,
)
_NOT_FOUND = re.compile(
    r"manifest unknown|name unknown|not found|does not exist|no matching manifest"
    r"|does not match the specified platform|invalid reference",
    re.IGNORECASE,
)
_SERVER = re.compile(
    r"HTTP status:? 5\d\d|internal server error|bad gateway|unavailable", re.IGNORECASE
)
_CUT = re.compile(r"\bEOF\b|connection reset|broken pipe|unexpected end", re.IGNORECASE)


def pull_failed(image: Reference, words: str, *, logged_in: bool) -> EngineError:
    """The failure of a pull by what is to be done about it, and in words that say so.

    The engine passes on no status of the registry, only words: its own, and those of the registry.
    """
    registry = image.registry
    if _LIMITED.search(words):
        told = _WAIT.search(words)
        pause = float(told[1]) if told else RATE_LIMIT_PAUSE
        return EngineRefused(
            f"the registry {registry} says that there were too many requests; "
            f"next try in {pause:g} s or later: {words}",
            retry_after=pause,
        )
    if _DISK_FULL.search(words):
        return EngineRefused(f"the engine's disk is full: {words}")
    if _SERVER.search(words):
        return EngineRefused(f"the registry {registry} fails: {words}")
    if _CUT.search(words):
        return EngineRefused(f"the connection to the registry {registry} broke: {words}")
    if _UNAUTHORIZED.search(words):
        remedy = (
            "the login that was used has no right to it"
            if logged_in
            else f"there is no login for it: `docker login {registry}` as the daemon's user, "
            "or a named credential"
        )
        return EngineRejected(
            f"the registry {registry} refuses {image.repository}; {remedy}: {words}"
        )
    if _NOT_FOUND.search(words):
        return EngineRejected(
            f"the registry {registry} has no {image.repository} {image.tag_or_digest}: {words}"
        )
    return EngineRefused(f"the registry {registry} cannot be used: {words}")
