"""Sealing: values of `env` are closed wherever they are stored, and opened to make a container.

ChaCha20-Poly1305 (RFC 8439) under a key from the data directory, each value bound to its job, so
that what was sealed for one job does not open for another. Fingerprints are keyed as well: without
the key nobody can test a guess against one. What containers write, which may repeat what they were
given, is sealed as well, and so are credentials, each with a key of their own.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Sequence
from contextlib import suppress

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_KEY_LENGTH = 32
_NONCE_LENGTH = 12


class SealBroken(Exception):
    """What was sealed does not open with this node's key: the key file was replaced."""


class Seal:
    """Seals and opens what is secret; takes fingerprints of what callers sent."""

    def __init__(self, key: bytes, cluster_key: bytes | None = None) -> None:
        """Derive one key for each use.

        Args:
            key: the 32 bytes of the key file.
            cluster_key: of 32 bytes that all members of a cluster have. What other nodes are told
                is closed with it; what was closed before the node was a member opens as well.
        """
        keys = [key] if cluster_key is None else [cluster_key, key]
        self._ciphers = [ChaCha20Poly1305(_derived(one, b"environment")) for one in keys]
        self._output_ciphers = [ChaCha20Poly1305(_derived(one, b"output")) for one in keys]
        self._credentials_cipher = ChaCha20Poly1305(_derived(key, b"credentials"))
        self._fingerprint_key = _derived(key, b"fingerprint")

    def close(self, env: dict[str, str], job_id: str) -> bytes | None:
        """Seal an environment for one job; None where there is nothing to seal."""
        if not env:
            return None
        return _encrypted(self._ciphers[0], orjson.dumps(env), job_id.encode())

    def open(self, sealed: bytes | None, job_id: str) -> dict[str, str]:
        """The environment that was sealed for this job.

        Raises:
            SealBroken: it was sealed with another key, or for another job.
        """
        if sealed is None:
            return {}
        plain = _decrypted(self._ciphers, sealed, job_id.encode(), "the environment")
        env: dict[str, str] = orjson.loads(plain)
        return env

    def close_output(self, lines: list[str], job_id: str) -> bytes:
        """Seal the last lines of a job's container: programs print what they were given."""
        return _encrypted(self._output_ciphers[0], orjson.dumps(lines), job_id.encode())

    def open_output(self, sealed: bytes, job_id: str) -> list[str]:
        """The lines that were sealed for this job.

        Raises:
            SealBroken: as `open`.
        """
        plain = _decrypted(self._output_ciphers, sealed, job_id.encode(), "the output")
        lines: list[str] = orjson.loads(plain)
        return lines

    def close_credentials(self, content: bytes) -> bytes:
        """Seal the node's credentials, all together."""
        return _encrypted(self._credentials_cipher, content, None)

    def open_credentials(self, sealed: bytes) -> bytes:
        """The credentials that were sealed with this key.

        Raises:
            SealBroken: they were sealed with another key, or are not whole.
        """
        return _decrypted([self._credentials_cipher], sealed, None, "what was kept")

    def fingerprint(self, content: bytes) -> bytes:
        """32 bytes that tell whether two contents are the same, and nothing else about them."""
        return hmac.digest(self._fingerprint_key, content, hashlib.sha256)


def _encrypted(cipher: ChaCha20Poly1305, plain: bytes, bound_to: bytes | None) -> bytes:
    nonce = os.urandom(_NONCE_LENGTH)
    return nonce + cipher.encrypt(nonce, plain, bound_to)


def _decrypted(
    ciphers: Sequence[ChaCha20Poly1305], sealed: bytes, bound_to: bytes | None, what: str
) -> bytes:
    for cipher in ciphers:
        # A ValueError comes where there is not even a nonce.
        with suppress(InvalidTag, ValueError):
            return cipher.decrypt(sealed[:_NONCE_LENGTH], sealed[_NONCE_LENGTH:], bound_to)
    raise SealBroken(f"{what} does not open with this node's key")


def _derived(key: bytes, use: bytes) -> bytes:
    info = b"container-manager " + use
    return HKDF(algorithm=SHA256(), length=_KEY_LENGTH, salt=None, info=info).derive(key)
