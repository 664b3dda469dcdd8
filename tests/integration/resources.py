"""What the tests of networks and volumes share: names and containers that leave nothing behind."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Mapping

    import aiodocker
    from aiodocker.containers import DockerContainer

    from tests.support.daemon import Daemon
    from tests.support.engine import Engine


async def ready(node: Daemon) -> None:
    """Wait until the daemon says that it has its engine."""

    async def says() -> bool:
        return (await node.get("/readyz"))[0] == 200

    await eventually(says)


class Resources:
    """Names of networks and volumes, and containers beside the daemon's; all go with the test."""

    def __init__(self, engine: Engine, docker: aiodocker.Docker, image: str) -> None:
        self._engine = engine
        self._docker = docker
        self._image = image
        self._label = f"container-manager-test={uuid.uuid4().hex}"
        self._names: set[str] = set()

    def name(self, hint: str = "") -> str:
        """A name that nobody else has; whatever bears it in the end is removed."""
        name = f"cm-test-{uuid.uuid4().hex[:8]}{hint and '-'}{hint}"
        self._names.add(name)
        return name

    async def network(self, name: str, labels: Mapping[str, str] | None = None) -> str:
        """A network made past the daemon; its id."""
        made = await self._docker.networks.create({"Name": name, "Labels": dict(labels or {})})
        return str(made.id)

    async def volume(self, name: str, labels: Mapping[str, str] | None = None) -> None:
        """A volume made past the daemon."""
        await self._docker.volumes.create({"Name": name, "Labels": dict(labels or {})})

    async def container(
        self,
        *arguments: str,
        network: str | None = None,
        alias: str | None = None,
        mount: Mapping[str, Any] | None = None,
        start: bool = True,
    ) -> DockerContainer:
        """A container made past the daemon, on a network, with a volume, or both."""
        document: dict[str, Any] = {
            "Image": self._image,
            "Labels": dict([self._label.split("=")]),
            "HostConfig": {"Mounts": [{"Type": "volume", **mount}] if mount else []},
        }
        if arguments:
            document["Cmd"] = list(arguments)
        if network is not None:
            document["HostConfig"]["NetworkMode"] = network
            ends = {network: {"Aliases": [alias] if alias else []}}
            document["NetworkingConfig"] = {"EndpointsConfig": ends}
        made = await self._docker.containers.create(document)
        if start:
            await made.start()
        return made

    async def output(self, *arguments: str, **where: Any) -> str:
        """What such a container prints until it ends, which it does well."""
        container = await self.container(*arguments, **where)
        ended = await container.wait(timeout=20)
        printed = "".join(await container.log(stdout=True, stderr=True))
        assert ended["StatusCode"] == 0, printed
        await container.delete(force=True, v=True)
        return printed

    def remove_all(self) -> None:
        """Remove whatever is left."""
        made = self._engine.call(
            "GET", "/containers/json", {"all": "1", "filters": f'{{"label":["{self._label}"]}}'}
        )
        for one in made:
            self._engine.request("DELETE", f"/containers/{one['Id']}", {"force": "1", "v": "1"})
        left = [
            *(
                ("networks", one["Id"], one["Name"])
                for one in self._engine.call("GET", "/networks")
            ),
            *(
                ("volumes", one["Name"], one["Name"])
                for one in self._engine.call("GET", "/volumes")["Volumes"] or []
            ),
        ]
        for kind, key, name in left:
            if name in self._names:
                status, answer = self._engine.request("DELETE", f"/{kind}/{key}")
                # 404: a call of the daemon's that was under way still has removed it.
                assert status in (204, 404), answer
