"""Why a pull failed: what engines really say, told apart by what is to be done about it.

Where the words are from: a dockerd 20.10 on this project's own registry proxy, and reports about
Docker, containerd and Podman on GitHub.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from container_manager.engine.errors import EngineRefused, EngineRejected
from container_manager.engine.pulls import RATE_LIMIT_PAUSE, SHORTEST_PAUSE, pull_failed
from container_manager.spec.image import Reference

if TYPE_CHECKING:
    from container_manager.engine.errors import EngineError

APP = Reference.parse("reg.example:5000/team/app:1")
URL = "https://reg.example:5000/v2/team/app/manifests/1"


def failed(words: str, image: Reference = APP, *, logged_in: bool = False) -> EngineError:
    error = pull_failed(image, words, logged_in=logged_in)
    assert str(error).endswith(f": {words}"), "the engine's words stay"
    return error


# What does not heal


@pytest.mark.parametrize(
    "words",
    [
        f'Head "{URL}": no basic auth credentials',
        f'Head "{URL}": unauthorized: authentication required',
        'Get "https://registry-1.docker.io/v2/": unauthorized: incorrect username or password',
        (
            "pull access denied for team/app, repository does not exist or may require "
            "'docker login': denied: requested access to the resource is denied"
        ),
        'denied: Permission "artifactregistry.repositories.downloadArtifacts" denied on resource',
        'error parsing HTTP 403 response body: unexpected end of JSON input: ""',
        (
            "error parsing HTTP 401 response body: invalid character 'U' looking for beginning of "
            'value: "Unauthorized\\n"'
        ),
        # Docker with containerd's images
        f"unexpected status from HEAD request to {URL}: 401 Unauthorized",
        (
            f'failed to resolve reference "reg.example:5000/team/app:1": unexpected status from '
            f"HEAD request to {URL}: 403 Forbidden"
        ),
        (
            "pull access denied, repository does not exist or may require authorization: server "
            "message: insufficient_scope: authorization failed"
        ),
        # Podman
        (
            "initializing source docker://team/app:1: reading manifest 1 in reg.example:5000/team/"
            "app: unauthorized: authentication required"
        ),
        (
            "initializing source docker://team/app:1: reading manifest 1 in docker.io/team/app: "
            "requested access to the resource is denied"
        ),
        (
            "Error determining manifest MIME type for docker://team/app:1: unable to retrieve auth "
            "token: invalid username/password"
        ),
        "Requesting bearer token: invalid status code from registry 403 (Forbidden)",
    ],
)
def test_a_refusal_of_the_registry_names_the_remedy(words: str) -> None:
    error = failed(words)
    assert isinstance(error, EngineRejected)
    assert "`docker login reg.example:5000`" in str(error)
    assert "or a named credential" in str(error)
    error = failed(words, logged_in=True)
    assert isinstance(error, EngineRejected)
    assert "the login that was used has no right to it" in str(error)


@pytest.mark.parametrize(
    "words",
    [
        ("manifest for reg.example:5000/team/app:1 not found: manifest unknown: manifest unknown"),
        "name unknown: repository name not known to registry",
        "no matching manifest for linux/arm64/v8 in the manifest list entries",
        (
            "no matching manifest for linux/arm64 in the manifest list entries: no match for "
            "platform in manifest: not found"
        ),
        (
            "image with reference reg.example:5000/team/app:1 was found but does not match the "
            "specified platform: wanted linux/arm64, actual: linux/amd64"
        ),
        'error parsing HTTP 404 response body: unexpected end of JSON input: ""',
        (
            "error parsing HTTP 404 response body: invalid character 'p' after top-level value: "
            '"404 page not found\\n"'
        ),
        # Docker with containerd's images
        "reg.example:5000/team/app:1: not found",
        "no match for platform in manifest sha256:a75afd8b57e7: not found",
        # Podman
        (
            "initializing source docker://team/app:1: reading manifest 1 in reg.example:5000/team/"
            "app: manifest unknown: manifest unknown"
        ),
        "reading manifest 1 in reg.example:5000/team/app: name unknown: Repo not found",
        "reading manifest stable in quay.io/podman: StatusCode: 404, <!DOCTYPE HTML PUBLIC ...",
        (
            "pinging container registry reg.example:5000: invalid status code from registry 404 "
            "(Not Found)"
        ),
        (
            "choosing an image from manifest list docker://team/app:1: no image found in manifest "
            'list for architecture arm, variant "", OS linux'
        ),
        (
            "choosing an image from manifest list docker://team/app:1: no image found in image "
            'index for architecture arm64, variant "", OS linux'
        ),
    ],
)
def test_an_image_that_there_is_not_is_named(words: str) -> None:
    error = failed(words)
    assert isinstance(error, EngineRejected)
    assert str(error).startswith("the registry reg.example:5000 has no team/app 1: ")


# What may heal


@pytest.mark.parametrize(
    "words",
    [
        "received unexpected HTTP status: 500 Internal Server Error",
        "received unexpected HTTP status: 503 Service Unavailable",
        "received unexpected HTTP status: 504 Gateway Timeout",
        "received unexpected HTTP status: 530",
        (
            "error parsing HTTP 502 response body: invalid character '<' looking for beginning of "
            'value: "<html>denied</html>"'
        ),
        # Docker with containerd's images
        f"unexpected status from GET request to {URL}: 503 Service Unavailable",
        (
            "failed to copy: httpReadSeeker: failed open: unexpected status code "
            "https://registry-1.docker.io/v2/team/app/blobs/sha256:56a6e402: 500 Internal Server"
            " Error"
        ),
        "failed to fetch anonymous token: unexpected status: 503 Service Unavailable",
        # Podman
        "Requesting bearer token: invalid status code from registry 502 (Bad Gateway)",
        "invalid status code from registry 503 (Service Unavailable)",
    ],
)
def test_a_registry_that_fails_is_tried_again(words: str) -> None:
    error = failed(words)
    assert type(error) is EngineRefused
    assert str(error).startswith("the registry reg.example:5000 fails: ")


@pytest.mark.parametrize(
    "words",
    [
        "unexpected EOF",
        f'Get "{URL}": EOF',
        (
            'Get "https://reg.example:5000/v2/": read tcp 10.0.0.2:39814->10.0.0.9:443: read: '
            "connection reset by peer"
        ),
        "write tcp 10.0.0.2:39814->10.0.0.9:443: write: broken pipe",
        # Podman
        "writing blob: storing blob to file: unexpected EOF",
    ],
)
def test_a_connection_that_broke_is_made_again(words: str) -> None:
    error = failed(words)
    assert type(error) is EngineRefused
    assert "the connection to the registry reg.example:5000 broke: " in str(error)


@pytest.mark.parametrize(
    "words",
    [
        "write /var/lib/docker/tmp/GetImageBlob713211083: no space left on device",
        (
            "failed to register layer: Error processing tar file(exit status 1): write /bin/chsh"
            ": no space left on device"
        ),
        # Podman
        (
            'writing blob: adding layer with blob "sha256:914140142ed8": processing tar file(write '
            "/usr/local/lib/a.pyc: no space left on device): exit status 1"
        ),
        "write /var/lib/containers/storage/tmp/1: disk quota exceeded",
    ],
)
def test_a_full_disk_of_the_engine_is_tried_again(words: str) -> None:
    error = failed(words)
    assert type(error) is EngineRefused
    assert str(error).startswith("the engine's disk is full: ")


@pytest.mark.parametrize(
    "words",
    [
        'Get "http://127.0.0.1:9/v2/": dial tcp 127.0.0.1:9: connect: connection refused',
        (
            'Get "https://reg.example:5000/v2/": dial tcp: lookup reg.example on '
            "10.0.0.1:53: no such host"
        ),
        (
            'Get "https://reg.example:5000/v2/": dial tcp: lookup reg.example: Temporary '
            "failure in name resolution"
        ),
        (
            'Get "https://reg.example:5000/v2/": dial tcp 203.0.113.1:5000: connect: no route to '
            "host"
        ),
        (
            'Get "https://reg.example:5000/v2/": net/http: request canceled while waiting for '
            "connection (Client.Timeout exceeded while awaiting headers)"
        ),
        'Get "https://reg.example:5000/v2/": http: server gave HTTP response to HTTPS client',
        'Get "https://reg.example:5000/v2/": x509: certificate signed by unknown authority',
        (
            'Get "https://reg.example:5000/v2/": tls: failed to verify certificate: x509: '
            "certificate is valid for *.example, not reg.example"
        ),
        (
            "error parsing HTTP 408 response body: invalid character '<' looking for beginning of "
            'value: "<html><body><h1>408 Request Time-out</h1></body></html>"'
        ),
        'error parsing HTTP 400 response body: unexpected end of JSON input: ""',
        "filesystem layer verification failed for digest sha256:0a0b",
        "failed to register layer: open /var/lib/docker/overlay2/a/diff: permission denied",
        # Podman
        (
            "initializing source docker://a/b:1: pinging container registry reg.example:5000: Get "
            '"http://reg.example:5000/v2/": dial tcp 127.0.0.1:9: connect: connection refused'
        ),
    ],
)
def test_whatever_else_it_is_the_registry_is_named_and_tried_again(words: str) -> None:
    error = failed(words)
    assert type(error) is EngineRefused
    assert str(error).startswith("the registry reg.example:5000 cannot be used: ")
    assert error.retry_after == 0


# Too many requests

LIMIT = "You have reached your pull rate limit. You may increase the limit by authenticating and"


@pytest.mark.parametrize(
    ("words", "pause"),
    [
        (f"toomanyrequests: {LIMIT} upgrading: https://www.docker.com/increase-rate-limit", None),
        ("toomanyrequests: Rate exceeded", None),
        ("received unexpected HTTP status: 429 Too Many Requests", None),
        ('error parsing HTTP 429 response body: unexpected end of JSON input: ""', None),
        (f"unexpected status from HEAD request to {URL}: 429 Too Many Requests", None),
        ((f"failed to copy: unexpected status code {URL}: 429 Too Many Requests - Server message: "
         f"toomanyrequests: {LIMIT}"), None),
        (("reading manifest 1 in docker.io/team/app: toomanyrequests: You have reached your pull "
         "rate limit"), None),
        # As ghcr.io says it, in Go's durations.
        ("toomanyrequests: retry-after: 681.996µs, allowed: 44000/minute", SHORTEST_PAUSE),
        ("toomanyrequests: retry-after: 1.16676ms, allowed: 44000/minute", SHORTEST_PAUSE),
        ("toomanyrequests: retry-after: 90.5s, allowed: 44000/minute", 90.5),
        ("toomanyrequests: retry-after: 2m, allowed: 44000/minute", 120),
        ("toomanyrequests: slow down, retry after 7 seconds", 7),
        ("Too Many Requests: try again in 3", 3),
    ],
)  # fmt: skip
def test_too_many_requests_ask_for_a_pause(words: str, pause: float | None) -> None:
    error = failed(words)
    assert isinstance(error, EngineRefused)
    assert error.retry_after == (RATE_LIMIT_PAUSE if pause is None else pause)
    assert f"next try in {error.retry_after:g} s or later" in str(error)


# Names that sound like errors


@pytest.mark.parametrize(
    "repository",
    [
        *("team/unavailable", "denied/forbidden", "bad/unauthorized", "team/too-many-requests"),
        *("rate/limit", "a/toomanyrequests", "eof/EOF".lower()),
    ],
)
def test_the_name_of_the_image_is_no_part_of_the_reason(repository: str) -> None:
    image = Reference.parse(f"reg.example:5000/{repository}:1")
    words = f"manifest for {image.name}:1 not found: manifest unknown: manifest unknown"
    assert f"has no {repository} 1: " in str(failed(words, image))
    hub = Reference.parse(f"{repository}:1")
    words = f"manifest for {repository}:1 not found: manifest unknown: manifest unknown"
    assert f"docker.io has no {repository} 1: " in str(failed(words, hub))
    url = f'Get "https://reg.example:5000/v2/{repository}/manifests/1": dial tcp 10.0.0.9:5000'
    assert "cannot be used" in str(failed(f"{url}: connect: no route to host", image))


def test_a_name_that_is_a_part_of_a_word_takes_nothing_away() -> None:
    image = Reference.parse("reg.example:5000/a:1")
    assert "refuses a;" in str(failed("unauthorized: authentication required", image))
    image = Reference.parse("a/b:1")
    assert "has no a/b 1" in str(failed("data/bits: manifest unknown", image))


@given(st.text(max_size=200))
def test_words_of_any_kind_have_a_meaning(words: str) -> None:
    assert isinstance(failed(words), EngineRefused | EngineRejected)
