"""`container-manager systemd-unit`: the unit file by which systemd runs the daemon."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from click.core import ParameterSource

from container_manager.config import SETTINGS, Settings

_UNIT = """\
# systemd unit of container-manager; `container-manager systemd-unit` prints it.
# Install: container-manager systemd-unit > /etc/systemd/system/container-manager.service
#          systemctl daemon-reload && systemctl enable --now container-manager

[Unit]
Description=Container job queue
Wants=network-online.target docker.service
After=network-online.target docker.service podman.socket

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
{place}User={user}
{group}Restart=on-failure
RestartSec=2
# Wrong usage does not heal by itself.
RestartPreventExitStatus=2
WatchdogSec=30
# A large store takes its time to be checked.
TimeoutStartSec=5min
# More than deployments under way and open calls get.
TimeoutStopSec=20
KillMode=mixed

{directory}
UMask=0077

CapabilityBoundingSet={capabilities}
AmbientCapabilities={capabilities}
NoNewPrivileges=yes
ProtectSystem=strict
# Read, since registry logins are in ~/.docker/config.json.
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
PrivateMounts=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RemoveIPC=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""

_HOUSE = Path(__file__).resolve().parents[2]
_STATE = Path("/var/lib/container-manager")


@click.command("systemd-unit")
@click.option(
    "--user",
    default="root",
    show_default=True,
    metavar="NAME",
    help="Run as this user, in the group `docker`, whose members may use the engine.",
)
@click.pass_context
def systemd_unit(ctx: click.Context, user: str) -> None:
    """Print the systemd unit that runs this installation.

    Settings that are given before the command, or in the environment, go into the unit.
    """
    root = ctx.find_root()
    settings = Settings.from_values(root.params)
    data_dir = _STATE if _is_default(root, "data_dir") else settings.data_dir.absolute()
    program = _program()
    command = [*program, "--data-dir", str(data_dir), *_flags(root)]
    for directory in ("/tmp", "/var/tmp"):  # noqa: S108 - to warn of them
        if Path(command[0]).is_relative_to(directory):
            click.echo(
                f"Warning: {command[0]} is below {directory}, which the service cannot see "
                "(PrivateTmp=). Install the program elsewhere.",
                err=True,
            )
    privileged_port = 0 < settings.port < 1024
    unit = _UNIT.format(
        # A dollar would begin a variable.
        command=" ".join(_quoted(word).replace("$", "$$") for word in command),
        # Called as a module it has to be found, also where it is not installed.
        place="WorkingDirectory={}\n".format(str(_HOUSE).replace("%", "%%"))
        if "-m" in program
        else "",
        user=user,
        group="" if user == "root" else "SupplementaryGroups=docker\n",
        directory="StateDirectory=container-manager\nStateDirectoryMode=0700"
        if data_dir == _STATE
        else f"# It has to be there already.\nReadWritePaths={_quoted(str(data_dir))}",
        capabilities="CAP_NET_BIND_SERVICE" if privileged_port else "",
    )
    click.echo(unit, nl=False)


def _program() -> Sequence[str]:
    """How this program is called, by absolute paths."""
    # Not resolved: in a virtual environment it is the link that tells which one.
    python = Path(os.path.abspath(sys.executable))
    script = python.with_name("container-manager")
    if os.access(script, os.X_OK):
        return [str(script)]
    return [str(python), "-m", "container_manager"]


def _flags(root: click.Context) -> Iterator[str]:
    """What was set on the command line and in the environment, as flags; paths made absolute."""
    if (config := root.params["config"]) is not None:
        yield from ("--config", str(config.absolute()))
    for setting in SETTINGS:
        given = root.get_parameter_source(setting.name)
        if setting.name == "data_dir" or given not in (
            ParameterSource.COMMANDLINE,
            ParameterSource.ENVIRONMENT,
        ):
            continue
        value = root.params[setting.name]
        if setting.kind == "flag":
            if value:
                yield setting.flag
            continue
        if setting.kind == "switch":
            yield setting.flag if value else setting.off
            continue
        for one in value if setting.multiple else [value]:
            text = str(one.expanduser().absolute()) if isinstance(one, Path) else str(one)
            yield from (setting.flag, text)


def _is_default(root: click.Context, name: str) -> bool:
    return root.get_parameter_source(name) is ParameterSource.DEFAULT


def _quoted(word: str) -> str:
    """A word in a unit file, as systemd.syntax(7) and systemd.unit(5) have it."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    if word and not any(c.isspace() or c in "\"'\\;" for c in word):
        return word
    return f'"{word}"'
