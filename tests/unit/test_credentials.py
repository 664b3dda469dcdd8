"""Named credentials on disk: sealed, private, whole, and never lost to a second writer."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from container_manager.credential import (
    MAX_SECRET,
    CredentialUnusable,
    NamedLogin,
    registry_of,
)
from container_manager.store.credentials import MAX_CREDENTIALS, Credentials
from container_manager.store.directory import DataDirectory, DirectoryError
from container_manager.store.sealing import Seal
from tests.unit.builders import CANARY

if TYPE_CHECKING:
    from pathlib import Path

SEAL = Seal(bytes(32))


def login(name: str = "prod", registry: str = "quay.io", secret: str = CANARY) -> NamedLogin:
    return NamedLogin(name=name, registry=registry, username="me", secret=secret)


@pytest.fixture
def credentials(tmp_path: Path) -> Credentials:
    return Credentials.beside_daemon(tmp_path)


# One credential


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"name": ""}, "name"),
        ({"name": "-x"}, "name"),
        ({"name": "a b"}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": "a\n"}, "name"),
        ({"name": "a" * 129}, "name"),
        ({"registry": ""}, "registry"),
        ({"registry": "quay.io/team"}, "registry"),
        ({"registry": "https://quay.io"}, "registry"),
        ({"registry": "me@quay.io"}, "registry"),
        ({"registry": "quay.io:"}, "registry"),
        ({"registry": "quay.io\n"}, "registry"),
        ({"registry": "QUAY.io"}, "registry"),
        ({"username": ""}, "user name"),
        ({"username": "a:b"}, "user name"),
        ({"username": "a\nb"}, "user name"),
        ({"username": "\udcff"}, "user name"),
        ({"secret": ""}, "password"),
        ({"secret": "\udcff"}, "password"),
        ({"secret": "x" * (MAX_SECRET + 1)}, "password"),
        ({"secret": "ü" * (MAX_SECRET // 2 + 1)}, "password"),
    ],
)
def test_what_is_not_right_is_refused_by_its_part(
    credentials: Credentials, parts: dict[str, str], words: str
) -> None:
    right = {"name": "prod", "registry": "quay.io", "username": "me", "secret": CANARY}
    with pytest.raises(CredentialUnusable) as caught:
        credentials.set(NamedLogin(**{**right, **parts}))
    assert words in str(caught.value)
    assert CANARY not in str(caught.value)
    assert credentials.all() == []


def test_what_is_right_is_taken(credentials: Credentials) -> None:
    for number, registry in enumerate(
        ("docker.io", "localhost:5000", "127.0.0.1:5000", "[::1]:5000", "a-b.example.com")
    ):
        credentials.set(login(f"A-{number}.x_y", registry, "ü" * (MAX_SECRET // 2)))
    credentials.set(login("a" * 128))
    assert len(credentials.all()) == 6


@pytest.mark.parametrize(
    ("address", "registry"),
    [
        ("docker.io", "docker.io"),
        ("index.docker.io", "docker.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("https://Quay.io", "quay.io"),
        (" quay.io/ ", "quay.io"),
        ("http://127.0.0.1:5000/v2/", "127.0.0.1:5000"),
        ("quay.io/team", "quay.io/team"),
        ("", ""),
    ],
)
def test_a_registry_can_be_written_as_for_docker_login(address: str, registry: str) -> None:
    assert registry_of(address) == registry


@given(st.text())
def test_what_a_registry_is_called_is_called_the_same_again(address: str) -> None:
    once = registry_of(address)
    if "/" not in once:
        assert registry_of(once) == once.strip()


# The file


def test_what_is_set_is_there_until_it_is_removed(credentials: Credentials) -> None:
    assert credentials.all() == []
    assert credentials.get("prod") is None
    assert credentials.remove("prod") is False
    credentials.set(login())
    credentials.set(login("dev", "docker.io"))
    credentials.set(login(secret="other"))
    assert credentials.all() == [login("dev", "docker.io"), login(secret="other")]
    assert credentials.get("prod") == login(secret="other")
    assert credentials.remove("prod") is True
    assert credentials.remove("prod") is False
    assert credentials.all() == [login("dev", "docker.io")]


def test_a_daemon_sees_what_a_command_changes_meanwhile(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    seal = Seal(directory.secret("seal.key", lambda: bytes(32)))
    daemon = Credentials(directory.path, seal)
    assert daemon.get("prod") is None
    command = Credentials.beside_daemon(tmp_path)
    command.set(login())
    assert daemon.get("prod") == login()
    command.set(login(secret="other"))
    assert daemon.get("prod") == login(secret="other")
    command.remove("prod")
    assert daemon.get("prod") is None
    directory.close()


def test_the_file_is_its_owners_alone_and_shows_nothing(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Credentials.beside_daemon(tmp_path).set(login())
    finally:
        os.umask(before)
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert files == {"seal.key": 0o600, "credentials": 0o600, "credentials.lock": 0o600}
    content = (tmp_path / "credentials").read_bytes()
    for word in (CANARY, "prod", "quay.io", 'me"'):
        assert word.encode() not in content


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, which sets what is another user's")
def test_what_root_sets_is_for_the_user_whose_key_it_is(tmp_path: Path) -> None:
    credentials = Credentials.beside_daemon(tmp_path)
    os.chown(tmp_path / "seal.key", 65534, 65534)
    credentials.set(login())
    for name in ("credentials", "credentials.lock"):
        found = (tmp_path / name).stat()
        assert (found.st_uid, found.st_gid) == (65534, 65534)


@pytest.mark.parametrize("name", ["credentials.lock", "credentials.part"])
def test_a_symbolic_link_leads_nobody_elsewhere(tmp_path: Path, name: str) -> None:
    credentials = Credentials.beside_daemon(tmp_path)
    (tmp_path / "elsewhere").write_text("precious")
    (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CredentialUnusable):
        credentials.set(login())
    assert (tmp_path / "elsewhere").read_text() == "precious"


def test_what_was_cut_short_is_in_nobodys_way(tmp_path: Path) -> None:
    credentials = Credentials.beside_daemon(tmp_path)
    (tmp_path / "credentials.part").write_bytes(b"x" * 10_000)
    credentials.set(login())
    assert credentials.all() == [login()]


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 12, b"x" * 500])
def test_a_damaged_file_is_named_and_kept(tmp_path: Path, content: bytes) -> None:
    credentials = Credentials.beside_daemon(tmp_path)
    (tmp_path / "credentials").write_bytes(content)
    for call in (
        lambda: credentials.get("prod"),
        lambda: credentials.set(login()),
        lambda: credentials.remove("prod"),
    ):
        with pytest.raises(CredentialUnusable, match=re.escape(f"{tmp_path}/credentials does not")):
            call()
    assert (tmp_path / "credentials").read_bytes() == content


def test_another_key_opens_nothing(tmp_path: Path) -> None:
    Credentials.beside_daemon(tmp_path).set(login())
    with pytest.raises(CredentialUnusable) as caught:
        Credentials(tmp_path, SEAL).get("prod")
    assert "Restore both from one backup" in str(caught.value)


def test_a_file_that_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    credentials = Credentials.beside_daemon(tmp_path)
    (tmp_path / "credentials").mkdir()
    with pytest.raises(CredentialUnusable, match="cannot be read"):
        credentials.get("prod")
    (tmp_path / "credentials").rmdir()
    (tmp_path / "credentials.part").mkdir()
    with pytest.raises(CredentialUnusable, match="cannot be written"):
        credentials.set(login())


def test_a_key_of_the_wrong_length_is_named(tmp_path: Path) -> None:
    (tmp_path / "seal.key").write_bytes(b"short")
    with pytest.raises(DirectoryError, match=re.escape(f"{tmp_path}/seal.key is no key")):
        Credentials.beside_daemon(tmp_path)


def test_there_is_a_limit_to_how_many(tmp_path: Path) -> None:
    credentials = Credentials.beside_daemon(tmp_path)
    with credentials._writing() as logins:
        logins.update({f"c{number}": login(f"c{number}") for number in range(MAX_CREDENTIALS)})
    with pytest.raises(CredentialUnusable, match="Remove one first"):
        credentials.set(login())
    credentials.set(login("c0", secret="other"))
    credentials.remove("c1")
    credentials.set(login())


SET = """
import sys
from pathlib import Path
from container_manager.credential import NamedLogin
from container_manager.store.credentials import Credentials
sys.stdin.read()
for number in range(20):
    name = f"{sys.argv[2]}-{number}"
    Credentials.beside_daemon(Path(sys.argv[1])).set(
        NamedLogin(name=name, registry="quay.io", username="me", secret=name)
    )
"""


def test_writers_at_once_lose_nothing_and_make_one_key(tmp_path: Path) -> None:
    """The first of them also finds no key, and so may all the others."""
    writers = [
        subprocess.Popen([sys.executable, "-c", SET, tmp_path, str(number)], stdin=subprocess.PIPE)
        for number in range(4)
    ]
    for writer in writers:  # each waits, imported, for its input to end
        assert writer.stdin is not None
        writer.stdin.close()
    assert [writer.wait(60) for writer in writers] == [0] * 4
    found = Credentials.beside_daemon(tmp_path).all()
    assert {one.name for one in found} == {f"{w}-{n}" for w in range(4) for n in range(20)}
    assert all(one.secret == one.name for one in found)
