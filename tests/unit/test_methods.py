"""The calls: their params in both forms, what they refuse, and what they answer."""

from __future__ import annotations

import json
from typing import Any, Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from container_manager.api.dispatch import Dispatcher
from container_manager.api.params import CreateParams
from container_manager.job import Phase
from container_manager.spec import Spec
from container_manager.store.jobs import encode_spec
from tests.unit.builders import (
    CANARY,
    NODE,
    NOW,
    Clock,
    Rooms,
    container,
    service,
    spec_fields,
)


class Ask(Protocol):
    """Calls a method and gives its result or its error."""

    async def __call__(self, method: str, params: Any) -> dict[str, Any]: ...


@pytest.fixture
async def ask(rooms: Rooms) -> Ask:
    methods = {call.name: call.method() for call in service(rooms).calls()}
    dispatcher = Dispatcher(methods, lambda *_: None)

    async def call(method: str, params: Any) -> dict[str, Any]:
        request = {"jsonrpc": "2.0", "method": f"ContainerService.{method}", "id": 1}
        answer = await dispatcher.handle(json.dumps({**request, "params": params}).encode(), None)
        assert answer is not None
        found = json.loads(answer)
        value: dict[str, Any] = found["result"] if "result" in found else found["error"]
        return value

    return call


async def test_one_positional_object_and_named_members_are_the_same(ask: Ask) -> None:
    made = await ask("Create", [{"image": "nginx", "arguments": [], "env": {}}])
    assert made["message"] == "Job created successfully"
    assert made["status"] == "pending"
    assert made == await ask("Create", {"image": "nginx", "idempotency_key": "k"}) | {
        "job_id": made["job_id"]
    }
    job = {"job_id": made["job_id"]}
    assert await ask("Status", [job]) == await ask("Status", job)


@pytest.mark.parametrize("params", [[{}, {}], [{"image": "nginx"}, {}], ["nginx"], [None], [[]]])
async def test_other_positional_params_are_refused(ask: Ask, params: list[Any]) -> None:
    error = await ask("Create", params)
    assert error["code"] == -32602
    assert error["data"] == {"name": "invalid_params", "errors": []}


@pytest.mark.parametrize("params", [[], {}, [{}]])
async def test_params_that_are_left_out_lack_what_is_required(ask: Ask, params: Any) -> None:
    (error,) = (await ask("Create", params))["data"]["errors"]
    assert error["loc"] == ["image"]
    assert error["type"] == "missing"


@pytest.mark.parametrize(
    ("params", "places"),
    [
        ({"image": CANARY + "!"}, [["image"]]),
        ({"image": "nginx", "env": {"A": [CANARY]}}, [["env", "A"]]),
        ({"image": "nginx", "env": {CANARY + "=": CANARY}}, [["env"]]),
        ({"image": "nginx", "retry": {"backoff": CANARY}}, [["retry", "backoff"]]),
        ({"image": "nginx", "run_timeout": 3, "env": {"A": CANARY}}, [[]]),
        ({"image": "nginx", "imgae": CANARY}, [["imgae"]]),
        ({"image": 1, "type": CANARY, "pull": CANARY}, [["image"], ["type"], ["pull"]]),
        ({"image": "nginx", "idempotency_key": ""}, [["idempotency_key"]]),
        ({"image": "nginx", "self": CANARY, "context": CANARY}, [["self"], ["context"]]),
    ],
)
async def test_a_refusal_lists_place_words_and_type_and_no_value(
    ask: Ask, params: dict[str, Any], places: list[list[str]]
) -> None:
    error = await ask("Create", params)
    assert error["code"] == -32602
    assert error["message"].startswith("Invalid params: ")
    assert error["data"]["name"] == "invalid_params"
    assert [one["loc"] for one in error["data"]["errors"]] == places
    assert all(one.keys() == {"loc", "msg", "type"} for one in error["data"]["errors"])
    assert all(one["msg"] and one["type"] for one in error["data"]["errors"])
    assert CANARY not in json.dumps(error)


async def test_what_is_denied_is_named_before_what_is_wrong(ask: Ask) -> None:
    error = await ask("Create", {"image": 1, "privileged": True})
    assert (error["code"], error["data"]["name"]) == (-32009, "policy_denied")
    assert error["data"]["rule"] == "no privileged containers"
    unset = await ask("Create", {"image": "nginx", "privileged": False})
    assert unset["code"] == -32602


@given(spec_fields, st.text(min_size=1, max_size=9))
def test_what_is_kept_of_the_params_of_create_is_the_spec_of_the_same_fields(
    fields: dict[str, Any], key: str
) -> None:
    params = CreateParams.model_validate({**fields, "idempotency_key": key})
    kept = encode_spec(params)
    assert kept == encode_spec(Spec.model_validate(fields))
    without_env = {name: value for name, value in fields.items() if name != "env"}
    assert Spec.model_validate_json(kept) == Spec.model_validate(without_env)


async def test_the_status_of_a_job_says_all_and_shows_no_environment(
    ask: Ask, rooms: Rooms, clock: Clock
) -> None:
    params = {"image": "nginx", "env": {"PASSWORD": CANARY}, "labels": {"team": "a"}}
    job_id = (await ask("Create", params))["job_id"]
    clock.advance(1.5)
    await rooms.ledger.change(job_id, lambda j: j.claimed(clock()))
    seen = container("running", exit_code=None, seen_at=NOW)
    await rooms.ledger.change(job_id, lambda j: j.entered(Phase.STARTING, clock(), seen))
    view = await ask("Status", {"job_id": job_id})
    assert CANARY not in json.dumps(view)
    assert (view["status"], view["phase"], view["attempts"]) == ("running", "starting", 1)
    assert (view["image"], view["labels"], view["node"]) == ("nginx", {"team": "a"}, NODE)
    assert view["reason"].startswith("waiting for the container engine")
    assert view["container"]["state"] == "running"
    assert view["created_at"] == "2030-03-17T17:46:40.000000Z"
    assert view["updated_at"] == "2030-03-17T17:46:41.500000Z"
    assert [one["status"] for one in view["history"]] == ["pending", "running", "running"]


@pytest.mark.parametrize("method", ["Status", "Cancel", "Retry", "Wait"])
@pytest.mark.parametrize("job_id", ["", "x", "01ba60d3-3800-7000-a117-c343e06ae86f"])
async def test_a_job_that_there_is_not_is_not_found(ask: Ask, method: str, job_id: str) -> None:
    error = await ask(method, {"job_id": job_id})
    assert (error["code"], error["data"]["name"]) == (-32001, "job_not_found")


@pytest.mark.parametrize("spelling", ["%s", "{%s}", "urn:uuid:%s"])
@pytest.mark.parametrize("upper", [False, True])
async def test_an_id_means_the_same_job_in_every_call(ask: Ask, spelling: str, upper: bool) -> None:
    job_id = (await ask("Create", {"image": "nginx"}))["job_id"]
    job = {"job_id": spelling % (job_id.upper() if upper else job_id)}
    found = [await ask(method, job) for method in ("Status", "Cancel", "Retry")]
    found.append(await ask("Wait", {**job, "timeout": 0}))
    # Either all know it or, for a spelling that is not taken, none does.
    assert {one.get("job_id") for one in found} in ({job_id}, {None})
    assert {one.get("code") for one in found} in ({None}, {-32001})


async def test_cancel_retry_and_wait_answer_with_the_job(ask: Ask) -> None:
    job = {"job_id": (await ask("Create", {"image": "nginx"}))["job_id"]}
    waited = await ask("Wait", {**job, "timeout": 0})
    assert (waited["status"], waited["timed_out"]) == ("pending", True)
    assert (await ask("Cancel", job))["status"] == "cancelled"
    assert (await ask("Cancel", job))["status"] == "cancelled"
    waited = await ask("Wait", job)
    assert (waited["status"], waited["timed_out"]) == ("cancelled", False)
    assert (await ask("Retry", job))["status"] == "pending"
    assert (await ask("Retry", job))["data"] == {"name": "conflict", "status": "pending"}


async def test_list_filters_by_status_label_and_time(ask: Ask, clock: Clock) -> None:
    ids = []
    for labels in ({"a": "1"}, {"a": "2", "b": ""}, {}):
        ids.append((await ask("Create", {"image": "nginx", "labels": labels}))["job_id"])
        clock.advance(1)
    await ask("Cancel", {"job_id": ids[0]})

    async def listed(**params: Any) -> list[int]:
        answer = await ask("List", params)
        return [ids.index(job["job_id"]) for job in answer["jobs"]]

    assert await listed() == [2, 1, 0]
    assert await listed(status="cancelled") == [0]
    assert await listed(status=["cancelled", "pending"]) == [2, 1, 0]
    assert await listed(status="lost") == []
    assert await listed(label="a") == [1, 0]
    assert await listed(label="a=1") == [0]
    assert await listed(label=["a", "b="]) == [1]
    assert await listed(since="2030-03-17T17:46:41Z") == [2, 1]
    assert await listed(since="2030-03-17T19:46:41.000001+02:00") == [2]


@pytest.mark.parametrize(
    ("since", "number"),
    [
        ("0001-01-01T00:00:00+23:59", 1),
        ("1960-01-01T00:00:00Z", 1),
        ("1970-01-01T00:00:00Z", 1),
        ("9999-12-31T23:59:59.999999-23:59", 0),
    ],
)
async def test_list_takes_every_time_that_can_be_written(ask: Ask, since: str, number: int) -> None:
    await ask("Create", {"image": "nginx"})
    assert len((await ask("List", {"since": since}))["jobs"]) == number


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("status", CANARY),
        ("status", ["pending", CANARY]),
        ("since", CANARY),
        ("since", "2030-01-31T12:00:00"),
        ("limit", 0),
        ("limit", 1001),
        ("limit", "5"),
        ("cursor", CANARY),
        ("label", [1]),
    ],
)
async def test_list_refuses_what_it_cannot_filter_by(ask: Ask, field: str, value: Any) -> None:
    error = await ask("List", {field: value})
    assert error["code"] == -32602
    assert {one["loc"][0] for one in error["data"]["errors"]} == {field}
    assert CANARY not in json.dumps(error)


@pytest.mark.parametrize("timeout", [-1, 3601, "1", None, True])
async def test_wait_refuses_a_timeout_out_of_its_bounds(ask: Ask, timeout: Any) -> None:
    error = await ask("Wait", {"job_id": "x", "timeout": timeout})
    assert error["code"] == -32602
