"""Image references: Docker's grammar, and in full by its own rules."""

from __future__ import annotations

import time

import pytest
from hypothesis import given

from container_manager.spec import Reference, Spec
from tests.unit.builders import images
from tests.unit.spec_forms import places, refused

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


@pytest.mark.parametrize(
    "image",
    [
        "nginx",
        "nginx:1.25",
        "library/nginx",
        "docker.io/library/nginx:1.25",
        "localhost:5000/a/b@" + DIGEST,
        "localhost:5000/a/b:tag@" + DIGEST,
        "[::1]:5000/x",
        "[2001:db8::1]/x",
        "Registry.Example.com/x",
        "a.b__c--d/e-f_g",
        "nginx:_Tag.with-All_1",
        "nginx:" + "t" * 128,
        DIGEST,  # an image's id
    ],
)
def test_image_references_of_dockers_grammar_are_taken(image: str) -> None:
    assert Spec(image=image).image == image
    assert Reference.parse(image).name.startswith(Reference.parse(image).registry + "/")


@pytest.mark.parametrize(
    "image",
    [
        "",
        " nginx",
        "nginx\n",
        "Nginx",
        "docker.io/library/Nginx",
        "nginx:",
        "nginx:-tag",
        "nginx:" + "t" * 129,
        "nginx@sha256:0123",
        "nginx@",
        "/nginx",
        "nginx/",
        "a//b",
        "-nginx",
        "nginx-",
        "a..b",
        "a___b",
        "[::1/x",
        "localhost:port/x",
        "http://nginx",
        "nginx;rm",
        "nginx:1 --privileged",
        "ngïnx",
        "x" * 513,
        "a-./b",
        "a..b/c",
        "a-/c",
    ],
)
def test_what_is_no_image_reference_is_refused(image: str) -> None:
    assert places(refused(image=image)) == [("image",)]


@pytest.mark.parametrize(
    "image",
    [
        "a" * 512 + "!",
        "a" * 511 + "!",
        "a-" * 255 + "!",
        "a/" * 255 + "!",
        "a__" * 170 + "!",
        "a" + "-" * 509 + "!",
        "a.b" * 170 + ":",
        "a" * 255 + ":5/" + "a_" * 126,
        "[" + ":" * 510,
        "a/" * 100 + "a@" + "a+" * 150,
    ],
)
def test_no_name_makes_the_check_slow(image: str) -> None:
    begun = time.process_time()
    refused(image=image)
    assert time.process_time() - begun < 0.05
