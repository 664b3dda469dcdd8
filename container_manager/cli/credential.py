"""`container-manager credential`: the registry logins that specs can name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from container_manager.config import Settings
from container_manager.credential import MAX_SECRET, CredentialUnusable, NamedLogin, registry_of

if TYPE_CHECKING:
    from container_manager.store.credentials import Credentials


@click.group()
def credential() -> None:
    """Keep registry logins that jobs can name: "credential": "NAME".

    They are sealed in the data directory. A running daemon sees each change at once.
    """


@credential.command("set")
@click.argument("name")
@click.option(
    "--registry",
    required=True,
    metavar="HOST",
    help="The one registry that it is sent to, such as quay.io; docker.io is Docker Hub.",
)
@click.option("--username", required=True, metavar="USER")
@click.option("--password-stdin", is_flag=True, help="Read the password or token from stdin.")
@click.pass_context
def set_(ctx: click.Context, name: str, registry: str, username: str, password_stdin: bool) -> None:
    """Keep a login under NAME, in place of one that has it."""
    if password_stdin:
        secret = _from_stdin()
    elif sys.stdin.isatty():
        secret = click.prompt("Password", hide_input=True, err=True)
    else:
        raise click.UsageError("Give --password-stdin, and the password on stdin.", ctx)
    login = NamedLogin(name=name, registry=registry_of(registry), username=username, secret=secret)
    with _credentials(ctx, make=True) as credentials:
        credentials.set(login)


@credential.command("list")
@click.pass_context
def list_(ctx: click.Context) -> None:
    """Show names, registries and user names; never the passwords."""
    with _credentials(ctx) as credentials:
        rows = [(one.name, one.registry, one.username) for one in credentials.all()]
    rows.insert(0, ("NAME", "REGISTRY", "USERNAME"))
    name, registry = (max(len(row[column]) for row in rows) for column in (0, 1))
    for row in rows:
        click.echo(f"{row[0]:<{name}}  {row[1]:<{registry}}  {row[2]}")


@credential.command()
@click.argument("name")
@click.pass_context
def remove(ctx: click.Context, name: str) -> None:
    """Forget the login that is kept under NAME."""
    with _credentials(ctx) as credentials:
        if not credentials.remove(name):
            raise click.ClickException(
                f"There is no credential {name!r}. `container-manager credential list` shows all."
            )


def _from_stdin() -> str:
    content = sys.stdin.buffer.read(MAX_SECRET + 3)
    try:
        # One line's end does not belong to it, as in `docker login`.
        return content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise click.ClickException("The password on stdin is no text in UTF-8.") from None


@contextmanager
def _credentials(ctx: click.Context, *, make: bool = False) -> Iterator[Credentials]:
    """The credentials of the data directory, with what goes wrong told to the caller."""
    from container_manager.store.credentials import Credentials
    from container_manager.store.directory import DirectoryError

    directory = Settings.from_values(ctx.find_root().params).data_dir.absolute()
    try:
        if make:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        elif not directory.exists():
            raise click.ClickException(
                f"There is no data directory {directory}. Name the daemon's with --data-dir."
            )
        yield Credentials.beside_daemon(directory)
    except (CredentialUnusable, DirectoryError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(
            f"The data directory {directory} cannot be used ({error.strerror}). Name another one "
            "with --data-dir, or run this as the user that the daemon runs as."
        ) from error
