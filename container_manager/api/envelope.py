"""Reading a body: JSON as RFC 8259 has it, less what only makes trouble, and the request object.

Refused beside malformed JSON: NaN and infinities, lone surrogates, a key twice in one object
(readers disagree on which one counts), numbers beyond 64 bits and nesting beyond `MAX_DEPTH`.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson
from jsonrpcserver.request import Request
from jsonrpcserver.sentinels import NOID

MAX_DEPTH = 32
MAX_BATCH = 100
_BOUND = 2**63  # orjson reads a longer integer as a float, and with it loses digits
_KEY = re.compile(rb'"[ \t\n\r]*:')


class ParseError(Exception):
    """The body is no JSON that is taken here; the message says why where it is well formed."""


class InvalidRequest(Exception):
    """The element is no request object; `id` is its id where that could be made out."""

    def __init__(self, id: Any = None) -> None:  # noqa: A002 - as the specification names it
        super().__init__("Invalid Request")
        self.id = id


def parse(body: bytes) -> Any:
    """The value of a JSON body.

    Raises:
        ParseError: it is refused.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ParseError("") from error
    # Walk it once: count the keys that arrived, and hold depth and numbers to their bounds.
    keys = depth = 0
    level: list[Any] = [document]
    while level:
        below: list[Any] = []
        for value in level:
            if type(value) is dict:
                keys += len(value)
                below.extend(value.values())
            elif type(value) is list:
                below.extend(value)
            elif _out_of_range(value):
                raise ParseError("a number is out of the range of 64 bits")
        if depth == MAX_DEPTH and any(type(value) in (dict, list) for value in level):
            raise ParseError(f"it is nested deeper than {MAX_DEPTH} levels")
        depth += 1
        level = below
    # A key that came twice is one key in the document. Whatever looks like a key inside a string
    # only makes the count higher; then the slow way decides.
    if len(_KEY.findall(body)) != keys:
        json.loads(body, object_pairs_hook=_unique)
    return document


def _out_of_range(value: Any) -> bool:
    if type(value) is int:
        return not -_BOUND <= value < _BOUND
    # As a float, the bound itself is what orjson rounds integers beyond it to.
    return type(value) is float and not -_BOUND < value < _BOUND


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ParseError("an object has a key twice")
    return fields


def request(element: Any) -> Request:
    """The request object of JSON-RPC 2.0 (https://www.jsonrpc.org/specification, section 4).

    Raises:
        InvalidRequest: it is none.
    """
    if type(element) is not dict:
        raise InvalidRequest
    id_ = element.get("id", NOID)
    if type(id_) not in (str, int, float, type(None)) and id_ is not NOID:
        raise InvalidRequest
    method, params = element.get("method"), element.get("params", [])
    if (
        element.get("jsonrpc") != "2.0"
        or type(method) is not str
        or type(params) not in (list, dict)
    ):
        raise InvalidRequest(None if id_ is NOID else id_)
    return Request(method, params, id_)
