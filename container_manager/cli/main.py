"""`container-manager`: the daemon when called alone, and the commands beside it.

Nothing but click is imported before it is known what is asked for, so that `--help` is quick.
"""

from __future__ import annotations

import difflib
import ipaddress
import math
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from container_manager import __version__
from container_manager.cli.backup import backup, restore
from container_manager.cli.credential import credential
from container_manager.cli.secret import secret
from container_manager.cli.systemd import systemd_unit
from container_manager.config import (
    ENVIRONMENT_PREFIX,
    LOG_LEVELS,
    SETTINGS,
    Setting,
    Settings,
    parse_duration,
    parse_peer,
    parse_trust,
)


class _Checked(click.ParamType[Any]):
    """A text that has to pass a check, which says in a ValueError what is wrong."""

    def __init__(self, name: str, check: Any) -> None:
        self.name = name
        self._check = check

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            self._check(value)
        except (ValueError, TypeError) as error:
            self.fail(str(error), param, ctx)
        return value


class _Number(click.FloatRange):
    """A range that has no room for NaN, which compares as neither below nor above."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is not in the range {self._describe_range()}.", param, ctx)
        return number


def _check_trust(value: str) -> None:
    try:
        parse_trust(value)
    except ValueError:
        raise ValueError(
            f"{value!r} is neither 'gateway' nor a network such as 192.168.1.0/24."
        ) from None


def _check_address(value: str) -> None:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        raise ValueError(
            f"{value!r} is no IP address; 0.0.0.0 listens on all, 127.0.0.1 on this machine alone."
        ) from None


def _check_engine(value: str) -> None:
    if not value.startswith(("unix:///", "tcp://", "http://", "https://", "/")):
        raise ValueError(
            f"{value!r} is no engine's address; write unix:///path or tcp://host:port."
        )


_CHECKS: dict[str, tuple[str, Callable[[str], object]]] = {
    "trust": ("network", _check_trust),
    "duration": ("duration", parse_duration),
    "address": ("address", _check_address),
    "engine": ("url", _check_engine),
    "peer": ("host:port", parse_peer),
}
"""Kinds of settings whose texts are checked: what help calls the value, and what refuses it."""


def _type(setting: Setting) -> click.ParamType[Any]:
    if setting.kind in _CHECKS:
        return _Checked(*_CHECKS[setting.kind])
    match setting.kind:
        case "int":
            return click.IntRange(_whole(setting.low), _whole(setting.high))
        case "float":
            return _Number(setting.low, setting.high)
        case "flag" | "switch":
            return click.BOOL
        case "level":
            return click.Choice(LOG_LEVELS, case_sensitive=False)
        case "path":
            return click.Path(path_type=Path)
        case _:
            return click.STRING


def _whole(bound: float | None) -> int | None:
    return None if bound is None else int(bound)


def _declared(setting: Setting) -> str:
    return f"{setting.flag}/{setting.off}" if setting.kind == "switch" else setting.flag


def _options(command: click.Command) -> click.Command:
    """Add an option for each setting."""
    for setting in SETTINGS:
        command.params.append(
            click.Option(
                [_declared(setting), *setting.aliases, setting.name],
                type=_type(setting),
                default=setting.default,
                multiple=setting.multiple,
                is_flag=setting.kind in ("flag", "switch"),
                show_default=setting.default not in (None, ()),
                show_envvar=True,
                help=setting.help,
            )
        )
    return command


def _load_file(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """Read the TOML file into the defaults of the options that are parsed after this one."""
    if value is None:
        return None
    try:
        content = tomllib.loads(value.read_text(encoding="utf-8"))
    except OSError as error:
        raise click.BadParameter(
            f"{value} cannot be read ({error.strerror}).", ctx, param
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{value} is not TOML: {error}.", ctx, param) from error
    known = {setting.name: setting for setting in SETTINGS}
    defaults = {}
    for key, given in content.items():
        name = key.replace("-", "_")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise click.BadParameter(
                f"{value} sets {key!r}, which is no setting.{hint}", ctx, param
            )
        setting = known[name]
        values = given if setting.multiple and isinstance(given, list) else [given]
        if not all(_fits(setting, one) for one in values):
            raise click.BadParameter(
                f"{value} sets {key!r} to a value of the wrong type: {given!r}.", ctx, param
            )
        defaults[name] = tuple(values) if setting.multiple else given
    ctx.default_map = {**defaults, **(ctx.default_map or {})}
    return value


def _fits(setting: Setting, value: Any) -> bool:
    """Whether a value of the file is of the setting's type; its range is checked like a flag's."""
    match setting.kind:
        case "flag" | "switch":
            return isinstance(value, bool)
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "float":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case _:
            return isinstance(value, str)


@click.group(
    invoke_without_command=True,
    context_settings={
        "auto_envvar_prefix": ENVIRONMENT_PREFIX,
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
)
@click.version_option(__version__, prog_name="container-manager")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    is_eager=True,
    callback=_load_file,
    show_envvar=True,
    help='A TOML file with settings: `port = 8080`, `trust = ["gateway"]`.',
)
@click.pass_context
def cli(ctx: click.Context, /, config: Path | None, **values: Any) -> None:
    """Run the container manager: a job queue for containers, reached by JSON-RPC.

    Without a command the daemon starts. Each setting can also be given in the environment and in
    the file of --config; a flag wins over the environment, that over the file.
    """
    del config  # read already
    if ctx.invoked_subcommand is not None:
        ctx.obj = values
        return
    from container_manager.daemon import StartError, run

    try:
        ctx.exit(run(Settings.from_values(values)))
    except StartError as error:
        click.echo(f"container-manager: {error}", err=True)
        ctx.exit(1)


_options(cli)
cli.add_command(credential)
cli.add_command(backup)
cli.add_command(restore)
cli.add_command(secret)
cli.add_command(systemd_unit)


@cli.group()
def config() -> None:
    """Look at the configuration."""


@config.command()
@click.pass_context
def show(ctx: click.Context) -> None:
    """Show each setting, and where it came from."""
    root = ctx.find_root()
    settings = Settings.from_values(root.params)
    for setting in SETTINGS:
        value = getattr(settings, setting.name)
        text = ", ".join(value) if isinstance(value, tuple) else value
        click.echo(f"{setting.name:<16} {_shown(text):<40} {_origin(root, setting)}")


def _shown(value: Any) -> str:
    if value in (None, ""):
        return "-"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _origin(ctx: click.Context, setting: Setting) -> str:
    from click.core import ParameterSource

    match ctx.get_parameter_source(setting.name):
        case ParameterSource.COMMANDLINE:
            turned_off = setting.kind == "switch" and not ctx.params[setting.name]
            return f"flag {setting.off if turned_off else setting.flag}"
        case ParameterSource.ENVIRONMENT:
            return f"environment {setting.variable}"
        case ParameterSource.DEFAULT_MAP:
            return f"file {ctx.params['config']}"
        case _:
            return "default"


def main(arguments: list[str] | None = None) -> None:
    """The entry point of the command."""
    cli.main(args=arguments, prog_name="container-manager")
