"""One file of logins: Docker's config.json or Podman's auth.json, which have one format.

Sources: https://docs.docker.com/reference/cli/docker/login/ and containers-auth.json(5).
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from container_manager.credential import HUB, registry_name
from container_manager.engine.errors import EngineRejected

MAX_SIZE = 4 * 1024 * 1024
"""Bytes that a file may have."""

_HUB_SERVER = "https://index.docker.io/v1/"
_API_PATHS = ("", "v1", "v2")


@dataclass(frozen=True, slots=True)
class Login:
    """What is sent to a registry."""

    server: str
    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @classmethod
    def of(cls, server: str, username: str, secret: str) -> Login:
        """A login of a helper, which says by a user name of its own that it has a token."""
        if username == "<token>":
            return cls(server, identity_token=secret)
        return cls(server, username, secret)

    def header(self) -> str:
        """The value of X-Registry-Auth: JSON in base64url.

        Source: https://docs.docker.com/reference/api/engine/version/v1.41/#section/Authentication
        """
        said = {
            "username": self.username,
            "password": self.password,
            "identitytoken": self.identity_token,
            "serveraddress": self.server,
        }
        content = orjson.dumps({key: value for key, value in said.items() if value})
        return base64.urlsafe_b64encode(content).decode("ascii")


@dataclass(frozen=True, slots=True)
class Helper:
    """A credential helper, and the server that it is to be asked for."""

    name: str
    server: str


class LoginFile:
    """The file as it was when it was read."""

    def __init__(self, path: Path, document: dict[str, Any]) -> None:
        self.path = path
        self._document = document

    @classmethod
    def read(cls, path: Path, *, expected: bool) -> LoginFile | None:
        """Read the file; None where there is none.

        Args:
            path: where it is.
            expected: whether somebody has named this place. Otherwise a directory that may not
                be looked into counts as empty: a hardened service has no access to any home.

        Raises:
            EngineRejected: it is there and cannot be read.
        """
        try:
            with path.open("rb") as file:
                content = file.read(MAX_SIZE + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if not expected and not _seen(path):
                return None
            raise EngineRejected(
                f"the logins in {path} cannot be read ({error.strerror}). Let this daemon's user "
                "read the file, or remove it"
            ) from error
        if not content.strip():
            return cls(path, {})
        try:
            document = orjson.loads(content) if len(content) <= MAX_SIZE else None
        except ValueError:
            document = None
        if not isinstance(document, dict):
            # The parser's own words would show a piece of the file.
            raise EngineRejected(
                f"the logins in {path} cannot be used: the file is no JSON object. Mend it, or "
                "remove it and log in again"
            )
        return cls(path, document)

    def helper(self, registry: str) -> Helper | None:
        """The helper that keeps the login for a registry: its own, else the one for all.

        Raises:
            EngineRejected: the file says it in another way than docker does.
        """
        server = server_of(registry)
        helpers = self._objects("credHelpers")
        for key in (server, *(key for key in helpers if registry_name(key) == registry)):
            if key in helpers:
                # An empty name keeps the helper for all from this registry, as in docker.
                name = self._text(helpers[key], f"credHelpers … {key}")
                return Helper(name, key) if name else None
        name = self._text(self._document.get("credsStore"), "credsStore")
        return Helper(name, server) if name else None

    def login(self, registry: str) -> Login | None:
        """The login that the file itself keeps for a registry.

        Raises:
            EngineRejected: there is one, and it cannot be understood.
        """
        server = server_of(registry)
        entries = self._objects("auths")
        for key in (server, *(key for key in entries if matches(key, registry))):
            if key in entries:
                return self._login(server, entries[key], registry)
        return None

    def _login(self, server: str, entry: Any, registry: str) -> Login | None:
        if not isinstance(entry, dict | None):
            raise self._unusable(f'the entry of "auths" for {registry} is no object', registry)
        entry = entry or {}
        username, password, token, encoded = (
            self._text(entry.get(key), f"auths … {key}")
            for key in ("username", "password", "identitytoken", "auth")
        )
        if encoded:
            try:
                plain = base64.b64decode("".join(encoded.split()), validate=True).decode()
            except (binascii.Error, ValueError):
                plain = ""
            username, colon, password = plain.partition(":")
            if not username or not colon:
                raise self._unusable(
                    f'"auth" of {registry} is not "user:password" in base64', registry
                )
            password = password.strip("\0")  # as docker does
        if not (username or password or token):
            return None
        return Login(server, username, password, token)

    def _objects(self, key: str) -> dict[str, Any]:
        value = self._document.get(key)
        if not isinstance(value, dict | None):
            raise self._unusable(f'"{key}" is no object')
        return value or {}

    def _text(self, value: Any, key: str) -> str:
        if not isinstance(value, str | None):
            raise self._unusable(f'"{key}" is no text')
        return value or ""

    def _unusable(self, why: str, registry: str = "") -> EngineRejected:
        remedy = f"Log in to {registry} again" if registry else "Mend the file"
        return EngineRejected(f"the logins in {self.path} cannot be used: {why}. {remedy}")


def server_of(registry: str) -> str:
    """What docker calls a registry in its files, and the engine in X-Registry-Auth."""
    return _HUB_SERVER if registry == HUB else registry


def matches(key: str, registry: str) -> bool:
    """Whether a key of "auths" is for a registry, other than by being docker's own key for it.

    By its host, as docker does. A path that is not the registry's API is a part of the registry
    (Podman: `quay.io/team`), or something else than a login (Docker Desktop keeps tokens for
    itself under `https://index.docker.io/v1/access-token`).
    """
    _, scheme, rest = key.rpartition("://")
    host, _, path = rest.partition("/")
    if registry_name(host) != registry:
        return False
    return path.strip("/") in _API_PATHS or (bool(scheme) and registry != HUB)


def _seen(path: Path) -> bool:
    """Whether it can be told at all that the file is there."""
    try:
        path.stat()
    except OSError:
        return False
    return True
