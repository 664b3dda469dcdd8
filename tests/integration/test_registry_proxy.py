"""The proxy before the registry and the images that tests pull through it, tried."""

from __future__ import annotations

import asyncio
import json
import os
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiodocker
import aiohttp
import pytest

from tests.support.images import publish
from tests.support.registry_proxy import BLOB, MANIFEST, PING, RegistryProxy, refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.hooks import Answer

pytestmark = pytest.mark.registry

SIZE = 300_000
ACCEPT = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}


@pytest.fixture
def repository() -> str:
    return f"container-manager-test/proxied-{os.urandom(4).hex()}"


@asynccontextmanager
async def pulled(docker: aiodocker.Docker, name: str) -> AsyncIterator[list[dict[str, Any]]]:
    """What the engine says while it pulls; the image is removed afterwards."""
    try:
        yield [line async for line in docker.images.pull(name, tag="latest", stream=True)]
    finally:
        await docker.images.delete(f"{name}:latest", force=True)


async def get(address: str, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    async with (
        aiohttp.ClientSession() as client,
        client.get(f"http://{address}{path}", headers=headers) as answer,
    ):
        return answer.status, dict(answer.headers), await answer.read()


async def random_blob(address: str, repository: str) -> str:
    """The path of the last layer."""
    _, _, body = await get(address, f"/v2/{repository}/manifests/latest", **ACCEPT)
    return f"/v2/{repository}/blobs/{json.loads(body)['layers'][-1]['digest']}"


@pytest.mark.engine
async def test_engine_pulls_a_published_image_by_the_proxy_and_runs_it(
    docker: aiodocker.Docker, registry: str, registry_proxy: RegistryProxy, repository: str
) -> None:
    health = {"Test": ["CMD", "true"], "Interval": 10**9}
    digest = await publish(registry, repository, [SIZE, SIZE], config={"Healthcheck": health})
    name = f"{registry_proxy.address}/{repository}"
    async with pulled(docker, name) as said:
        assert f"Digest: {digest}" in [line["status"] for line in said]
        image = await docker.images.inspect(f"{name}:latest")
        assert image["Config"]["Healthcheck"] == health
        config: dict[str, Any] = {"Image": f"{name}:latest", "HostConfig": {"NetworkMode": "none"}}
        container = await docker.containers.create(config)
        try:
            await container.start()
            assert (await container.show())["State"]["Running"]
        finally:
            await container.delete(force=True)
    # The random layers and the configuration at least; others' tests may have brought the first.
    assert registry_proxy.count(BLOB) in {3, 4}
    assert registry_proxy.count(MANIFEST) >= 1
    assert registry_proxy.requests[0] == "GET /v2/"


async def test_rate_is_shared_by_all_blobs(
    registry: str, registry_proxy: RegistryProxy, repository: str
) -> None:
    await publish(registry, repository, [SIZE])
    path = await random_blob(registry, repository)
    registry_proxy.rate = 1_000_000
    began = time.monotonic()
    answers = await asyncio.gather(*(get(registry_proxy.address, path) for _ in range(3)))
    took = time.monotonic() - began
    size = sum(len(body) for _, _, body in answers)
    assert size > 3 * SIZE
    assert size / 1e6 - 0.1 < took < size / 1e6 + 2
    assert registry_proxy.count(BLOB) == 3


@pytest.mark.parametrize(
    "answer",
    [
        refusal(404, "MANIFEST_UNKNOWN", "manifest unknown"),
        refusal(429, "TOOMANYREQUESTS", headers={"Retry-After": "7"}),
        refusal(500, "UNKNOWN"),
        refusal(503, "UNAVAILABLE"),
    ],
    ids=lambda answer: str(answer.status),
)
async def test_request_that_a_rule_counts_to_is_refused(
    answer: Answer, registry: str, registry_proxy: RegistryProxy, repository: str
) -> None:
    await publish(registry, repository)
    path = f"/v2/{repository}/manifests/latest"
    registry_proxy.answer(MANIFEST, answer, skip=1, times=2)
    seen = [await get(registry_proxy.address, path, **ACCEPT) for _ in range(4)]
    assert [status for status, _, _ in seen] == [200, answer.status, answer.status, 200]
    _, headers, body = seen[1]
    assert answer.body["errors"][0]["code"] in body.decode()
    assert headers.items() >= dict(answer.headers).items()
    assert registry_proxy.count(MANIFEST) == 4


async def test_answer_to_head_has_no_body(registry_proxy: RegistryProxy) -> None:
    registry_proxy.answer(MANIFEST, refusal(404, "MANIFEST_UNKNOWN"))
    async with aiohttp.ClientSession(f"http://{registry_proxy.address}") as client:
        async with client.head("/v2/a/manifests/b") as answer:
            assert answer.status == 404
        # On the same connection, where a body would be taken for the next answer.
        async with client.get("/v2/") as answer:
            assert answer.status == 200


async def test_blob_is_cut_after_so_many_bytes(
    registry: str, registry_proxy: RegistryProxy, repository: str
) -> None:
    await publish(registry, repository, [SIZE])
    path = await random_blob(registry, repository)
    registry_proxy.cut(BLOB, after=100_000)
    async with (
        aiohttp.ClientSession() as client,
        client.get(f"http://{registry_proxy.address}{path}") as answer,
    ):
        assert answer.status == 200
        got = await answer.content.readexactly(100_000)
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.content.readexactly(1)
    status, _, whole = await get(registry_proxy.address, path)
    assert status == 200
    assert whole.startswith(got)
    assert len(whole) > SIZE
    # An engine goes on where it was cut.
    status, _, rest = await get(registry_proxy.address, path, Range="bytes=100000-")
    assert status == 206
    assert got + rest == whole


@pytest.mark.engine
async def test_engine_resumes_a_cut_blob(
    docker: aiodocker.Docker, registry: str, registry_proxy: RegistryProxy, repository: str
) -> None:
    await publish(registry, repository, [SIZE])
    random_layer = f"GET {await random_blob(registry, repository)}"
    registry_proxy.cut(random_layer, after=100_000)
    async with pulled(docker, f"{registry_proxy.address}/{repository}") as said:
        assert any(line["status"].startswith("Retrying in") for line in said)
    assert registry_proxy.count(random_layer) == 2


async def test_request_is_held_until_released(
    registry: str, registry_proxy: RegistryProxy, repository: str
) -> None:
    await publish(registry, repository)
    path = await random_blob(registry, repository)
    gate = registry_proxy.hold(BLOB)
    waiting = asyncio.create_task(get(registry_proxy.address, path))
    await gate.reached()
    assert (await get(registry_proxy.address, "/v2/"))[0] == 200  # others go on
    assert not waiting.done()
    gate.release()
    assert (await waiting)[0] == 200


@pytest.mark.engine
async def test_registry_wants_a_login(
    docker: aiodocker.Docker, registry: str, registry_proxy: RegistryProxy, repository: str
) -> None:
    await publish(registry, repository)
    registry_proxy.require("ann", "s3cret")
    name = f"{registry_proxy.address}/{repository}"
    status, headers, _ = await get(registry_proxy.address, "/v2/")
    assert (status, headers["WWW-Authenticate"]) == (401, 'Basic realm="registry"')
    for auth in (None, {"username": "ann", "password": "wrong"}):
        with pytest.raises(aiodocker.DockerError, match=r"(?i)unauthorized|no basic auth"):
            await docker.images.pull(name, tag="latest", auth=auth)
    auth = {"username": "ann", "password": "s3cret"}
    await docker.images.pull(name, tag="latest", auth=auth)
    await docker.images.delete(f"{name}:latest")
    assert registry_proxy.count(PING) >= 4


async def test_defect_of_the_proxy_reaches_the_test(
    registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stumble() -> None:
        async with RegistryProxy(registry) as proxy:
            monkeypatch.setattr(proxy, "_action", lambda *_: 1 / 0)
            with pytest.raises(aiohttp.ClientError):
                await get(proxy.address, "/v2/")

    with pytest.raises(BaseExceptionGroup, match="proxy") as caught:
        await stumble()
    assert caught.value.subgroup(ZeroDivisionError)
