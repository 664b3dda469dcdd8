"""The connection to the engine: made, lost and made anew, with a time limit for each call.

Every error is translated at this border (`engine.refusals`), so that the rest of the program
decides by kind and repeats the engine's own words to people.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp
import orjson
from aiodocker import Docker, DockerError
from aiohttp.http_exceptions import HttpProcessingError

from container_manager.engine.endpoint import Endpoint, find
from container_manager.engine.errors import EngineUnavailable
from container_manager.engine.refusals import translated

T = TypeVar("T")

CALL_TIMEOUT = 60.0
"""Seconds for a call that does not wait for something outside the engine. dockerd under load has
been seen to take seconds, never a minute."""
CONNECT_TIMEOUT = 5.0
REQUESTS = 4
"""Calls for networks and volumes at a time: dockerd gains nothing from more, and whoever asks often
must not hold up deployments."""
MAX_MESSAGE = 16 * 1024 * 1024

_UNREACHABLE = 900  # aiodocker's status for "no connection"


class Connection:
    """The connection to one engine, by a pool that is made anew after each loss."""

    def __init__(self, docker_host: str | None) -> None:
        """Name the engine, or have it looked for at each connection; nothing is connected yet."""
        self._docker_host = docker_host
        self._client: Docker | None = None
        self._connector: aiohttp.BaseConnector | None = None
        self._unavailable = "it has not been reached yet"
        self._available = asyncio.Event()
        self._doubted = asyncio.Event()
        self._requests = asyncio.Semaphore(REQUESTS)
        self.endpoint: Endpoint | None = None
        self.version: dict[str, Any] = {}

    @property
    def unavailable(self) -> str | None:
        """Why the engine cannot be used at present; None when it can."""
        return None if self._available.is_set() else self._unavailable

    async def available(self) -> None:
        """Wait until the engine can be used."""
        await self._available.wait()

    def set_available(self) -> None:
        """The watcher has connected and looked: work may go on."""
        self._available.set()

    def set_unavailable(self, reason: str) -> None:
        """The watcher has lost the engine: work waits until it is back."""
        self._available.clear()
        self._unavailable = reason

    def doubt(self) -> None:
        """A call broke: the watcher is to make sure that the engine is still there."""
        self._doubted.set()

    async def doubted(self) -> None:
        """Wait for the next doubt."""
        await self._doubted.wait()
        self._doubted.clear()

    async def ping(self) -> None:
        """Make sure that the engine answers.

        Raises:
            EngineUnavailable: it does not.
        """
        await self.call(_ping, CONNECT_TIMEOUT)

    async def connect(self) -> None:
        """Make the connection anew.

        A client settles on the engine's API version once, and an engine that comes back may be
        another version, so there is a new client each time.

        Raises:
            EngineUnavailable: nothing answers.
        """
        await self.close()
        self.endpoint = endpoint = find(self._docker_host)
        if endpoint.socket is not None:
            # No limit: followed logs and streams must never hold up a short call.
            self._connector = aiohttp.UnixConnector(endpoint.socket, limit=0)
            url = "unix://localhost"
        else:
            tls = endpoint.tls()
            self._connector = aiohttp.TCPConnector(limit=0, ssl=tls if tls is not None else True)
            scheme = "https" if tls is not None else "http"
            url = f"{scheme}://{endpoint.url.split('://', 1)[1]}"
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT)
        self._client = Docker(url=url, connector=self._connector, timeout=timeout)
        self.version = await self.call(_version, CONNECT_TIMEOUT)

    async def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        connector, self._connector = self._connector, None
        if client is not None:
            await client.close()
        if connector is not None:
            await connector.close()

    @asynccontextmanager
    async def stream(
        self,
        path: str,
        method: str,
        params: dict[str, str],
        headers: dict[str, str],
        timeout: float | None,
    ) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """An answer of many JSON objects, which begins within `timeout` and ends when it ends."""

        async def ask(client: Docker) -> aiohttp.ClientResponse:
            return await client._do_query(  # noqa: SLF001 - its own streams leak connections
                path, method, params=params, headers=headers, timeout=aiohttp.ClientTimeout()
            )

        response = await self.call(ask, timeout)
        try:
            yield _lines(response)
        finally:
            response.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        """Make one call of the Engine API that is not about containers of jobs; gives its answer.

        Raises:
            EngineUnavailable: the engine cannot be used, which `/readyz` says too; or it went away.
            ObjectMissing: the engine does not know what `path` names.
        """
        if self.unavailable is not None:
            raise EngineUnavailable(self.unavailable)
        try:
            async with self._requests:
                return await self.call(
                    lambda client: client._query_json(path, method, params=query, data=body)  # noqa: SLF001
                )
        except EngineUnavailable:
            self.doubt()
            raise

    async def call(
        self, call: Callable[[Docker], Awaitable[T]], timeout: float | None = CALL_TIMEOUT
    ) -> T:
        """Make one call, of at most `timeout` seconds, and translate how it fails.

        Raises:
            EngineUnavailable: the engine cannot be reached, or went away.
            EngineError: it refuses, by kind.
        """
        client = self._client
        if client is None:
            raise EngineUnavailable(self._unavailable)
        try:
            async with asyncio.timeout(timeout):
                return await call(client)
        except DockerError as error:
            if error.status == _UNREACHABLE:
                raise self._unreachable(error) from error
            raise translated(error) from error
        except TimeoutError as error:
            # Either the whole time is up, or, sooner, that of making the connection.
            raise EngineUnavailable("the engine has not answered in time") from error
        except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as error:
            raise EngineUnavailable(f"the connection to the engine broke: {error}") from error
        except (RuntimeError, AssertionError) as error:
            # How aiohttp fails in a session that `connect` has replaced meanwhile.
            if client is self._client:
                raise
            raise EngineUnavailable(self._unavailable) from error

    def _unreachable(self, error: DockerError) -> EngineUnavailable:
        # aiodocker names its own stand-in for the address; people know the one they gave.
        cause = error.__context__
        why = cause.strerror if isinstance(cause, aiohttp.ClientConnectorError) else None
        where = self.endpoint.url if self.endpoint is not None else "its address"
        return EngineUnavailable(f"no engine answers at {where} ({why or cause or error.message})")


async def _ping(client: Docker) -> None:
    async with client._query("_ping", versioned_api=False):  # noqa: SLF001 - it has no other
        pass


async def _version(client: Docker) -> dict[str, Any]:
    # One call settles on the API's version, too; the client by itself would ask twice, and Podman
    # takes its time each time, since it asks the package manager for the versions of its parts.
    version: dict[str, Any] = await client._query_json("version", versioned_api=False)  # noqa: SLF001
    client.api_version = f"v{version['ApiVersion']}"
    return version


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """Split a stream of objects. An event carries all labels of its container, however long."""
    rest = b""
    try:
        async for chunk in response.content.iter_any():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if line.strip():
                    yield orjson.loads(line)
            if len(rest) > MAX_MESSAGE:
                raise EngineUnavailable("the engine sent a message of more than 16 MiB")
    except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as error:
        raise EngineUnavailable(f"what the engine was telling broke off: {error}") from error
