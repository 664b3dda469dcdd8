"""The choice of network interfaces for mDNS."""

from __future__ import annotations

from ipaddress import ip_interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from container_manager.cluster.interfaces import (
    Adapter,
    UnknownInterface,
    choose,
    look,
    require,
    senders,
)

LINK_LOCAL = "fe80::1/64"


def adapter(
    name: str, *addresses: str, index: int = 2, ready: bool = True, multicast: bool = True
) -> Adapter:
    return Adapter(name, index, tuple(map(ip_interface, addresses)), ready, multicast)


LO = adapter("lo", "127.0.0.1/8", "::1/128", index=1, multicast=False)
ETH0 = adapter("eth0", "192.0.2.2/24", LINK_LOCAL, "2001:db8::2/64")
WLAN0 = adapter("wlan0", "198.51.100.2/24", index=3)
DOCKER0 = adapter("docker0", "172.17.0.1/16", index=4)


def names(*adapters: Adapter, only: tuple[str, ...] = ()) -> list[str]:
    return [one.name for one in choose(adapters, only)]


@pytest.mark.parametrize(
    "name", ["docker0", "br-0123456789ab", "veth12ab", "virbr0", "vnet3", "podman1", "cali1a2b"]
)
def test_what_leads_to_guests_is_for_want_of_better(name: str) -> None:
    guests = adapter(name, "172.18.0.1/16", index=9)
    assert names(LO, guests, ETH0) == ["eth0"]
    assert names(LO, guests) == [name]


@pytest.mark.parametrize("name", ["eth0", "enp3s0", "br0", "br-lan", "bond0", "eth0.100", "tun0"])
def test_what_leads_outside_is_used(name: str) -> None:
    assert names(LO, DOCKER0, adapter(name, "192.0.2.2/24", index=9)) == [name]


def test_all_that_lead_outside_are_used() -> None:
    assert names(LO, ETH0, DOCKER0, WLAN0) == ["eth0", "wlan0"]


@pytest.mark.parametrize(
    "useless",
    [
        adapter("eth0"),
        adapter("eth0", "192.0.2.2/24", ready=False),
        adapter("wg0", "192.0.2.2/24", multicast=False),
    ],
)
def test_loopback_is_used_where_there_is_nothing_else(useless: Adapter) -> None:
    assert names(LO, useless) == ["lo"]
    assert names(useless) == []


def test_named_interfaces_are_used_whatever_they_are() -> None:
    assert names(LO, ETH0, DOCKER0, only=("docker0",)) == ["docker0"]
    assert names(LO, ETH0, only=("lo", "eth0")) == ["lo", "eth0"]
    assert names(ETH0, adapter("wg0", "192.0.2.2/24", multicast=False), only=("wg0",)) == ["wg0"]
    # One that is named and not ready is waited for; no other takes its place.
    assert names(LO, ETH0, adapter("eth1", index=3), only=("eth1",)) == []
    assert names(LO, ETH0, only=("eth1",)) == []


def test_each_interface_sends_once_for_each_family() -> None:
    many = adapter(
        "eth0", "192.0.2.2/24", "192.0.2.3/24", LINK_LOCAL, "2001:db8::2/64", "2001:db8::3/64"
    )
    assert senders([many], [LO, many]) == ["192.0.2.2", "fe80::1"]
    assert senders([LO], [LO, many]) == ["127.0.0.1"]


def test_a_link_local_address_of_two_interfaces_is_told_apart_by_the_index() -> None:
    one, other = adapter("v1", LINK_LOCAL, index=5), adapter("v2", LINK_LOCAL, index=6)
    assert senders([one, other], [one, other]) == [5, 6]
    better = adapter("v2", LINK_LOCAL, "2001:db8::2/64", index=6)
    assert senders([better], [one, better]) == ["2001:db8::2"]


@given(
    st.lists(
        st.builds(
            adapter,
            st.sampled_from(["lo", "eth0", "eth1", "docker0", "veth1", "wg0"]),
            st.sampled_from(["192.0.2.2/24", "127.0.0.1/8", LINK_LOCAL]),
            ready=st.booleans(),
            multicast=st.booleans(),
        ),
        unique_by=lambda one: one.name,
    ),
    st.lists(st.sampled_from(["eth0", "docker0", "lo"]), unique=True),
)
def test_what_is_chosen_is_there_and_can_send(adapters: list[Adapter], only: list[str]) -> None:
    chosen = choose(adapters, only)
    assert set(chosen) <= set(adapters)
    assert all(one.ready and one.hosts for one in chosen)
    assert len(senders(chosen, adapters)) >= len(chosen)
    if only:
        assert {one.name for one in chosen} <= set(only)
    elif any(one.name == "lo" and one.ready and one.hosts for one in adapters):
        assert chosen


def test_a_look_at_this_machine() -> None:
    found = {one.name: one for one in look()}
    assert found["lo"].loopback
    assert [str(one) for one in found["lo"].hosts] == ["127.0.0.1/8"]
    assert found["lo"].ready
    assert not found["lo"].multicast
    assert look() == look()


def test_an_interface_that_does_not_exist_is_named_with_those_that_do() -> None:
    require([])
    require(["lo"])
    with pytest.raises(UnknownInterface, match=r"--mdns-interface: .*'nope7'.*lo"):
        require(["lo", "nope7"])
