"""The last lines that a container has written, out of the engine's log stream.

Source: https://docs.docker.com/reference/api/engine/version/v1.41/ (ContainerAttach, "Stream
format"): without a terminal each frame has a header of 8 bytes, the last four of which are the
length of what follows, most significant byte first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

MAX_LINES = 100
MAX_BYTES = 64 * 1024
"""What is kept of one container's output at most."""
_HEADER = 8


async def last_lines(chunks: AsyncIterator[bytes]) -> list[str]:
    """The last `MAX_LINES` lines, or fewer where they are longer than `MAX_BYTES` together."""
    kept, frames, cut = bytearray(), _Frames(), False
    async for chunk in chunks:
        kept += frames.content(chunk)
        if len(kept) > MAX_BYTES:
            del kept[:-MAX_BYTES]
            cut = True
    lines = kept.decode("utf-8", "replace").split("\n")
    if lines[-1] == "":
        lines.pop()
    if cut and len(lines) > 1:
        del lines[0]  # its beginning is missing
    return [line.rstrip("\r") for line in lines[-MAX_LINES:]]


class _Frames:
    """Takes the frames away, wherever the chunks are cut."""

    def __init__(self) -> None:
        self._header = b""
        self._left = 0

    def content(self, chunk: bytes) -> bytes:
        """What of a chunk is content."""
        content, at = bytearray(), 0
        while at < len(chunk):
            if self._left:
                piece = chunk[at : at + self._left]
                content += piece
                self._left -= len(piece)
            else:
                piece = chunk[at : at + _HEADER - len(self._header)]
                self._header += piece
                if len(self._header) == _HEADER:
                    self._left, self._header = int.from_bytes(self._header[4:], "big"), b""
            at += len(piece)
        return bytes(content)
