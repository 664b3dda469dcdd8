#!/usr/bin/env python3
"""Make an image of the Python that runs this, where no registry is at hand to have one from.

`python3 tests/support/python_image.py NAME` packs this interpreter with its standard library, pip,
a shell and the shared libraries of all these, at the paths that they have here, and has the engine
import that. Nothing is downloaded. For glibc-based Linux, as `ldd` is needed to find libraries.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PROGRAMS = ("sh", "cat", "chmod", "ls", "mkdir", "mv", "rm")
BESIDE_LIBC = ("dl", "gcc_s", "nss_dns", "nss_files", "pthread", "resolv", "rt", "stdc++", "util")
"""Libraries that wheels may want (manylinux, PEP 513), and those that look up names."""
LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "turtledemo"}
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


class Tree:
    """A root file system in the making."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        """Begin with what every system has."""
        self._tar = tar
        self._packed: set[Path] = set()
        self._add(Path("/tmp"), tarfile.DIRTYPE, 0o1777)
        self.text(Path("/etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")
        self.text(Path("/etc/group"), "root:x:0:\n")

    def text(self, path: Path, content: str) -> None:
        """Pack a file of this content."""
        self._way_to(path)
        self._add(path, tarfile.REGTYPE, 0o644, data=content.encode())

    def file(self, path: Path, as_path: Path | None = None) -> None:
        """Pack a file of this machine, by default at its own path, with the links on the way."""
        place = self._way_to(as_path or path)
        if place in self._packed:
            return
        if as_path is None and path.is_symlink():
            link = os.readlink(path)
            self._add(place, tarfile.SYMTYPE, 0o777, link=link)
            self.file(Path(os.path.normpath(path.parent / link)))
            return
        mode = 0o755 if os.access(path, os.X_OK) else 0o644
        # Of the time of the source: by it Python knows whether what it has compiled is still good.
        self._add(place, tarfile.REGTYPE, mode, data=path.read_bytes(), at=path.stat().st_mtime)

    def _way_to(self, path: Path) -> Path:
        """Pack the directories above, and links among them as links; where the path leads then."""
        here = Path("/")
        for part in path.parts[1:-1]:
            here /= part
            if here.is_symlink():
                link = os.readlink(here)
                self._add(here, tarfile.SYMTYPE, 0o777, link=link)
                here = self._way_to(Path(os.path.normpath(here.parent / link)) / "x").parent
            else:
                self._add(here, tarfile.DIRTYPE, 0o755)
        return here / path.name

    def _add(
        self, path: Path, kind: bytes, mode: int, data: bytes = b"", link: str = "", at: float = 0
    ) -> None:
        if path in self._packed:
            return
        self._packed.add(path)
        info = tarfile.TarInfo(str(path).lstrip("/"))
        info.type, info.mode, info.linkname, info.mtime = kind, mode, link, int(at)
        info.size = len(data)
        self._tar.addfile(info, io.BytesIO(data))


def files_below(directory: Path) -> Iterator[Path]:
    """The files of a package directory that are of use: no tests, and compiled for this Python."""
    for where, directories, names in os.walk(directory):
        directories[:] = [name for name in directories if name not in LEFT_OUT]
        for name in names:
            compiled = name.endswith(".pyc")
            if not compiled or name.endswith(f".{sys.implementation.cache_tag}.pyc"):
                yield Path(where, name)


def libraries(programs: Iterable[Path]) -> set[Path]:
    """The shared libraries that programs and extension modules are loaded with (ldd(1))."""
    told = subprocess.run(
        ["ldd", *map(str, programs)], capture_output=True, text=True, check=False
    ).stdout
    found = {Path(path) for path in re.findall(r"^\s+(?:\S+ => )?(/\S+) \(0x", told, re.MULTILINE)}
    libc = next((path.parent for path in found if path.name.startswith("libc.so.")), None)
    for name in BESIDE_LIBC if libc else ():
        found |= set(libc.glob(f"lib{name}.so.*")) if libc else set()
    return found


def pack(tree: Tree) -> dict[str, str]:
    """Pack all of it; the environment that it wants."""
    standard, executable = Path(os.__file__).parent, Path(getattr(sys, "_base_executable", ""))
    python = executable.resolve()
    for path in (python, executable.with_name("python3")):
        tree.file(path)
    native = [python]
    for path in files_below(standard):
        tree.file(path)
        native += [path] if path.suffix == ".so" else []
    pip = importlib.util.find_spec("pip")
    if pip is None or not pip.submodule_search_locations:
        sys.exit(f"{sys.executable} has no pip. Install it (Debian: python3-venv, python3-pip).")
    above = Path(pip.submodule_search_locations[0])
    for path in files_below(above):
        tree.file(path, standard / "pip" / path.relative_to(above))
    for name in PROGRAMS:
        program = Path(shutil.which(name) or f"/bin/{name}")
        tree.file(program)
        native.append(program)
    tree.file(Path("/bin/sh"))
    for path in libraries(native):
        tree.file(path)
    path = ":".join(dict.fromkeys([str(executable.parent), "/usr/local/bin", "/usr/bin", "/bin"]))
    cafile = ssl.get_default_verify_paths().cafile
    found = [one for one in (cafile, CERTIFICATES) if one and Path(one).is_file()]
    if not found:
        return {"PATH": path}
    tree.file(Path(found[0]).resolve(), CERTIFICATES)
    return {"PATH": path, "PIP_CERT": str(CERTIFICATES), "SSL_CERT_FILE": str(CERTIFICATES)}


def main() -> int:
    """Make the image that is named on the command line."""
    if len(sys.argv) != 2:
        sys.exit(f"Usage: {sys.argv[0]} NAME")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        environment = pack(Tree(tar))
    changes = [f"ENV {name}={json.dumps(value)}" for name, value in environment.items()]
    command = ["docker", "import", *(f"--change={one}" for one in changes)]
    command += ['--change=CMD ["python3"]', "-", sys.argv[1]]
    # Broken off, the import would go on in the engine, and nobody would know of the image.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return subprocess.run(command, input=packed.getvalue(), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
