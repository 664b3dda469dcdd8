"""The document that an engine is asked for, compiled from a spec by allow-list. Pure.

Only what is named here is ever sent, so that a field which a spec does not have cannot be smuggled
in, and what is never asked for is never granted: no privileges, no host namespaces, no devices, no
host paths. Source: https://docs.docker.com/reference/api/engine/version/v1.41/ (ContainerCreate).
"""

from __future__ import annotations

from typing import Any

from container_manager.spec import Spec


def container_document(spec: Spec, env: dict[str, str], labels: dict[str, str]) -> dict[str, Any]:
    """The body of the engine's create call."""
    document: dict[str, Any] = {
        "Image": spec.image,
        "Env": [f"{key}={value}" for key, value in env.items()],
        "Labels": labels,
        "HostConfig": {
            # The engine's own AutoRemove would take exit code and logs away with the container.
            "AutoRemove": False,
            "Privileged": False,
            "SecurityOpt": ["no-new-privileges"],
        },
    }
    if spec.arguments:
        document["Cmd"] = spec.arguments
    return document


def further_networks(spec: Spec) -> list[tuple[str, dict[str, Any]]]:
    """Networks."""
    return []
