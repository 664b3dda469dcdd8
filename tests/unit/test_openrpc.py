"""The document by which the interface describes itself."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from container_manager import errors
from container_manager.api.openrpc import discovery
from container_manager.api.params import CreateParams, NoParams
from tests.unit.builders import Rooms, all_calls

METHODS = {
    *("ContainerService." + name for name in ("Create", "Status", "List", "Cancel", "Retry")),
    "ContainerService.Wait",
    *(
        f"{service}.{name}"
        for service in ("NetworkService", "VolumeService")
        for name in ("Create", "List", "Remove", "Prune")
    ),
    "rpc.discover",
}


@pytest.fixture
async def document(rooms: Rooms) -> dict[str, Any]:
    """As a caller gets it."""
    call = discovery(all_calls(rooms))
    found: dict[str, Any] = orjson.loads(orjson.dumps(await call.does(NoParams())))
    return found


def method(document: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [one for one in document["methods"] if one["name"] == name]
    return found


def test_every_method_is_described_and_the_description_itself(document: dict[str, Any]) -> None:
    assert {one["name"] for one in document["methods"]} == METHODS
    assert len(document["methods"]) == len(METHODS)
    assert all(one["summary"] for one in document["methods"])


def test_create_takes_each_field_of_its_model_and_needs_the_image(
    document: dict[str, Any],
) -> None:
    params = {one["name"]: one for one in method(document, "ContainerService.Create")["params"]}
    assert params.keys() == CreateParams.model_fields.keys()
    assert [name for name, param in params.items() if param["required"]] == ["image"]


def test_every_field_is_described(document: dict[str, Any]) -> None:
    assert all(param["description"] for one in document["methods"] for param in one["params"])


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    prefix = "#/components/schemas/"
    text = json.dumps(document)
    wanted = {part.partition('"')[0] for part in text.split(prefix)[1:]}
    assert wanted
    assert wanted <= document["components"]["schemas"].keys()
    assert "#/$defs/" not in text


def test_every_error_is_named_with_its_code(document: dict[str, Any]) -> None:
    told = {
        one["code"]: one["data"] for one in method(document, "ContainerService.Create")["errors"]
    }
    kinds = errors.ApplicationError.__subclasses__()
    assert told == {kind.code: kind.name for kind in kinds if kind.__module__ == errors.__name__}
    assert {-32001, -32002, -32007, -32009} <= told.keys()


def test_the_codes_are_those_that_programs_rely_on() -> None:
    kinds = errors.ApplicationError.__subclasses__()
    codes = {kind.name: kind.code for kind in kinds if kind.__module__ == errors.__name__}
    stable = {
        "job_not_found": -32001,
        "queue_full": -32002,
        "engine_unavailable": -32003,
        "conflict": -32007,
        "node_unreachable": -32008,
        "policy_denied": -32009,
        "network_not_found": -32011,
        "volume_not_found": -32012,
    }
    assert codes.items() >= stable.items()
