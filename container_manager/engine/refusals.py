"""What the engine refuses, by what is to be done about it. Pure."""

from __future__ import annotations

import re

from aiodocker import DockerError

from container_manager.engine.errors import (
    ContainerMissing,
    EngineError,
    EngineRefused,
    EngineRejected,
    ImageMissing,
    NameTaken,
    ObjectMissing,
)

MAX_WORDS = 2000
"""Characters that are kept of what the engine says."""

# The image itself, or the platform of it that is asked for: `docker run` pulls either.
_NO_IMAGE = re.compile(r"no such image|image with reference .* was found but", re.IGNORECASE)
_HEALS = re.compile(
    r"timeout|timed out|connection|no such host|too ?many ?requests|temporar|unavailable|EOF"
    r"|i/o|reset|network is unreachable|server misbehaving|internal server error|bad gateway"
    r"|no space left",
    re.IGNORECASE,
)
# Docker says it with 409, Podman with 500, as it does of most that is wrong.
_NAME_TAKEN = re.compile(r"name \S+ is (already )?in use", re.IGNORECASE)


def translated(error: DockerError) -> EngineError:
    """The engine's error by what is to be done about it (statuses as the Engine API lists them)."""
    words = cut(" ".join(error.message.split()))
    kind: type[EngineError] = EngineRefused
    if error.status == 404 and _NO_IMAGE.search(words):
        kind = ImageMissing
    elif error.status in (404, 500) and "no such container" in words.lower():
        kind = ContainerMissing  # with 500 of one that Podman removes in this moment
    elif error.status in (409, 500) and _NAME_TAKEN.search(words):
        kind = NameTaken
    elif error.status == 404:
        kind = ObjectMissing
    elif error.status in (400, 401, 403, 406) or (
        error.status in (0, 500) and not _HEALS.search(words) and _stays(words)
    ):
        kind = EngineRejected
    return kind(words)


def cut(words: str) -> str:
    """As many of the engine's words as are kept."""
    return words if len(words) <= MAX_WORDS else words[:MAX_WORDS] + "…"


def _stays(words: str) -> bool:
    """Whether a failure without a telling status is one that trying again does not mend."""
    lowered = words.lower()
    return any(
        said in lowered
        for said in (
            "manifest unknown",
            "not found",
            "denied",
            "unauthorized",
            "no basic auth credentials",
            "no matching manifest",
            "invalid reference",
            "executable file",
            "exec format error",
            "not a directory",
            "invalid argument",
            "invalid syntax",
        )
    )
