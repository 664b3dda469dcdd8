"""The interface over HTTP: what callers send and get, who may call, probes and metrics.

The engine is away in most of these tests, so that jobs stay where Create has put them.
"""

from __future__ import annotations

import asyncio
import gzip
import http.client
import io
import ipaddress
import os
import re
import shutil
import socket
import stat
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

    import aiodocker

    from tests.conftest import MakeDaemon
    from tests.support.daemon import Daemon

AWAY = "unix:///nonexistent.sock"
LIMIT = 1024 * 1024
SERVICE = "ContainerService."
CREATE = (
    '{"jsonrpc":"2.0","method":"ContainerService.Create",'
    '"params":[{"image":"nginx","arguments":[],"env":{}}],"id":1}'
)
UNKNOWN = "00000000-0000-7000-8000-000000000000"
CANARY = "canary-7f3a9c51e2-of-env"


async def away(daemon: MakeDaemon, *flags: str, **more: Any) -> Daemon:
    """A daemon whose engine never answers."""
    return await daemon(*flags, docker_host=AWAY, wait_ready=False, **more)


def token(node: Daemon) -> str:
    return (node.data_dir / "token").read_text().strip()


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def refusal(body: bytes) -> tuple[str, str]:
    """Name and message of an answer that isn't JSON-RPC's."""
    error = orjson.loads(body)["error"]
    return error["name"], error["message"]


async def job_ids(node: Daemon) -> list[str]:
    return [job["job_id"] for job in (await node.call(f"{SERVICE}List"))["jobs"]]


async def curl(*arguments: str, netns: str | None = None) -> tuple[int, str]:
    """The HTTP status and the body that real curl gets."""
    program = shutil.which("curl")
    if program is None:
        pytest.skip("no curl on this machine")
    prefix = () if netns is None else ("ip", "netns", "exec", netns)
    process = await asyncio.create_subprocess_exec(
        *(*prefix, program, "--silent", "--show-error", "--noproxy", "*", "--max-time", "10"),
        *("--write-out", "\n%{http_code}", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 20)
    text = out.decode()
    assert process.returncode == 0, text
    body, _, status = text.rpartition("\n")
    return int(status), body


# Calls as the README shows them


async def test_create_as_in_the_readme_by_curl(daemon: MakeDaemon) -> None:
    node = await away(daemon)
    status, body = await curl(
        *("-X", "POST", f"localhost:{node.port}/jrpc"),
        *("-H", "Content-Type: application/json", "-d", CREATE),
    )
    assert status == 200
    answer = re.fullmatch(
        r'\{"jsonrpc":"2\.0","result":\{"job_id":"([0-9a-f-]{36})",'
        r'"message":"Job created successfully","status":"pending"\},"id":1\}',
        body,
    )
    assert answer, body
    assert await job_ids(node) == [answer[1]]


async def test_status_as_in_the_readme_by_curl(daemon: MakeDaemon) -> None:
    node = await away(daemon)
    job_id = await node.create("nginx")
    call = (
        '{"jsonrpc":"2.0","method":"ContainerService.Status",'
        f'"params":[{{"job_id":"{job_id}"}}],"id":1}}'
    )
    status, body = await curl(
        *("-X", "POST", f"localhost:{node.port}/jrpc"),
        *("-H", "Content-Type: application/json", "-d", call),
    )
    assert status == 200
    result = orjson.loads(body)["result"]
    promised = {
        *("job_id", "status", "phase", "reason", "attempts", "node", "container"),
        *("created_at", "updated_at", "history"),
    }
    assert promised <= result.keys()
    assert (result["job_id"], result["status"]) == (job_id, "pending")


async def test_curl_without_content_type_is_told_what_to_add(daemon: MakeDaemon) -> None:
    node = await away(daemon)
    status, body = await curl("-X", "POST", f"localhost:{node.port}/jrpc", "-d", CREATE)
    assert status == 415
    assert '-H "Content-Type: application/json"' in refusal(body.encode())[1]
    assert await job_ids(node) == []


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("Application/JSON", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("application/jsonp", 415),
    ],
)
async def test_only_json_is_taken(daemon: MakeDaemon, content_type: str, status: int) -> None:
    # The other types are what a page of another origin can send without asking first.
    node = await away(daemon)
    got, _, body = await node.post(CREATE.encode(), {"Content-Type": content_type})
    assert got == status, body
    assert len(await job_ids(node)) == (status == 200)


async def test_params_by_position_and_by_name(daemon: MakeDaemon) -> None:
    node = await away(daemon)
    fields = {"image": "nginx", "labels": {"tier": "web"}}
    for params in ([fields], fields):
        request = {"jsonrpc": "2.0", "id": "x", "method": f"{SERVICE}Create", "params": params}
        status, _, body = await node.post(orjson.dumps(request))
        assert status == 200
        answer = orjson.loads(body)
        assert answer["id"] == "x"
        job = await node.status(answer["result"]["job_id"])
        assert job["labels"] == {"tier": "web"}


async def test_notification_has_no_answer_and_makes_its_job(daemon: MakeDaemon) -> None:
    node = await away(daemon)
    note = {"jsonrpc": "2.0", "method": f"{SERVICE}Create", "params": [{"image": "nginx"}]}
    status, _, body = await node.post(orjson.dumps(note))
    assert (status, body) == (204, b"")
    assert len(await job_ids(node)) == 1


async def test_batch_is_answered_each_by_each(daemon: MakeDaemon) -> None:
    node = await away(daemon)

    def call(method: str, params: Any, **id_: Any) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "method": f"{SERVICE}{method}", "params": params, **id_}

    batch = [
        call("Create", [{"image": "nginx"}], id=1),
        call("Create", {"image": "nginx"}),
        call("Status", {"job_id": UNKNOWN}, id="two"),
        call("Create", {"image": "not an image"}, id=3),
        call("Nothing", {}, id=None),
        17,
    ]
    status, _, body = await node.post(orjson.dumps(batch))
    assert status == 200
    answers = orjson.loads(body)
    found = {orjson.dumps(a["id"]): a.get("error", {}).get("code") for a in answers[:3]}
    assert found == {b"1": None, b'"two"': -32001, b"3": -32602}
    assert [(a["id"], a["error"]["code"]) for a in answers[3:]] == [(None, -32601), (None, -32600)]
    # The notification's job is there, and its answer is not.
    ids = await job_ids(node)
    assert len(ids) == 2
    assert answers[0]["result"]["job_id"] in ids


async def test_batch_of_notifications_has_no_answer(daemon: MakeDaemon) -> None:
    node = await away(daemon)
    note = {"jsonrpc": "2.0", "method": f"{SERVICE}Create", "params": [{"image": "nginx"}]}
    status, _, body = await node.post(orjson.dumps([note] * 3))
    assert (status, body) == (204, b"")
    assert len(await job_ids(node)) == 3


async def test_discover_describes_every_call(daemon: MakeDaemon) -> None:
    node = await away(daemon)
    document = await node.call("rpc.discover")
    assert document["openrpc"].startswith("1.")
    methods = {method["name"]: method for method in document["methods"]}
    own = {f"{SERVICE}{one}" for one in ("Create", "Status", "List", "Cancel", "Retry", "Wait")}
    for service in ("NetworkService", "VolumeService"):
        own |= {f"{service}.{one}" for one in ("Create", "List", "Remove", "Prune")}
    assert methods.keys() == {*own, "NodeService.List", "rpc.discover"}
    params = {param["name"]: param for param in methods[f"{SERVICE}Create"]["params"]}
    assert params["image"]["required"]
    assert all(param["description"] for param in params.values())
    # Every method that the document names is one that answers.
    for name in methods:
        with_junk = {"jsonrpc": "2.0", "id": 1, "method": name, "params": {"no such field": 1}}
        _, _, body = await node.post(orjson.dumps(with_junk))
        assert orjson.loads(body)["error"]["code"] == -32602, name


async def test_connection_is_kept_for_further_calls(daemon: MakeDaemon) -> None:
    node = await away(daemon)

    def calls() -> set[Any]:
        connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=10)
        names = set()
        # Answers of each kind, errors and empty ones included.
        for body in (CREATE, "no JSON", CREATE.replace(',"id":1', ""), "[]", CREATE):
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/jrpc", body, headers)
            answer = connection.getresponse()
            answer.read()
            assert not answer.will_close
            names.add(connection.sock.getsockname())
        connection.close()
        return names

    assert len(await asyncio.to_thread(calls)) == 1
    assert len(await job_ids(node)) == 3


async def test_unknown_path_and_wrong_method(daemon: MakeDaemon) -> None:
    node = await away(daemon)
    assert (await node.get("/nothing"))[0] == 404
    assert (await node.post(b"{}", path="/"))[0] == 404
    assert (await node.get("/jrpc"))[0] == 405
    assert (await node.post(b"{}", path="/metrics"))[0] == 405


# Limits


def padded(size: int) -> bytes:
    """A call of exactly `size` bytes; JSON takes any number of spaces."""
    return CREATE.encode().ljust(size)


async def send(node: Daemon, data: Any) -> tuple[int, bytes]:
    """A body as a stream: one of a file-like object has its length said, others come in chunks."""
    headers = {"Content-Type": "application/json"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{node.url}/jrpc", data=data, headers=headers) as answer,
    ):
        return answer.status, await answer.read()


async def test_body_of_the_limit_is_taken_and_one_byte_more_is_not(daemon: MakeDaemon) -> None:
    node = await away(daemon)
    assert (await send(node, io.BytesIO(padded(LIMIT))))[0] == 200
    status, body = await send(node, io.BytesIO(padded(LIMIT + 1)))
    assert status == 413
    assert str(LIMIT) in refusal(body)[1]
    assert len(await job_ids(node)) == 1


async def test_announced_length_over_the_limit_is_refused_unseen(daemon: MakeDaemon) -> None:
    node = await away(daemon)
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    try:
        writer.write(
            b"POST /jrpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1099511627776\r\n\r\n"
        )
        line = await asyncio.wait_for(reader.readline(), 5)
    finally:
        writer.close()
        await writer.wait_closed()
    assert line.startswith(b"HTTP/1.1 413 ")


async def test_chunked_body_over_the_limit_is_refused(daemon: MakeDaemon) -> None:
    node = await away(daemon)

    async def chunks(size: int) -> AsyncIterator[bytes]:
        whole = padded(size)
        for start in range(0, size, 65536):
            yield whole[start : start + 65536]

    assert (await send(node, chunks(LIMIT)))[0] == 200
    status, body = await send(node, chunks(LIMIT + 1))
    assert status == 413
    assert refusal(body)[0] == "body_too_large"
    assert len(await job_ids(node)) == 1


async def test_compressed_body_makes_no_way_around_the_limit(daemon: MakeDaemon) -> None:
    node = await away(daemon)
    bomb = gzip.compress(padded(LIMIT + 1))
    assert len(bomb) < 10_000
    status, _, _ = await node.post(bomb, {"Content-Encoding": "gzip"})
    # 415 where compressed bodies are not taken at all.
    assert status in {413, 415}
    assert await job_ids(node) == []


async def test_full_queue_says_how_large_it_is_and_takes_no_more(daemon: MakeDaemon) -> None:
    node = await away(daemon, "--queue-size", "3")
    batch = [{**orjson.loads(CREATE), "id": number} for number in range(5)]
    _, _, body = await node.post(orjson.dumps(batch))
    answers = orjson.loads(body)
    errors = [answer["error"] for answer in answers if "error" in answer]
    assert [(e["code"], e["data"]["name"]) for e in errors] == [(-32002, "queue_full")] * 2
    assert {e["data"]["queue_size"] for e in errors} == {3}
    assert all(e["data"]["retry_after"] > 0 for e in errors)
    made = {answer["result"]["job_id"] for answer in answers if "result" in answer}
    assert set(await job_ids(node)) == made
    assert len(made) == 3


# Who may call


@pytest.mark.parametrize(
    "header",
    ["Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP"],
)
async def test_call_through_a_proxy_needs_the_token(daemon: MakeDaemon, header: str) -> None:
    node = await away(daemon)
    forwarded = {header: "127.0.0.1"}
    status, headers, body = await node.post(CREATE.encode(), forwarded)
    assert status == 401
    assert headers["WWW-Authenticate"].startswith("Bearer")
    assert str(node.data_dir / "token") in refusal(body)[1]
    assert (await node.get("/metrics", forwarded))[0] == 401
    assert await job_ids(node) == []
    assert (await node.post(CREATE.encode(), {**forwarded, **bearer(token(node))}))[0] == 200


async def test_required_token_is_asked_of_loopback_too(daemon: MakeDaemon) -> None:
    node = await away(daemon, "--require-token")
    secret = token(node)
    status, headers, body = await node.post(CREATE.encode())
    assert status == 401
    assert headers["WWW-Authenticate"].startswith("Bearer")
    name, message = refusal(body)
    assert name == "unauthorized"
    assert str(node.data_dir / "token") in message
    assert "Authorization: Bearer" in message
    assert secret not in message
    wrong = [
        *(f"Bearer {one}" for one in ("", "wrong", secret[:-1], f"{secret}x", secret.swapcase())),
        *(secret, f"Basic {secret}", "Bearer"),
    ]
    for given in wrong:
        status, headers, body = await node.post(CREATE.encode(), {"Authorization": given})
        assert status == 401, given
        assert headers["WWW-Authenticate"].startswith("Bearer")
        assert str(node.data_dir / "token") in refusal(body)[1]
    assert (await node.get("/metrics"))[0] == 401
    for right in (f"Bearer {secret}", f"bearer {secret}"):
        assert (await node.post(CREATE.encode(), {"Authorization": right}))[0] == 200
    assert (await node.get("/metrics", bearer(secret)))[0] == 200
    assert secret not in node.log


async def test_wrong_token_is_refused_where_none_is_needed(daemon: MakeDaemon) -> None:
    node = await away(daemon)
    assert (await node.post(CREATE.encode(), bearer("wrong")))[0] == 401
    assert (await node.post(CREATE.encode()))[0] == 200


async def test_token_file_is_the_owners_alone_and_stays_over_restarts(daemon: MakeDaemon) -> None:
    node = await away(daemon, "--require-token")
    file = node.data_dir / "token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    first = token(node)
    assert len(first) >= 32
    await node.restart(wait_ready=False)
    assert token(node) == first
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (await node.post(CREATE.encode(), bearer(first)))[0] == 200
    other = await away(daemon, name="other")
    assert token(other) != first


async def test_token_file_of_ones_own_is_used(daemon: MakeDaemon, tmp_path: Path) -> None:
    file = tmp_path / "mine"
    file.write_text("a-token-that-a-person-has-chosen\n")
    node = await away(daemon, "--require-token", "--token-file", str(file))
    _, _, body = await node.post(CREATE.encode())
    assert str(file) in refusal(body)[1]
    assert (await node.post(CREATE.encode(), bearer("a-token-that-a-person-has-chosen")))[0] == 200
    assert not (node.data_dir / "token").exists()


async def test_foreign_origin_is_refused_with_a_token_too(daemon: MakeDaemon) -> None:
    node = await away(daemon)
    foreign = [
        "http://evil.example",
        "https://evil.example:8080",
        "null",
        "http://127.0.0.1",
        f"http://127.0.0.1:{node.port + 1}",
        f"http://127.0.0.1:{node.port}.evil.example",
        f"http://localhost:{node.port}",
        "",
    ]
    for origin in foreign:
        status, _, body = await node.post(CREATE.encode(), {"Origin": origin})
        assert (status, refusal(body)[0]) == (403, "foreign_origin"), origin
        with_token = {"Origin": origin, **bearer(token(node))}
        assert (await node.post(CREATE.encode(), with_token))[0] == 403, origin
        assert (await node.get("/metrics", {"Origin": origin}))[0] == 403, origin
    assert await job_ids(node) == []


async def test_own_origin_is_let_in(daemon: MakeDaemon) -> None:
    node = await away(daemon)
    assert (await node.post(CREATE.encode(), {"Origin": node.url}))[0] == 200
    named = {"Host": f"localhost:{node.port}", "Origin": f"http://localhost:{node.port}"}
    assert (await node.post(CREATE.encode(), named))[0] == 200


async def test_foreign_host_needs_the_token(daemon: MakeDaemon) -> None:
    node = await away(daemon)
    name = f"evil.example:{node.port}"
    # DNS rebinding: a page of evil.example, which now points here, is of "our" origin.
    for headers in ({"Host": name}, {"Host": name, "Origin": f"http://{name}"}):
        status, _, body = await node.post(CREATE.encode(), headers)
        assert (status, refusal(body)[0]) == (403, "foreign_host")
        assert (await node.get("/metrics", headers))[0] == 403
    for name in ("127.0.0.1.evil.example", "localhost.evil.example", "evil.localhost.example"):
        assert (await node.post(CREATE.encode(), {"Host": name}))[0] == 403, name
    assert await job_ids(node) == []
    with_token = {"Host": "manager.example", **bearer(token(node))}
    assert (await node.post(CREATE.encode(), with_token))[0] == 200


async def test_own_names_are_no_foreign_hosts(daemon: MakeDaemon) -> None:
    node = await away(daemon)
    names = ["localhost", "LOCALHOST", "127.0.0.1", "[::1]", socket.gethostname()]
    for name in [*names, *(f"{name}:{node.port}" for name in names)]:
        assert (await node.post(CREATE.encode(), {"Host": name}))[0] == 200, name


# A caller from elsewhere


@contextmanager
def elsewhere() -> Iterator[tuple[str, str]]:
    """A network namespace wired to this one: its name, and the address of this end."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("a network namespace needs root and ip (iproute2)")
    name = f"cmt{os.getpid()}"
    # A block of four addresses for each process, so that two runs of the tests do not meet.
    block = ipaddress.ip_address("198.18.0.0") + 4 * (os.getpid() % (1 << 14))
    here, there = str(block + 1), str(block + 2)

    def ip(arguments: str, *, check: bool = True) -> None:
        subprocess.run(["ip", *arguments.split()], check=check, capture_output=True, timeout=10)

    try:
        ip(f"netns add {name}")
        ip(f"link add {name}a type veth peer name {name}b")
        ip(f"link set {name}b netns {name}")
        ip(f"addr add {here}/30 dev {name}a")
        ip(f"link set {name}a up")
        ip(f"-n {name} addr add {there}/30 dev {name}b")
        ip(f"-n {name} link set {name}b up")
        yield name, here
    finally:
        ip(f"link del {name}a", check=False)
        ip(f"netns del {name}", check=False)


async def test_caller_from_elsewhere_needs_the_token(daemon: MakeDaemon) -> None:
    node = await away(daemon, "--listen-address", "0.0.0.0")
    with elsewhere() as (netns, address):
        url = f"http://{address}:{node.port}"
        call = ("-H", "Content-Type: application/json", "-d", CREATE, f"{url}/jrpc")
        status, body = await curl(*call, netns=netns)
        assert status == 401, body
        assert str(node.data_dir / "token") in refusal(body.encode())[1]
        status, body = await curl("-i", *call, netns=netns)
        assert re.search(r"(?im)^www-authenticate: bearer", body)
        spoofed = ("-H", "X-Forwarded-For: 127.0.0.1", "-H", "Host: localhost")
        assert (await curl(*spoofed, *call, netns=netns))[0] == 401
        assert (await curl(f"{url}/metrics", netns=netns))[0] == 401
        assert await job_ids(node) == []
        # The probes answer, and tell no more than that.
        assert await curl(f"{url}/livez", netns=netns) == (200, "ok\n")
        status, body = await curl(f"{url}/readyz", netns=netns)
        assert (status, orjson.loads(body)) == (503, {"ready": False})
        secret = ("-H", f"Authorization: Bearer {token(node)}")
        assert (await curl(*secret, *call, netns=netns))[0] == 200
        assert (await curl(*secret, f"{url}/metrics", netns=netns))[0] == 200
        status, body = await curl(*secret, f"{url}/readyz", netns=netns)
        assert orjson.loads(body)["engine"]["available"] is False
    assert len(await job_ids(node)) == 1


async def test_trusted_caller_from_elsewhere_needs_none(daemon: MakeDaemon) -> None:
    flags = ("--listen-address", "0.0.0.0", "--require-token", "--trust", "198.18.0.0/15")
    node = await away(daemon, *flags)
    with elsewhere() as (netns, address):
        url = f"http://{address}:{node.port}"
        call = ("-H", "Content-Type: application/json", "-d", CREATE, f"{url}/jrpc")
        status, body = await curl(*call, netns=netns)
        assert status == 200, body
        assert (await curl(f"{url}/metrics", netns=netns))[0] == 200
        status, body = await curl(f"{url}/readyz", netns=netns)
        assert orjson.loads(body)["engine"]["available"] is False
        # Trust is for the address, not for what it passes on, and not for foreign pages.
        assert (await curl("-H", "X-Forwarded-For: 1.2.3.4", *call, netns=netns))[0] == 401
        assert (await curl("-H", "Host: evil.example", *call, netns=netns))[0] == 403
        assert (await curl("-H", "Origin: http://evil.example", *call, netns=netns))[0] == 403
    # Loopback is not in that network.
    assert (await node.post(CREATE.encode()))[0] == 401


async def test_trust_of_another_network_changes_nothing(daemon: MakeDaemon) -> None:
    node = await away(daemon, "--listen-address", "0.0.0.0", "--trust", "203.0.113.0/24")
    with elsewhere() as (netns, address):
        call = ("-H", "Content-Type: application/json", "-d", CREATE)
        status, _ = await curl(*call, f"http://{address}:{node.port}/jrpc", netns=netns)
    assert status == 401
    assert await job_ids(node) == []


# Probes and metrics


async def test_probes_tell_of_an_engine_that_is_away(daemon: MakeDaemon) -> None:
    node = await away(daemon)
    assert await node.get("/livez") == (200, "ok\n")

    async def reason() -> str:
        status, text = await node.get("/readyz")
        assert status == 503
        state = orjson.loads(text)
        assert state["ready"] is False
        assert state["engine"]["available"] is False
        return str(state["engine"]["reason"])

    # Until the first try has failed the reason is that there was none.
    await eventually(lambda: _says(reason, "nonexistent.sock"))
    status, text = await node.get("/readyz", {"X-Forwarded-For": "203.0.113.1"})
    assert (status, orjson.loads(text)) == (503, {"ready": False})
    assert await node.get("/livez", {"X-Forwarded-For": "203.0.113.1"}) == (200, "ok\n")


async def _says(what: Any, words: str) -> bool:
    return words in await what()


@pytest.mark.engine
async def test_probes_tell_of_an_engine_that_is_there(daemon: MakeDaemon) -> None:
    node = await daemon("--queue-size", "7", "--worker-count", "3")
    status, text = await node.get("/readyz")
    state = orjson.loads(text)
    assert (status, state["ready"]) == (200, True)
    assert state["engine"] == {"available": True, "reason": None}
    assert state["queue"] == {"waiting": 0, "size": 7}
    assert state["workers"] == {"busy": 0, "count": 3, "limit": 3}
    status, text = await node.get("/readyz", {"X-Forwarded-For": "203.0.113.1"})
    assert (status, orjson.loads(text)) == (200, {"ready": True})


async def figures(node: Daemon) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """All samples of /metrics, by name and labels."""
    status, text = await node.get("/metrics")
    assert status == 200
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation for family in families)
    samples = [sample for family in families for sample in family.samples]
    found = {(s.name, frozenset(s.labels.items())): s.value for s in samples}
    assert len(found) == len(samples), "a sample twice"
    return found


def own(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return f"container_manager_{name}", frozenset(labels.items())


async def test_metrics_tell_queue_jobs_and_calls(daemon: MakeDaemon) -> None:
    node = await away(daemon, "--queue-size", "5", "--worker-count", "2")
    async with aiohttp.ClientSession() as session, session.get(f"{node.url}/metrics") as answer:
        assert answer.content_type == "text/plain"
    before = await figures(node)
    assert before[own("queue_jobs")] == 0
    assert before[own("jobs_created_total")] == 0

    ids = [await node.create("nginx") for _ in range(4)]
    await node.call(f"{SERVICE}Cancel", {"job_id": ids[0]})
    await node.status(ids[1])
    create = f"{SERVICE}Create"
    for body in (
        {"jsonrpc": "2.0", "id": 1, "method": create, "params": {"image": "no image!"}},
        {"jsonrpc": "2.0", "id": 1, "method": create, "params": {"image": "a", "privileged": True}},
        {"jsonrpc": "2.0", "id": 1, "method": "Made.Up", "params": {}},
        {"jsonrpc": "2.0", "id": 1, "method": "Made.UpToo", "params": {}},
    ):
        await node.post(orjson.dumps(body))

    after = await figures(node)
    assert after[own("queue_jobs")] == 3
    assert after[own("queue_size")] == 5
    assert after[own("workers")] == 2
    assert after[own("workers_busy")] == 0
    assert after[own("engine_up")] == 0
    assert after[own("jobs_created_total")] == 4
    assert after[own("jobs_ended_total", status="cancelled")] == 1
    assert after[own("jobs_ended_total", status="complete")] == 0
    calls = {key: value for key, value in after.items() if key[0].endswith("requests_total")}
    assert calls == {
        own("requests_total", method=create, code="0"): 4,
        own("requests_total", method=create, code="-32602"): 1,
        own("requests_total", method=create, code="-32009"): 1,
        own("requests_total", method=f"{SERVICE}Cancel", code="0"): 1,
        own("requests_total", method=f"{SERVICE}Status", code="0"): 1,
        # By no name that a caller has made up, of which there is no end.
        own("requests_total", method="unknown", code="-32601"): 2,
    }
    (info,) = [dict(labels) for name, labels in after if name == "container_manager_info"]
    assert set(info) == {"version"}


@pytest.mark.engine
async def test_metrics_tell_of_deployments(daemon: MakeDaemon, image: str) -> None:
    node = await daemon("--settle", "0")
    job = await node.wait(await node.create(image))
    assert job["status"] == "complete"
    after = await figures(node)
    assert after[own("engine_up")] == 1
    assert after[own("queue_jobs")] == 0
    assert after[own("jobs_ended_total", status="complete")] == 1
    assert after[own("deployment_seconds_count")] == 1
    assert 0 < after[own("deployment_seconds_sum")] < 30


# Values of env are nowhere


def files_with(directory: Path, what: str) -> list[str]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert files
    return [path.name for path in files if what.encode() in path.read_bytes()]


async def assert_nowhere(node: Daemon, canary: str, answers: Mapping[str, Any]) -> None:
    for what, answer in answers.items():
        assert canary not in orjson.dumps(answer).decode(), what
    assert canary not in (await node.get("/metrics"))[1]
    assert canary not in node.log
    assert files_with(node.data_dir, canary) == []


async def test_values_of_env_are_nowhere_while_the_job_waits(daemon: MakeDaemon) -> None:
    node = await away(daemon, "--log-level", "debug")
    env = {"PASSWORD": CANARY, "OTHER": f"before {CANARY} after"}
    created = await node.call(
        f"{SERVICE}Create", {"image": "nginx", "env": env, "idempotency_key": "once"}
    )
    job_id = created["job_id"]
    refused = [
        {"image": "not an image", "env": env},
        {"image": "nginx", "env": {"A": [CANARY]}},
        {"image": "nginx", "env": {"A": f"{CANARY}\0"}},
        {"image": "nginx", "env": [CANARY]},
        {"image": "nginx", "env": CANARY},
        {"image": "nginx", "env": env, "unheard of": CANARY},
        {"image": "nginx", "env": env, "privileged": CANARY},
        {"image": "nginx", "env": {**env, "MORE": "x"}, "idempotency_key": "once"},
    ]
    answers: dict[str, Any] = {"create": created}
    for number, params in enumerate(refused):
        call = {"jsonrpc": "2.0", "id": 1, "method": f"{SERVICE}Create", "params": params}
        answers[f"refused {number}"] = orjson.loads((await node.post(orjson.dumps(call)))[2])
        assert "error" in answers[f"refused {number}"]
    answers["status"] = await node.status(job_id)
    answers["list"] = await node.call(f"{SERVICE}List")
    answers["wait"] = await node.call(f"{SERVICE}Wait", {"job_id": job_id, "timeout": 0})
    await assert_nowhere(node, CANARY, answers)
    # As after a crash, when the log of the database is worked in.
    await node.restart(wait_ready=False)
    again = {"status": await node.status(job_id), "list": await node.call(f"{SERVICE}List")}
    await assert_nowhere(node, CANARY, again)
    # The search finds what there is: labels are kept in the clear.
    await node.create("nginx", labels={"seen": "canary-in-a-label"})
    assert files_with(node.data_dir, "canary-in-a-label")


@pytest.mark.engine
async def test_values_of_env_reach_the_container_and_nothing_else(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon("--settle", "0", "--log-level", "debug")
    job = await node.wait(await node.create(image, env={"PASSWORD": CANARY}))
    assert job["status"] == "complete"
    shown = await (await docker.containers.get(job["container"]["id"])).show()
    assert f"PASSWORD={CANARY}" in shown["Config"]["Env"]
    failing = {"env": {"PASSWORD": CANARY}, "arguments": ["/no/such/program"]}
    failed = await node.wait(await node.create(image, **failing))
    assert failed["status"] == "failed"
    listed = await node.call(f"{SERVICE}List")
    await assert_nowhere(node, CANARY, {"wait": job, "failed": failed, "list": listed})
