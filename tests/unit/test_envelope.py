"""Reading a body: what JSON is taken, and what a request object is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jsonrpcserver.sentinels import NOID

from container_manager.api.envelope import MAX_DEPTH, InvalidRequest, ParseError, parse, request

text = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",)), max_size=12),
    st.sampled_from(['":', '" :', '","a":', '{"a":1,"a":2}', '\\":', "\\"]),
)
numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(-9.2e18, 9.2e18)
values = st.recursive(
    st.none() | st.booleans() | numbers | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=25,
)


def identical(one: Any, other: Any) -> bool:
    """Equal, and of the same types: 1 is not 1.0 here, nor True."""
    return repr(one) == repr(other)


@given(values, st.booleans(), st.sampled_from([None, 0, 2]))
@example({'":': 1, "a": '":'}, True, None)
def test_a_value_without_duplicates_parses_to_itself(
    value: Any, ascii_only: bool, indent: int | None
) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert identical(parse(body), value)


@given(text, text, values, values, st.sampled_from(["%s", "[1, %s]", '{"x": {"y": [%s]}}']))
def test_a_key_that_comes_twice_is_refused_whatever_stands_around_it(
    key: str, other: str, first: Any, second: Any, around: str
) -> None:
    k, o = json.dumps(key), json.dumps(other + "!" if other == key else other)
    v1, v2 = json.dumps(first), json.dumps(second)
    twice = f"{{{k}: {v1}, {o}: {o}, {k} : {v2}}}"
    with pytest.raises(ParseError, match="an object has a key twice"):
        parse((around % twice).encode())


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"a":1}',
        b'{"a":1,"\\u0061":2}',
        b'{"a":1,"a" \t\r\n :2}',
        b'{"\xc3\xa4":1,"\\u00e4":2}',
        b'{"":1,"":2}',
        b'[{"a":{"b":1,"b":2}}]',
    ],
)
def test_a_key_is_twice_the_same_however_it_is_written(body: bytes) -> None:
    with pytest.raises(ParseError, match="twice"):
        parse(body)


def test_the_same_key_in_different_objects_is_no_duplicate() -> None:
    assert parse(b'[{"a":{"a":1}},{"a":2}]') == [{"a": {"a": 1}}, {"a": 2}]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"NaN",
        b'{"a": NaN}',
        b"[Infinity]",
        b"[-Infinity]",
        b"1e400",
        b"[-1e400]",
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'{"\\ud83d":1}',
        b'"\xed\xa0\x80"',
        b'"\xff"',
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        b"{'a': 1}",
        b'{"a": 1,}',
        b"[1,]",
        b"{} {}",
        b"01",
        b"// c\n1",
        b'"\n"',
        b"[" * 100_000,
    ],
)
def test_what_is_no_json_is_refused_without_repeating_it(body: bytes) -> None:
    with pytest.raises(ParseError) as refusal:
        parse(body)
    assert str(refusal.value) == ""


@pytest.mark.parametrize(
    "number",
    [
        2**63,
        2**64 - 1,
        2**64,
        10**30,
        10**300,
        -(2**63) - 1,
        -(2**63) - 1000,
        -(2**64),
        -(10**30),
        1e19,
        -1e300,
    ],
)
@pytest.mark.parametrize("around", ["%s", '{"a": [%s]}'])
def test_numbers_beyond_64_bits_are_refused(number: float, around: str) -> None:
    with pytest.raises(ParseError, match="64 bits"):
        parse((around % number).encode())


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63), 2**53 + 1, 0])
def test_no_digit_of_a_64_bit_integer_is_lost(number: int) -> None:
    assert identical(parse(b"[%d]" % number), [number])


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_nesting_is_bounded(opening: str, closing: str) -> None:
    def nested(depth: int) -> bytes:
        return (opening * depth + "1" + closing * depth).encode()

    parse(nested(MAX_DEPTH))
    for depth in (MAX_DEPTH + 1, MAX_DEPTH + 2, 10_000):
        with pytest.raises(ParseError):
            parse(nested(depth))


REQUEST = {"jsonrpc": "2.0", "method": "m", "id": 1}


@pytest.mark.parametrize("id_", [1, -1, "x", "", None, 1.5])
@pytest.mark.parametrize("params", [[], [1], {}, {"a": 1}])
def test_a_request_object_is_read(id_: Any, params: Any) -> None:
    call = request({**REQUEST, "id": id_, "params": params})
    assert (call.method, call.params, call.id) == ("m", params, id_)


def test_params_may_be_left_out_and_without_an_id_it_is_a_notification() -> None:
    assert request({"jsonrpc": "2.0", "method": "m"}) == ("m", [], NOID)


@pytest.mark.parametrize(
    ("element", "id_"),
    [
        *((element, None) for element in (None, 1, "x", True, [], [REQUEST], {})),
        *(({**REQUEST, "id": bad}, None) for bad in (True, False, [], {}, [1])),
        *(({**REQUEST, "method": bad}, 1) for bad in (None, 1, True, [], {})),
        *(({**REQUEST, "params": bad}, 1) for bad in (None, 1, "bar", True)),
        *(({**REQUEST, "jsonrpc": bad}, 1) for bad in (None, 2.0, 2, "2", "1.0", ["2.0"])),
        ({"method": "m", "id": 1}, 1),
        ({"jsonrpc": "2.0", "id": "x"}, "x"),
        ({"jsonrpc": "2.0"}, None),
    ],
)
def test_what_is_no_request_object_is_refused_under_its_id(element: Any, id_: Any) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        request(element)
    assert identical(refusal.value.id, id_)


def test_depth_counts_what_is_empty_too() -> None:
    assert parse(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    with pytest.raises(ParseError):
        parse(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))
