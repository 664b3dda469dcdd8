"""What is made of what others announce."""

from __future__ import annotations

from ipaddress import ip_interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from container_manager.cluster.announcement import (
    MOST_ADDRESSES,
    SERVICE,
    Sighting,
    node_of,
    properties,
    sighting,
)
from container_manager.cluster.interfaces import Adapter

NODE = "0123456789abcdef" * 2
ETH0 = Adapter("eth0", 2, (ip_interface("192.0.2.2/24"), ip_interface("fe80::2/64")))
LO = Adapter("lo", 1, (ip_interface("127.0.0.1/8"),), multicast=False)
SAID = properties(NODE, run="ab12", version="1.2.3", cluster="5eed")


def txt(**changed: str | None) -> dict[bytes, bytes | None]:
    said = {**SAID, **changed}
    return {
        key.encode(): value.encode() if value is not None else None for key, value in said.items()
    }


def seen(*hosts: str, at: Adapter = ETH0, port: int | None = 4001) -> Sighting | None:
    return sighting(NODE, txt(), hosts, port, at=[at])


def hosts(found: Sighting | None) -> list[str]:
    return [host for host, _ in found.addresses] if found else []


def test_what_is_announced_is_what_is_seen() -> None:
    assert seen("192.0.2.7") == Sighting(NODE, "ab12", "1.2.3", "5eed", (("192.0.2.7", 4001),))


def test_the_longest_announcement_is_short() -> None:
    longest = properties(NODE, run="a" * 32, version="v" * 64, cluster="c" * 64)
    assert sum(len(f"{key}={value}") + 1 for key, value in longest.items()) < 400


@pytest.mark.parametrize(
    "wrong", [{"run": "x y"}, {"version": "1 0"}, {"cluster": "no hex"}, {"cluster": "c" * 65}]
)
def test_what_others_would_not_take_is_not_announced(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="cannot be announced"):
        properties(NODE, **{"run": "", "version": "1", "cluster": "", **wrong})


@pytest.mark.parametrize(
    "odd",
    [
        {"txtvers": "2"},
        {"txtvers": None},
        {"id": "f" * 32},
        {"id": None},
        {"ver": "1\n"},
        {"ver": "v" * 65},
        {"cluster": "../../etc"},
        {"run": "RUN"},
    ],
)
def test_odd_fields_are_no_sighting(odd: dict[str, str | None]) -> None:
    assert sighting(NODE, txt(**odd), ["192.0.2.7"], 4001, at=[ETH0]) is None


def test_fields_may_be_missing_or_new() -> None:
    found = sighting(
        NODE, txt(run=None, ver=None, cluster=None, new="1"), ["192.0.2.7"], 4001, at=[ETH0]
    )
    assert found == Sighting(NODE, "", "", "", (("192.0.2.7", 4001),))


def test_without_a_port_or_an_address_there_is_nothing_to_call() -> None:
    assert seen("192.0.2.7", port=0) is None
    assert seen("192.0.2.7", port=None) is None
    assert seen() is None


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "224.0.0.251", "ff02::fb", "255.255.255.255", "127.0.0.1", "::1"]
)
def test_addresses_that_nobody_has_are_left_out(host: str) -> None:
    assert seen(host) is None


def test_loopback_is_called_only_where_mdns_is_on_loopback() -> None:
    assert hosts(seen("127.0.0.1", at=LO)) == ["127.0.0.1"]


def test_link_local_addresses_need_the_link_on_which_they_were_heard() -> None:
    assert hosts(seen("fe80::7%2")) == ["fe80::7%eth0"]
    assert seen("fe80::7%9") is None
    assert seen("fe80::7") is None


def test_what_is_near_is_tried_first() -> None:
    found = seen("2001:db8::7", "10.0.0.7", "fe80::7%2", "192.0.2.7")
    assert hosts(found) == ["192.0.2.7", "fe80::7%eth0", "10.0.0.7", "2001:db8::7"]
    assert len(hosts(seen(*(f"10.0.0.{n}" for n in range(1, 100))))) == MOST_ADDRESSES


def test_the_order_of_arrival_does_not_matter() -> None:
    assert seen("192.0.2.8", "192.0.2.7") == seen("192.0.2.7", "192.0.2.8")


@pytest.mark.parametrize(
    "name",
    [
        f"x.{SERVICE}",
        f"{NODE.upper()}.{SERVICE}",
        f"{NODE}0.{SERVICE}",
        f"a.{NODE}.{SERVICE}",
        NODE,
    ],
)
def test_an_instance_that_is_no_node_id_is_nobody(name: str) -> None:
    assert node_of(name) is None
    assert node_of(f"{NODE}.{SERVICE}") == NODE


@given(
    st.dictionaries(
        st.sampled_from([b"txtvers", b"id", b"run", b"ver", b"cluster", b"x"]) | st.binary(),
        st.none() | st.binary() | st.sampled_from([b"1", NODE.encode()]),
    ),
    st.lists(st.ip_addresses().map(str)),
    st.none() | st.integers(0, 65535),
)
def test_anything_can_be_announced(
    said: dict[bytes, bytes | None], at_hosts: list[str], port: int | None
) -> None:
    found = sighting(NODE, said, at_hosts, port, at=[ETH0])
    assert found is None or (found.node == NODE and 0 < len(found.addresses) <= MOST_ADDRESSES)
