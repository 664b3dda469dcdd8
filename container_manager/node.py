"""A node: one running daemon, with an identity that outlives restarts.

The identity is an Ed25519 key made on the first start and kept in the data directory; the node's
id is the hash of its public key, so that an id cannot be taken without the key.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def new_key() -> bytes:
    """A new private key: 32 bytes, as RFC 8032 defines them."""
    return Ed25519PrivateKey.generate().private_bytes_raw()


def node_id(public_key: bytes) -> str:
    """The id of the node with this public key: the first half of its SHA-256, as 32 hex digits."""
    return hashlib.sha256(public_key).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Node:
    """Who this daemon is."""

    id: str
    """32 hexadecimal digits: the first half of the SHA-256 of the public key."""

    home: str
    """`hostname:data directory`: what a container's label says about where it was deployed from.

    It tells a daemon that has lost its data directory, and with it its key, which containers were
    its own: no two daemons hold one directory of one host at a time.
    """

    @classmethod
    def from_key(cls, private_key: bytes, home: str) -> Node:
        """The node whose private key this is."""
        public = Ed25519PrivateKey.from_private_bytes(private_key).public_key()
        return cls(id=node_id(public.public_bytes_raw()), home=home)
