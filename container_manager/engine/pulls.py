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
SHORTEST_PAUSE = 1.0
"""Seconds to wait at least, however short the time is that such a registry says."""


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

# The status, where the engine's words have it. Docker: "received unexpected HTTP status: 503 …",
# "error parsing HTTP 404 response body: …"; with containerd's images: "unexpected status from HEAD
# request to https://…: 401 …", "unexpected status code https://…: 500 …"; Podman: "StatusCode: 404,
# …", "invalid status code from registry 403 (…)".
_STATUS = re.compile(
    r"(?:HTTP status:|parsing HTTP|StatusCode:|status code from registry"
    r"|unexpected status(?: code| from [A-Z]+ request to)?(?: \S+)?:) ([1-5]\d\d)\b"
)
_LIMITED = re.compile(r"too ?many ?requests|rate limit", re.IGNORECASE)
# In seconds, or as Go writes them: ghcr.io says "retry-after: 681.996µs".
_WAIT = re.compile(
    r"(?:retry[- ]after|try again in|wait)\D{0,10}(\d{1,6}(?:\.\d{1,9})?)(ns|[uµμ]s|ms|s|m|h)?",
    re.IGNORECASE,
)
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_DISK_FULL = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
_UNAUTHORIZED = re.compile(
    r"unauthorized|authentication required|no basic auth credentials|(?<!permission )denied"
    r"|forbidden|incorrect username or password|invalid username/password",
    re.IGNORECASE,
)
_NOT_FOUND = re.compile(
    r"manifest unknown|name unknown|not found|does not exist|no matching manifest"
    r"|no image found in (?:manifest list|image index)|does not match the specified platform"
    r"|invalid reference",
    re.IGNORECASE,
)
_SERVER = re.compile(r"internal server error|bad gateway|unavailable", re.IGNORECASE)
_CUT = re.compile(r"\bEOF\b|connection reset|broken pipe")


def pull_failed(image: Reference, words: str, *, logged_in: bool) -> EngineError:
    """The failure of a pull by what is to be done about it, and in words that say so.

    The engine passes on no status of the registry, only words: its own, and those of the registry.
    """
    registry = image.registry
    said = _without_name(image, words)
    status = int(told[1]) if (told := _STATUS.search(said)) else 0
    if status == 429 or _LIMITED.search(said):
        pause = _pause(said)
        return EngineRefused(
            f"the registry {registry} says that there were too many requests; "
            f"next try in {pause:g} s or later: {words}",
            retry_after=pause,
        )
    if _DISK_FULL.search(said):
        return EngineRefused(f"the engine's disk is full: {words}")
    if status >= 500 or _SERVER.search(said):
        return EngineRefused(f"the registry {registry} fails: {words}")
    if not status and _CUT.search(said):
        return EngineRefused(f"the connection to the registry {registry} broke: {words}")
    if status in (401, 403) or _UNAUTHORIZED.search(said):
        remedy = (
            "the login that was used has no right to it"
            if logged_in
            else f"there is no login for it: `docker login {registry}` as the daemon's user, "
            "or a named credential"
        )
        return EngineRejected(
            f"the registry {registry} refuses {image.repository}; {remedy}: {words}"
        )
    if status == 404 or _NOT_FOUND.search(said):
        return EngineRejected(
            f"the registry {registry} has no {image.repository} {image.tag_or_digest}: {words}"
        )
    return EngineRefused(f"the registry {registry} cannot be used: {words}")


def _pause(words: str) -> float:
    """The seconds that a registry asks to wait."""
    if (told := _WAIT.search(words)) is None:
        return RATE_LIMIT_PAUSE
    return max(float(told[1]) * _SECONDS[(told[2] or "s").lower()], SHORTEST_PAUSE)


def _without_name(image: Reference, words: str) -> str:
    """The words without the image's own name, which may sound like any of them."""
    names = [image.name, *([image.repository] if "/" in image.repository else [])]
    pattern = "|".join(map(re.escape, names))
    return re.sub(rf"(?<![\w.-])(?:{pattern})(?![\w.-])", "", words)
