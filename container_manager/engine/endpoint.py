"""Where the engine is: found as Docker's own client finds it, and Podman's sockets besides.

In this order: what the caller names, `DOCKER_HOST`, the Docker context, the usual sockets.
Source: https://docs.docker.com/engine/manage-resources/contexts/ and `docker --help`.
"""

from __future__ import annotations

import hashlib
import json
import os
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from container_manager.engine.errors import EngineUnavailable


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An engine's address: `unix:///path` or `tcp://host:port`."""

    url: str
    source: str
    """Where the address was found, for people."""
    certificates: Path | None = None
    """For TLS: the directory with ca.pem, cert.pem and key.pem."""

    @property
    def socket(self) -> str | None:
        """The socket's path, for a unix address."""
        return self.url.removeprefix("unix://") if self.url.startswith("unix://") else None

    def tls(self) -> ssl.SSLContext | None:
        """The context of a connection with certificates, else None.

        Raises:
            EngineUnavailable: the certificates cannot be read.
        """
        if self.certificates is None:
            return ssl.create_default_context() if self.url.startswith("https://") else None
        try:
            context = ssl.create_default_context(cafile=self.certificates / "ca.pem")
            context.load_cert_chain(self.certificates / "cert.pem", self.certificates / "key.pem")
        except (OSError, ssl.SSLError) as error:
            raise EngineUnavailable(
                f"the certificates in {self.certificates} cannot be used: {error}"
            ) from error
        return context


def find(docker_host: str | None, environment: Mapping[str, str] = os.environ) -> Endpoint:
    """The engine's address; sockets count where there is a file, answering or not.

    Args:
        docker_host: an address that a person has named, or None to look for one.
        environment: the process's environment variables.

    Raises:
        EngineUnavailable: there is none, or it is of a kind that is not supported.
    """
    home = Path(environment.get("HOME") or Path.home())
    if docker_host:
        return _checked(docker_host, "--docker-host", environment)
    if host := environment.get("DOCKER_HOST"):
        return _checked(host, "DOCKER_HOST", environment)
    if (endpoint := _context(home, environment)) is not None:
        return endpoint
    for socket in _sockets(home, environment):
        if socket.is_socket():
            return Endpoint(f"unix://{socket}", "the usual places")
    raise EngineUnavailable(
        "no container engine was found: neither DOCKER_HOST nor a Docker context is set, and there "
        "is no socket of Docker or Podman. Start one, or name its address with --docker-host"
    )


def _checked(host: str, source: str, environment: Mapping[str, str]) -> Endpoint:
    if host.startswith("/"):
        host = f"unix://{host}"
    if not host.startswith(("unix://", "tcp://", "http://", "https://")):
        raise EngineUnavailable(
            f"{source} names an address of a kind that is not supported; "
            "write unix:///path or tcp://host:port"
        )
    certificates = None
    if not host.startswith("unix://") and environment.get("DOCKER_TLS_VERIFY"):
        default = Path(environment.get("HOME") or Path.home()) / ".docker"
        certificates = Path(environment.get("DOCKER_CERT_PATH") or default)
    return Endpoint(host, source, certificates)


def _context(home: Path, environment: Mapping[str, str]) -> Endpoint | None:
    """The endpoint of the Docker context in use; None for the default one."""
    config = Path(environment.get("DOCKER_CONFIG") or home / ".docker")
    name = environment.get("DOCKER_CONTEXT") or None
    try:
        if name is None:
            name = json.loads((config / "config.json").read_bytes()).get("currentContext")
        if not name or name == "default":
            return None
        # The client names a context's directory by the hash of its name.
        directory = hashlib.sha256(name.encode()).hexdigest()
        meta = json.loads((config / "contexts/meta" / directory / "meta.json").read_bytes())
        host = meta["Endpoints"]["docker"]["Host"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # Docker's client fails on a broken context; a daemon rather looks further, and its log
        # says where it has found its engine.
        return None
    endpoint = _checked(host, f"the Docker context {name!r}", {})
    certificates = config / "contexts/tls" / directory / "docker"
    return Endpoint(endpoint.url, endpoint.source, certificates if certificates.is_dir() else None)


def _sockets(home: Path, environment: Mapping[str, str]) -> Iterator[Path]:
    yield Path("/var/run/docker.sock")
    yield Path("/run/docker.sock")
    yield home / ".docker/run/docker.sock"
    runtime = environment.get("XDG_RUNTIME_DIR")
    if runtime:
        yield Path(runtime) / "docker.sock"
    yield Path("/run/podman/podman.sock")
    if runtime:
        yield Path(runtime) / "podman/podman.sock"
