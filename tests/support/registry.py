"""A real registry on loopback: Debian's docker-registry, open to everybody or with a login."""

from __future__ import annotations

import shutil
import subprocess
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.support.daemon import free_port
from tests.support.waiting import eventually_now

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAM = "docker-registry"
USERNAME = "somebody"
PASSWORD = "correct horse"
# bcrypt of the password, as `htpasswd -nB` prints it; the registry takes no other kind.
_HTPASSWD = f"{USERNAME}:$2b$04$VIrxG3ZBRDxu0NkFNmTZTOM/AUunifurgek7T7wQRNs5t3opi96qS\n"


@dataclass(frozen=True, slots=True)
class PrivateRegistry:
    """A registry that gives and takes nothing without a login."""

    address: str
    """HOST:PORT"""
    username: str = USERNAME
    password: str = field(default=PASSWORD, repr=False)


@contextmanager
def running(home: Path, *, private: bool = False) -> Iterator[str]:
    """Run a registry that keeps its data in `home`; gives its HOST:PORT."""
    address = f"127.0.0.1:{free_port()}"
    settings = [
        "version: 0.1",
        f"storage: {{filesystem: {{rootdirectory: {home / 'data'}}}, delete: {{enabled: true}}}}",
        f"http: {{addr: '{address}'}}",
    ]
    if private:
        (home / "htpasswd").write_text(_HTPASSWD)
        settings.append(f"auth: {{htpasswd: {{realm: private, path: {home / 'htpasswd'}}}}}")
    (home / "config.yml").write_text("\n".join(settings) + "\n")
    program = shutil.which(PROGRAM)
    if program is None:
        pytest.skip(f"no registry: Debian's {PROGRAM} is not installed")
    command = [program, "serve", home / "config.yml"]
    with (home / "log").open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=home)
    try:
        eventually_now(lambda: _answers(address, process, home / "log"), timeout=15)
        yield address
    finally:
        process.terminate()
        process.wait(10)


def _answers(address: str, process: subprocess.Popen[bytes], log: Path) -> bool:
    if process.poll() is not None:
        pytest.fail(f"the registry ended:\n{log.read_text(errors='replace')[-3000:]}")
    try:
        with urllib.request.urlopen(f"http://{address}/v2/"):
            return True
    except urllib.error.HTTPError as error:
        with error:
            return error.code == 401
    except OSError:
        return False
