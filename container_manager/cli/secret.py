"""`container-manager secret`: what the nodes of a cluster know each other by."""

from __future__ import annotations

import sys

import click


@click.group()
def secret() -> None:
    """Make the secret that the nodes of a cluster share."""


@secret.command()
def new() -> None:
    """Print a new cluster secret; each node of one cluster gets the same one."""
    from container_manager.cluster.secret import ClusterSecret

    click.echo(ClusterSecret.new_text())
    if sys.stdout.isatty():
        click.echo(
            "Whoever has it can join the cluster. Keep it in a file that only you can read:\n"
            "  (umask 077; container-manager secret new > FILE)\n"
            "and start each node with --secret-file FILE.",
            err=True,
        )
