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
    kept, header, left, cut = bytearray(), b"", 0, False
    async for chunk in chunks:
        while chunk:
            if left:
                kept += chunk[:left]
                left, chunk = max(left - len(chunk), 0), chunk[left:]
            else:
                missing = _HEADER - len(header)
                header, chunk = header + chunk[:missing], chunk[missing:]
                if len(header) == _HEADER:
                    left, header = int.from_bytes(header[4:], "big"), b""
        if len(kept) > 2 * MAX_BYTES:
            del kept[:-MAX_BYTES]
            cut = True
    if len(kept) > MAX_BYTES:
        del kept[:-MAX_BYTES]
        cut = True
    lines = kept.decode("utf-8", "replace").split("\n")
    if lines[-1] == "":
        lines.pop()
    if cut and len(lines) > 1:
        del lines[0]  # its beginning is missing
    return [line.rstrip("\r") for line in lines[-MAX_LINES:]]
