"""The engine's answers about containers, as values. Pure.

Source: https://docs.docker.com/reference/api/engine/version/v1.41/ (ContainerList,
ContainerInspect).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from container_manager.engine import podman
from container_manager.engine.refusals import cut
from container_manager.job import Container, Port
from container_manager.spec import LABEL_PREFIX

MAX_PROBE = 500
"""Characters that are kept of what a health check's probe says."""


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


def listed(document: Mapping[str, Any]) -> Listed:
    """An entry of the engine's list as a value."""
    return Listed(
        id=document["Id"],
        name=_name(document["Names"]),
        state=podman.state(document["State"]),
        labels=document["Labels"] or {},
    )


def _name(names: list[str] | None) -> str:
    """A container's own name among the list's, which has those of links to it as well."""
    own = [name.lstrip("/") for name in names or [] if "/" not in name.lstrip("/")]
    return own[0] if own else ""


def inspected(document: Mapping[str, Any], now: int) -> Inspected:
    """The engine's inspect document as a value."""
    state, config = document["State"], document["Config"]
    status = podman.inspected_state(document)
    health, probed = _health(state.get("Health") or {})
    started_at = _time(state.get("StartedAt"))
    ended = status in ("exited", "dead")
    return Inspected(
        container=Container(
            id=document["Id"],
            name=document["Name"].lstrip("/"),
            state=status,
            exit_code=state["ExitCode"] if ended or status == "restarting" else None,
            oom_killed=bool(state.get("OOMKilled")),
            health=health,
            health_output=probed,
            restarts=document.get("RestartCount") or 0,
            # Podman shows them of a container that has ended, too.
            ports=() if ended else tuple(_ports(document.get("NetworkSettings") or {})),
            error=cut(state.get("Error") or "") or None,
            started_at=started_at,
            finished_at=_time(state.get("FinishedAt")) if ended else None,
            seen_at=now,
        ),
        image=config["Image"],
        arguments=list(config.get("Cmd") or []),
        env=podman.environment(config.get("Env") or [], config.get("Hostname") or ""),
        labels=config.get("Labels") or {},
    )


def _health(health: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The status of a health check, and what its last probe said when it is unhealthy."""
    status = health.get("Status")
    if status in (None, "", "none"):
        return None, None
    log = health.get("Log") or []
    said = " ".join(log[-1].get("Output", "").split()) if log else ""
    return status, cut(said)[:MAX_PROBE] or None if status == "unhealthy" else None


def _ports(shown: Mapping[str, Any]) -> Iterator[Port]:
    """The ports that the engine forwards to a container; those that are only exposed are not."""
    for name, bindings in (shown.get("Ports") or {}).items():
        number, _, protocol = name.partition("/")
        for binding in bindings or []:
            yield Port(
                container_port=int(number),
                protocol=protocol or "tcp",
                host_ip=binding["HostIp"] or "0.0.0.0",  # noqa: S104 - so Docker says what Podman does not
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
