"""Image references, by the grammar and the rules of Docker's own (package `reference` of
https://github.com/distribution/reference).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field

DOCKER_HUB = "docker.io"

# What repeats is possessive: each part ends where its characters do, so that there is nothing to
# try again, and no name makes the check slow.
_LABEL = r"[a-zA-Z0-9]++(?:-++[a-zA-Z0-9]++)*+"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*+|\[[0-9a-fA-F:]++\])(?::[0-9]{{1,5}}+)?+"
_COMPONENT = r"[a-z0-9]++(?:(?:\.|_{1,2}+|-++)[a-z0-9]++)*+"
_IMAGE = re.compile(
    rf"(?P<name>(?:{_DOMAIN}/)?{_COMPONENT}(?:/{_COMPONENT})*+)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}+))?+"
    r"(?:@(?P<digest>[a-z0-9+._-]++:[0-9a-fA-F]{32,128}+))?+"
)
_HINT = "is no image reference; write [registry/]name[:tag][@digest]"


@dataclass(frozen=True, slots=True)
class Reference:
    """An image reference in full: where it is to be had, and which one is meant."""

    registry: str
    """The registry's host, with its port where one is given; Docker Hub is "docker.io"."""
    repository: str
    """The path within the registry; what Docker Hub itself publishes is under "library/"."""
    tag: str | None
    """None only where a digest says which image is meant."""
    digest: str | None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a reference as the Docker client does: "nginx" is docker.io/library/nginx:latest.

        An image's id is read as a reference, too, and names nothing that a registry has.

        Raises:
            ValueError: it is none.
        """
        if (match := _IMAGE.fullmatch(text)) is None:
            raise ValueError(_HINT)
        name, tag, digest = match["name"], match["tag"], match["digest"]
        registry, slash, repository = name.partition("/")
        if not slash or not _is_registry(registry):
            registry, repository = DOCKER_HUB, name
        elif registry == "index.docker.io":  # Docker Hub's old name
            registry = DOCKER_HUB
        if registry == DOCKER_HUB and "/" not in repository:
            repository = f"library/{repository}"
        if tag is None and digest is None:
            tag = "latest"
        return cls(registry, repository, tag, digest)

    @property
    def name(self) -> str:
        """The full name, without tag and digest: "docker.io/library/nginx"."""
        return f"{self.registry}/{self.repository}"

    @property
    def tag_or_digest(self) -> str:
        """What names the image within its repository: the digest where there is one."""
        return self.digest or self.tag or "latest"


def _is_registry(component: str) -> bool:
    return (
        "." in component
        or ":" in component
        or component == "localhost"
        or component != component.lower()  # no path has capitals
    )


def _image(value: str) -> str:
    if _IMAGE.fullmatch(value) is None:
        raise ValueError(_HINT)
    return value


Image = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_image)]
_PLATFORM = re.compile(r"[a-z0-9]{1,32}/[a-z0-9_]{1,32}(?:/[a-z0-9_.]{1,32})?")
_CREDENTIAL = re.compile(r"[a-zA-Z0-9_.-]{1,128}")


def _platform(value: str) -> str:
    if not _PLATFORM.fullmatch(value):
        raise ValueError('is no platform; write "linux/amd64" or "linux/arm64/v8"')
    return value


def _credential(value: str) -> str:
    if not _CREDENTIAL.fullmatch(value):
        raise ValueError("a credential's name takes letters, digits, '_', '.' and '-', 128 at most")
    return value


Platform = Annotated[str, AfterValidator(_platform)]
Credential = Annotated[str, AfterValidator(_credential)]
