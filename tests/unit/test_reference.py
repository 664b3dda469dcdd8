"""Image references in full, by Docker's own rules."""

from __future__ import annotations

import pytest
from hypothesis import given

from container_manager.spec import Reference
from tests.unit.builders import images

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        ("nginx", "docker.io", "library/nginx", "latest", None),
        ("nginx:1.25", "docker.io", "library/nginx", "1.25", None),
        ("library/nginx", "docker.io", "library/nginx", "latest", None),
        ("someone/app:v1", "docker.io", "someone/app", "v1", None),
        ("docker.io/nginx", "docker.io", "library/nginx", "latest", None),
        ("index.docker.io/nginx", "docker.io", "library/nginx", "latest", None),
        ("docker.io/a/b/c", "docker.io", "a/b/c", "latest", None),
        ("ghcr.io/app", "ghcr.io", "app", "latest", None),
        ("localhost/app:1", "localhost", "app", "1", None),
        ("localhost:5000/app", "localhost:5000", "app", "latest", None),
        ("registry:5000/a/b:c", "registry:5000", "a/b", "c", None),
        ("127.0.0.1:5000/app", "127.0.0.1:5000", "app", "latest", None),
        ("[::1]:5000/app:1", "[::1]:5000", "app", "1", None),
        ("Upper/app", "Upper", "app", "latest", None),
        (f"nginx@{DIGEST}", "docker.io", "library/nginx", None, DIGEST),
        (f"a.b/c:1@{DIGEST}", "a.b", "c", "1", DIGEST),
    ],
)
def test_a_reference_is_read_as_docker_reads_it(
    text: str, registry: str, repository: str, tag: str | None, digest: str | None
) -> None:
    reference = Reference.parse(text)
    assert reference == Reference(registry, repository, tag, digest)
    assert reference.name == f"{registry}/{repository}"
    assert reference.tag_or_digest == (digest or tag)


@given(images)
def test_the_full_form_means_the_same(text: str) -> None:
    reference = Reference.parse(text)
    separator = "@" if reference.digest else ":"
    again = Reference.parse(f"{reference.name}{separator}{reference.tag_or_digest}")
    assert (again.name, again.digest) == (reference.name, reference.digest)
    assert reference.digest or again.tag == reference.tag


@pytest.mark.parametrize("text", ["", "Nginx", "http://nginx", "nginx:", "a//b", "nginx@sha256:0"])
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no image reference"):
        Reference.parse(text)
