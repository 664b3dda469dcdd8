"""A record: what nodes tell each other of one thing, and which of two tellings counts. Pure.

*Owned* records (jobs, nodes) have one writer at a time: their epoch, from 1, says how often that
has changed. *Shared* ones, of epoch 0, may be written by any node. Either way the higher (epoch,
revision, writer) counts; where even these are the same, as a copied data directory can bring about,
the higher digest does, and then the later expiry. So all nodes that have heard the same come to the
same, in whatever order they have heard it.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace

import ormsgpack

SHARED = 0
"""The epoch of records that any node may write."""
_CONTEXT = "container-manager record 1"


@dataclass(frozen=True, slots=True)
class Record:
    """One telling of one thing."""

    kind: str
    """What it is about: `job`, `node`. Kinds that this version does not know are passed on."""
    id: bytes
    """Which one, within its kind; 1 to 255 bytes."""
    epoch: int
    revision: int
    writer: str
    """The id of the node that has written it."""
    expires_at: int | None
    """When everybody drops it, in microseconds since 1970; None while it may still change."""
    body: bytes | None
    """None once it has been dropped: then it only keeps older tellings from counting again."""
    signature: bytes | None = None
    """The proof that its writer has written it so (see `cluster.signing`); None while it is with
    nobody but its writer."""
    digest_of_dropped: bytes | None = None
    """The digest of the body that has been dropped."""

    @property
    def digest(self) -> bytes:
        """The SHA-256 of its body."""
        return self.digest_of_dropped or hashlib.sha256(self.body or b"").digest()

    @property
    def rank(self) -> tuple[int, int, str, bytes, float]:
        """What decides between two tellings of one thing: the higher one counts.

        Those of one rank say the same, though one of them may have been dropped.
        """
        expiry = math.inf if self.expires_at is None else self.expires_at
        return self.epoch, self.revision, self.writer, self.digest, expiry

    def expired(self, now: int) -> bool:
        """Whether it has had its time."""
        return self.expires_at is not None and self.expires_at <= now

    def dropped(self) -> Record:
        """What is left of it when it has had its time."""
        return (
            self if self.body is None else replace(self, body=None, digest_of_dropped=self.digest)
        )

    def signed_content(self) -> bytes:
        """What its writer signs."""
        return ormsgpack.packb(
            (
                _CONTEXT,
                self.kind,
                self.id,
                self.epoch,
                self.revision,
                self.writer,
                self.expires_at,
                self.digest,
            )
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """A place in a feed, and the record that is told there, as it is by now."""

    seq: int
    record: Record
    home: tuple[str, int] | None = None
    """The name of the feed and the place where the record stands by now, if that is elsewhere."""
