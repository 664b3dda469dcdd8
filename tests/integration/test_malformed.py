"""Ten thousand malformed bodies: each is answered as JSON-RPC has it, and none leaves a trace.

`answered` holds what is true of every answer; the tests say what is sent. Each body carries a
canary where a secret could stand, which must come back nowhere. One daemon serves them all, over
one connection; its engine is away.
"""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import socket
from collections import Counter
from datetime import UTC, timedelta, timezone
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.daemon import Daemon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_DEPTH = 32
BOUND = 2**63
SERVICE = "ContainerService."
METHODS = ("Create", "Status", "List", "Cancel", "Retry", "Wait")
UNKNOWN = "00000000-0000-7000-8000-000000000000"
# Fits no image, name, time, status or id, so that no body with it there is a good one.
CANARY = "CANARY 9d27e0b4 of somebody's"
JSON = {"Content-Type": "application/json"}


class Server:
    """The daemon under test, and what it has answered so far."""

    def __init__(self, node: Daemon) -> None:
        self.node = node
        self.sent = 0
        self.codes: Counter[int | str] = Counter()
        self._connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=20)

    def post(self, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        """One body on the connection that is kept; made anew only where the daemon closed it."""
        self.sent += 1
        self._connection.request("POST", "/jrpc", body, {**JSON, **(headers or {})})
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def raw(self, data: bytes, *, hang_up: bool = False) -> bytes:
        """What these very bytes on a connection of their own are answered, to its end."""
        with socket.create_connection(("127.0.0.1", self.node.port), timeout=10) as connection:
            connection.sendall(data)
            if hang_up:
                return b""
            # To the end: the daemon closes what it cannot read, and what is HTTP/1.0.
            return b"".join(iter(lambda: connection.recv(65536), b""))

    def assert_well(self, logged_before: int) -> None:
        """It still answers, and has logged neither an error nor what it was sent."""
        for _ in range(3):
            assert self.raw(b"GET /livez HTTP/1.0\r\n\r\n").endswith(b"ok\n")
        log = self.node.log[logged_before:]
        assert "Traceback" not in log, log[:3000]
        assert CANARY not in log
        levels = {orjson.loads(line)["level"] for line in log.splitlines()}
        assert levels <= {"debug", "info", "warning"}, log[:3000]

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One daemon for the module; its queue never fills."""
    flags = ("--queue-size", "1000000", "--log-level", "debug")
    home = tmp_path_factory.mktemp("malformed")
    node = Daemon(home / "node", "unix:///nonexistent.sock", flags)
    with asyncio.Runner() as runner:
        try:
            runner.run(node.start(wait_ready=False))
            one = Server(node)
            yield one
            one.close()
        finally:
            runner.run(node.close())


# What is true of every answer


def answered(server: Server, body: bytes) -> None:
    """Send the body; its answer is one that JSON-RPC allows, and tells nothing of the canary."""
    status, answer = server.post(body)
    assert status in {200, 204, 400, 413}, answer
    assert status != 413 or len(body) > 1024 * 1024
    if status != 200:
        assert CANARY.encode() not in answer
        assert status != 204 or (answer == b"" and wanted_ids(body) == [])
        return
    document = orjson.loads(answer)
    answers = document if isinstance(document, list) else [document]
    for one in answers:
        well_formed(one)
        server.codes[one["error"]["code"] if "error" in one else "result"] += 1
        assert CANARY not in orjson.dumps(without_echo(one)).decode(), one
    wanted = wanted_ids(body)
    assert sorted(map(typed, (one["id"] for one in answers))) == sorted(map(typed, wanted))
    refused = [one.get("error", {}).get("code") for one in answers] == [-32700]
    assert refused == (parsed(body) is REFUSED)


def well_formed(answer: dict[str, Any]) -> None:
    """Section 5 of the specification; and nothing broke."""
    assert answer["jsonrpc"] == "2.0"
    assert answer.keys() in ({"jsonrpc", "id", "result"}, {"jsonrpc", "id", "error"})
    if "error" in answer:
        error = answer["error"]
        assert error.keys() <= {"code", "message", "data"}
        assert type(error["code"]) is int
        assert type(error["message"]) is str
        assert error["code"] != -32603, error
        assert "data" not in error or error["data"]["name"]


def without_echo(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer less what it has to say back: the call's id."""
    return {key: value for key, value in answer.items() if key != "id"}


REFUSED = object()


def parsed(body: bytes) -> Any:
    """The body's value; `REFUSED` where it is no JSON, or JSON that is not taken."""
    try:
        document = orjson.loads(body)
        json.loads(body, object_pairs_hook=unique)
    except ValueError:
        return REFUSED
    level, depth = [document], 0
    while level:
        if not all(map(in_range, level)):
            return REFUSED
        nested = [one for one in level if isinstance(one, dict | list)]
        depth += bool(nested)
        if depth > MAX_DEPTH:
            return REFUSED
        parts = (one.values() if isinstance(one, dict) else one for one in nested)
        level = list(itertools.chain.from_iterable(parts))
    return document


def in_range(value: Any) -> bool:
    if type(value) is int:
        return -BOUND <= value < BOUND
    # As a float the bound is also what integers beyond it were rounded to.
    return type(value) is not float or -BOUND < value < BOUND


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key twice")
    return dict(pairs)


def wanted_ids(body: bytes) -> list[Any]:
    """The ids that the answers to this body have to bear, one for each answer."""
    document = parsed(body)
    if not isinstance(document, list) or not 0 < len(document) <= 100:
        return wanted_id(document)
    return [id_ for element in document for id_ in wanted_id(element)]


def wanted_id(element: Any) -> list[Any]:
    if not isinstance(element, dict):
        return [None]
    id_ = element.get("id")
    good_id = type(id_) in {str, int, float, type(None)}
    good = (
        good_id
        and element.get("jsonrpc") == "2.0"
        and isinstance(element.get("method"), str)
        and isinstance(element.get("params", []), list | dict)
    )
    if good and "id" not in element:
        return []
    return [id_ if good_id else None]


def typed(id_: Any) -> str:
    return f"{type(id_).__name__} {id_!r}"


# What is sent


def send_all(server: Server, number: int, bodies: st.SearchStrategy[bytes]) -> Counter[int | str]:
    """Send so many of these bodies; how often each error code was answered, and "result"."""
    sent, logged = server.sent, len(server.node.log)
    server.codes = Counter()

    @settings(
        max_examples=number,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(bodies)
    def property_of_all(body: bytes) -> None:
        answered(server, body)

    property_of_all()
    assert server.sent - sent >= number
    server.assert_well(logged)
    return server.codes


def request(method: str, params: Any, **more: Any) -> bytes:
    call = {"jsonrpc": "2.0", "id": 1, "method": f"{SERVICE}{method}", "params": params, **more}
    return orjson.dumps(call)


GOOD = (
    request("Create", [{"image": "nginx", "arguments": [CANARY], "env": {"PASSWORD": CANARY}}]),
    request("Create", {"image": "a.b:5/c/d:e", "env": {"A": CANARY}, "type": "batch"}, id="text"),
    request("Create", {"image": "x", "retry": {"backoff": 0.5}, "arguments": [CANARY]}, id=1.5),
    request("Create", {"image": "nginx", "env": {"A": CANARY, "B": ""}, "idempotency_key": "k"}),
    request("Status", [{"job_id": UNKNOWN}], id=None),
    request("Wait", {"job_id": UNKNOWN, "timeout": 0}),
    request("List", {"status": ["pending"], "label": "a=b", "limit": 1, "cursor": UNKNOWN}),
    request("List", {"since": "2030-01-31T12:00:00Z", "limit": 1, "label": [CANARY]}),
    b'[%s,{"jsonrpc":"2.0","method":"ContainerService.Cancel","params":{"job_id":"%s"}}]'
    % (request("Create", {"image": "x", "arguments": ["\\", "é", CANARY]}), UNKNOWN.encode()),
)
SYNTAX = '{}[]",:0123456789eE+-.truefalsn\\ud8\t\n '

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([CANARY, CANARY, "", "\0", "\ud800", "2.0", UNKNOWN, 2**63, -(2**63), 1e400])
)
words = st.sampled_from(["jsonrpc", "method", "params", "id", "image", "env", "job_id"])
anything = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(words | st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


def text_of(value: Any) -> bytes:
    """As JSON; with NaN and Infinity, which orjson would not write."""
    return json.dumps(value).encode()


def test_random_bytes(server: Server) -> None:
    junk = (
        st.binary(max_size=200)
        | st.text(max_size=100).map(lambda text: text.encode())
        | st.text(SYNTAX, max_size=60).map(lambda text: text.encode())
    )
    codes = send_all(server, 1000, junk)
    assert codes[-32700] > 500


def test_good_requests_with_a_few_bytes_changed(server: Server) -> None:
    def flipped(at: int, what: int) -> Callable[[bytes], bytes]:
        def flip(body: bytes) -> bytes:
            place = at % len(body)
            return body[:place] + bytes([body[place] ^ (what % 255 + 1)]) + body[place + 1 :]

        return flip

    def changed(body: bytes, changes: list[tuple[str, int, int, bytes]]) -> bytes:
        for how, at, much, new in changes:
            place = at % (len(body) + 1)
            match how:
                case "flip":
                    body = flipped(at, much)(body) if body else body
                case "insert":
                    body = body[:place] + new + body[place:]
                case "remove":
                    body = body[:place] + body[place + 1 + much % 8 :]
                case "truncate":
                    body = body[:place]
        return body

    # Most changes are small ones, so that many bodies are still JSON.
    ways = st.sampled_from(["flip", "flip", "insert", "insert", "remove", "remove", "truncate"])
    tokens = [b"null", b'"a":1,', b"\\u0000", b"\xff", b"-", b"[[", b"1e9"]
    tokens += [one.encode() for one in SYNTAX]
    pieces = st.binary(min_size=1, max_size=3) | st.sampled_from(tokens)
    number = st.integers(0, 1 << 16)
    change = st.tuples(ways, number, number, pieces)
    bodies = st.builds(changed, st.sampled_from(GOOD), st.lists(change, min_size=1, max_size=3))
    codes = send_all(server, 3500, bodies)
    # Each of the layers has refused some, and some were still good.
    assert all(codes[code] > 0 for code in (-32700, -32600, -32601, -32602, "result")), codes


def test_json_of_any_shape(server: Server) -> None:
    codes = send_all(server, 1500, anything.map(text_of))
    assert codes[-32600] > 300, codes
    assert codes[-32700] > 0, codes


def test_request_objects_with_wrong_types_in_each_place(server: Server) -> None:
    good = {
        "jsonrpc": st.just("2.0"),
        "method": st.sampled_from([*(SERVICE + name for name in METHODS), "rpc.discover", CANARY]),
        "params": st.sampled_from(
            [{"job_id": UNKNOWN}, [{"job_id": CANARY}], [CANARY], {"env": CANARY}, [[CANARY]], []]
        ),
        "id": st.integers(-(2**53), 2**53) | st.text(max_size=10) | st.none(),
    }
    mixed = st.fixed_dictionaries(
        {}, optional={key: right | right | anything for key, right in good.items()}
    )
    # One place is wrong and all others are right, as often as all are anything.
    places = st.sampled_from(sorted(good))
    one_wrong = places.flatmap(
        lambda place: st.fixed_dictionaries({**good, place: anything}, optional={"more": leaves})
    )
    single = mixed | one_wrong
    batch = st.lists(single, max_size=4) | st.builds(
        lambda one, many: [one] * many, single, st.sampled_from([99, 100, 101, 200])
    )
    weighted = st.integers(0, 5).flatmap(lambda n: batch if n == 0 else single)
    codes = send_all(server, 1500, weighted.map(text_of))
    assert all(codes[code] > 0 for code in (-32700, -32600, -32602, "result")), codes


def fields_of(name: str) -> dict[str, st.SearchStrategy[Any]]:
    """Values that a method takes, or nearly takes, by field."""
    near_number = st.integers(-2, 2000) | st.floats() | st.just(2**63 - 1)
    day = timedelta(hours=23, minutes=59)
    zones = st.sampled_from([UTC, timezone(day), timezone(-day), None])
    times = st.datetimes(timezones=zones).map(lambda moment: moment.isoformat())
    key = st.text(max_size=4) | st.sampled_from(["A", "A=B", "", "\0"])
    values = st.text(max_size=8) | st.just(CANARY) | leaves
    job = {
        "job_id": st.sampled_from([UNKNOWN, CANARY, UNKNOWN.upper(), f"{{{UNKNOWN}}}", "x" * 64])
    }
    retry = st.dictionaries(
        st.sampled_from(["max_attempts", "backoff", "max_backoff", "on_exit", "more"]),
        near_number | leaves,
        max_size=3,
    )
    references = st.text("aB0.:/@-_[]é ", max_size=60)
    match name:
        case "Create":
            return {
                "image": st.sampled_from(["nginx", "a" * 513, "-" * 500]) | references,
                "arguments": st.lists(values, max_size=4),
                "env": st.dictionaries(key, values, max_size=4),
                "name": st.text("aB0_.- ", max_size=6),
                "type": st.sampled_from(["service", "batch", CANARY]),
                # What is right here is listed later, as it should be: no canary.
                "labels": st.dictionaries(key, st.text(max_size=8), max_size=3),
                "pull": st.sampled_from(["missing", "always", "never", CANARY]),
                "retry": retry,
                "deploy_timeout": near_number,
                "run_timeout": near_number,
                "idempotency_key": st.text(max_size=300) | st.just(CANARY),
                "privileged": st.booleans() | st.just(CANARY),
                "volumes": st.sampled_from([[CANARY], [f"/{CANARY}:/x"], ["data:/x"], {"/": "a"}]),
                "ports": st.lists(st.text("0123456789.:-/[]ud", max_size=20) | values, max_size=3),
                "networks": st.lists(values, max_size=2) | st.dictionaries(key, values, max_size=2),
                "network_mode": st.sampled_from(["host", "bridge", f"container:{CANARY}"]) | values,
                "memory": near_number | st.text("0123456789.kmgb ", max_size=40) | values,
                "healthcheck": st.dictionaries(st.sampled_from(["test", "interval"]), values),
                "extra_hosts": st.dictionaries(key, values, max_size=2) | st.lists(values),
            }  # fmt: skip
        case "List":
            status = st.sampled_from(["pending", "lost", CANARY])
            return {
                "status": status | st.lists(status, max_size=3),
                "label": values | st.lists(values, max_size=3),
                "since": times | st.text("0123456789-:TZ+.W", max_size=30),
                "limit": near_number,
                "cursor": st.sampled_from([UNKNOWN, CANARY, "f" * 32, f"urn:uuid:{UNKNOWN}"]),
            }
        case "Wait":
            return {**job, "timeout": near_number}
        case _:
            return job


JUNK = st.sampled_from(
    [
        CANARY.encode(),
        *(b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-0", b"01", b"1.", b"'a'", b"undefined"),
        *(b'"\\ud800"', b'"\\x"', b'"\xff"', b'"\xed\xa0\x80"', b'"\t"', b"18446744073709551616"),
        *(b"[" * n + b'"%s"' % CANARY.encode() + b"]" * n for n in (1, 28, 29, 30, 31, 32, 2000)),
        *(b'{"a":' * n + b"[]" + b"}" * n for n in (1, 28, 29, 30, 31, 32, 2000)),
        *(b'"%s"' % (letter * size) for letter in (b"a", b"-", b"a.") for size in (600, 20_000)),
        b'"%s %s"' % (CANARY.encode(), b"z" * (1 << 20)),
    ]
)


def test_params_with_wrong_values_unknown_fields_and_keys_twice(server: Server) -> None:
    fields = {name: fields_of(name) for name in METHODS}

    @st.composite
    def bodies(draw: st.DrawFn) -> bytes:
        name = draw(st.sampled_from([*METHODS, "Create", "Create", "List", "List"]))
        known = fields[name]
        required = {"Create": "image", "List": "limit"}.get(name, "job_id")
        chosen = draw(st.lists(st.sampled_from(sorted(known)), max_size=3))
        # As a rule each field once, and what a call cannot do without among them.
        if draw(st.integers(0, 9)):
            chosen = list(dict.fromkeys([required, *chosen]))
        pairs = [(field, text_of(draw(known[field]))) for field in chosen]
        if draw(st.integers(0, 2)) == 0:
            field = draw(st.sampled_from([*sorted(known), "self", "context", "more"]))
            wrong = draw(JUNK | anything.map(text_of))
            if field != "labels":
                pairs.append((field, wrong))
        params = b"{%s}" % b",".join(text_of(field) + b":" + value for field, value in pairs)
        form = b"[%s]" if draw(st.booleans()) else b"%s"
        call = b'{"jsonrpc":"2.0","method":"%s%s","params":%s,"id":7}'
        return call % (SERVICE.encode(), name.encode(), form % params)

    codes = send_all(server, 2500, bodies())
    wanted = (-32700, -32602, -32001, -32009, "result")
    assert all(codes[code] > 0 for code in wanted), codes


def test_time_before_1970_is_a_time(server: Server) -> None:
    for since in ("1969-12-31T23:59:59Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"):
        answered(server, request("List", {"since": since, "limit": 1}))


def test_labels_of_a_refused_spec_are_not_repeated(server: Server) -> None:
    for labels in ({"io.container-manager.job": CANARY}, {"": CANARY}, {"a": [CANARY]}, [CANARY]):
        server.codes = Counter()
        answered(server, request("Create", {"image": "nginx", "labels": labels}))
        assert server.codes == {-32602: 1}


# What is malformed around the body


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "compress", "identity", "x"])
def test_body_in_no_such_encoding_is_the_callers_fault(server: Server, encoding: str) -> None:
    logged = len(server.node.log)
    status, answer = server.post(b"\x1f\x8b" + CANARY.encode(), {"Content-Encoding": encoding})
    # 200 is a "Parse error", where the header is not looked at.
    assert status in {200, 400, 415}, answer
    assert CANARY.encode() not in answer
    server.assert_well(logged)


HEAD = b"POST /jrpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
MALFORMED = {
    "no HTTP": b"\x00\xff\x01 %s\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03%s",
    "another version": b"GET /%s HTTP/9.9\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\nX: %s\r\n\r\n",
    "a bad URL": b"GET http://[::1/%s HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a long URL": b"GET /%s" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a long header": HEAD + b"Authorization: %s" + b"a" * 20_000 + b"\r\n\r\n",
    "a bad header": HEAD + b"Authorization: Bearer %s\x00\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\nX: %s\r\n\r\n{}",
    "a negative length": HEAD + b"Content-Length: -1\r\nX: %s\r\n\r\n",
    "length and chunks": HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n%s",
    "a bad chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n%s\r\n",
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_message_is_refused_and_fills_no_log(server: Server, what: str) -> None:
    # Anybody who reaches the port can send these, without a token.
    logged = len(server.node.log)
    answer = server.raw(MALFORMED[what].replace(b"%s", CANARY.encode()))
    assert answer.split(b" ")[1] == b"400", answer[:200]
    server.assert_well(logged)


@pytest.mark.parametrize(
    "began",
    [
        b"Content-Length: 100\r\n\r\n{",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"X: unfinished",
    ],
)
def test_caller_who_hangs_up_within_a_request_fills_no_log(server: Server, began: bytes) -> None:
    logged = len(server.node.log)
    server.raw(HEAD + began, hang_up=True)
    server.assert_well(logged)


@pytest.mark.parametrize(
    "rest", [b"", b"ZZ\r\n", b"2\r\n{}\r\nZZ\r\n"], ids=["none", "bad", "later"]
)
def test_body_that_breaks_while_it_is_read_fills_no_log(server: Server, rest: bytes) -> None:
    logged = len(server.node.log)
    with socket.create_connection(("127.0.0.1", server.node.port), timeout=10) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
        # The daemon has begun to read, and says so.
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(rest)
    server.assert_well(logged)
