"""The JSON schema of Create: it describes what is taken, and not much else."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from jsonschema import Draft202012Validator

from container_manager.api.params import CreateParams
from tests.unit.builders import spec_fields
from tests.unit.spec_forms import accepted, refused

SCHEMA = CreateParams.model_json_schema()
VALIDATOR = Draft202012Validator(SCHEMA)


def fits(fields: dict[str, Any]) -> bool:
    # By way of JSON, as callers send it.
    return VALIDATOR.is_valid(orjson.loads(orjson.dumps(fields)))


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@given(spec_fields)
def test_what_is_taken_fits_the_schema(fields: dict[str, Any]) -> None:
    assert fits(fields), [error.message for error in VALIDATOR.iter_errors(fields)]


@pytest.mark.parametrize(
    "fields",
    [
        *({"ports": ports} for ports in (["8080:80"], [80], [{"container_port": 80}])),
        *({"networks": networks} for networks in (["a"], {"a": None}, {"a": {"aliases": ["b"]}})),
        {"networks": [{"name": "a", "aliases": ["b"]}]},
        *({"volumes": volumes} for volumes in (["a1:/b"], [{"name": "a1", "target": "/b"}])),
        *({"tmpfs": tmpfs} for tmpfs in (["/a"], {"/a": "ro"}, {"/a": None}, [{"target": "/a"}])),
        *({"extra_hosts": hosts} for hosts in (["a:::1"], {"a": "::1"}, {"a": ["::1"]})),
        *({"memory": memory} for memory in (6291456, "512m", "1.5 GiB")),
        *({"entrypoint": entrypoint} for entrypoint in ("", "sh", ["sh", "-c"])),
        *({"stop_signal": signal} for signal in (9, "SIGTERM")),
        *({"restart_policy": policy} for policy in ("always", "on-failure:3", {"name": "no"})),
        *({"log_driver": driver} for driver in ("local", {"name": "none"})),
        *({"healthcheck": {"test": test}} for test in ("true", ["CMD", "true"], ["NONE"])),
        *({"user_data": value} for value in (None, 1, "a", [], {"a": {}})),
    ],
)
def test_every_form_that_is_taken_fits_the_schema(fields: dict[str, Any]) -> None:
    accepted(**fields)
    assert fits({"image": "nginx", **fields})


@pytest.mark.parametrize(
    "fields",
    [
        *({"ports": ports} for ports in ("80", [80.5], [{"host_port": 80}], [None], {"80": None})),
        *({"networks": networks} for networks in ("a", [1], {"a": []}, [{"aliases": []}])),
        *({"volumes": volumes} for volumes in ("a1:/b", [{"name": "a1"}], [1], {"a": "/b"})),
        *({"tmpfs": tmpfs} for tmpfs in ("/a", [1], {"/a": 1}, [{"options": "ro"}])),
        *({"extra_hosts": hosts} for hosts in ("a:::1", [1], {"a": 1})),
        *({"memory": memory} for memory in (0, -1, "much", 1.5, True, [])),
        *({"entrypoint": entrypoint} for entrypoint in (1, [1], {})),
        *({"restart_policy": policy} for policy in (1, {"name": "never"}, {"maximum_retry": 1})),
        *({"log_driver": driver} for driver in ("syslog", {"name": "syslog"}, 1)),
        *({"healthcheck": check} for check in ("true", {"test": 1}, {"retries": 0}, {"cmd": "a"})),
        *({"cpus": 0}, {"cpus": "1"}, {"pids": 0}, {"keep": -1}, {"init": 1}, {"read_only": None}),
        *({"dns": "1.1.1.1"}, {"links": "a"}, {"privileged": True}, {"image": None}),
    ],
)
def test_what_is_of_another_shape_does_not_fit_the_schema(fields: dict[str, Any]) -> None:
    refused(**fields)
    assert not fits({"image": "nginx", **fields})


def test_every_field_is_described_at_every_level() -> None:
    objects = [SCHEMA, *SCHEMA["$defs"].values()]
    described = [
        (one["title"], name, "description" in field or "$ref" in field)
        for one in objects
        for name, field in one.get("properties", {}).items()
    ]
    assert {name for name, *_ in described} >= {"CreateParams", "Port", "Volume", "Network"}
    assert all(has for *_, has in described), described
