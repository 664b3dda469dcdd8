"""Networks, links, and how hosts are called."""

from __future__ import annotations

from typing import Any

import pytest

from container_manager.spec.networks import Network
from tests.unit.spec_forms import accepted, places, refused, why

BACKEND = Network(name="backend")
NAMED = Network(name="backend", aliases=("web", "www.internal"))


@pytest.mark.parametrize(
    ("form", "networks"),
    [
        (["backend"], [BACKEND]),
        ([{"name": "backend"}], [BACKEND]),
        ({"backend": None}, [BACKEND]),
        ({"backend": {}}, [BACKEND]),
        ([{"name": "backend", "aliases": ["web", "www.internal"]}], [NAMED]),
        ({"backend": {"aliases": ["web", "www.internal"]}}, [NAMED]),
        (["backend", "bridge"], [BACKEND, Network(name="bridge")]),
        (["n", "project_default"], [Network(name="n"), Network(name="project_default")]),
        ([], []),
        ({}, []),
    ],
)
def test_networks_are_taken_in_every_form(form: Any, networks: list[Network]) -> None:
    assert accepted(networks=form).networks == tuple(networks)


@pytest.mark.parametrize(
    ("form", "place"),
    [
        ("backend", ()),
        (None, ()),
        (["a", "a"], ()),
        (["a", ""], (1, "name")),
        (["a", "-b"], (1, "name")),
        (["a", "b c"], (1, "name")),
        (["a", "x" * 129], (1, "name")),
        (["a", "0123456789ab"], (1, "name")),  # an id
        (["a", "0f" * 32], (1, "name")),
        (["a", "none"], (1, "name")),
        (["a", "default"], (1, "name")),
        (["host"], (0, "name")),
        (["container:web"], (0, "name")),
        ({"host": None}, ("host", "name")),
        ([{"name": "a", "aliases": "web"}], (0, "aliases")),
        ([{"name": "a", "aliases": ["b", "we b"]}], (0, "aliases", 1)),
        ([{"name": "a", "ipv4_address": "10.0.0.9"}], (0, "ipv4_address")),
        ({"a": {"name": "b"}}, ("a", "name")),
        ({"a": ["web"]}, ("a",)),
        ([{"name": "bridge", "aliases": ["web"]}], ()),
        ([f"n{number}" for number in range(65)], ()),
    ],
)
def test_what_is_no_network_is_refused_with_its_place(form: Any, place: tuple[Any, ...]) -> None:
    assert places(refused(networks=form)) == [("networks", *place)]


def test_modes_are_taken_and_names_that_are_modes_point_there() -> None:
    for mode in ("bridge", "none", "default", "backend"):
        assert accepted(network_mode=mode).network_mode == mode
    for mode in ("", "host", "container:web", "ns:/x", "a b", "x" * 129, "0f" * 32, 1, ["a"]):
        assert places(refused(network_mode=mode)) == [("network_mode",)]
    assert 'write "network_mode": "none"' in why(networks=["none"])
    assert "bridge" in why(networks=[{"name": "bridge", "aliases": ["web"]}])


def test_links_are_names_on_the_first_network() -> None:
    spec = accepted(networks=["backend"], links=["db", "cache:redis", "odd."])
    assert spec.links == ("db:db", "cache:redis", "odd.:odd.")
    assert "networks" in why(links=["db"])
    for link in ("", ":a", "a b", "db:", "db:a:b", "db:a b", "x", "/db", 1, None):
        assert places(refused(networks=["backend"], links=["web", link])) == [("links", 1)]


@pytest.mark.parametrize("field", ["hostname", "domainname"])
def test_hosts_are_called_as_linux_lets_them(field: str) -> None:
    for name in ("web", "web-1", "w", "a.b.c", "under_score", "x" * 64):
        assert getattr(accepted(**{field: name}), field) == name
    for name in ("", "-web", "web-", ".web", "web.", "w b", "x" * 65, "wéb", "web\n", "a/b", 1):
        assert places(refused(**{field: name})) == [(field,)]


def test_name_servers_are_addresses() -> None:
    assert accepted(dns=["10.0.0.2", "2001:DB8::0:1"]).dns == ("10.0.0.2", "2001:db8::1")
    for address in ("dns.internal", "10.0.0", "10.0.0.256", "fe80::1%eth0", "", 1):
        assert places(refused(dns=["10.0.0.2", address])) == [("dns", 1)]
    assert places(refused(dns="10.0.0.2")) == [("dns",)]


@pytest.mark.parametrize(
    ("form", "hosts"),
    [
        (["db:10.0.0.9"], ["db:10.0.0.9"]),
        (["db=10.0.0.9"], ["db:10.0.0.9"]),
        (["db:::1", "db:[::1]", "db=[::1]"], ["db:::1"] * 3),
        ({"db": "10.0.0.9", "me": "host-gateway"}, ["db:10.0.0.9", "me:host-gateway"]),
        ({"db": ["10.0.0.9", "::1"]}, ["db:10.0.0.9", "db:::1"]),
        ([], []),
    ],
)
def test_extra_hosts_are_taken_as_docker_takes_them(form: Any, hosts: list[str]) -> None:
    assert accepted(extra_hosts=form).extra_hosts == tuple(hosts)


@pytest.mark.parametrize(
    "form",
    [
        *("db:10.0.0.9", ["db"], ["db:"], [":10.0.0.9"], ["db:host"], ["d b:10.0.0.9"], [1]),
        *({"db": None}, {"db": 1}, {"": "10.0.0.9"}, {"db": [1]}, {"db": "gateway"}, None),
        *(["db:10.0.0.9 other"], ["db:10.0.0.9\nevil 10.0.0.1"], ["d\nb:10.0.0.9"]),
    ],
)
def test_what_is_no_host_is_refused(form: Any) -> None:
    assert places(refused(extra_hosts=form))[0][0] == "extra_hosts"
