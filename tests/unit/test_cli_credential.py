"""The command line's credentials: set, listed, removed; the password comes by stdin alone."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from container_manager.cli.main import cli
from container_manager.credential import MAX_SECRET, NamedLogin
from container_manager.store.credentials import Credentials
from container_manager.store.directory import DataDirectory
from tests.unit.builders import CANARY

if TYPE_CHECKING:
    from pathlib import Path

FLAGS = ("--registry", "quay.io", "--username", "me", "--password-stdin")


def call(directory: Path, *arguments: str, password: str | bytes | None = None) -> Result:
    """Call `container-manager credential …`; the password never shows."""
    result = CliRunner().invoke(
        cli, ["--data-dir", str(directory), "credential", *arguments], input=password
    )
    assert CANARY not in result.output
    return result


def set_(directory: Path, name: str = "prod", password: str | bytes = CANARY) -> Result:
    return call(directory, "set", name, *FLAGS, password=password)


def kept(directory: Path) -> dict[str, NamedLogin]:
    return {login.name: login for login in Credentials.beside_daemon(directory).all()}


def test_a_credential_is_set_in_a_directory_that_is_made_for_it(tmp_path: Path) -> None:
    directory = tmp_path / "a/data"
    result = set_(directory)
    assert (result.exit_code, result.output) == (0, "")
    assert kept(directory) == {
        "prod": NamedLogin(name="prod", registry="quay.io", username="me", secret=CANARY)
    }
    assert directory.stat().st_mode & 0o777 == 0o700
    assert not (directory / "lock").exists(), "the directory is not taken"


@pytest.mark.parametrize(
    ("given", "secret"),
    [
        ("word\n", "word"),
        ("word\r\n", "word"),
        ("word\n\n", "word\n"),
        (" word ", " word "),
        ("wörd", "wörd"),
        ("x" * MAX_SECRET + "\r\n", "x" * MAX_SECRET),
    ],
)
def test_one_line_end_does_not_belong_to_the_password(
    tmp_path: Path, given: str, secret: str
) -> None:
    assert set_(tmp_path, password=given).exit_code == 0
    assert kept(tmp_path)["prod"].secret == secret


@pytest.mark.parametrize("given", [b"", b"\n", b"\xff", b"x" * (MAX_SECRET + 1), b"x" * 10**6])
def test_a_password_that_is_none_is_refused(tmp_path: Path, given: bytes) -> None:
    result = set_(tmp_path, password=given)
    assert result.exit_code == 1
    assert "password" in result.stderr
    assert kept(tmp_path) == {}


def test_a_list_shows_names_registries_and_user_names(tmp_path: Path) -> None:
    set_(tmp_path)
    hub = ("--registry", "https://index.docker.io/v1/", "--username", "somebody")
    call(tmp_path, "set", "a-longer-name", *hub, "--password-stdin", password=CANARY)
    result = call(tmp_path, "list")
    assert result.exit_code == 0
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["NAME", "REGISTRY", "USERNAME"],
        ["a-longer-name", "docker.io", "somebody"],
        ["prod", "quay.io", "me"],
    ]
    columns = [line.index(word) for line, word in zip(
        result.stdout.splitlines(), ("REGISTRY", "docker.io", "quay.io"), strict=True
    )]  # fmt: skip
    assert len(set(columns)) == 1


def test_an_empty_list_has_its_head_alone(tmp_path: Path) -> None:
    assert call(tmp_path, "list").stdout == "NAME  REGISTRY  USERNAME\n"


def test_what_is_removed_is_gone_and_cannot_be_removed_again(tmp_path: Path) -> None:
    set_(tmp_path)
    result = call(tmp_path, "remove", "prod")
    assert (result.exit_code, result.output) == (0, "")
    assert kept(tmp_path) == {}
    result = call(tmp_path, "remove", "prod")
    assert result.exit_code == 1
    assert "no credential 'prod'" in result.stderr
    assert "container-manager credential list" in result.stderr


def test_it_all_works_while_a_daemon_has_the_directory(tmp_path: Path) -> None:
    daemon = DataDirectory(tmp_path)
    assert set_(tmp_path).exit_code == 0
    assert "prod" in call(tmp_path, "list").stdout
    assert call(tmp_path, "remove", "prod").exit_code == 0
    daemon.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("set", "a b", *FLAGS), "name takes letters"),
        (("set", "a", "--registry", "quay.io/team", *FLAGS[2:]), "registry is no host name"),
        (("set", "a", *FLAGS[:3], "a:b", FLAGS[4]), "user name"),
        (("set", "a", *FLAGS[2:]), "--registry"),
        (("set", "a", *FLAGS[:2], FLAGS[4]), "--username"),
        (("set", *FLAGS), "NAME"),
        (("set", "a", *FLAGS[:4]), "--password-stdin"),
        (("remove",), "NAME"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    result = call(tmp_path, *arguments, password=CANARY)
    assert result.exit_code in (1, 2)
    assert words in result.stderr
    assert kept(tmp_path) == {}


@pytest.mark.parametrize("command", [("list",), ("remove", "prod")])
def test_a_directory_that_there_is_not_is_not_made_to_look_into(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    result = call(tmp_path / "none", *command)
    assert result.exit_code == 1
    assert "--data-dir" in result.stderr
    assert not (tmp_path / "none").exists()


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for directory in (tmp_path / "file", tmp_path / "file/data"):
        result = set_(directory)
        assert result.exit_code == 1
        assert str(directory) in result.stderr
    set_(tmp_path)
    (tmp_path / "seal.key").write_bytes(bytes(32))
    for result in (set_(tmp_path), call(tmp_path, "list"), call(tmp_path, "remove", "prod")):
        assert result.exit_code == 1
        assert "does not open with the key" in result.stderr


def test_at_a_terminal_the_password_is_asked_for_and_not_shown(tmp_path: Path) -> None:
    """On a terminal of the test's own, which the command takes for its controlling one."""
    child, terminal = pty.fork()
    if child == 0:
        command = [sys.executable, "-m", "container_manager", "--data-dir", str(tmp_path)]
        os.execv(command[0], [*command, "credential", "set", "prod", *FLAGS[:4]])
    shown = b""
    while b"Password: " not in shown:
        shown += os.read(terminal, 1000)
    os.write(terminal, CANARY.encode() + b"\n")
    _, status = os.waitpid(child, 0)
    while True:
        try:
            shown += os.read(terminal, 1000)
        except OSError:
            break
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0, shown
    assert CANARY.encode() not in shown
    assert kept(tmp_path)["prod"].secret == CANARY


def test_help_needs_neither_the_store_nor_cryptography() -> None:
    code = (
        "import sys; from container_manager.cli.main import cli\n"
        "cli(['credential', 'set', '--help'], standalone_mode=False)\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    loaded = run.stderr.split()
    assert "container_manager.cli.credential" in loaded
    assert not {"cryptography", "orjson", "container_manager.store.credentials"} & set(loaded)
    assert "--password-stdin" in run.stdout
