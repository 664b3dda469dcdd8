"""Dispatching: the examples of the JSON-RPC 2.0 specification, section 7, and our own limits."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from container_manager.api.dispatch import Dispatcher, guarded
from container_manager.api.envelope import MAX_BATCH
from container_manager.errors import Conflict
from tests.unit.builders import CANARY


class Examples:
    """A dispatcher with the methods that the specification's examples call."""

    def __init__(self) -> None:
        self.notified: list[tuple[str, tuple[Any, ...]]] = []
        self.observed: list[tuple[str, int]] = []
        names = ("subtract", "update", "sum", "get_data", "notify_hello", "notify_sum")
        methods = {name: guarded(getattr(self, name)) for name in (*names, "fail", "refuse")}
        self._dispatcher = Dispatcher(methods, lambda *call: self.observed.append(call))

    async def handle(self, body: str | bytes) -> Any:
        """The answer as a JSON value, or None where there is none."""
        answer = await self._dispatcher.handle(
            body.encode() if isinstance(body, str) else body, None
        )
        return None if answer is None else json.loads(answer)

    async def subtract(self, _: Any, minuend: int, subtrahend: int) -> int:
        return minuend - subtrahend

    async def sum(self, _: Any, *numbers: int) -> int:
        return sum(numbers)

    async def get_data(self, _: Any) -> list[Any]:
        return ["hello", 5]

    async def update(self, _: Any, *values: int) -> None:
        self.notified.append(("update", values))

    async def notify_hello(self, _: Any, *values: int) -> None:
        self.notified.append(("notify_hello", values))

    async def notify_sum(self, _: Any, *values: int) -> None:
        self.notified.append(("notify_sum", values))

    async def fail(self, _: Any) -> None:
        raise RuntimeError(CANARY)

    async def refuse(self, _: Any) -> None:
        raise Conflict("It is so already.", status="complete")


@pytest.fixture
def examples() -> Examples:
    return Examples()


def failed(code: int, message: str, id_: Any = None) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "error": {"code": code, "message": message}, "id": id_}


def gave(result: Any, id_: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "result": result, "id": id_}


INVALID = failed(-32600, "Invalid Request")

# https://www.jsonrpc.org/specification#examples, word for word.
SECTION_7 = {
    "positional parameters": (
        '{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}',
        gave(19, 1),
    ),
    "positional parameters, the other way round": (
        '{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}',
        gave(-19, 2),
    ),
    "named parameters": (
        """{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42},
            "id": 3}""",
        gave(19, 3),
    ),
    "named parameters, the other way round": (
        """{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23},
            "id": 4}""",
        gave(19, 4),
    ),
    "a notification": ('{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}', None),
    "a notification of no method": ('{"jsonrpc": "2.0", "method": "foobar"}', None),
    "a non-existent method": (
        '{"jsonrpc": "2.0", "method": "foobar", "id": "1"}',
        failed(-32601, "Method not found", "1"),
    ),
    "invalid JSON": (
        '{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]',
        failed(-32700, "Parse error"),
    ),
    "an invalid request object": ('{"jsonrpc": "2.0", "method": 1, "params": "bar"}', INVALID),
    "a batch of invalid JSON": (
        """[
  {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
  {"jsonrpc": "2.0", "method"
]""",
        failed(-32700, "Parse error"),
    ),
    "an empty array": ("[]", INVALID),
    "an invalid batch that is not empty": ("[1]", [INVALID]),
    "an invalid batch": ("[1,2,3]", [INVALID, INVALID, INVALID]),
    "a batch": (
        """[
        {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
        {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
        {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
        {"foo": "boo"},
        {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
        {"jsonrpc": "2.0", "method": "get_data", "id": "9"}
    ]""",
        [
            gave(7, "1"),
            gave(19, "2"),
            INVALID,
            failed(-32601, "Method not found", "5"),
            gave(["hello", 5], "9"),
        ],
    ),
    "a batch of notifications": (
        """[
        {"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},
        {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}
    ]""",
        None,
    ),
}


def in_any_order(answer: Any) -> Any:
    """The answers of a batch may come in any order; each has to be there exactly once."""
    if not isinstance(answer, list):
        return json.dumps(answer, sort_keys=True)
    return Counter(json.dumps(one, sort_keys=True) for one in answer)


@pytest.mark.parametrize(("body", "answer"), SECTION_7.values(), ids=SECTION_7)
async def test_the_specifications_examples(examples: Examples, body: str, answer: Any) -> None:
    assert in_any_order(await examples.handle(body)) == in_any_order(answer)


def test_the_specification_has_fifteen_examples() -> None:
    assert len(SECTION_7) == 15


async def test_a_notification_is_carried_out_though_nothing_answers_it(examples: Examples) -> None:
    for name in ("a notification", "a batch of notifications"):
        assert await examples.handle(SECTION_7[name][0]) is None
    assert sorted(examples.notified) == [
        ("notify_hello", (7,)),
        ("notify_sum", (1, 2, 4)),
        ("update", (1, 2, 3, 4, 5)),
    ]


async def test_an_id_of_null_is_answered(examples: Examples) -> None:
    body = '{"jsonrpc": "2.0", "method": "get_data", "id": null}'
    assert await examples.handle(body) == gave(["hello", 5], None)


async def test_the_text_of_an_unexpected_error_does_not_go_out(examples: Examples) -> None:
    answer = await examples.handle('{"jsonrpc": "2.0", "method": "fail", "id": 1}')
    assert answer["error"]["code"] == -32603
    assert answer["error"]["message"] == "Internal error"
    assert CANARY not in json.dumps(answer)
    assert await examples.handle('{"jsonrpc": "2.0", "method": "fail"}') is None


async def test_an_error_with_a_meaning_is_told_with_its_name(examples: Examples) -> None:
    answer = await examples.handle('{"jsonrpc": "2.0", "method": "refuse", "id": 1}')
    assert answer["error"] == {
        "code": -32007,
        "message": "It is so already.",
        "data": {"name": "conflict", "status": "complete"},
    }


@pytest.mark.parametrize("body", [b"", b"NaN", b'{"a":1,"a":2}', b"[" * 40 + b"]" * 40, b"\xff"])
async def test_a_body_that_is_refused_is_a_parse_error(examples: Examples, body: bytes) -> None:
    answer = await examples.handle(body)
    assert (answer["error"]["code"], answer["error"]["message"]) == (-32700, "Parse error")
    assert answer["id"] is None


async def test_a_batch_is_bounded(examples: Examples) -> None:
    call = '{"jsonrpc": "2.0", "method": "update", "params": [1], "id": 1}'
    assert len(await examples.handle(f"[{','.join([call] * MAX_BATCH)}]")) == MAX_BATCH
    examples.notified.clear()
    answer = await examples.handle(f"[{','.join([call] * (MAX_BATCH + 1))}]")
    assert answer["error"]["code"] == -32600
    assert str(MAX_BATCH) in answer["error"]["data"]["reason"]
    assert examples.notified == []


async def test_the_calls_of_a_batch_run_at_the_same_time() -> None:
    met = asyncio.Barrier(3)

    async def meet(_: Any) -> bool:
        await met.wait()
        return True

    dispatcher = Dispatcher({"meet": guarded(meet)}, lambda *_: None)
    call = '{"jsonrpc": "2.0", "method": "meet", "id": 1}'
    async with asyncio.timeout(5):
        await dispatcher.handle(f"[{call},{call},{call}]".encode(), None)


async def test_each_call_is_observed_and_no_unknown_name_is(examples: Examples) -> None:
    for method in ("get_data", "refuse", "fail", CANARY):
        await examples.handle(json.dumps({"jsonrpc": "2.0", "method": method, "id": 1}))
    await examples.handle("[1]")
    assert examples.observed == [
        ("get_data", 0),
        ("refuse", -32007),
        ("fail", -32603),
        ("unknown", -32601),
        ("unknown", -32600),
    ]


member = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.sampled_from(["2.0", "sum", "fail", "x"])
)
elements = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | member,
        "method": st.sampled_from(["sum", "update", "fail", "none"]) | member,
        "params": st.lists(st.integers(0, 9), max_size=3)
        | st.dictionaries(st.text(max_size=3), member)
        | member,
        "id": member,
    },
)


@given(elements | st.lists(elements | member, max_size=4) | member)
def test_every_json_value_gets_well_formed_answers(document: Any) -> None:
    answer = asyncio.run(Examples().handle(json.dumps(document)))
    if not isinstance(document, list):
        answers = [] if answer is None else [answer]
    else:
        answers = answer if isinstance(answer, list) else [] if answer is None else [answer]
        assert len(answers) <= max(len(document), 1)
    for one in answers:
        assert one["jsonrpc"] == "2.0"
        assert one.keys() in ({"jsonrpc", "id", "result"}, {"jsonrpc", "id", "error"})
        assert CANARY not in json.dumps(one)
