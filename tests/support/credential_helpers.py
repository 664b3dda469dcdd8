"""Credential helpers for tests: real programs on a PATH of the test's own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def shell_helper(directory: Path, name: str, script: str) -> Path:
    """Make `docker-credential-NAME` of lines for the shell; the server is in $server."""
    return _program(
        directory, name, f'#!/bin/sh\n[ "$1" = get ] || exit 9\nserver=$(cat)\n{script}\n'
    )


def keeper(directory: Path, name: str, logins: dict[str, tuple[str, str]]) -> Path:
    """Make a helper that keeps these logins by server, and notes what it is asked in `NAME.asked`.

    It does what those of docker do: JSON, or the sentence which says that there is none.
    """
    asked = str(directory / f"{name}.asked")
    return _program(
        directory,
        name,
        f"#!{sys.executable} -IS\n"
        "import json, sys\n"
        "server = sys.stdin.read()\n"
        f"open({asked!r}, 'a').write(f'{{sys.argv[1]}} {{server}}\\n')\n"
        f"login = {logins!r}.get(server)\n"
        "if login is None:\n"
        "    print('credentials not found in native keychain')\n"
        "    sys.exit(1)\n"
        "json.dump({'ServerURL': server, 'Username': login[0], 'Secret': login[1]}, sys.stdout)\n",
    )


def _program(directory: Path, name: str, content: str) -> Path:
    path = directory / f"docker-credential-{name}"
    path.write_text(content)
    path.chmod(0o755)
    return path
