"""The members: which nodes were heard of, and how each of them stands. Pure.

What counts is what was heard over a link. An announcement by mDNS only says that there may be a
node; a goodbye counts only where it came over a link, since anybody can send one by mDNS.
"""

from __future__ import annotations

from dataclasses import dataclass

SUSPECT_AFTER = 5.0
"""Seconds without a word after which a node may be in trouble."""
GONE_AFTER = 15.0
"""Seconds without a word after which it is taken for gone."""

ALIVE, SUSPECT, GONE, LEFT, UNTRUSTED = "alive", "suspect", "gone", "left", "untrusted"


@dataclass(slots=True)
class Member:
    """A node that was heard of. Times are seconds of `time.monotonic`."""

    node: str
    name: str = ""
    version: str = ""
    addresses: tuple[str, ...] = ()
    """Where it was last linked with or seen, as `host:port`."""
    heard: float | None = None
    """When the last word of it came over a link; None where none ever has since the start."""
    linked: bool = False
    left: bool = False
    """Its last word was a goodbye."""
    trusted: bool = False
    """Whether it has ever shown that it knows the cluster secret."""
    refusal: str = ""
    """Why there is no link with it, where it was refused or refuses."""

    def state(self, now: float) -> str:
        """How it stands: alive, suspect, gone, left or untrusted."""
        if self.left:
            return LEFT
        if not self.trusted:
            return UNTRUSTED
        if self.heard is None:
            return GONE
        silent = now - self.heard
        if silent < SUSPECT_AFTER:
            return ALIVE
        return SUSPECT if silent < GONE_AFTER else GONE
