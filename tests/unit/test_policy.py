"""What no spec may ask for: it fails validation, and policy names the rule."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from container_manager.errors import PolicyDenied
from container_manager.spec import DENIED_FIELDS, Spec, check_policy
from tests.unit.builders import spec_fields
from tests.unit.spec_forms import CANARY, json_values, refused


@pytest.mark.parametrize(("field", "rule"), DENIED_FIELDS.items())
def test_what_is_denied_is_named_with_its_rule(field: str, rule: str) -> None:
    with pytest.raises(PolicyDenied) as denied:
        check_policy({"image": "nginx", field: [CANARY]})
    assert denied.value.data == {"name": "policy_denied", "field": field, "rule": rule}
    assert field in denied.value.message
    assert CANARY not in denied.value.message
    for unset in (False, None, "", [], {}, 0):
        check_policy({field: unset})
    refused(**{field: [CANARY]})


def test_the_privileges_of_docker_run_are_all_among_the_denied() -> None:
    asked = "privileged pid_mode ipc_mode userns_mode uts_mode devices binds mounts cap_add net"
    assert set(asked.split()) <= DENIED_FIELDS.keys()
    assert not DENIED_FIELDS.keys() & Spec.model_fields.keys()


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        *(
            ("network_mode", mode, "no host namespaces")
            for mode in ("host", "container:web", "container:", "ns:/proc/1/ns/net", "service:web")
        ),
        *(
            ("networks", networks, "no host namespaces")
            for networks in (
                ["host"],
                ["a", "host"],
                ["container:web"],
                [{"name": "host"}],
                [{"name": "ns:/x", "aliases": ["a"]}],
                {"host": None},
                {"a": None, "container:web": {"aliases": ["b"]}},
                "host",
            )
        ),
        *(
            ("volumes", volumes, "no host paths")
            for volumes in (
                ["/x:/y"],
                ["data:/data", "/x:/y:ro"],
                ["./x:/y"],
                ["../x:/y"],
                [".:/y"],
                ["..:/y"],
                ["~:/y"],
                ["~/x:/y"],
                ["x/y:/z"],
                ["C:\\x:/y"],
                ["c:/x:/y"],
                ["/:/"],
                [{"name": "/x", "target": "/y"}],
                [{"source": "/x", "target": "/y"}],
                [{"Type": "bind", "Source": "x", "Target": "/y"}],
                [{"type": "bind", "source": "./x", "target": "/y"}],
                [{"name": "data", "target": "/y", "type": "bind"}],
                [{"name": "data", "target": "/y", "driver_opts": {"device": "/"}}],
                [{"name": "data", "target": "/y", "VolumeOptions": {"DriverConfig": {}}, "o": "x"}],
                [{"name": "data", "target": "/y", "bind": {"propagation": "shared"}}],
                {"/x": {"bind": "/y", "mode": "rw"}},
                {"/x": {}},
            )
        ),
    ],
)
def test_values_that_are_denied_are_named_with_their_rule(
    field: str, value: Any, rule: str
) -> None:
    refused(**{field: value})
    with pytest.raises(PolicyDenied) as denied:
        check_policy({"image": "nginx", field: value})
    assert denied.value.data == {"name": "policy_denied", "field": field, "rule": rule}
    assert denied.value.message.startswith(f"{field} is denied: {rule}. ")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("volumes", ["/data"]),
        ("volumes", ["data"]),
        ("volumes", ["data:relative"]),
        ("volumes", [{"target": "/data"}]),
        ("volumes", [{"name": "data", "source": "data", "target": "/data"}]),
        ("volumes", "data:/data"),
        ("volumes", {"data": "/data"}),
        ("network_mode", "no such name"),
        ("network_mode", 1),
        ("networks", [1, None, [], {"name": 1}]),
        ("networks", [{"aliases": ["host"]}]),
    ],
)
def test_what_is_merely_wrong_is_not_called_denied(field: str, value: Any) -> None:
    refused(**{field: value})
    check_policy({"image": "nginx", field: value})


@given(spec_fields)
def test_a_spec_that_is_taken_asks_for_nothing_that_is_denied(fields: dict[str, Any]) -> None:
    Spec.model_validate(fields)
    check_policy(fields)


_hints = st.sampled_from(["host", "/x:/y", "container:a", "bind", "name", "type", "source", "a"])
_hostile = st.recursive(
    json_values | _hints,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_hints, inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(["volumes", "networks", "network_mode"]), _hostile)
def test_whatever_is_sent_what_is_denied_is_never_valid(field: str, value: Any) -> None:
    try:
        check_policy({field: value})
    except PolicyDenied:
        refused(**{field: value})
