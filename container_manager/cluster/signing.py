"""Signatures of records, so that who hands on what another has written cannot change it.

A signature is the writer's Ed25519 public key and its signature (RFC 8032): 96 bytes. The key needs
no looking up: a node's id is the hash of it. From its writer itself a record needs no check, since
the link's TLS has said who that is; but it bears one, for those to whom it is handed on.
"""

from __future__ import annotations

from dataclasses import replace

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from container_manager.node import node_id
from container_manager.record import Record

_KEY = 32
_LENGTH = 96


class Signer:
    """Signs what this node has written."""

    def __init__(self, private_key: bytes) -> None:
        """Sign with the node's identity key."""
        self._key = Ed25519PrivateKey.from_private_bytes(private_key)
        self._public = self._key.public_key().public_bytes_raw()
        self._node = node_id(self._public)

    def signed(self, record: Record) -> Record:
        """The record, signed where it is this node's own and bears no signature yet."""
        if record.signature is not None or record.writer != self._node:
            return record
        return replace(record, signature=self._public + self._key.sign(record.signed_content()))


def is_genuine(record: Record) -> bool:
    """Whether its writer has signed it as it is."""
    signature = record.signature
    if signature is None or len(signature) != _LENGTH:
        return False
    public = signature[:_KEY]
    if node_id(public) != record.writer:
        return False
    try:
        key = Ed25519PublicKey.from_public_bytes(public)
        key.verify(signature[_KEY:], record.signed_content())
    except InvalidSignature:
        return False
    return True
