"""The cluster secret: weak ones are refused, and good ones make the same keys everywhere."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from click.testing import CliRunner

from container_manager.cli.main import cli
from container_manager.cluster import secret as module
from container_manager.cluster.secret import (
    AUTHORITY,
    ENVIRONMENT_SEALING,
    MAX_FILE,
    TOKEN,
    ClusterSecret,
    SecretError,
)

TEXT = "correct horse battery staple, and 9 more"
ROOT = os.geteuid() == 0


def test_a_key_is_the_same_at_each_node_and_with_each_version() -> None:
    """These bytes are what existing clusters run on: they never change."""
    secret = ClusterSecret(TEXT)
    assert secret.key(AUTHORITY).hex() == (
        "35fdd29af08a62eb66aa64bc5a909e6f5fcfcdcff9515184d28bf3617ba945ba"
    )
    assert secret.key(TOKEN).hex() == (
        "2faea9f6fba8f984f82526ed1244d04d9c755c3cf8cb5ea8a79af6cd45401d4b"
    )


def test_each_use_and_each_secret_has_a_key_of_its_own() -> None:
    uses = (AUTHORITY, ENVIRONMENT_SEALING, TOKEN, b"")
    texts = (TEXT, TEXT + "!")
    keys = {ClusterSecret(text).key(use) for text in texts for use in uses}
    assert len(keys) == len(uses) * len(texts)
    assert {len(key) for key in keys} == {32}


@pytest.mark.parametrize("around", ["{}\n", "  {}\r\n", "\t{} \n\n"])
def test_blanks_around_a_secret_do_not_count(around: str) -> None:
    assert ClusterSecret(around.format(TEXT)).key(TOKEN) == ClusterSecret(TEXT).key(TOKEN)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("hunter2", "7 characters instead of 32"),
        (TEXT[:31].ljust(31, "x"), "31 characters instead of 32"),
        ("a" * 64, "repeats"),
        ("password" * 8, "repeats"),
        ("0123456789abcdef" * 4, "repeats"),
        ("abcdefg" * 9 + "a", "repeats"),
        (TEXT + "\n" + TEXT, "one line"),
        (TEXT + "\0", "one line"),
    ],
)
def test_a_weak_secret_is_refused_in_words_that_help_and_tell_nothing(
    text: str, words: str
) -> None:
    with pytest.raises(SecretError, match=words) as refused:
        ClusterSecret(text)
    said = str(refused.value)
    assert "--secret-file" in said
    assert "container-manager secret new" in said
    assert not text.strip() or text.strip() not in said


def test_new_secrets_are_good_ones_of_256_random_bits() -> None:
    texts = {ClusterSecret.new_text() for _ in range(1000)}
    assert len(texts) == 1000
    for text in texts:
        module._check(text)
    assert all(len(bytes.fromhex(text)) == 32 for text in texts)


def test_a_secret_shows_nowhere(tmp_path: Path) -> None:
    secret = ClusterSecret(TEXT)
    shown = f"{secret} {secret!r} {[secret]} {secret.__slots__}"
    for hidden in (TEXT, secret.key(TOKEN).hex(), secret._stretched.hex()):
        assert hidden not in shown
    assert not hasattr(secret, "__dict__")
    path = tmp_path / "secret"
    path.write_text(weak := "canarycanary")
    path.chmod(0o600)
    with pytest.raises(SecretError) as refused:
        ClusterSecret.from_file(path)
    assert weak not in "".join(traceback.format_exception(refused.value))


def test_stretching_costs_what_a_guess_should_and_is_done_once() -> None:
    module._stretched.cache_clear()
    for _ in range(3):
        ClusterSecret(TEXT)
    assert module._stretched.cache_info().misses == 1
    assert 128 * module._N * module._R == 16 << 20


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(TEXT + "\n")
    for mode in (0o600, 0o400, 0o700):
        path.chmod(mode)
        assert ClusterSecret.from_file(path).key(TOKEN) == ClusterSecret(TEXT).key(TOKEN)


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602, 0o601, 0o620, 0o610, 0o660, 0o666])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret"
    path.write_text(TEXT)
    path.chmod(mode)
    with pytest.raises(SecretError, match=f"chmod 600 {path}") as refused:
        ClusterSecret.from_file(path)
    assert f"{mode:04o}" in str(refused.value)


@pytest.mark.skipif(not ROOT, reason="gives files to others")
def test_a_group_may_read_what_belongs_to_root(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(TEXT)
    path.chmod(0o640)
    ClusterSecret.from_file(path)
    os.chown(path, 65534, 0)
    with pytest.raises(SecretError, match="chmod 600"):
        ClusterSecret.from_file(path)
    path.chmod(0o600)
    ClusterSecret.from_file(path)


def test_what_the_engine_puts_into_a_container_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = tmp_path / "run-secrets"
    given.mkdir()
    (given / "cluster").write_text(TEXT)
    (given / "cluster").chmod(0o444)
    link = tmp_path / "secret"
    link.symlink_to(given / "cluster")
    with pytest.raises(SecretError, match="chmod 600"):
        ClusterSecret.from_file(link)
    monkeypatch.setattr(module, "_GIVEN_TO_THIS_CONTAINER", given)
    ClusterSecret.from_file(link)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"\xff\xfe" * 40, "no text in UTF-8"),
        (b"ab" * MAX_FILE, "longer than 4096 bytes"),
        (b"short", "weak"),
    ],
)
def test_a_file_that_is_no_secret_is_refused_by_its_name(
    tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SecretError, match=words) as refused:
        ClusterSecret.from_file(path)
    assert str(path) in str(refused.value)
    assert "--secret-file" in str(refused.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(SecretError, match="--secret-file") as refused:
            ClusterSecret.from_file(path)
        assert str(path) in str(refused.value)


def test_the_command_prints_a_new_secret_and_nothing_else() -> None:
    results = [
        CliRunner().invoke(cli, ["secret", "new"], prog_name="container-manager") for _ in range(2)
    ]
    texts = set()
    for result in results:
        assert result.exit_code == 0
        assert result.stderr == ""
        assert result.stdout.count("\n") == 1
        ClusterSecret(result.stdout)
        texts.add(result.stdout)
    assert len(texts) == 2


def test_at_a_terminal_the_command_says_how_to_keep_it() -> None:
    terminal, end = os.openpty()
    try:
        run = subprocess.run(
            [sys.executable, "-m", "container_manager", "secret", "new"],
            stdout=end,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=True,
        )
        ClusterSecret(os.read(terminal, 1000).decode())
    finally:
        os.close(end)
        os.close(terminal)
    assert "umask 077; container-manager secret new > FILE" in run.stderr
    assert "--secret-file FILE" in run.stderr
