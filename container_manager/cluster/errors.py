"""Why there is no link, or no longer one; each reason is in words for people."""

from __future__ import annotations

# The kinds of refusal, for metrics and for `NodeService.List`. Hooks may add their own.
SECRET = "secret"  # noqa: S105 - the name of a kind
"""It holds another cluster secret, or none."""
POSED_ID = "posed_id"
"""Its certificate does not belong to the node id that it claims."""
WIRE_VERSION = "wire_version"
"""It and this node have no version of the wire in common."""
ITSELF = "itself"
"""It is this very daemon."""
FRAME = "frame"
"""It sent what no node of this program sends."""
TLS = "tls"
"""It does not speak TLS 1.3."""
SILENT = "silent"
"""It said nothing, or not enough, in the time that a handshake may take."""
BROKEN_OFF = "broken_off"
"""It went away in the middle of the handshake."""
BUSY = "busy"
"""More callers than are taken at a time are in their handshakes."""


class LinkError(Exception):
    """There is no link; the message says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class LinkUnreachable(LinkError):
    """Nobody answers at the address."""


class LinkRefused(LinkError):
    """One side refused the other, or was not what it has to be."""

    def __init__(self, reason: str, kind: str) -> None:
        super().__init__(reason)
        self.kind = kind
        """One of the kinds above, or of a hook."""


class LinkClosed(LinkError):
    """The link has ended."""
