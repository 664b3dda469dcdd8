"""The engine: what is asked of it about containers and their images."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import orjson
from aiodocker import Docker

from container_manager.engine import podman
from container_manager.engine.answers import Inspected, Listed, inspected, listed
from container_manager.engine.connection import CALL_TIMEOUT, CONNECT_TIMEOUT, Connection
from container_manager.engine.document import STOP_TIMEOUT
from container_manager.engine.errors import ContainerMissing, EngineError, EngineRefused
from container_manager.engine.output import MAX_LINES, last_lines
from container_manager.spec import LABEL_PREFIX

STOP_GRACE = float(STOP_TIMEOUT)
"""Seconds between a container's stop signal and SIGKILL, where it was not created with others."""


<<<<<<< HEAD
class Engine(Connection):
    """One container engine."""
=======
MAX_EVENT = 16 * 1024 * 1024
MAX_WORDS = 2000
"""Characters that are kept of what the engine says."""
MAX_PROBE = 500
"""Characters that are kept of what a health check's probe says."""

_UNREACHABLE = 900  # aiodocker's status for "no connection"
# The image itself, or the platform of it that is asked for: `docker run` pulls either.
_NO_IMAGE = re.compile(r"no such image|image with reference .* was found but", re.IGNORECASE)
_HEALS = re.compile(
    r"timeout|timed out|connection|no such host|too ?many ?requests|temporar|unavailable|EOF"
    r"|i/o|reset|network is unreachable|server misbehaving|internal server error|bad gateway"
    r"|no space left",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Listed:
    """A container as the engine's list shows it."""

    id: str
    name: str
    state: str
    labels: Mapping[str, str]

    @property
    def job_id(self) -> str:
        """The job that it was made for."""
        return self.labels.get(f"{LABEL_PREFIX}job", "")

    @property
    def attempt(self) -> int:
        """Which of the job's attempts it was made for."""
        number = self.labels.get(f"{LABEL_PREFIX}attempt", "")
        return int(number) if number.isdecimal() else 0

    @property
    def node(self) -> str:
        """The id of the node that deployed it."""
        return self.labels.get(f"{LABEL_PREFIX}node", "")

    @property
    def home(self) -> str:
        """Where it was deployed from."""
        return self.labels.get(f"{LABEL_PREFIX}home", "")


@dataclass(frozen=True, slots=True)
class Inspected:
    """A container as the engine shows it in full."""

    container: Container
    image: str
    arguments: list[str]
    env: dict[str, str] = field(repr=False)
    labels: Mapping[str, str] = field(repr=False)


class Engine:
    """One container engine, behind one connection pool that is made anew after each loss."""
>>>>>>> tests2

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
<<<<<<< HEAD
=======

    @asynccontextmanager
    async def _stream(
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

        response = await self._call(ask, timeout)
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
                return await self._call(
                    lambda client: client._query_json(path, method, params=query, data=body)  # noqa: SLF001
                )
        except EngineUnavailable:
            self.doubt()
            raise

    async def _call(
        self, call: Callable[[Docker], Awaitable[T]], timeout: float | None = CALL_TIMEOUT
    ) -> T:
        client = self._client
        if client is None:
            raise EngineUnavailable(self._unavailable)
        try:
            async with asyncio.timeout(timeout):
                return await call(client)
        except DockerError as error:
            if error.status == _UNREACHABLE:
                raise self._unreachable(error) from error
            raise _translated(error) from error
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


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """Split the stream of events. An event carries all labels of its container, however long."""
    rest = b""
    try:
        async for chunk in response.content.iter_any():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if line.strip():
                    yield orjson.loads(line)
            if len(rest) > MAX_EVENT:
                raise EngineUnavailable("the engine sent an event of more than 16 MiB")
    except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as error:
        raise EngineUnavailable(f"the engine's events broke off: {error}") from error


def _name(names: list[str] | None) -> str:
    """A container's own name among the list's, which has those of links to it as well."""
    own = [name.lstrip("/") for name in names or [] if "/" not in name.lstrip("/")]
    return own[0] if own else ""


def _translated(error: DockerError) -> EngineError:
    """The engine's error by what is to be done about it (statuses as the Engine API lists them)."""
    words = _cut(" ".join(error.message.split()))
    kind: type[EngineError] = EngineRefused
    if error.status == 404 and _NO_IMAGE.search(words):
        kind = ImageMissing
    elif error.status == 404 and "no such container" in words.lower():
        kind = ContainerMissing
    elif error.status == 409 and "already in use" in words.lower():
        kind = NameTaken
    elif error.status == 404:
        kind = ObjectMissing
    elif error.status in (400, 401, 403, 406) or (
        error.status in (0, 500) and not _HEALS.search(words) and _stays(words)
    ):
        kind = EngineRejected
    return kind(words)


def _cut(words: str) -> str:
    return words if len(words) <= MAX_WORDS else words[:MAX_WORDS] + "…"


def _stays(words: str) -> bool:
    """Whether a failure without a telling status is one that trying again does not mend."""
    lowered = words.lower()
    return any(
        said in lowered
        for said in (
            "manifest unknown",
            "not found",
            "denied",
            "unauthorized",
            "no basic auth credentials",
            "no matching manifest",
            "invalid reference",
            "executable file",
            "exec format error",
        )
    )


def inspected(document: Mapping[str, Any], now: int) -> Inspected:
    """The engine's inspect document as a value."""
    state, config = document["State"], document["Config"]
    health, probed = _health(state.get("Health") or {})
    started_at = _time(state.get("StartedAt"))
    ended = state["Status"] in ("exited", "dead")
    return Inspected(
        container=Container(
            id=document["Id"],
            name=document["Name"].lstrip("/"),
            state=state["Status"],
            exit_code=state["ExitCode"] if ended or state["Status"] == "restarting" else None,
            oom_killed=bool(state.get("OOMKilled")),
            health=health,
            health_output=probed,
            restarts=document.get("RestartCount") or 0,
            ports=tuple(_ports((document.get("NetworkSettings") or {}).get("Ports") or {})),
            error=_cut(state.get("Error") or "") or None,
            started_at=started_at,
            finished_at=_time(state.get("FinishedAt")) if ended else None,
            seen_at=now,
        ),
        image=config["Image"],
        arguments=list(config.get("Cmd") or []),
        env=dict(pair.split("=", 1) for pair in config.get("Env") or [] if "=" in pair),
        labels=config.get("Labels") or {},
    )


def _health(health: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The status of a health check, and what its last probe said when it is unhealthy."""
    status = health.get("Status")
    if status in (None, "", "none"):
        return None, None
    log = health.get("Log") or []
    said = " ".join(log[-1].get("Output", "").split()) if log else ""
    return status, _cut(said)[:MAX_PROBE] or None if status == "unhealthy" else None


def _ports(shown: Mapping[str, Any]) -> Iterator[Port]:
    """The ports that the engine forwards to a container; those that are only exposed are not."""
    for name, bindings in shown.items():
        number, _, protocol = name.partition("/")
        for binding in bindings or []:
            yield Port(
                container_port=int(number),
                protocol=protocol or "tcp",
                host_ip=binding["HostIp"],
                host_port=int(binding["HostPort"] or 0),
            )


def _time(text: str | None) -> int | None:
    """RFC 3339 with nanoseconds as microseconds since 1970; the year 1 is the engine's "never"."""
    if not text or text.startswith("0001-"):
        return None
    whole, _, rest = text.partition(".")
    # An offset may follow the fraction: "…:05.123456789Z", "…:05.1+02:00", "…:05Z".
    match = re.fullmatch(r"(\d*)(Z|[+-]\d\d:\d\d)", rest) if rest else None
    if match is None:
        moment = datetime.fromisoformat(text)
    else:
        moment = datetime.fromisoformat(f"{whole}.{match[1][:6]:0<6}{match[2]}")
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
>>>>>>> tests2
