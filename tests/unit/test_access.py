"""Access: who may call, by where the call comes from and by what it carries."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from container_manager.api.access import Access, Denied, default_gateway, trusted_networks

TOKEN = "s3cret-token"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
OWN = socket.gethostname().lower()
ELSEWHERE = "203.0.113.7"


def answer(
    remote: str | None,
    headers: dict[str, str] | None = None,
    *,
    token: str = TOKEN,
    require_token: bool = False,
    trusted: tuple[str, ...] = (),
) -> int:
    """The HTTP status of a call: 200 where it may pass."""
    access = Access(
        tokens=[token],
        token_file=Path("/data/token"),
        require_token=require_token,
        trusted=[ipaddress.ip_network(one) for one in trusted],
    )
    found = CIMultiDictProxy(CIMultiDict({"Host": "localhost:8080", **(headers or {})}))
    denials = []
    for _ in range(2):  # what was looked up is remembered, and must stay the same
        try:
            access.check(remote, found)
        except Denied as denied:
            denials.append((denied.status, denied.message))
    assert len(denials) in (0, 2)
    for status, message in denials:
        assert TOKEN not in message
        assert status == 403 or "/data/token" in message
    return denials[0][0] if denials else 200


@pytest.mark.parametrize(
    "remote", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "::1%lo", "0:0:0:0:0:0:0:1"]
)
def test_loopback_needs_a_token_only_where_that_was_asked_for(remote: str) -> None:
    assert answer(remote) == 200
    assert answer(remote, require_token=True) == 401
    assert answer(remote, BEARER, require_token=True) == 200


@pytest.mark.parametrize(
    "remote",
    [
        *(ELSEWHERE, "10.0.0.1", "172.17.0.1", "2001:db8::1", "::ffff:203.0.113.7", "fe80::1%eth0"),
        *("0.0.0.0", "::", "128.0.0.1", "", None, "localhost", "unix:", "127.0.0.1.example"),
    ],
)
def test_every_other_caller_needs_the_token(remote: str | None) -> None:
    assert answer(remote) == 401
    assert answer(remote, BEARER) == 200
    assert answer(remote, {**BEARER, "Host": "node.example:8080"}) == 200


@pytest.mark.parametrize(
    ("remote", "trusted", "status"),
    [
        ("10.1.2.3", ("10.0.0.0/8",), 200),
        ("::ffff:10.1.2.3", ("10.0.0.0/8",), 200),
        ("11.1.2.3", ("10.0.0.0/8",), 401),
        ("fd00::5", ("10.0.0.0/8", "fd00::/8"), 200),
        ("fd00::5", ("0.0.0.0/0",), 401),
        ("10.1.2.3", ("10.1.2.4",), 401),
    ],
)
def test_trusted_networks_need_no_token(remote: str, trusted: tuple[str, ...], status: int) -> None:
    assert answer(remote, trusted=trusted) == status
    assert answer(remote, trusted=trusted, require_token=True) == status


@pytest.mark.parametrize(
    "header",
    ["Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP"],
)
@pytest.mark.parametrize("spelled", [str, str.lower, str.upper])
def test_a_call_through_a_proxy_is_no_call_from_loopback(header: str, spelled: object) -> None:
    name = spelled(header)  # type: ignore[operator]
    assert answer("127.0.0.1", {name: "127.0.0.1"}) == 401
    assert answer("10.0.0.1", {name: ""}, trusted=("10.0.0.0/8",)) == 401
    assert answer("127.0.0.1", {name: "127.0.0.1", **BEARER}) == 200


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        ("http://localhost:8080", "localhost:8080", 200),
        ("http://LOCALHOST:8080", "localhost:8080", 200),
        ("http://[::1]:8080", "[::1]:8080", 200),
        ("http://localhost:3000", "localhost:8080", 403),
        ("http://127.0.0.1:8080", "localhost:8080", 403),
        ("https://evil.example", "localhost:8080", 403),
        ("http://localhost:8080.evil.example", "localhost:8080", 403),
        ("http://evil.example:8080", "evil.example:8080", 403),  # rebound: by its Host
        ("null", "localhost:8080", 403),
        ("null", "", 403),
        ("", "localhost:8080", 403),
        ("", "", 403),
        ("file://", "", 403),
    ],
)
def test_pages_of_other_origins_are_refused(origin: str, host: str, status: int) -> None:
    assert answer("127.0.0.1", {"Origin": origin, "Host": host}) == status


def test_not_even_with_the_token_may_a_page_of_another_origin_call() -> None:
    assert answer("127.0.0.1", {"Origin": "https://evil.example", **BEARER}) == 403
    assert answer(ELSEWHERE, {"Origin": "http://n:1", "Host": "n:1", **BEARER}) == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *((host, 200) for host in ("localhost", "LocalHost:8080", "localhost.", "127.0.0.1")),
        *((host, 200) for host in ("127.0.0.1:8080", "[::1]", "[::1]:8080", "10.1.2.3:80")),
        *((host, 200) for host in (OWN, f"{OWN}:8080", f"{OWN.upper()}:8080")),
        *((host, 403) for host in ("evil.example", "evil.example:8080", "localhost.evil.example")),
        *((host, 403) for host in ("127.0.0.1.nip.io", "127.0.0.1.nip.io:8080", "2130706433:80")),
        *((host, 403) for host in ("0x7f.1", "[evil]:80", f"{OWN}.evil.example", "x@localhost")),
    ],
)
def test_without_a_token_the_host_has_to_be_this_machine(host: str, status: int) -> None:
    assert answer("127.0.0.1", {"Host": host}) == status
    assert answer("127.0.0.1", {"Host": host, **BEARER}) == 200


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN}", 200),
        (f"BEARER   {TOKEN} ", 200),
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        (f"Bearer {TOKEN.upper()}", 401),
        ("Bearer ", 401),
        ("Bearer", 401),
        ("", 401),
        (TOKEN, 401),
        (f"Basic {TOKEN}", 401),
        (f"Bearer {TOKEN} {TOKEN}", 401),
        ("Bearer t\xf6ken", 401),
        ("Bearer \udcff", 401),  # as aiohttp gives bytes that are no UTF-8
    ],
)
@pytest.mark.parametrize("remote", ["127.0.0.1", ELSEWHERE])
def test_a_token_that_is_shown_has_to_be_right(header: str, status: int, remote: str) -> None:
    assert answer(remote, {"Authorization": header}) == status


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "bearer  "])
def test_an_empty_token_file_admits_nobody(header: str) -> None:
    assert answer(ELSEWHERE, {"Authorization": header}, token="") == 401


ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
eth1\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0
eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0
"""


def test_the_gateway_is_that_of_the_default_route(tmp_path: Path) -> None:
    table = tmp_path / "route"
    table.write_text(ROUTES)
    assert default_gateway(table) == ipaddress.ip_address("172.17.0.1")
    table.write_text("".join(ROUTES.splitlines(keepends=True)[:3]))
    assert default_gateway(table) is None
    assert default_gateway(tmp_path / "none") is None


def test_networks_to_trust_are_those_named_and_the_gateway_if_there_is_one() -> None:
    named = ipaddress.ip_network("10.0.0.0/8")
    assert trusted_networks([named]) == [named]
    gateway = default_gateway()
    expected = [named] if gateway is None else [named, ipaddress.ip_network(gateway)]
    assert trusted_networks([named, "gateway"]) == expected
