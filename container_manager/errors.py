"""Every error that a caller can be told, each with its code, its name and a safe message.

The codes from -32001 to -32012 are stable for ever: programs rely on them. A message says what
happened and, where something can be done, what to do; it never repeats a value that a caller sent,
but for the name of the network or volume that it is about.
"""

from __future__ import annotations

from typing import Any, ClassVar


class ApplicationError(Exception):
    """An error with a meaning for the caller. Everything else shows only as "Internal error"."""

    code: ClassVar[int]
    name: ClassVar[str]

    def __init__(self, message: str, **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.data: dict[str, Any] = {"name": self.name, **data}


class JobNotFound(ApplicationError):
    """No job has this id."""

    code = -32001
    name = "job_not_found"

    def __init__(self) -> None:
        super().__init__("No such job. ContainerService.List shows the jobs that there are.")


class QueueFull(ApplicationError):
    """As many jobs as the node takes wait for their deployment already."""

    code = -32002
    name = "queue_full"

    def __init__(self, queue_size: int, retry_after: float) -> None:
        super().__init__(
            f"The queue is full: {queue_size} jobs wait to be deployed. "
            f"Try again in {retry_after:.0f} s, or start the node with a larger --queue-size.",
            queue_size=queue_size,
            retry_after=retry_after,
        )


class EngineUnavailable(ApplicationError):
    """The container engine cannot be reached, or went away during the call."""

    code = -32003
    name = "engine_unavailable"

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"The container engine cannot be used at present: {reason}. Whether it has done what "
            "was asked is not known; /readyz tells when to look and to call again."
        )


class Conflict(ApplicationError):
    """What is asked does not go together with what is there."""

    code = -32007
    name = "conflict"


class NodeUnreachable(ApplicationError):
    """What is asked has to be done by another node, and that one cannot be reached."""

    code = -32008
    name = "node_unreachable"

    def __init__(self, node: str, **known: Any) -> None:
        super().__init__(
            "The node that owns this job cannot be reached. NodeService.List tells since when; "
            "call again when it is back.",
            node=node,
            **known,
        )


class PolicyDenied(ApplicationError):
    """The call asks for something that this node never grants."""

    code = -32009
    name = "policy_denied"


class NetworkNotFound(ApplicationError):
    """The engine has no network of this name."""

    code = -32011
    name = "network_not_found"

    def __init__(self) -> None:
        super().__init__("No such network. NetworkService.List shows the networks that there are.")


class VolumeNotFound(ApplicationError):
    """The engine has no volume of this name."""

    code = -32012
    name = "volume_not_found"

    def __init__(self) -> None:
        super().__init__("No such volume. VolumeService.List shows the volumes that there are.")


class StorageUnavailable(ApplicationError):
    """The data directory takes no writes at present: nothing was acknowledged, nothing is lost."""

    code = -32603
    name = "storage_unavailable"

    def __init__(self, reason: str) -> None:
        super().__init__(f"The job store cannot be used ({reason}). Nothing was changed.")
