"""The form of a backup: one tar file with a copy of the job store and the node's keys.

Its members, in this order:

`manifest.json`  format, program version, time, node and number of jobs.
`SHA256SUMS`     of all other members, as sha256sum(1) writes and checks them.
`jobs.sqlite`    the job store, whole by SQLite's own check.
`node.key`, `seal.key`, and, where there are such files, `token` and `credentials`.

It is not compressed: there are faster programs for that at the other end of a pipe.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson

FORMAT = 1
MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
SMALL = 1 << 20
"""Bytes that any member but the job store may have."""
CHUNK = 1 << 20
"""Bytes that are read and written at a time."""


class BackupError(Exception):
    """Nothing was saved, or nothing restored; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a backup says of itself."""

    format: int = FORMAT
    version: str
    """Of the program that made it."""
    created_at: str
    """When, by RFC 3339."""
    node: str
    """The id of the node whose jobs these are."""
    jobs: int
    """How many there are."""

    def to_json(self) -> bytes:
        """As it stands in the backup."""
        return orjson.dumps(self, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def from_json(cls, text: bytes) -> Manifest:
        """The manifest of a backup.

        Raises:
            BackupError: it is none, or of a form that only newer programs know.
        """
        try:
            fields = orjson.loads(text)
            if fields["format"] > FORMAT:
                raise newer(str(fields["version"]))
            return cls(**fields)
        except (orjson.JSONDecodeError, TypeError, KeyError) as error:
            raise BackupError(f"{MANIFEST} of the backup cannot be read.") from error


def newer(version: str) -> BackupError:
    """What a backup gets that this program is too old for."""
    return BackupError(
        f"The backup was made by container-manager {version}, which is newer than this one. "
        "Restore it with that version."
    )


def sums_text(sums: dict[str, str]) -> bytes:
    """The SHA-256 of each member, by its name, as sha256sum(1) writes them."""
    return "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()


def parse_sums(text: bytes) -> dict[str, str]:
    """The SHA-256 of each member by its name.

    Raises:
        BackupError: the text is no such list.
    """
    try:
        pairs = [line.split("  ", 1) for line in text.decode("ascii").splitlines()]
        return {name: digest for digest, name in pairs}
    except ValueError as error:
        raise BackupError(f"{SUMS} of the backup cannot be read.") from error
