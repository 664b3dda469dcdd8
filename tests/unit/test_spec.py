"""The spec: what a caller may say, and what is refused without repeating it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from pydantic import ValidationError

from container_manager.errors import PolicyDenied
from container_manager.spec import DENIED_FIELDS, MAX_SECONDS, Spec, check_policy
from tests.unit.builders import CANARY, spec_fields

DIGEST = "sha256:" + "0123456789abcdef" * 4


def refused(**fields: Any) -> ValidationError:
    """The refusal of these fields; what was sent is not in it."""
    with pytest.raises(ValidationError) as refusal:
        Spec.model_validate({"image": "nginx", **fields})
    assert CANARY not in str(refusal.value)
    assert CANARY not in repr(refusal.value.errors(include_input=False, include_context=False))
    return refusal.value


def places(error: ValidationError) -> list[tuple[int | str, ...]]:
    return [one["loc"] for one in error.errors()]


@pytest.mark.parametrize(
    "image",
    [
        "nginx",
        "nginx:1.25",
        "library/nginx",
        "docker.io/library/nginx:1.25",
        "localhost:5000/a/b@" + DIGEST,
        "localhost:5000/a/b:tag@" + DIGEST,
        "[::1]:5000/x",
        "[2001:db8::1]/x",
        "Registry.Example.com/x",
        "a.b__c--d/e-f_g",
        "nginx:_Tag.with-All_1",
        "nginx:" + "t" * 128,
        DIGEST,  # an image's id
    ],
)
def test_image_references_of_dockers_grammar_are_taken(image: str) -> None:
    assert Spec(image=image).image == image


@pytest.mark.parametrize(
    "image",
    [
        "",
        " nginx",
        "nginx\n",
        "Nginx",
        "docker.io/library/Nginx",
        "nginx:",
        "nginx:-tag",
        "nginx:" + "t" * 129,
        "nginx@sha256:0123",
        "nginx@",
        "/nginx",
        "nginx/",
        "a//b",
        "-nginx",
        "nginx-",
        "a..b",
        "a___b",
        "[::1/x",
        "localhost:port/x",
        "http://nginx",
        "nginx;rm",
        "nginx:1 --privileged",
        "ngïnx",
        "x" * 513,
        "a-./b",
        "a..b/c",
        "a-/c",
    ],
)
def test_what_is_no_image_reference_is_refused(image: str) -> None:
    assert places(refused(image=image)) == [("image",)]


@pytest.mark.parametrize(
    "image",
    [
        "a" * 512 + "!",
        "a" * 511 + "!",
        "a-" * 255 + "!",
        "a/" * 255 + "!",
        "a__" * 170 + "!",
        "a" + "-" * 509 + "!",
        "a.b" * 170 + ":",
        "a" * 255 + ":5/" + "a_" * 126,
        "[" + ":" * 510,
        "a/" * 100 + "a@" + "a+" * 150,
    ],
)
def test_no_name_makes_the_check_slow(image: str) -> None:
    begun = time.process_time()
    refused(image=image)
    assert time.process_time() - begun < 0.05


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
        {"user": CANARY},  # no such field
    ],
)
def test_a_refusal_names_the_field_and_never_what_it_held(fields: dict[str, Any]) -> None:
    error = refused(**fields)
    assert {place[0] for place in places(error)} == set(fields)


def test_a_field_that_there_is_not_is_refused_at_every_level() -> None:
    assert refused(imgae="nginx").errors()[0]["type"] == "extra_forbidden"
    assert places(refused(retry={"attempts": 3})) == [("retry", "attempts")]


@pytest.mark.parametrize(("field", "rule"), DENIED_FIELDS.items())
def test_what_is_denied_is_named_with_its_rule(field: str, rule: str) -> None:
    with pytest.raises(PolicyDenied) as denied:
        check_policy({"image": "nginx", field: [CANARY]})
    assert denied.value.data == {"name": "policy_denied", "field": field, "rule": rule}
    assert field in denied.value.message
    assert CANARY not in denied.value.message
    for unset in (False, None, "", [], {}, 0):
        check_policy({field: unset})


def test_the_privileges_of_docker_run_are_all_among_the_denied() -> None:
    asked = "privileged pid_mode ipc_mode network_mode devices binds mounts volumes cap_add"
    assert set(asked.split()) <= DENIED_FIELDS.keys()
    assert not DENIED_FIELDS.keys() & Spec.model_fields.keys()


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


@given(spec_fields)
def test_a_spec_says_what_its_caller_said_and_cannot_be_changed(fields: dict[str, Any]) -> None:
    spec = Spec.model_validate(fields)
    said = spec.model_dump(exclude_unset=True)
    assert said == fields
    with pytest.raises(ValidationError):
        spec.image = "other"  # type: ignore[misc]
