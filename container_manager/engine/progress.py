"""How far a pull is, from the messages that the engine sends about it. Pure.

Source: https://docs.docker.com/reference/api/engine/version/v1.41/ (ImageCreate, ProgressDetail).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PERIOD = 0.2
"""Seconds between two states of a pull's progress at least."""
_HAVE = frozenset({"Already exists", "Pull complete"})
_DOWNLOADED = frozenset({"Verifying Checksum", "Download complete", "Extracting"})
_MEGABYTE = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a pull is."""

    layers: int = 0
    """Layers that the image is known to have."""
    layers_done: int = 0
    """Of these, those that the engine has in full."""
    bytes: int = 0
    """Bytes that were downloaded in this pull."""
    bytes_total: int = 0
    """Bytes to download, as far as is known: of a layer that has not begun they are not."""
    bytes_per_second: float = 0.0

    def __str__(self) -> str:
        """As people read it: `2 of 3 layers, 1.5 of 4.0 MB, 1.0 MB/s`."""
        if not self.layers:
            return "asking the registry"
        words = f"{self.layers_done} of {self.layers} layers"
        if self.bytes_total:
            done, total = self.bytes / _MEGABYTE, self.bytes_total / _MEGABYTE
            words += f", {done:.1f} of {total:.1f} MB"
            words += f", {self.bytes_per_second / _MEGABYTE:.1f} MB/s"
        return words


class PullProgress:
    """Gathers the progress of one pull."""

    def __init__(self, now: float) -> None:
        """Begin at `now`, in seconds of any steady clock."""
        self.state = Progress()
        """The newest progress, made anew at most every `PERIOD` seconds."""
        self._layers: dict[str, tuple[int, int, bool]] = {}
        self._made_at = now

    def note(self, message: Mapping[str, Any], now: float) -> None:
        """Take in a message of the engine."""
        layer, status = message.get("id"), message.get("status", "")
        if not layer or status.startswith("Pulling from"):
            return
        done, total, complete = self._layers.get(layer, (0, 0, False))
        if status == "Downloading":
            detail = message.get("progressDetail") or {}
            # Where the registry does not tell the size, there is none, or Podman's -1.
            total = max(int(detail.get("total") or 0), total)
            done = int(detail.get("current") or 0)
        elif status in _DOWNLOADED:
            done = max(done, total)
        elif status in _HAVE:
            done, complete = max(done, total), True
        elif status.startswith("Retrying"):
            done = 0
        self._layers[layer] = done, total, complete
        if now - self._made_at >= PERIOD:
            self._make(now)

    def _make(self, now: float) -> None:
        done = sum(done for done, _, _ in self._layers.values())
        rate = max(done - self.state.bytes, 0) / (now - self._made_at)
        before = self.state.bytes_per_second
        self.state = Progress(
            layers=len(self._layers),
            layers_done=sum(complete for _, _, complete in self._layers.values()),
            bytes=done,
            bytes_total=sum(max(total, done) for done, total, _ in self._layers.values()),
            # Smoothed: the engine tells of each layer in leaps.
            bytes_per_second=rate if before == 0 else 0.7 * before + 0.3 * rate,
        )
        self._made_at = now
