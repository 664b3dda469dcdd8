"""Where the engine is: what is named wins over what is found."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from container_manager.engine.endpoint import Endpoint, find
from container_manager.engine.errors import EngineUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

# Those of the machine itself, which come before those of its user.
SYSTEM = [p for p in ("/var/run/docker.sock", "/run/docker.sock") if Path(p).is_socket()]
SYSTEM_PODMAN = [p for p in ("/run/podman/podman.sock",) if Path(p).is_socket()]


class Listen(Protocol):
    """Makes a socket at a path."""

    def __call__(self, path: Path) -> str: ...


@pytest.fixture
def listen() -> Iterator[Listen]:
    with ExitStack() as stack:

        def at(path: Path) -> str:
            path.parent.mkdir(parents=True, exist_ok=True)
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(path))
            return f"unix://{path}"

        yield at


def write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def make_context(config: Path, name: str, host: str) -> Path:
    """A context as `docker context create` writes it; gives its directory for certificates."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    endpoints = {"docker": {"Host": host, "SkipTLSVerify": False}}
    meta = {"Name": name, "Metadata": {}, "Endpoints": endpoints}
    write(config / "contexts/meta" / digest / "meta.json", meta)
    return config / "contexts/tls" / digest / "docker"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home in which everything names an engine: the context `used`, `other`, and a socket."""
    config = tmp_path / ".docker"
    make_context(config, "used", "unix:///used.sock")
    make_context(config, "other", "tcp://other:2375")
    write(config / "config.json", {"currentContext": "used"})
    return tmp_path


def test_what_a_person_names_wins_over_everything(home: Path) -> None:
    environment = {"HOME": str(home), "DOCKER_HOST": "tcp://b:1", "DOCKER_CONTEXT": "other"}
    assert find("unix:///a.sock", environment) == Endpoint("unix:///a.sock", "--docker-host")
    assert find(None, environment) == Endpoint("tcp://b:1", "DOCKER_HOST")
    del environment["DOCKER_HOST"]
    assert find(None, environment) == Endpoint("tcp://other:2375", "the Docker context 'other'")
    del environment["DOCKER_CONTEXT"]
    assert find(None, environment) == Endpoint("unix:///used.sock", "the Docker context 'used'")


def test_an_empty_variable_is_as_good_as_none(home: Path) -> None:
    environment = {"HOME": str(home), "DOCKER_HOST": "", "DOCKER_CONTEXT": "", "DOCKER_CONFIG": ""}
    assert find("", environment).url == "unix:///used.sock"


def test_the_configuration_can_be_elsewhere(home: Path, tmp_path: Path) -> None:
    make_context(tmp_path / "cfg", "mine", "unix:///mine.sock")
    write(tmp_path / "cfg/config.json", {"currentContext": "mine"})
    environment = {"HOME": str(home), "DOCKER_CONFIG": str(tmp_path / "cfg")}
    assert find(None, environment).url == "unix:///mine.sock"


def expected(*sockets: str) -> Endpoint:
    """The first of the machine's own sockets, else of these."""
    return Endpoint(f"unix://{SYSTEM[0]}" if SYSTEM else sockets[0], "the usual places")


@pytest.mark.parametrize(
    "context", [{}, {"currentContext": ""}, {"currentContext": "default"}, {"currentContext": "no"}]
)
def test_without_a_context_in_use_the_usual_sockets_are_looked_at(
    tmp_path: Path, listen: Listen, context: dict[str, Any]
) -> None:
    write(tmp_path / ".docker/config.json", context)
    theirs = listen(tmp_path / ".docker/run/docker.sock")
    assert find(None, {"HOME": str(tmp_path)}) == expected(theirs)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"currentContext": 5}', "\xff"])
def test_a_broken_configuration_is_passed_over(tmp_path: Path, listen: Listen, text: str) -> None:
    theirs = listen(tmp_path / ".docker/run/docker.sock")
    (tmp_path / ".docker/config.json").write_text(text, encoding="latin-1")
    assert find(None, {"HOME": str(tmp_path)}) == expected(theirs)


@pytest.mark.parametrize("meta", [{}, {"Endpoints": {}}, {"Endpoints": {"docker": {}}}])
def test_a_context_without_an_address_is_passed_over(
    home: Path, listen: Listen, meta: dict[str, Any]
) -> None:
    digest = hashlib.sha256(b"used").hexdigest()
    write(home / ".docker/contexts/meta" / digest / "meta.json", meta)
    theirs = listen(home / ".docker/run/docker.sock")
    assert find(None, {"HOME": str(home)}) == expected(theirs)


FIND = """
from container_manager.engine.endpoint import EngineUnavailable, find
try:
    print(find(None).url)
except EngineUnavailable as error:
    print(error)
"""


def found_by_the_user(**environment: Path) -> str:
    """What is found where the machine has no sockets of its own: on an empty /run."""
    command = [sys.executable, "-c", FIND]
    if SYSTEM or SYSTEM_PODMAN:
        alone = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
        emptied = [*alone, "sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "sh"]
        if subprocess.run([*emptied, "true"], capture_output=True, check=False).returncode != 0:
            pytest.skip("the machine's own engine cannot be hidden without unshare (util-linux)")
        command = [*emptied, *command]
    env = {"PATH": os.environ["PATH"], **{name: str(path) for name, path in environment.items()}}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_sockets_of_the_user_come_in_their_order(tmp_path: Path, listen: Listen) -> None:
    places = {"HOME": tmp_path, "XDG_RUNTIME_DIR": tmp_path / "run"}
    podman = listen(tmp_path / "run/podman/podman.sock")
    (tmp_path / "run/docker.sock").write_text("a file is nothing to connect to")
    assert found_by_the_user(**places) == podman
    (tmp_path / "run/docker.sock").unlink()
    rootless = listen(tmp_path / "run/docker.sock")
    assert found_by_the_user(**places) == rootless
    desktop = listen(tmp_path / ".docker/run/docker.sock")
    assert found_by_the_user(**places) == desktop


def test_an_engine_that_is_nowhere_is_said_with_what_to_do(tmp_path: Path) -> None:
    assert "--docker-host" in found_by_the_user(HOME=tmp_path)


@pytest.mark.parametrize("address", ["ssh://host", "npipe:////./pipe/docker", "fd://", "host:2375"])
def test_an_address_of_another_kind_is_refused_by_where_it_was_said(
    home: Path, address: str
) -> None:
    make_context(home / ".docker", "used", address)
    for docker_host, environment, where in (
        (address, {}, "--docker-host"),
        (None, {"DOCKER_HOST": address}, "DOCKER_HOST"),
        (None, {"HOME": str(home)}, "the Docker context 'used'"),
    ):
        with pytest.raises(EngineUnavailable, match=where):
            find(docker_host, environment)


def test_a_bare_path_is_a_socket() -> None:
    assert find("/a/b.sock", {}).url == "unix:///a/b.sock"
    assert find("/a/b.sock", {}).socket == "/a/b.sock"
    assert find("tcp://a:1", {}).socket is None


def test_certificates_come_from_the_variables_or_from_the_context(home: Path) -> None:
    verify = {"HOME": str(home), "DOCKER_TLS_VERIFY": "1"}
    assert find("tcp://a:1", verify).certificates == home / ".docker"
    assert find("tcp://a:1", {**verify, "DOCKER_CERT_PATH": "/c"}).certificates == Path("/c")
    assert find("unix:///a", verify).certificates is None
    assert find("tcp://a:1", {"DOCKER_CERT_PATH": "/c"}).certificates is None
    tls = make_context(home / ".docker", "other", "tcp://other:2376")
    context = {"HOME": str(home), "DOCKER_CONTEXT": "other"}
    assert find(None, context).certificates is None
    tls.mkdir(parents=True)
    assert find(None, context).certificates == tls


def test_certificates_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    endpoint = Endpoint("tcp://a:1", "here", tmp_path)
    with pytest.raises(EngineUnavailable, match=str(tmp_path)):
        endpoint.tls()
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).write_text("no certificate")
    with pytest.raises(EngineUnavailable, match=str(tmp_path)):
        endpoint.tls()
    assert Endpoint("tcp://a:1", "here").tls() is None
