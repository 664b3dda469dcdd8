"""Published ports: status tells those that are open, and they answer."""

from __future__ import annotations

import asyncio
import random
import re
import socket
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import pytest_asyncio

from tests.integration.test_deploy import containers
from tests.support.daemon import free_port
from tests.support.images import publish
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiodocker

    from tests.conftest import MakeDaemon
    from tests.support.daemon import Daemon

SERVE = ["sh", "-c", "echo here > /tmp/page; exec busybox httpd -f -p 80 -h /tmp"]
ONCE = {"max_attempts": 1}


async def served(port: int) -> str:
    """The page at a port of this host, once it is served."""

    async def page() -> str | None:
        try:
            async with aiohttp.request("GET", f"http://127.0.0.1:{port}/page") as answer:
                return await answer.text() if answer.status == 200 else None
        except aiohttp.ClientError:
            return None  # the program in the container is not there yet

    return (await eventually(page)).strip()


def bindings(job: dict[str, Any]) -> list[tuple[int, str, str]]:
    return sorted(
        (port["container_port"], port["protocol"], port["host_ip"])
        for port in job["container"]["ports"]
    )


async def up(node: Daemon, image: str, **fields: Any) -> dict[str, Any]:
    """A job that serves a page, when it is complete."""
    job = await node.wait(
        # Podman gives what it removes its time to end.
        await node.create(image, arguments=SERVE, stop_timeout=0, retry=ONCE, **fields)
    )
    assert job["status"] == "complete", job["reason"]
    return job


async def test_a_port_that_the_engine_picks_is_told_and_answers(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon("--settle", "0")
    job = await up(node, image, ports=["127.0.0.1::80", {"container_port": 53, "protocol": "udp"}])
    assert bindings(job)[-1] == (80, "tcp", "127.0.0.1")
    assert {one[:2] for one in bindings(job)} == {(53, "udp"), (80, "tcp")}
    (port,) = [one["host_port"] for one in job["container"]["ports"] if one["protocol"] == "tcp"]
    assert port > 0
    assert await served(port) == "here"
    container = docker.containers.container(job["container"]["id"])
    await container.kill()

    async def none_left() -> bool:
        return (await node.status(job["job_id"]))["container"]["ports"] == []

    await eventually(none_left)


async def test_a_port_that_is_asked_for_is_the_one(daemon: MakeDaemon, image: str) -> None:
    node = await daemon("--settle", "0")
    port = free_port()
    job = await up(node, image, ports=[f"127.0.0.1:{port}:80"])
    assert job["container"]["ports"] == [
        {"container_port": 80, "protocol": "tcp", "host_ip": "127.0.0.1", "host_port": port}
    ]
    assert await served(port) == "here"


@pytest.mark.docker_only("it takes one port of the host, and no range to pick from")
async def test_ranges_give_a_port_of_them_or_go_port_by_port(
    daemon: MakeDaemon, image: str
) -> None:
    node = await daemon("--settle", "0")
    first = random.randrange(20_000, 30_000)  # below those that the system gives out by itself
    ports = [f"127.0.0.1:{first}-{first + 200}:80"]
    jobs = await asyncio.gather(*(up(node, image, ports=ports) for _ in range(2)))
    taken = [job["container"]["ports"][0]["host_port"] for job in jobs]
    assert len(set(taken)) == 2
    assert all(first <= port <= first + 200 for port in taken)
    assert [await served(port) for port in taken] == ["here", "here"]

    first += 300
    job = await up(node, image, ports=[f"127.0.0.1:{first}-{first + 2}:80-82"])
    leads = {one["container_port"]: one["host_port"] for one in job["container"]["ports"]}
    assert leads == {80: first, 81: first + 1, 82: first + 2}


async def test_a_taken_port_is_told_and_tried_again_until_it_is_free(
    daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon("--settle", "0")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        fields = {"ports": [f"127.0.0.1:{port}:80"], "arguments": SERVE}
        gives_up = await node.create(image, retry=ONCE, **fields)
        waits = await node.create(
            image, retry={"max_attempts": 100, "backoff": 0.3, "max_backoff": 0.3}, **fields
        )
        job = await node.wait(gives_up)
        assert (job["status"], job["attempts"]) == ("failed", 1)
        assert f"127.0.0.1:{port}: bind: address already in use" in job["reason"]
        assert await containers(docker, gives_up) == []

        async def told() -> bool:
            reason = (await node.status(waits))["reason"] or ""
            return "address already in use" in reason and "tried again" in reason

        await eventually(told)
    job = await node.wait(waits)
    assert (job["status"], await served(port)) == ("complete", "here")
    assert job["attempts"] > 1
    assert len(await containers(docker, waits)) == 1
    other = await node.wait(await node.create(image, retry=ONCE, **fields))
    assert re.search(rf"127\.0\.0\.1:{port}.*already (allocated|in use)", other["reason"])


@pytest_asyncio.fixture
async def exposing(docker: aiodocker.Docker, registry: str) -> AsyncIterator[str]:
    """An image that exposes two ports."""
    await publish(registry, "ports/app", config={"ExposedPorts": {"80/tcp": {}, "99/udp": {}}})
    image = f"{registry}/ports/app"
    yield image
    await docker.images.delete(f"{image}:latest", force=True)


async def test_all_that_the_image_exposes_can_be_published(
    daemon: MakeDaemon, exposing: str
) -> None:
    node = await daemon("--settle", "0")
    hidden = await up(node, exposing)
    assert hidden["container"]["ports"] == []
    job = await up(node, exposing, publish_all=True)
    assert {one[:2] for one in bindings(job)} == {(80, "tcp"), (99, "udp")}
    everywhere = [one for one in job["container"]["ports"] if one["host_ip"] == "0.0.0.0"]
    (port,) = [one["host_port"] for one in everywhere if one["protocol"] == "tcp"]
    assert await served(port) == "here"
