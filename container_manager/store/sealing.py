"""Sealing: values of `env` are closed wherever they are stored, and opened to make a container; so
is what containers write, which may repeat them.

ChaCha20-Poly1305 (RFC 8439) under a key from the data directory, each value bound to its job, so
that what was sealed for one job does not open for another. Fingerprints are keyed as well: without
the key nobody can test a guess against one.
"""

from __future__ import annotations

import hashlib
import hmac
import os

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
    """Seals and opens environments, and takes fingerprints of what callers sent."""

    def __init__(self, key: bytes) -> None:
        """Derive one key for each use from the 32 bytes of the key file."""
        self._cipher = ChaCha20Poly1305(_derived(key, b"environment"))
        self._fingerprint_key = _derived(key, b"fingerprint")

    def close(self, env: dict[str, str], job_id: str) -> bytes | None:
        """Seal an environment for one job; None where there is nothing to seal."""
        return self._close(orjson.dumps(env), job_id) if env else None

    def open(self, sealed: bytes | None, job_id: str) -> dict[str, str]:
        """The environment that was sealed for this job.

        Raises:
            SealBroken: it was sealed with another key, or for another job.
        """
        env: dict[str, str] = {} if sealed is None else orjson.loads(self._open(sealed, job_id))
        return env

    def close_output(self, lines: list[str], job_id: str) -> bytes:
        """Seal what a job's container has written: programs print what they were given."""
        return self._close(orjson.dumps(lines), f"output of {job_id}")

    def open_output(self, sealed: bytes, job_id: str) -> list[str]:
        """What was sealed by `close_output`.

        Raises:
            SealBroken: as `open`.
        """
        lines: list[str] = orjson.loads(self._open(sealed, f"output of {job_id}"))
        return lines

    def _close(self, plain: bytes, bound_to: str) -> bytes:
        nonce = os.urandom(_NONCE_LENGTH)
        return nonce + self._cipher.encrypt(nonce, plain, bound_to.encode())

    def _open(self, sealed: bytes, bound_to: str) -> bytes:
        nonce, ciphertext = sealed[:_NONCE_LENGTH], sealed[_NONCE_LENGTH:]
        try:
            return self._cipher.decrypt(nonce, ciphertext, bound_to.encode())
        except InvalidTag as error:
            raise SealBroken("it does not open with this node's key") from error

    def fingerprint(self, content: bytes) -> bytes:
        """32 bytes that tell whether two contents are the same, and nothing else about them."""
        return hmac.digest(self._fingerprint_key, content, hashlib.sha256)


def _derived(key: bytes, use: bytes) -> bytes:
    info = b"container-manager " + use
    return HKDF(algorithm=SHA256(), length=_KEY_LENGTH, salt=None, info=info).derive(key)
