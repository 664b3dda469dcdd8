"""The form of what goes over a link: length, kind, content.

A frame is 4 bytes of length (big-endian, of what follows it), one byte of kind, and the content as
MessagePack (https://github.com/msgpack/msgpack/blob/master/spec.md). Keys of maps are texts. What
follows the content inside a frame is ignored. Nothing here does input or output.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import ormsgpack

MAX_FRAME = 4 << 20
"""Bytes that the kind and the content of a frame may have together."""

_LENGTH = struct.Struct(">I")
_HEAD = struct.Struct(">IB")


class FrameError(ValueError):
    """It is no frame, or may not be one; the message says why, and repeats none of the content."""


class Frame(NamedTuple):
    """What came in one frame."""

    kind: int
    content: Any
    size: int
    """Bytes that it had on the wire."""


def encode(kind: int, content: Any, limit: int = MAX_FRAME) -> bytes:
    """A frame with this content.

    Args:
        kind: 0 to 255.
        content: None, booleans, integers of 64 bits, floats, texts, bytes, lists, and dicts whose
            keys are texts.
        limit: bytes that kind and content may have.

    Raises:
        FrameError: the content has something else in it, or is too large.
    """
    try:
        body = ormsgpack.packb(content)
    except ormsgpack.MsgpackEncodeError as error:
        raise FrameError(f"a frame's content cannot be written as MessagePack: {error}") from error
    length = 1 + len(body)
    if length > limit:
        raise FrameError(f"a frame of {length} bytes is larger than the limit of {limit}")
    return _HEAD.pack(length, kind) + body


class Decoder:
    """Cuts a stream of bytes into frames; holds no more than one unfinished frame and a chunk."""

    def __init__(self, limit: int = MAX_FRAME) -> None:
        """Take frames of up to `limit` bytes, which can be changed between two frames."""
        self.limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole with these bytes. To be exhausted before the next call.

        Raises:
            FrameError: the stream is broken, and nothing that follows in it can be read.
        """
        self._buffer += data
        return self._frames()

    def _frames(self) -> Iterator[Frame]:
        buffer = self._buffer
        start, end = 0, len(buffer)
        try:
            while end - start >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(buffer, start)
                if length > self.limit:
                    raise FrameError(
                        f"a frame of {length} bytes is larger than the limit of {self.limit}"
                    )
                if length == 0:
                    raise FrameError("a frame has no kind")
                body, following = start + _HEAD.size, start + _LENGTH.size + length
                if following > end:
                    return
                kind, size = buffer[body - 1], following - start
                try:
                    content = ormsgpack.unpackb(bytes(buffer[body:following]))
                except ormsgpack.MsgpackDecodeError as error:
                    raise FrameError(
                        f"a frame's content is not MessagePack as it is spoken here: {error}"
                    ) from error
                start = following
                yield Frame(kind, content, size)
        finally:
            del buffer[:start]
