"""What nodes say to each other over a link about feeds, and its form in frames.

What comes is checked here field by field: a member of the cluster is trusted to be who it is, not
to be without faults.
"""

from __future__ import annotations

import re
from typing import Any

from container_manager.cluster.frames import FrameError
from container_manager.cluster.signing import is_proof
from container_manager.cluster.sync import (
    Batch,
    Control,
    Held,
    Offer,
    Received,
    Subscribe,
    Unsubscribe,
)
from container_manager.record import Entry, Record

BATCH, RECEIVED, SUBSCRIBE, UNSUBSCRIBE, OFFER, HELD = range(16, 22)
"""Kinds of frames."""

Message = Control | Batch

MAX_FEEDS = 100_000
"""Feeds that one message may speak of."""
_FEED = re.compile(r"[0-9a-f]{32}\.[0-9a-f]{16}", re.ASCII)
_NODE = re.compile(r"[0-9a-f]{32}", re.ASCII)
_MAX_KIND = 64
_MAX_ID = 255
_DIGEST = 32


def encode(message: Message) -> tuple[int, Any]:
    """The kind and the content of the frame that says it."""
    match message:
        case Batch(feed, stream, after, upto, holds, entries):
            return BATCH, (feed, stream, after, upto, holds, [_entry(one) for one in entries])
        case Received(feed, upto, holds):
            return RECEIVED, (feed, upto, holds)
        case Subscribe(feed, after, stream):
            return SUBSCRIBE, (feed, after, stream)
        case Unsubscribe(feed):
            return UNSUBSCRIBE, (feed,)
        case Offer(vector):
            return OFFER, (vector,)
        case Held(vector):
            return HELD, (vector,)


def decode(kind: int, content: Any) -> Message | None:
    """What a frame says; None where its kind is not known here. What it says more is ignored.

    Raises:
        FrameError: it is malformed.
    """
    if not BATCH <= kind <= HELD:
        return None
    try:
        match kind:
            case 16:
                feed, stream, after, upto, holds, entries = content[:6]
                _check(type(entries) is list)
                _counts(stream, after, upto, holds)
                return Batch(
                    _named(feed), stream, after, upto, holds, [_read(one) for one in entries]
                )
            case 17:
                feed, upto, holds = content[:3]
                _counts(upto, holds)
                return Received(_named(feed), upto, holds)
            case 18:
                feed, after, stream = content[:3]
                _counts(after, stream)
                return Subscribe(_named(feed), after, stream)
            case 19:
                return Unsubscribe(_named(content[0]))
            case 20:
                return Offer(vector(content[0]))
            case _:
                return Held(vector(content[0]))
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise FrameError(f"a frame of kind {kind} is malformed") from error


def vector(said: Any) -> dict[str, int]:
    """What somebody holds; names that are none are left out.

    Raises:
        FrameError: it is no vector.
    """
    _check(type(said) is dict and len(said) <= MAX_FEEDS)
    _counts(*said.values())
    return {feed: upto for feed, upto in said.items() if _FEED.fullmatch(feed)}


def _entry(entry: Entry) -> tuple[Any, ...]:
    record = entry.record
    return (
        entry.seq,
        record.kind,
        record.id,
        record.epoch,
        record.revision,
        record.writer,
        record.expires_at,
        record.body,
        record.signature,
        record.digest_of_dropped,
        entry.home,
    )


def _read(said: Any) -> Entry:
    seq, kind, id_, epoch, revision, writer, expires_at, body, signature, digest = said[:10]
    home = said[10] if len(said) > 10 else None
    _counts(seq, epoch, revision)
    _check(seq >= 1 and revision >= 1)
    _check(type(kind) is str and 0 < len(kind) <= _MAX_KIND)
    _check(type(id_) is bytes and 0 < len(id_) <= _MAX_ID)
    _check(type(writer) is str and _NODE.fullmatch(writer) is not None)
    _check(expires_at is None or _is_count(expires_at))
    _check(type(signature) is bytes and is_proof(signature))
    if body is None:
        _check(type(digest) is bytes and len(digest) == _DIGEST)
    else:
        _check(type(body) is bytes and digest is None)
    record = Record(kind, id_, epoch, revision, writer, expires_at, body, signature, digest)
    if home is None:
        return Entry(seq, record)
    feed, place = home[:2]
    _counts(place)
    return Entry(seq, record, (_named(feed), place))


def _named(feed: Any) -> str:
    _check(type(feed) is str and _FEED.fullmatch(feed) is not None)
    return str(feed)


def _counts(*values: Any) -> None:
    _check(all(_is_count(value) for value in values))


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _check(fits: bool) -> None:
    if not fits:
        raise FrameError("a field is not as it has to be")
