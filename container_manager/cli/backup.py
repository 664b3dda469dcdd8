"""`container-manager backup` and `container-manager restore`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import BinaryIO

import click

from container_manager.config import Settings

_FILE = click.Path(path_type=Path, allow_dash=True)
_DASH = Path("-")


@click.command()
@click.argument("file", type=_FILE)
@click.option("--force", is_flag=True, help="Replace FILE where it exists.")
@click.pass_context
def backup(ctx: click.Context, file: Path, force: bool) -> None:
    """Save the jobs and the keys of the data directory in FILE, a tar file.

    With `-` it goes to standard output. The daemon may run meanwhile: everything that it had
    acknowledged before is saved. Keep FILE as you keep a private key: it opens what jobs hold in
    `env`, and is the node's identity.
    """
    settings = Settings.from_values(ctx.find_root().params)
    with _failing():
        from container_manager.store.backup import save, save_to

        os.nice(10)  # the daemon's calls come first
        if file == _DASH:
            if sys.stdout.isatty():
                raise click.UsageError("A backup is nothing for a terminal: redirect it.", ctx)
            saved = save_to(settings.data_dir, sys.stdout.fileno())
        else:
            saved = save(settings.data_dir, file, force=force)
    where = "standard output" if file == _DASH else file
    text = (
        f"Saved {_jobs(saved.manifest.jobs)} of node {saved.manifest.node} with "
        f"{', '.join(saved.names)} in {where} ({saved.size / 1e6:.1f} MB)."
    )
    if settings.token_file != settings.data_dir / "token":
        text += f" Not saved: {settings.token_file}, which is not in the data directory."
    click.echo(text, err=file == _DASH)


@click.command()
@click.argument("file", type=_FILE)
@click.option("--force", is_flag=True, help="Set aside the job store that is there already.")
@click.pass_context
def restore(ctx: click.Context, file: Path, force: bool) -> None:
    """Put the backup FILE in place in the data directory.

    With `-` it is read from standard input. Stop the daemon first. FILE is checked before anything
    is changed, and what was there is kept in the data directory as `before-restore-TIME`. The node
    is then the one that was saved: never run both.
    """
    settings = Settings.from_values(ctx.find_root().params)
    with _failing():
        from container_manager.store.restore import restore as put_back

        with _opened(file) as source:
            done = put_back(source, settings.data_dir, force=force)
    text = (
        f"Restored {_jobs(done.manifest.jobs)} of node {done.manifest.node}, saved at "
        f"{done.manifest.created_at}, to {settings.data_dir}."
    )
    if done.aside is not None:
        text += f" What was there is in {done.aside}."
    click.echo(text)


def _opened(file: Path) -> BinaryIO:
    from container_manager.store.archive import BackupError

    try:
        return sys.stdin.buffer if file == _DASH else file.open("rb")
    except OSError as error:
        raise BackupError(f"{file} cannot be read ({error.strerror}).") from error


def _jobs(number: int) -> str:
    return "1 job" if number == 1 else f"{number} jobs"


@contextmanager
def _failing() -> Iterator[None]:
    """End with code 1 and one line for what can go wrong, and tidily on SIGTERM."""
    from container_manager.store.archive import BackupError
    from container_manager.store.directory import DirectoryError
    from container_manager.store.integrity import StoreDamaged

    def end(number: int, _: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except StoreDamaged as damage:
        text = damage.remedy
    except (BackupError, DirectoryError) as error:
        text = str(error)
    else:
        return
    finally:
        signal.signal(signal.SIGTERM, before)
    click.echo(f"container-manager: {text}", err=True)
    sys.exit(1)
