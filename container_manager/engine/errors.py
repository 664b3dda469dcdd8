"""What can go wrong with an engine, told apart by what is to be done about it."""

from __future__ import annotations


class EngineError(Exception):
    """The engine did not do what it was asked. The message is the engine's own words."""


class EngineUnavailable(EngineError):
    """The engine cannot be reached, or went away during the call: what it did is not known."""


class EngineRefused(EngineError):
    """The engine answered with an error that may heal by itself, such as a failing registry."""

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        """Take the engine's words, and the seconds before which trying again is of no use."""
        super().__init__(message)
        self.retry_after = retry_after


class EngineRejected(EngineError):
    """The engine answered with an error that stays: no such image, a bad command, a bad name."""


class ImageMissing(EngineRejected):
    """The engine does not have the image of the container that is to be created."""


class NameTaken(EngineRejected):
    """Another container has the name."""


class ObjectMissing(EngineRejected):
    """The engine knows no network, volume or whatever else the call names."""


class ContainerMissing(EngineError):
    """The engine knows no such container."""
