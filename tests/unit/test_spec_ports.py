"""Published ports, in every form of `docker run --publish`."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from container_manager.spec.ports import MAX_PORTS, Port, parse_port
from tests.unit.spec_forms import accepted, addresses, places, port_numbers, refused, why

V6 = "2001:db8::1"


def port(container: int, host: int = 0, **more: Any) -> Port:
    return Port(container_port=container, host_port=host, **more)


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", [port(80)]),
        ("80/udp", [port(80, protocol="udp")]),
        ("80/SCTP", [port(80, protocol="sctp")]),
        ("8080:80", [port(80, 8080)]),
        ("8080:80/tcp", [port(80, 8080)]),
        ("0:80", [port(80)]),
        (":80", [port(80)]),
        ("127.0.0.1:8080:80", [port(80, 8080, host_ip="127.0.0.1")]),
        ("127.0.0.1::80", [port(80, host_ip="127.0.0.1")]),
        ("127.0.0.1:0:80", [port(80, host_ip="127.0.0.1")]),
        ("[::1]:8080:80/udp", [port(80, 8080, host_ip="::1", protocol="udp")]),
        ("[::1]::80", [port(80, host_ip="::1")]),
        ("[2001:DB8:0::1]:1:1", [port(1, 1, host_ip=V6)]),
        ("80-82", [port(80), port(81), port(82)]),
        ("8000-8001:80-81", [port(80, 8000), port(81, 8001)]),
        ("8000-8010:80", [port(80, 8000, host_port_end=8010)]),
        ("8000-8000:80", [port(80, 8000)]),
        ("65535:65535", [port(65535, 65535)]),
        (
            "127.0.0.1:7-8:1-2/udp",
            [port(n - 6, n, host_ip="127.0.0.1", protocol="udp") for n in (7, 8)],
        ),
    ],
)
def test_ports_are_read_as_docker_reads_them(text: str, ports: list[Port]) -> None:
    assert list(parse_port(text)) == ports
    assert accepted(ports=[text]).ports == tuple(ports)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "0",
            "65536",
            "-1",
            "80-",
            "-80",
            "82-80",
            "a",
            "http",
            "80/",
            "80/icmp",
            "80/tcp/udp",
        ),
        *("8080:", "65536:80", "8000-8010:80-81", "8000-8001:80-90", "8000:80-81", "0:80-81"),
        *("0-5:80-85", "1.2.3:1:1", "1.2.3.4.5:1:1", "host:1:1", "::1:80:80", "[::1:80:80"),
        *("[]:80:80", "[::1%eth0]:80:80", "[127.0.0.x]:1:1", "80:80:80:80", " 80", "80 ", "80\n"),
        *("8080:80 ", "٨٠", "1" * 40, "0x50", "+80", "80.0"),
    ],
)
def test_what_is_no_port_is_refused_with_its_place(text: str) -> None:
    (place,) = places(refused(ports=["80", text]))
    assert place[:2] == ("ports", 1)


@pytest.mark.parametrize(
    ("form", "place"),
    [
        ({"container_port": 0}, ("container_port",)),
        ({"container_port": 65536}, ("container_port",)),
        ({"container_port": "80"}, ("container_port",)),
        ({"container_port": True}, ("container_port",)),
        ({"host_port": 80}, ("container_port",)),
        ({"container_port": 80, "host_port": -1}, ("host_port",)),
        ({"container_port": 80, "host_port": None}, ("host_port",)),
        ({"container_port": 80, "host_ip": "localhost"}, ("host_ip",)),
        ({"container_port": 80, "protocol": "TCP"}, ("protocol",)),
        ({"container_port": 80, "host_port_end": 81}, ()),
        ({"container_port": 80, "host_port": 81, "host_port_end": 81}, ()),
        ({"container_port": 80, "published": 80}, ("published",)),
        ([80], ()),
        (None, ()),
        (80.0, ()),
        (True, ()),
    ],
)
def test_objects_are_refused_with_place_and_field(form: Any, place: tuple[str, ...]) -> None:
    assert places(refused(ports=["80", form])) == [("ports", 1, *place)]


def test_a_list_it_has_to_be() -> None:
    for value in ("80", 80, {"80/tcp": None}, None):
        assert places(refused(ports=value)) == [("ports",)]


def test_ranges_are_bounded_before_they_are_counted_out() -> None:
    assert len(accepted(ports=[f"1001-{1000 + MAX_PORTS}:1-{MAX_PORTS}"]).ports) == MAX_PORTS
    assert places(refused(ports=["1-65535"] * 500)) == [("ports", 0)]
    assert "1000" in why(ports=["1-999", "2000-2001"])


def test_a_port_of_the_node_is_given_only_once() -> None:
    assert places(refused(ports=["80:80", "80:81"])) == [("ports",)]
    assert places(refused(ports=["80-90:80-90", {"container_port": 1, "host_port": 85}])) == [
        ("ports",)
    ]
    accepted(ports=["80:80", "80:80/udp", "127.0.0.1:80:80", "[::1]:80:80", "80", "80"])


@given(port_numbers, port_numbers, st.none() | addresses, st.sampled_from(["tcp", "udp", "sctp"]))
def test_an_object_and_its_text_are_one_port(
    container: int, host: int, address: str | None, protocol: str
) -> None:
    form = {"container_port": container, "host_port": host, "protocol": protocol}
    before = ""
    if address is not None:
        form["host_ip"] = address
        before = f"[{address}]:" if ":" in address else f"{address}:"
    (found,) = accepted(ports=[form]).ports
    assert (found,) == accepted(ports=[f"{before}{host}:{container}/{protocol}"]).ports
    assert hash(found) == hash(found.model_copy())


@given(st.integers(1, 60000), st.integers(0, 99), st.integers(1, 60000))
def test_a_range_is_its_ports_one_by_one(container: int, more: int, host: int) -> None:
    text = f"{host}-{host + more}:{container}-{container + more}"
    assert accepted(ports=[text]).ports == tuple(
        port(container + n, host + n) for n in range(more + 1)
    )
