"""How many deployments at a time serve an engine best. Pure.

An engine gains nothing from more than a few at a time: beyond that, each one only waits inside it
for the others, and all take longer. Where that begins differs from host to host, so it is found by
what deployments take, as TCP Vegas finds a connection's share of a path
(https://doi.org/10.1145/190314.190317): from the time that one takes alone and the time that each
takes now follows how many of those under way are waiting. A few should be, so that the engine is
never idle; more are of no use.
"""

from __future__ import annotations

from collections import deque

FIRST = 4
"""The limit before anything is known."""
FLOOR = 2
"""The limit that is never undercut, however slow the engine has become."""
TOO_FEW, TOO_MANY = 2.5, 3.5
"""Between so many of the deployments under way should be waiting inside the engine."""
PROBE_AFTER = 300
"""Deployments under full load after which some are made alone, to know what one takes by now."""
PROBES = 3


class ConcurrencyLimit:
    """The limit, moved by one at a time."""

    def __init__(self, most: int) -> None:
        """Find a limit of at most `most`."""
        self._most = most
        self._found = min(FIRST, most)
        self._alone: deque[float] = deque(maxlen=PROBES)
        self._quickest = float("inf")
        self._until_probe = PROBE_AFTER
        self._probes_left = 0
        self._window: list[float] = []

    @property
    def value(self) -> int:
        """How many deployments may be under way now."""
        return 1 if self._probes_left else self._found

    def sample(self, seconds: float, *, alone: bool, contended: bool) -> None:
        """Learn from one deployment.

        Args:
            seconds: what the engine took for it.
            alone: whether no other was under way meanwhile.
            contended: whether others were waiting for their turn, so that the limit held them up.
        """
        if alone:
            self._alone.append(seconds)
            self._until_probe = PROBE_AFTER
            self._probes_left = max(self._probes_left - 1, 0)
            return
        self._quickest = min(self._quickest, seconds)
        if not contended or self._probes_left:
            return
        self._until_probe -= 1
        if not self._until_probe:
            self._probes_left = PROBES
        self._window.append(seconds)
        if len(self._window) >= 2 * self._found:
            self._move(sum(self._window) / len(self._window))
            self._window.clear()

    def _move(self, mean: float) -> None:
        # Until one was alone, the quickest comes nearest to that.
        alone = sum(self._alone) / len(self._alone) if self._alone else self._quickest
        waiting = self._found * (1 - alone / mean)
        if waiting < TOO_FEW:
            self._found = min(self._found + 1, self._most)
        elif waiting > TOO_MANY:
            self._found = max(self._found - 1, min(FLOOR, self._most))
