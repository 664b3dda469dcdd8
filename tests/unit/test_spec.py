"""The spec: what a caller may say, and what is refused without repeating it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from container_manager.spec import MAX_SECONDS, Spec
from container_manager.store.jobs import encode_spec
from tests.unit.builders import spec_fields
from tests.unit.spec_forms import CANARY, accepted, json_values, places, refused, why


@pytest.mark.parametrize("name", ["web", "a1", "Web_1.x-y", "0a", "a" * 128])
def test_names_of_containers_are_taken(name: str) -> None:
    assert Spec(image="nginx", name=name).name == name


@pytest.mark.parametrize("name", ["", "a", "-a", "_a", ".a", "a b", "a/b", "a\n", "ä1", "a" * 129])
def test_what_is_no_containers_name_is_refused(name: str) -> None:
    assert places(refused(name=name)) == [("name",)]


@pytest.mark.parametrize(
    "fields",
    [
        {"env": {"": CANARY}},
        {"env": {"A=" + CANARY: CANARY}},
        {"env": {"A\0": CANARY}},
        {"env": {"A": CANARY + "\0"}},
        {"env": {"A": [CANARY]}},
        {"env": {"A": None, "B": CANARY}},
        {"env": CANARY},
        {"env": [CANARY]},
        {"env": {str(n): CANARY for n in range(4097)}},
        {"labels": {"": CANARY}},
        {"labels": {"io.container-manager.": CANARY}},
        {"labels": {"io.container-manager.job": CANARY}},
        {"labels": {"a": CANARY + "\0"}},
        {"labels": {"a": 1}},
        {"arguments": [CANARY + "\0"]},
        {"arguments": [1]},
        {"arguments": CANARY},
        {"arguments": [CANARY] * 4097},
        {"type": CANARY},
        {"pull": CANARY},
        {"name": CANARY + "/"},
        {"image": CANARY + "!"},
        {"retry": CANARY},
        {"deploy_timeout": CANARY},
        {"deploy_timeout": True},
        {"privileged": CANARY},
        {"ueser": CANARY},  # no such field
        {"entrypoint": [CANARY, 1]},
        {"user": CANARY + ":a:b"},
        {"working_dir": CANARY},
        {"user_data": CANARY * 5000},
        {"cpuset": CANARY},
        {"memory": CANARY},
        {"shm_size": {"a": CANARY}},
        {"hostname": CANARY + "!"},
        {"ports": [CANARY]},
        {"ports": ["80", {"container_port": CANARY}]},
        {"ports": ["80", {"container_port": 80, CANARY[:3]: CANARY}]},
        {"networks": [CANARY + "!"]},
        {"networks": {"a": {"aliases": CANARY}}},
        {"network_mode": CANARY + "/"},
        {"dns": [CANARY]},
        {"extra_hosts": [CANARY]},
        {"extra_hosts": {"a": CANARY}},
        {"links": [CANARY + ":" + CANARY + "!"]},
        {"volumes": [CANARY]},
        {"volumes": [CANARY + ":relative"]},
        {"tmpfs": [CANARY]},
        {"tmpfs": {"/run": CANARY}},
        {"platform": CANARY},
        {"credential": CANARY + "/"},
        {"healthcheck": {"interval": CANARY}},
        {"restart_policy": CANARY},
        {"restart_policy": "on-failure:" + CANARY},
        {"log_driver": CANARY},
        {"log_driver": {"name": "local", "options": {"max-size": CANARY}}},
        {"stop_signal": CANARY},
    ],
)
def test_a_refusal_names_the_field_and_never_what_it_held(fields: dict[str, Any]) -> None:
    error = refused(**fields)
    assert {place[0] for place in places(error)} == set(fields)


def test_a_field_that_there_is_not_is_refused_at_every_level() -> None:
    assert refused(imgae="nginx").errors()[0]["type"] == "extra_forbidden"
    assert places(refused(retry={"attempts": 3})) == [("retry", "attempts")]


@pytest.mark.parametrize(
    ("fields", "named"),
    [({"run_timeout": 5}, "run_timeout"), ({"retry": {"on_exit": True}}, "retry.on_exit")],
)
def test_what_is_for_batches_is_refused_for_services(fields: dict[str, Any], named: str) -> None:
    assert named in refused(**fields).errors()[0]["msg"]
    Spec.model_validate({"image": "nginx", "type": "batch", **fields})


NUMBERS = [
    *((field, 1e-3, MAX_SECONDS) for field in ("deploy_timeout", "run_timeout")),
    *(("retry." + field, 1e-3, MAX_SECONDS) for field in ("backoff", "max_backoff")),
    ("retry.max_attempts", 1, 100),
]


@pytest.mark.parametrize(("field", "low", "high"), NUMBERS)
def test_numbers_have_bounds_and_are_no_texts(field: str, low: float, high: float) -> None:
    outer, _, inner = field.rpartition(".")

    def fields(value: Any) -> dict[str, Any]:
        return {"type": "batch", **({outer: {inner: value}} if outer else {inner: value})}

    for value in (low, high):
        Spec.model_validate({"image": "nginx", **fields(value)})
    beyond = (0, -1, high * 2, 10**30, float("nan"), float("inf"), -float("inf"))
    for value in (*beyond, "3", "1.5", True, None if outer else [], [3]):
        assert places(refused(**fields(value))) == [tuple(field.split("."))], value


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"type": "batch", "restart_policy": "always"}, "retry"),
        ({"type": "batch", "restart_policy": "unless-stopped"}, "on_exit"),
        ({"remove_on_exit": True, "restart_policy": "on-failure"}, "restart_policy"),
        ({"remove_on_exit": True, "keep": 5}, "keep"),
        ({"networks": ["a"], "network_mode": "bridge"}, "networks"),
        ({"links": ["db"]}, "networks"),
        ({"links": ["db"], "networks": ["bridge", "a"]}, "networks"),
        ({"links": ["db"], "network_mode": "a"}, "networks"),
        ({"volumes": ["data:/a"], "tmpfs": ["/a/"]}, "tmpfs"),
    ],
)
def test_what_does_not_go_together_is_refused(fields: dict[str, Any], named: str) -> None:
    assert places(refused(**fields)) == [()]
    assert named in why(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "batch", "restart_policy": "on-failure:3"},
        {"type": "batch", "restart_policy": "no"},
        {"remove_on_exit": True, "restart_policy": "no"},
        {"remove_on_exit": False, "keep": 5},
        {"networks": [], "network_mode": "bridge"},
        {"links": [], "network_mode": "bridge"},
        {"links": ["db"], "networks": ["a", "bridge"]},
        {"volumes": ["data:/a"], "tmpfs": ["/a/b"]},
    ],
)
def test_what_only_seems_not_to_go_together_is_taken(fields: dict[str, Any]) -> None:
    accepted(**fields)


def test_resources_are_taken_within_their_bounds() -> None:
    for field, right in (
        ("cpus", (0.01, 1, 2.5, 8192)),
        ("cpuset", ("0", "0-3", "1,3,5-7", "8191")),
        ("pids", (1, 4_194_304)),
        ("stop_timeout", (0, 3600)),
        ("keep", (0, 0.5, MAX_SECONDS)),
    ):
        for value in right:
            assert getattr(accepted(**{field: value}), field) == value
    for field, wrong in (
        ("cpus", (0, 0.009, -1, 8193, float("nan"), float("inf"), "1", True)),
        ("cpuset", ("", "a", "-1", "3-1", "0-", "0,", "0 1", "8192", "0-3,", "٣", 0)),
        ("pids", (0, -1, 4_194_305, 1.5, "1", True)),
        ("stop_timeout", (-1, 3601, 1.5, "1", True)),
        ("keep", (-1, MAX_SECONDS + 1, float("nan"), "1", True)),
    ):
        for value in wrong:
            assert places(refused(**{field: value})) == [(field,)], (field, value)


@pytest.mark.parametrize(
    ("field", "right", "wrong"),
    [
        (
            "platform",
            ["linux/amd64", "linux/arm64/v8"],
            ["linux", "", "linux/", "Linux/ARM", "a b/c"],
        ),
        ("credential", ["hub", "a", "A_1.b-c", "x" * 128], ["", "a/b", "a b", "x" * 129, "ä"]),
    ],
)
def test_names_for_the_pull_are_checked(field: str, right: list[str], wrong: list[str]) -> None:
    for value in right:
        assert getattr(accepted(**{field: value}), field) == value
    for value in wrong:
        assert places(refused(**{field: value})) == [(field,)], value


def test_user_data_is_any_json_up_to_its_size() -> None:
    assert accepted(user_data=None).user_data is None
    for value in ("x" * (64 * 1024 - 2), {"a": [1, 2.5, None, {"b": False}]}, 0, "", [], {}):
        assert accepted(user_data=value).user_data == value
    assert places(refused(user_data="x" * (64 * 1024 - 1))) == [("user_data",)]
    assert places(refused(user_data=["é" * (32 * 1024)])) == [("user_data",)]


@given(json_values)
def test_user_data_is_read_back_as_it_was_said(value: Any) -> None:
    spec = Spec(image="nginx", user_data=value)
    assert spec.user_data == value
    assert Spec.model_validate_json(encode_spec(spec)).user_data == value


@given(spec_fields)
def test_a_spec_is_read_back_from_the_store_as_it_was(fields: dict[str, Any]) -> None:
    spec = Spec.model_validate(fields)
    stored = encode_spec(spec)
    without_env = spec.model_copy(update={"env": {}})
    assert Spec.model_validate_json(stored) == without_env
    # As a caller would write it, who had read it there.
    again = Spec.model_validate(orjson.loads(stored))
    assert again == without_env
    # What was not said is not kept, so that a default can change with the program.
    assert orjson.loads(stored).keys() == fields.keys() - {"env"}
    assert orjson.loads(encode_spec(again)) == orjson.loads(stored)


@given(spec_fields, st.sampled_from(["env", "labels", "arguments", "name", "type", "pull"]))
def test_a_spec_says_what_its_caller_said_and_cannot_be_changed(
    fields: dict[str, Any], field: str
) -> None:
    spec = Spec.model_validate(fields)
    if field in fields:
        assert getattr(spec, field) == fields[field]
    with pytest.raises(ValidationError):
        setattr(spec, field, getattr(spec, field))
    for name in Spec.model_fields:
        assert not isinstance(getattr(spec, name), list) or name in ("arguments", "user_data")
