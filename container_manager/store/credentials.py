"""Named credentials on disk: one file in the data directory, sealed as a whole.

A running daemon reads the file for each login, and the command line writes it meanwhile: without
the directory's lock, which the daemon holds, but under one of its own.
"""

from __future__ import annotations

import fcntl
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import orjson

from container_manager.credential import CredentialUnusable, NamedLogin
from container_manager.store.directory import (
    KEY_LENGTH,
    SEAL_KEY,
    key_file,
    private_file,
    replace_file,
)
from container_manager.store.sealing import Seal, SealBroken

MAX_CREDENTIALS = 1000


class Credentials:
    """The credentials of one data directory, always as they are on disk now."""

    def __init__(self, directory: Path, seal: Seal) -> None:
        """Name the directory, which exists, and the seal under its key."""
        self._path = directory / "credentials"
        self._lock = directory / "credentials.lock"
        self._key = directory / SEAL_KEY
        self._seal = seal

    @classmethod
    def beside_daemon(cls, directory: Path) -> Credentials:
        """Open them without taking the directory, whether a daemon has it or not.

        Raises:
            DirectoryError: the key can be neither read nor made.
        """
        key = key_file(directory / SEAL_KEY, lambda: secrets.token_bytes(KEY_LENGTH))
        return cls(directory, Seal(key))

    def get(self, name: str) -> NamedLogin | None:
        """The credential of this name; None where there is none.

        Raises:
            CredentialUnusable: the file cannot be read or opened.
        """
        return self._read().get(name)

    def all(self) -> list[NamedLogin]:
        """All, by name.

        Raises:
            CredentialUnusable: the file cannot be read or opened.
        """
        return sorted(self._read().values(), key=lambda login: login.name)

    def set(self, login: NamedLogin) -> None:
        """Keep a credential, in place of one of that name.

        Raises:
            CredentialUnusable: it is not right, or the file cannot be read or written.
        """
        login.check()
        with self._writing() as logins:
            if login.name not in logins and len(logins) >= MAX_CREDENTIALS:
                raise CredentialUnusable(
                    f"There are {MAX_CREDENTIALS} credentials already. Remove one first."
                )
            logins[login.name] = login

    def remove(self, name: str) -> bool:
        """Forget a credential; gives whether it was there.

        Raises:
            CredentialUnusable: the file cannot be read or written.
        """
        with self._writing() as logins:
            return logins.pop(name, None) is not None

    def _read(self) -> dict[str, NamedLogin]:
        try:
            content = orjson.loads(self._seal.open_credentials(self._path.read_bytes()))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise CredentialUnusable(
                f"{self._path} cannot be read ({error.strerror}). "
                "Give it to the user that the daemon runs as."
            ) from error
        except SealBroken as error:
            raise CredentialUnusable(
                f"{self._path} does not open with the key in {self._key}. Restore both from one "
                "backup, or remove the file and set the credentials again."
            ) from error
        return {entry["name"]: NamedLogin(**entry) for entry in content["credentials"]}

    @contextmanager
    def _writing(self) -> Iterator[dict[str, NamedLogin]]:
        """What there is, written when the block ends if the block has changed it."""
        try:
            # What root sets is for the daemon, whose key it is.
            owner = self._key.stat()
            with private_file(self._lock, owner) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                before = self._read()
                logins = dict(before)
                yield logins
                if logins != before:
                    content = {"credentials": [asdict(login) for login in logins.values()]}
                    sealed = self._seal.close_credentials(orjson.dumps(content))
                    replace_file(self._path, sealed, owner)
        except OSError as error:
            raise CredentialUnusable(
                f"{self._path} cannot be written ({error.strerror}). "
                "Run this as the user that the daemon runs as."
            ) from error
