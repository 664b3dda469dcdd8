"""The daemon's settings: flags before environment before TOML file before defaults.

One table says everything there is to say of a setting. The command line makes its flags from it,
and with them the environment variables and the keys of the file, so that the three cannot differ.
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

ENVIRONMENT_PREFIX = "CONTAINER_MANAGER"
LOG_LEVELS = ("debug", "info", "warning", "error")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What one setting is called, means and may be."""

    name: str
    help: str
    kind: Literal[
        "int",
        "float",
        "text",
        "path",
        "flag",
        "level",
        "address",
        "engine",
        "trust",
        "duration",
        "peer",
        "switch",
    ]
    default: Any
    low: float | None = None
    high: float | None = None
    multiple: bool = False
    aliases: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        """As on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def off(self) -> str:
        """The flag that turns a switch off."""
        return "--no-" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """As in the environment."""
        return f"{ENVIRONMENT_PREFIX}_{self.name.upper()}"


def default_data_dir() -> Path:
    """Where a daemon keeps its data unless told otherwise: of the system, or of its user."""
    if os.geteuid() == 0:
        return Path("/var/lib/container-manager")
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "container-manager"


SETTINGS = (
    Setting(
        name="listen_address",
        kind="address",
        default="0.0.0.0",  # noqa: S104 - callers from elsewhere need a token
        help="The IP address to listen on.",
    ),
    Setting(
        name="port",
        kind="int",
        low=0,
        high=65535,
        default=8080,
        aliases=("--jrpc-port",),
        help="The TCP port for JSON-RPC, probes and metrics; 0 picks a free one and logs it.",
    ),
    Setting(
        name="queue_size",
        kind="int",
        low=1,
        high=10_000_000,
        default=100,
        help="Jobs that may wait to be deployed; past it Create answers -32002.",
    ),
    Setting(
        name="worker_count",
        kind="int",
        low=1,
        high=1000,
        default=10,
        help="Deployments at a time at most. How many pay is found by what they take.",
    ),
    Setting(
        name="log_level",
        kind="level",
        default="info",
        help="The least that is logged: debug, info, warning or error.",
    ),
    Setting(
        name="data_dir",
        kind="path",
        default=None,
        help="Where jobs and keys are kept. Default: /var/lib/container-manager for root, else "
        "~/.local/state/container-manager.",
    ),
    Setting(
        name="docker_host",
        kind="engine",
        default=None,
        help="The engine: unix:///path or tcp://host:port. Default: DOCKER_HOST, the Docker "
        "context, the usual sockets of Docker and Podman.",
    ),
    Setting(
        name="token_file",
        kind="path",
        default=None,
        help="The file with the bearer token for callers from elsewhere, made on the first start. "
        "Default: `token` in the data directory.",
    ),
    Setting(
        name="require_token",
        kind="flag",
        default=False,
        help="Ask callers from this machine for the token too.",
    ),
    Setting(
        name="trust",
        kind="trust",
        multiple=True,
        default=(),
        help="Callers that need no token, besides loopback: a CIDR, or `gateway` for this "
        "machine's default gateway (in a container: the host). May be repeated.",
    ),
    Setting(
        name="secret_file",
        kind="path",
        default=None,
        help="The file with the secret that the nodes of a cluster share; `container-manager "
        "secret new` makes one. Or the secret itself in CONTAINER_MANAGER_SECRET. Without one the "
        "node stays alone.",
    ),
    Setting(
        name="p2p_port",
        kind="int",
        low=0,
        high=65535,
        default=4001,
        help="The TCP port for the other nodes; 0 picks a free one and logs it.",
    ),
    Setting(
        name="peer",
        kind="peer",
        multiple=True,
        default=(),
        help="Another node's host:port, where mDNS does not reach it. May be repeated.",
    ),
    Setting(
        name="mdns",
        kind="switch",
        default=True,
        help="Find the other nodes of this network by mDNS, and be found.",
    ),
    Setting(
        name="mdns_interface",
        kind="text",
        multiple=True,
        default=(),
        help="A network interface to speak mDNS on; by default all that lead to other machines. "
        "May be repeated.",
    ),
    Setting(
        name="settle",
        kind="float",
        low=0,
        high=3600,
        default=1.0,
        help="Seconds that a service's container has to keep running before its job is complete; "
        "0 is off.",
    ),
    Setting(
        name="retain_age",
        kind="duration",
        default="7d",
        help="How long a finished job is kept once its container is gone: 90s, 15m, 36h, 7d.",
    ),
    Setting(
        name="retain_jobs",
        kind="int",
        low=0,
        high=1_000_000_000,
        default=100_000,
        help="Finished jobs whose containers are gone that are kept at most, the newest ones.",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one daemon, checked."""

    listen_address: str
    port: int
    queue_size: int
    worker_count: int
    log_level: str
    data_dir: Path
    docker_host: str | None
    token_file: Path
    require_token: bool
    trust: tuple[str, ...]
    secret_file: Path | None
    p2p_port: int
    peer: tuple[str, ...]
    mdns: bool
    mdns_interface: tuple[str, ...]
    settle: float
    retain_age: str
    retain_jobs: int

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Settings:
        """Settings from checked values, with the defaults that depend on others filled in."""
        values = {setting.name: values[setting.name] for setting in SETTINGS}
        values["data_dir"] = Path(values["data_dir"] or default_data_dir()).expanduser()
        values["token_file"] = Path(
            values["token_file"] or values["data_dir"] / "token"
        ).expanduser()
        return cls(**values)


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "y": 365 * 86_400}


def parse_duration(value: str) -> float:
    """The seconds of a text such as `90s`, `15m`, `36h`, `7d` or `1y`; a bare number is seconds.

    Raises:
        ValueError: it is none.
    """
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhdy]?)", value)
    if match is None:
        raise ValueError(f"{value!r} is no duration; write 90s, 15m, 36h, 7d or 1y.")
    return float(match[1]) * _UNITS[match[2] or "s"]


_PEER = re.compile(r"(?:[\w.-]+|\[[0-9a-f:.]+(?:%[\w.-]+)?\]):(?P<port>[0-9]{1,5})", re.IGNORECASE)


def parse_peer(value: str) -> str:
    """A value of --peer: `host:port`, `[host]:port` for IPv6.

    Raises:
        ValueError: it is none.
    """
    match = _PEER.fullmatch(value)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise ValueError(f"{value!r} is no address of a node; write host:port, or [host]:port.")
    return value


def parse_trust(value: str) -> Network | Literal["gateway"]:
    """A value of --trust.

    Raises:
        ValueError: it is neither a network nor `gateway`.
    """
    if value == "gateway":
        return "gateway"
    return ipaddress.ip_network(value, strict=False)
