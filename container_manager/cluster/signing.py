"""Signatures of records, so that who hands on what another has written cannot change it.

Many records are signed at once: what is signed is the root of a hash tree (as in RFC 6962, section
2.1) of which they are the leaves, and each record takes its path to the root along. So a record can
be handed on by itself, and a signature, which costs as much as a hundred hashes, is made and
checked once for many.

A proof is the writer's Ed25519 public key (32 bytes), its signature of the root (64, RFC 8032), and
for each step of the path a byte, 0 or 1, for the side of the neighbour, and its hash. The key needs
no looking up: a node's id is the hash of it. From its writer itself a record needs no check, since
the link's TLS has said who that is; but it bears its proof, for those to whom it is handed on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from container_manager.node import node_id
from container_manager.record import Record

TREE = 64
"""Records that one signature stands for, at most: a proof has six steps at most then."""
KEY = 32
SIGNED = KEY + 64
STEP = 1 + 32
LONGEST = SIGNED + 6 * STEP
"""Bytes of the longest proof."""

_CONTEXT = b"container-manager records 1\0"
_LEAF, _NODE = b"\0", b"\1"
_LEFT, _RIGHT = 0, 1


class Signer:
    """Signs what this node has written."""

    def __init__(self, private_key: bytes) -> None:
        """Sign with the node's identity key."""
        self._key = Ed25519PrivateKey.from_private_bytes(private_key)
        self._public = self._key.public_key().public_bytes_raw()
        self._node = node_id(self._public)

    def signed(self, records: Sequence[Record]) -> list[Record]:
        """The records; those that are this node's own and bear no proof yet with theirs."""
        mine = [
            number
            for number, record in enumerate(records)
            if record.signature is None and record.writer == self._node
        ]
        signed = list(records)
        for first in range(0, len(mine), TREE):
            chosen = mine[first : first + TREE]
            proofs = self._proofs([_leaf(records[number]) for number in chosen])
            for number, proof in zip(chosen, proofs, strict=True):
                signed[number] = replace(records[number], signature=proof)
        return signed

    def _proofs(self, leaves: list[bytes]) -> Iterator[bytes]:
        levels = [leaves]
        while len(levels[-1]) > 1:
            levels.append(_parents(levels[-1]))
        head = self._public + self._key.sign(_CONTEXT + levels[-1][0])
        for place in range(len(leaves)):
            yield head + b"".join(_steps(levels, place))


def is_genuine(record: Record) -> bool:
    """Whether its writer has signed it as it is."""
    proof = record.signature
    if proof is None or not is_proof(proof) or node_id(proof[:KEY]) != record.writer:
        return False
    digest = _leaf(record)
    for start in range(SIGNED, len(proof), STEP):
        side, neighbour = proof[start], proof[start + 1 : start + STEP]
        if side not in (_LEFT, _RIGHT):
            return False
        digest = _joined(neighbour, digest) if side == _LEFT else _joined(digest, neighbour)
    return _is_signed(proof[:KEY], proof[KEY:SIGNED], digest)


def is_proof(proof: bytes) -> bool:
    """Whether this has the form of a proof."""
    length = len(proof)
    return SIGNED <= length <= LONGEST and (length - SIGNED) % STEP == 0


@lru_cache(4096)
def _is_signed(public: bytes, signature: bytes, root: bytes) -> bool:
    # Remembered: many records in a row have one root.
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, _CONTEXT + root)
    except (InvalidSignature, ValueError):
        return False
    return True


def _leaf(record: Record) -> bytes:
    return hashlib.sha256(_LEAF + record.signed_content()).digest()


def _joined(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(_NODE + left + right).digest()


def _parents(level: list[bytes]) -> list[bytes]:
    """The next level; the last of an odd number goes up as it is."""
    pairs = range(0, len(level) - 1, 2)
    parents = [_joined(level[left], level[left + 1]) for left in pairs]
    return parents + level[len(level) - 1 :] if len(level) % 2 else parents


def _steps(levels: list[list[bytes]], place: int) -> Iterator[bytes]:
    for level in levels[:-1]:
        neighbour = place ^ 1
        if neighbour < len(level):
            side = _LEFT if neighbour < place else _RIGHT
            yield bytes([side]) + level[neighbour]
        place >>= 1
