"""Who may call. Whoever can create containers nearly owns the host, so this is strict from the
first day.

Callers from loopback, and from where a person has said `--trust`, need no token; all others show
the bearer token (RFC 6750). What a browser sends on behalf of some page is refused: a foreign
Origin (cross-site posts), and a foreign Host on calls without a token (DNS rebinding).
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Literal

from multidict import istr

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# As `istr`, which a request's headers look up without folding the case anew each time.
_HOST, _ORIGIN, _AUTHORIZATION = istr("Host"), istr("Origin"), istr("Authorization")
_FORWARDING = tuple(
    map(
        istr,
        (
            "Forwarded",
            "Via",
            "X-Forwarded-For",
            "X-Forwarded-Host",
            "X-Forwarded-Proto",
            "X-Real-IP",
        ),
    )
)


class Denied(Exception):
    """The caller may not; `status` is HTTP's, and the message says what to do."""

    def __init__(self, status: int, name: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.name = name
        self.message = message


class Access:
    """The rules of one daemon."""

    def __init__(
        self,
        *,
        tokens: Iterable[str],
        token_file: Path,
        require_token: bool,
        trusted: Iterable[Network],
    ) -> None:
        """Admit by one of `tokens` everybody, and without one loopback and `trusted`.

        Args:
            tokens: what a bearer has to show one of.
            token_file: where people find it; named in refusals.
            require_token: ask loopback for it too.
            trusted: further networks whose callers need none.
        """
        self._tokens = [token.encode() for token in tokens if token]
        self._token_file = token_file
        self._require_token = require_token
        self._trusted = tuple(trusted)
        self._own_names = frozenset({"localhost", socket.gethostname().lower()})
        self._needs_no_token = lru_cache(1024)(self._looked_up)
        self._own_host = lru_cache(1024)(self._is_own_host)

    def check(self, remote: str | None, headers: Mapping[str, str]) -> None:
        """Let a caller pass.

        Args:
            remote: the IP address that the connection comes from.
            headers: of the request, case-insensitive.

        Raises:
            Denied: 403 for what comes from a foreign page, 401 for a missing or wrong token.
        """
        host = headers.get(_HOST, "")
        origin = headers.get(_ORIGIN)
        if origin is not None and (not host or origin.partition("://")[2].lower() != host.lower()):
            raise Denied(
                403, "foreign_origin", "Calls from pages of other origins are not answered."
            )
        if (given := headers.get(_AUTHORIZATION)) is not None:
            scheme, _, token = given.partition(" ")
            if scheme.lower() == "bearer" and self._is_known(
                token.strip().encode(errors="replace")
            ):
                return
            raise self._unauthorized("The bearer token is wrong.")
        if not self._needs_no_token(remote or ""):
            raise self._unauthorized("Calls from other machines need the bearer token.")
        if any(name in headers for name in _FORWARDING):
            raise self._unauthorized("A call that came through a proxy needs the bearer token.")
        if host and not self._own_host(host):
            raise Denied(
                403,
                "foreign_host",
                "This host name is not known here. Call by IP address or localhost, or show the "
                "bearer token.",
            )

    def _is_known(self, given: bytes) -> bool:
        return any(hmac.compare_digest(given, token) for token in self._tokens)

    def _looked_up(self, remote: str) -> bool:
        try:
            address: Address = ipaddress.ip_address(remote.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if address.is_loopback:
            return not self._require_token
        return any(address in network for network in self._trusted)

    def _is_own_host(self, host: str) -> bool:
        """Whether a Host header names this machine in a way that no foreign page can bring about.

        A page reaches us under a name of its own that it lets point here; never under a bare
        address, since then the browser knows the page to be of another origin.
        """
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return name.lower().rstrip(".") in self._own_names
        return True

    def _unauthorized(self, what: str) -> Denied:
        return Denied(
            401,
            "unauthorized",
            f"{what} Send the header `Authorization: Bearer TOKEN`; the token is in "
            f"{self._token_file} on the node.",
        )


def trusted_networks(values: Iterable[Network | Literal["gateway"]]) -> list[Network]:
    """The networks of --trust, with `gateway` looked up once, at the start."""
    networks: list[Network] = []
    for value in values:
        if value != "gateway":
            networks.append(value)
        elif (gateway := default_gateway()) is not None:
            networks.append(ipaddress.ip_network(gateway))
    return networks


def default_gateway(table: Path = Path("/proc/net/route")) -> ipaddress.IPv4Address | None:
    """The default gateway of this network namespace, as proc(5) has it, if there is one."""
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return None
    for line in lines:
        _, destination, gateway, flags, *_ = line.split()
        if destination == "00000000" and int(flags, 16) & 2:  # RTF_GATEWAY
            return ipaddress.IPv4Address(struct.pack("<I", int(gateway, 16)))
    return None
