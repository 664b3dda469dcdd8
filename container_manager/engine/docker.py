"""The engine: what is asked of it about containers and their images."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import quote

import orjson
from aiodocker import Docker

from container_manager.engine import podman
from container_manager.engine.answers import Inspected, Listed, inspected, listed
from container_manager.engine.connection import CALL_TIMEOUT, CONNECT_TIMEOUT, Connection
from container_manager.engine.document import STOP_TIMEOUT
from container_manager.engine.errors import (
    ContainerMissing,
    EngineError,
    EngineRefused,
    EngineRejected,
)
from container_manager.engine.output import MAX_LINES, last_lines
from container_manager.spec import LABEL_PREFIX

STOP_GRACE = float(STOP_TIMEOUT)
"""Seconds between a container's stop signal and SIGKILL, where it was not created with others."""


class Engine(Connection):
    """One container engine."""

    def __init__(self, docker_host: str | None, now: Callable[[], int]) -> None:
        """Name the engine; nothing is connected yet.

        Args:
            docker_host: its address, or None to look for it at each connection.
            now: the time in microseconds since 1970, UTC.
        """
        super().__init__(docker_host)
        self._now = now

    async def create(self, document: dict[str, Any], name: str, platform: str | None = None) -> str:
        """Create a container and give its id.

        Raises:
            ImageMissing: the image has to be pulled first.
            NameTaken: a container of that name exists; the engine's names are an atomic lock.
        """
        if podman.is_podman(self.version):
            for volume in podman.volumes(document):
                await self.request("POST", "volumes/create", body=volume)
        params = {"name": name, **({} if platform is None else {"platform": platform})}
        data = orjson.dumps(document)
        made = await self.call(
            lambda client: client._query_json(  # noqa: SLF001 - its own has no platform
                "containers/create", method="POST", data=data, params=params
            )
        )
        id_: str = made["Id"]
        return id_

    async def connect_network(
        self, container_id: str, network: str, endpoint: dict[str, Any]
    ) -> None:
        """Connect a container to one more network; connected already is as good."""
        body = orjson.dumps({"Container": container_id, "EndpointConfig": endpoint})
        path = f"networks/{quote(network, safe='')}/connect"
        try:
            await self.call(
                lambda client: client._query_json(path, method="POST", data=body)  # noqa: SLF001
            )
        except EngineError as error:
            if "already exists in network" not in str(error):
                raise

    async def start(self, container_id: str) -> None:
        """Start a container. Starting one that runs does nothing; one that has ended runs again."""
        await self.call(lambda client: client.containers.container(container_id).start())

    async def stop(self, container_id: str, grace: float = STOP_GRACE) -> None:
        """Ask a container to end by its stop signal, and kill it after its own grace.

        Args:
            container_id: which one.
            grace: the seconds that the container has, as it was created.
        """
        await self.call(
            lambda client: client.containers.container(container_id).stop(), CALL_TIMEOUT + grace
        )

    async def remove(self, container_id: str, *, force: bool = True) -> None:
        """Remove a container, with `force` a running one too, and its anonymous volumes.

        Gone is gone: that somebody else was quicker is no error.
        """
        try:
            if force and podman.is_podman(self.version):
                # By itself it would first give the container all of its time to end.
                with suppress(EngineRefused, EngineRejected):
                    await self.call(
                        lambda client: client.containers.container(container_id).stop(t=0)
                    )
            await self.call(
                lambda client: client.containers.container(container_id).delete(force=force, v=True)
            )
        except ContainerMissing:
            return
        except EngineRefused as error:
            # Two who remove one container at a time: the other one's removal is as good.
            if "already in progress" not in str(error):
                raise

    async def inspect(self, container: str) -> Inspected:
        """What the engine knows of a container, given by id or name.

        Raises:
            ContainerMissing: it knows none.
        """
        shown = await self.call(lambda client: client.containers.get(container))
        return inspected(shown._container, self._now())  # noqa: SLF001 - the whole document

    async def last_output(self, container_id: str) -> list[str]:
        """The last lines that a container has written to its standard output and error.

        Raises:
            EngineRefused: its log driver keeps nothing that could be read.
        """
        params = {"stdout": "1", "stderr": "1", "tail": str(MAX_LINES)}

        async def read(client: Docker) -> list[str]:
            response = await client._do_query(  # noqa: SLF001 - its own reads without a bound
                f"containers/{container_id}/logs", "GET", params=params
            )
            try:
                return await last_lines(response.content.iter_any())
            finally:
                response.close()

        return await self.call(read)

    async def list_jobs(self, job_id: str | None = None) -> list[Listed]:
        """All containers that were made for jobs, or for this job, running or not."""
        label = f"{LABEL_PREFIX}job" + (f"={job_id}" if job_id else "")
        filters = orjson.dumps({"label": [label]}).decode()
        shown = await self.call(lambda client: client.containers.list(all=True, filters=filters))
        return [listed(one._container) for one in shown]  # noqa: SLF001 - the whole document

    @asynccontextmanager
    async def pulling(
        self, name: str, tag_or_digest: str, *, platform: str | None, login: str | None
    ) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """Pull an image: what the engine says of it, until the pull ends or the block is left.

        Args:
            name: the image's full name, its registry included.
            tag_or_digest: which one; without any, an engine would pull all of them.
            platform: `linux/arm64`, or None for the engine's own.
            login: the value of X-Registry-Auth, or None.
        """
        params = {"fromImage": name, "tag": tag_or_digest}
        if platform is not None:
            params["platform"] = platform
        headers = {"X-Registry-Auth": login} if login else {}
        async with self.stream("images/create", "POST", params, headers, None) as lines:
            yield lines

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """What happens to the containers of jobs from now on; the stream ends when it is cut."""
        wanted = {"type": ["container"], "label": [f"{LABEL_PREFIX}job"]}
        if podman.is_podman(self.version):
            del wanted["label"]  # it finds no event by a label's name without the value
        # aiodocker's own subscription keeps one shared, unbounded queue for ever.
        params = {"filters": orjson.dumps(wanted).decode()}
        async with self.stream("events", "GET", params, {}, CONNECT_TIMEOUT) as lines:
            yield lines
