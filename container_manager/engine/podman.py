"""What Podman says otherwise than Docker, read as Docker says it. Pure.

Podman answers Docker's API beside its own, with a few words of its own. What a person notices of
it is in docs/podman.md. Seen with Podman 4.3 and read in its sources
(https://github.com/containers/podman, `pkg/api/handlers/compat` and `libpod/define`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# "stopped" has ended, and its network and mounts are still being taken down.
_STATES = {
    "configured": "created",
    "initialized": "created",
    "stopping": "running",
    "stopped": "exited",
}


def is_podman(version: Mapping[str, Any]) -> bool:
    """Whether the engine that answers the call for its version so is Podman."""
    components = version.get("Components") or []
    return any(component.get("Name") == "Podman Engine" for component in components)


def state(word: str) -> str:
    """A container's state in Docker's word for it."""
    return _STATES.get(word, word)


def inspected_state(document: Mapping[str, Any]) -> str:
    """The state that an inspect document tells, in Docker's word for it.

    A container that has ended stays "stopped" until its end is dealt with. By its restart policy it
    is then started again, which Docker announces as "restarting", and Podman does not.
    """
    word: str = document["State"]["Status"]
    policy = (document.get("HostConfig") or {}).get("RestartPolicy") or {}
    name, most = policy.get("Name"), policy.get("MaximumRetryCount") or 0
    again = name in ("always", "unless-stopped") or (
        name == "on-failure"
        and document["State"]["ExitCode"] != 0
        and (most == 0 or (document.get("RestartCount") or 0) < most)
    )
    return "restarting" if word == "stopped" and again else state(word)


def volumes(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The volumes of a document for a container, each as it is asked for by itself.

    Podman makes those that there are not along with the container, as Docker does, but leaves out
    their labels.
    """
    mounts = document["HostConfig"].get("Mounts", ())
    return [
        {"Name": one["Source"], "Driver": "local", "Labels": one["VolumeOptions"]["Labels"]}
        for one in mounts
        if one["Type"] == "volume"
    ]


def environment(pairs: Sequence[str], hostname: str) -> dict[str, str]:
    """A container's variables without those that Podman adds by itself.

    Args:
        pairs: "NAME=value", as the inspect document has them.
        hostname: the container's host name, which Podman repeats as a variable.
    """
    env = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    if env.get("container") == "podman":
        added = {"container": "podman", "TERM": "xterm", "HOSTNAME": hostname}
        env = {name: value for name, value in env.items() if added.get(name) != value}
    return env
