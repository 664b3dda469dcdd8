"""Which login goes with a pull: a named credential, or what docker or Podman have for the registry.

The files are those of the user that the daemon runs as. They are read for each pull, so that a
`docker login` counts at once.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from container_manager.credential import CredentialUnusable, NamedLogin, registry_name
from container_manager.engine import login_helper
from container_manager.engine.errors import EngineRejected
from container_manager.engine.login_file import Login, LoginFile, server_of


class Logins:
    """Finds logins for pulls."""

    def __init__(
        self,
        named: Callable[[str], NamedLogin | None],
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """Keep where to look; nothing is read yet.

        Args:
            named: the credential of a name, None where there is none; CredentialUnusable where
                it cannot be read.
            environment: the variables that say where the files are, and that helpers get.
        """
        self._named = named
        self._environment = environment

    async def header(self, registry: str, credential: str | None) -> str | None:
        """The value of X-Registry-Auth for a pull; None for one without a login.

        Args:
            registry: the image's registry as `host[:port]`, Docker Hub as `docker.io`.
            credential: the name of the credential that the spec gives; without one, what docker
                or Podman have for the registry is taken.

        Raises:
            EngineRejected: the login cannot be had until somebody mends something.
            EngineRefused: it cannot be had at present.
        """
        registry = registry_name(registry)
        if credential is not None:
            login: Login | None = self._of_name(credential, registry)
        else:
            login = await find(registry, self._environment)
        return None if login is None else login.header()

    def _of_name(self, name: str, registry: str) -> Login:
        try:
            found = self._named(name)
        except CredentialUnusable as error:
            raise EngineRejected(f"the credential {name!r} cannot be used. {error}") from error
        if found is None:
            raise EngineRejected(
                f"this node has no credential {name!r}. Make it with `container-manager credential "
                f"set {name} --registry {registry} --username USER --password-stdin`"
            )
        if found.registry != registry:
            # Otherwise whoever may create jobs could have the password sent to a place of theirs.
            raise EngineRejected(
                f"the credential {name!r} is for {found.registry} and is not sent to {registry}, "
                "where the image is. Name a credential for that registry, or leave it out"
            )
        return Login.of(server_of(registry), found.username, found.secret)


async def find(registry: str, environment: Mapping[str, str]) -> Login | None:
    """The login that docker has for a registry, else the one that Podman has.

    In a file, the registry's own credential helper comes before the one for all, and that before
    what the file keeps itself.

    Raises:
        EngineRejected: a file or a helper is broken.
        EngineRefused: a helper fails at present.
    """
    for path, expected in _files(environment):
        file = await asyncio.to_thread(LoginFile.read, path, expected=expected)
        if file is None:
            continue
        login: Login | None = None
        if (helper := file.helper(registry)) is None:
            login = file.login(registry)
        elif found := await login_helper.get(helper.name, helper.server, environment):
            login = Login.of(server_of(registry), *found)
        if login is not None:
            return login
    return None


def _files(environment: Mapping[str, str]) -> Iterator[tuple[Path, bool]]:
    """Where logins may be, and whether somebody has named the place."""
    home = Path(environment.get("HOME") or os.path.expanduser("~"))
    if directory := environment.get("DOCKER_CONFIG"):
        yield Path(directory) / "config.json", True
    else:
        yield home / ".docker/config.json", False
    # From here on as containers-auth.json(5) has it.
    if named := environment.get("REGISTRY_AUTH_FILE"):
        yield Path(named), True
        return
    if runtime := environment.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / "containers/auth.json", False
    else:
        yield Path(f"/run/containers/{os.getuid()}/auth.json"), False
    config = environment.get("XDG_CONFIG_HOME") or home / ".config"
    yield Path(config) / "containers/auth.json", False
