"""The cluster secret: one text that all members hold, and the keys that each derives from it.

Whoever talks to a node sees its certificate, which is signed with a key derived from the secret,
and can try guesses against that signature at leisure. So weak secrets are refused, and each guess
is made to cost something (scrypt, RFC 7914).
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from functools import lru_cache
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

AUTHORITY = b"authority"
"""Use of the key that signs the certificates of nodes."""
ENVIRONMENT_SEALING = b"environment sealing"
"""Use of the key that closes the values of `env`."""
TOKEN = b"token"
"""Use of the key that is the first bearer token."""

MIN_LENGTH = 32
"""Characters that a secret needs."""
MIN_DIFFERENT = 8
"""Different characters among them."""
MAX_FILE = 4096
"""Bytes that a secret file may have; a larger one is some other file."""

_KEY_LENGTH = 32
# Each node has to come to the same keys for ever: none of this can change.
_SALT = b"container-manager cluster secret, version 1"
_N, _R, _P = 2**14, 8, 1  # 128 * N * R = 16 MiB, and some 50 ms

_GIVEN_TO_THIS_CONTAINER = Path("/run/secrets")
_REMEDY = "Make one with `container-manager secret new`, and name its file with --secret-file."


class SecretError(Exception):
    """The secret is weak or cannot be read; the message says what to do, and repeats none of it."""


class ClusterSecret:
    """A good secret, and what is derived from it."""

    __slots__ = ("_stretched",)

    def __init__(self, text: str) -> None:
        """Take a secret; blanks and line ends around it do not count.

        It takes some 50 ms of a core and 16 MiB the first time that a process does it.

        Raises:
            SecretError: it is weak.
        """
        text = text.strip()
        _check(text)
        self._stretched = _stretched(text)

    @staticmethod
    def new_text() -> str:
        """A new secret: 256 random bits as 64 hexadecimal digits."""
        return secrets.token_hex(32)

    @classmethod
    def from_file(cls, path: Path) -> ClusterSecret:
        """The secret that a file holds.

        As with ssh's and PostgreSQL's private keys, others must not be able to read it: its mode is
        0600 or less, or 0640 or less where root owns it, so that a service's group can be let in.
        What lies below /run/secrets is taken as it is: Docker and Podman put it there, readable by
        all users, for the one container that was given it.

        Raises:
            SecretError: it cannot be read, others can read it, or what it holds is weak.
        """
        path = path.expanduser().absolute()
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                content = file.read(MAX_FILE + 1)
        except OSError as error:
            raise SecretError(
                f"The secret file {path} cannot be read ({error.strerror}). {_REMEDY}"
            ) from error
        if not path.resolve().is_relative_to(_GIVEN_TO_THIS_CONTAINER):
            _check_mode(path, status)
        if len(content) > MAX_FILE:
            raise SecretError(
                f"The secret file {path} is longer than {MAX_FILE} bytes, so it is no secret "
                f"file. {_REMEDY}"
            )
        try:
            return cls(content.decode())
        except UnicodeDecodeError:
            raise SecretError(f"The secret file {path} is no text in UTF-8. {_REMEDY}") from None
        except SecretError as error:
            raise SecretError(f"{path}: {error}") from None

    def key(self, use: bytes) -> bytes:
        """32 bytes for one use; no use's key tells anything about another's (HKDF, RFC 5869)."""
        info = b"container-manager cluster " + use
        return HKDFExpand(SHA256(), _KEY_LENGTH, info).derive(self._stretched)

    def __repr__(self) -> str:
        return "ClusterSecret(…)"


def _check(text: str) -> None:
    if not text:
        raise SecretError(f"The cluster secret is empty. {_REMEDY}")
    if not text.isprintable():
        raise SecretError("The cluster secret is not one line of printable characters. " + _REMEDY)
    if len(text) < MIN_LENGTH:
        raise SecretError(
            f"The cluster secret is weak: it has {len(text)} characters instead of {MIN_LENGTH} "
            f"or more. {_REMEDY}"
        )
    repeats = text in (text + text)[1:-1]
    if len(set(text)) < MIN_DIFFERENT or repeats:
        raise SecretError(
            f"The cluster secret is weak: it repeats the same few characters. {_REMEDY}"
        )


def _check_mode(path: Path, status: os.stat_result) -> None:
    allowed = 0o740 if status.st_uid == 0 else 0o700
    if stat.S_IMODE(status.st_mode) & 0o777 & ~allowed:
        raise SecretError(
            f"The secret file {path} can be read or written by others (mode "
            f"{stat.S_IMODE(status.st_mode):04o}). Close it: chmod 600 {path}"
        )


@lru_cache(maxsize=4)
def _stretched(text: str) -> bytes:
    return hashlib.scrypt(text.encode(), salt=_SALT, n=_N, r=_R, p=_P, dklen=_KEY_LENGTH)
