"""A few plain calls to the engine's API that fixtures need, made without the client under test.

Synchronous, so that session fixtures and clean-up need no event loop.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import io
import json
import shutil
import socket
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from tests.support.waiting import eventually_now

if TYPE_CHECKING:
    from collections.abc import Mapping

IMAGE = "container-manager-test/busybox:latest"
HOME_LABEL = "io.container-manager.home"
BUSYBOX = ("busybox", "/bin/busybox", "/usr/bin/busybox")
APPLETS = ("sh", "sleep", "echo", "cat", "true", "false", "kill", "ls", "env", "id", "touch")
# Answers SIGTERM at once, from when its log says "ready": process 1 ignores what it doesn't trap,
# so that one stopped earlier takes ten seconds and exits 137.
IDLE = ["sh", "-c", "trap 'exit 0' TERM; echo ready; while :; do sleep 1 & wait $!; done"]


class EngineAnswerError(Exception):
    """The engine answered with an error."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Engine:
    """The engine at `url` (unix:// or tcp://)."""

    def __init__(self, url: str) -> None:
        self.url = url

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        *,
        content_type: str = "application/json",
        timeout: float = 60.0,
    ) -> tuple[int, bytes]:
        """One request on a connection of its own: the status and the whole body."""
        target = f"{path}?{urlencode(query, doseq=True)}" if query else path
        connection = self._connection(timeout)
        try:
            connection.request(method, target, body, {"Content-Type": content_type})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def call(
        self, method: str, path: str, query: Mapping[str, Any] | None = None, **more: Any
    ) -> Any:
        """As `request`, for JSON; an error status raises `EngineAnswerError`."""
        status, body = self.request(method, path, query, **more)
        if status >= 400:
            raise EngineAnswerError(f"{method} {path}: {status} {body.decode(errors='replace')}")
        return json.loads(body) if body.strip() else None

    def answers(self) -> bool:
        """Whether an engine is there at all."""
        try:
            return self.request("GET", "/_ping", timeout=3.0)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    @functools.cached_property
    def podman(self) -> bool:
        """Whether it is Podman, which answers the same calls a little differently."""
        components = self.call("GET", "/version").get("Components") or []
        return "Podman Engine" in [component["Name"] for component in components]

    def check_health(self) -> None:
        """Have Podman run the health checks of all containers that run and have one."""
        for container in self.homes():
            # An error: it has none, has ended, or is gone.
            self.request("GET", f"/v4.0.0/libpod/containers/{container}/healthcheck")

    def import_busybox(self, name: str) -> None:
        """Have image `name`, made from the system's static busybox; no registry is needed for it.

        One that is there already stays: others may be using it.
        """
        status, found = self.request("GET", f"/images/{name}/json")
        if status == 200 and json.loads(found)["Config"]["Cmd"] == IDLE:
            return
        repo, _, tag = name.rpartition(":")
        query = {
            "fromSrc": "-",
            "repo": repo,
            "tag": tag,
            "changes": [f"CMD {json.dumps(IDLE)}", "ENV PATH=/bin"],
        }
        status, answer = self.request(
            "POST", "/images/create", query, busybox_tar(), content_type="application/x-tar"
        )
        # The import reports its failure inside a stream of status 200.
        if status >= 400 or b'"error"' in answer:
            raise EngineAnswerError(f"import of {name}: {status} {answer.decode(errors='replace')}")

    def remove_image(self, name: str) -> None:
        """Remove the image if nothing uses it and it is there."""
        self.request("DELETE", f"/images/{name}")

    def homes(self) -> dict[str, str]:
        """Container id → the value of our home label, for every container that bears one."""
        query = {"all": "1", "filters": json.dumps({"label": [HOME_LABEL]})}
        found = self.call("GET", "/containers/json", query)
        return {one["Id"]: one["Labels"][HOME_LABEL] for one in found}

    def remove_containers_below(self, directory: Path) -> int:
        """Force-remove the containers whose home label names a data directory below `directory`.

        Repeated until none is left: a create which a killed daemon had sent may still land.
        """
        removed: set[str] = set()

        def none_left() -> bool:
            ours = {id_ for id_, home in self.homes().items() if _is_below(home, directory)}
            for container in ours:
                if self.podman:  # which would first give it its time to end
                    self.request("POST", f"/containers/{container}/stop", {"t": "0"})
                # 404 and 409: already gone, or on its way out.
                self.request("DELETE", f"/containers/{container}", {"force": "1", "v": "1"})
            removed.update(ours)
            return not ours

        eventually_now(none_left, timeout=60)
        return len(removed)

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        if parts.scheme == "unix":
            return _UnixConnection(parts.path, timeout)
        return http.client.HTTPConnection(parts.hostname or "", parts.port or 2375, timeout=timeout)


def busybox() -> Path | None:
    """The system's busybox; Debian's `busybox-static` is linked statically."""
    return next((Path(path) for name in BUSYBOX if (path := shutil.which(name))), None)


def busybox_tar() -> bytes:
    """The files of the tests' image: busybox, its applets and /tmp."""
    binary = busybox()
    if binary is None:
        raise FileNotFoundError("no busybox on this machine (Debian: busybox-static)")
    content = binary.read_bytes()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        file = tarfile.TarInfo("bin/busybox")
        file.size, file.mode = len(content), 0o755
        tar.addfile(file, io.BytesIO(content))
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname, link.mode = tarfile.SYMTYPE, "busybox", 0o755
            tar.addfile(link)
        tmp = tarfile.TarInfo("tmp")
        tmp.type, tmp.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(tmp)
    return out.getvalue()


def _is_below(home: str, directory: Path) -> bool:
    """`home` is "hostname:absolute data directory"."""
    with contextlib.suppress(ValueError):
        return Path(home.partition(":")[2]).resolve().is_relative_to(directory.resolve())
    return False
