"""A masterless job queue for containers."""

__version__ = "0.1.0"
