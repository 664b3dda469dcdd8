"""Named credentials, and what a registry is called. Pure.

A credential is known by a name that a spec can give, and belongs to one registry.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

HUB = "docker.io"
"""Docker Hub, as image names have it."""

MAX_SECRET = 64 * 1024
"""Bytes of a secret. Tokens of cloud registries take a few thousand."""

_HUB_NAMES = {HUB, "index.docker.io"}
_HOST = re.compile(r"(?:[a-z0-9]+(?:[.-]+[a-z0-9]+)*|\[[0-9a-f:]+\])(?::[0-9]{1,5})?")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")


class CredentialUnusable(Exception):
    """A credential is not right or cannot be read; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedLogin:
    """A login to one registry, kept under a name."""

    name: str
    registry: str
    """`host[:port]`, as `registry_name` gives it."""
    username: str
    """`<token>` where the secret is an identity token, as credential helpers have it."""
    secret: str = field(repr=False)

    def check(self) -> None:
        """Make sure that it can be used.

        Raises:
            CredentialUnusable: naming the part at fault.
        """
        if not _NAME.fullmatch(self.name):
            raise CredentialUnusable(
                "A credential's name takes letters, digits, '_', '.' and '-', at most 128."
            )
        if not _HOST.fullmatch(self.registry):
            raise CredentialUnusable(
                "The registry is no host name; write it as images have it, such as quay.io or "
                "registry.example.com:5000, and docker.io for Docker Hub."
            )
        # RFC 7617, section 2: the first colon ends the user name.
        if not self.username or ":" in self.username or not self.username.isprintable():
            raise CredentialUnusable("The user name must be a text without ':'.")
        try:
            size = len(self.secret.encode())
        except UnicodeEncodeError:  # a surrogate, from a terminal that does not speak UTF-8
            size = 0
        if not 1 <= size <= MAX_SECRET:
            raise CredentialUnusable(f"The password must be a text of 1 to {MAX_SECRET} bytes.")


def registry_name(host: str) -> str:
    """What a registry is called here: `host[:port]` in small letters, Docker Hub `docker.io`."""
    lowered = host.lower()
    return HUB if lowered in _HUB_NAMES else lowered


def registry_of(address: str) -> str:
    """The registry at an address as people give it to `docker login`: a host, or a URL."""
    _, scheme, rest = address.strip().rpartition("://")
    host, _, path = rest.partition("/")
    # A path without a scheme is part of an image's name; it stays, and is found to be no host.
    return registry_name(host if scheme or not path else rest)
