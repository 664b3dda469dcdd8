"""What is mounted into a container: named volumes and memory, never a path of the host."""

from __future__ import annotations

import posixpath
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from container_manager.spec.model import LISTED, Model, at, listed
from container_manager.spec.names import is_name

MAX_MOUNTS = 256
MAX_PATH = 4096

_TMPFS_OPTION = re.compile(
    r"size=\d{1,15}[kKmMgG%]?|mode=[0-7]{3,4}|[ug]id=\d{1,10}|ro|rw|exec|noexec|nosuid|nodev",
    re.ASCII,
)
_DRIVE = re.compile(r"[a-zA-Z]:[\\/].*:")
# What Docker's and Compose's objects call the options by which a volume becomes a host path.
_OPTIONS = {
    *("bind", "bindoptions", "volumeoptions", "propagation", "hostpath", "device"),
    *("driver", "driverconfig", "driveropts", "options", "o"),
}


def _path(value: str) -> str:
    if not value.startswith("/") or "\0" in value:
        raise ValueError('a path in the container is absolute: "/data"')
    path = "/" + posixpath.normpath(value).lstrip("/")  # POSIX lets a leading "//" stand
    if path == "/":
        raise ValueError('nothing can be mounted at "/"')
    return path


def is_host_path(source: str) -> bool:
    """Whether a mount's source means a path of the host rather than a volume."""
    return source.startswith((".", "~")) or "/" in source or "\\" in source


def asks_for_host_path(volume: Any) -> bool:
    """Whether a volume, as a caller wrote it, asks for a path of the host or for a way to one."""
    if isinstance(volume, str):
        source, colon, _ = volume.partition(":")
        return bool(colon) and (is_host_path(source) or _DRIVE.match(volume) is not None)
    if not isinstance(volume, dict):
        return False
    said = {str(key).lower().replace("_", ""): value for key, value in volume.items() if value}
    sources = (said.get(key) for key in ("source", "src", "name"))
    return (
        said.get("type") in ("bind", "npipe")
        or not _OPTIONS.isdisjoint(said)
        or any(isinstance(source, str) and is_host_path(source) for source in sources)
    )


def denied_volumes(value: Any) -> bool:
    """Whether volumes that were refused asked for what is never granted."""
    if isinstance(value, dict):  # by source, as some clients write them
        return any(is_host_path(source) for source in value if isinstance(source, str))
    return isinstance(value, list) and any(map(asks_for_host_path, value))


def _volume_name(value: str) -> str:
    if not is_name(value):
        raise ValueError("a volume's name takes letters, digits, '_', '.' and '-', at least two")
    return value


Target = Annotated[str, Field(max_length=MAX_PATH), AfterValidator(_path)]


class Volume(Model):
    """A named volume; one that there is not yet is made, and volumes are kept."""

    name: Annotated[str, AfterValidator(_volume_name)] = Field(description="The volume's name.")
    target: Target = Field(description="Where in the container it is mounted: an absolute path.")
    read_only: bool = Field(default=False, description="The container cannot write to it.")
    nocopy: bool = Field(
        default=False,
        description="A new volume stays empty, instead of getting what the image has at the path.",
    )


def _tmpfs_options(value: str) -> str:
    if value and not all(map(_TMPFS_OPTION.fullmatch, value.split(","))):
        raise ValueError(
            "the options are size=64m, mode=1777, uid=0, gid=0, ro, rw, exec and noexec"
        )
    return value


class Tmpfs(Model):
    """A part of the container's file tree that is only in memory."""

    target: Target = Field(description="Where in the container it is mounted: an absolute path.")
    options: Annotated[str, AfterValidator(_tmpfs_options)] = Field(
        default="", description='Options of the mount: "size=64m,mode=1777,uid=1000,noexec".'
    )


def _volume(value: Any) -> Any:
    if asks_for_host_path(value):
        raise ValueError('host paths are denied; name a volume: "data:/path"')
    if not isinstance(value, str):
        return value
    name, colon, rest = value.partition(":")
    target, _, modes = rest.partition(":")
    if not colon:
        raise ValueError('name the volume: "data:/path"; nameless ones would pile up')
    volume: dict[str, Any] = {"name": name, "target": target}
    for mode in filter(None, modes.split(",")):
        if mode not in ("ro", "rw", "nocopy"):
            raise ValueError('what follows the path is "ro", "rw" or "nocopy"')
        if mode != "rw":
            volume["read_only" if mode == "ro" else "nocopy"] = True
    return volume


def _tmpfs(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple(_tmpfs_at(path, options) for path, options in value.items())
    return listed(value)


def _tmpfs_at(path: str, options: Any) -> Tmpfs:
    try:
        return Tmpfs.model_validate({"target": path, "options": options or ""})
    except ValueError as error:
        raise at(path, error) from None


def _tmpfs_form(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    target, _, options = value.partition(":")
    return {"target": target, "options": options}


def _distinct(mounts: tuple[Any, ...]) -> tuple[Any, ...]:
    if len({mount.target for mount in mounts}) < len(mounts):
        raise ValueError("two mounts cannot have one path")
    return mounts


_Volume = Annotated[Volume, BeforeValidator(_volume, json_schema_input_type=str | Volume)]
_Tmpfs = Annotated[Tmpfs, BeforeValidator(_tmpfs_form, json_schema_input_type=str | Tmpfs)]
_TmpfsInput = list[str | Tmpfs] | dict[str, str | None]

Volumes = Annotated[
    tuple[_Volume, ...], Field(max_length=MAX_MOUNTS), LISTED, AfterValidator(_distinct)
]
TmpfsMounts = Annotated[
    tuple[_Tmpfs, ...],
    Field(max_length=MAX_MOUNTS),
    BeforeValidator(_tmpfs, json_schema_input_type=_TmpfsInput),
    AfterValidator(_distinct),
]
