"""Jobs on networks: aliases on each of several, links, and deaths of the daemon in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.test_deploy import containers
from tests.support.engine_proxy import Answer
from tests.support.waiting import eventually

if TYPE_CHECKING:
    import aiodocker

    from tests.conftest import MakeDaemon
    from tests.integration.resources import Resources
    from tests.support.daemon import Daemon
    from tests.support.engine_proxy import EngineProxy

ONCE = {"max_attempts": 1}
SERVE = ["sh", "-c", "hostname > /tmp/page; exec busybox httpd -f -p 80 -h /tmp"]


def fetch(host: str) -> list[str]:
    """Print the page that a host serves, once it does."""
    page = f"busybox wget -qO- http://{host}/page"
    return ["sh", "-c", f"until {page} 2>/dev/null; do sleep 0.1; done"]


async def network(node: Daemon, name: str, **more: Any) -> str:
    await node.call("NetworkService.Create", {"name": name, **more})
    return name


async def connected(docker: aiodocker.Docker, job_id: str) -> dict[str, Any]:
    """The networks of a job's one container, by name."""
    (shown,) = await containers(docker, job_id)
    found: dict[str, Any] = shown["NetworkSettings"]["Networks"]
    return found


async def test_jobs_reach_each_other_by_alias_on_each_of_their_networks(
    resources: Resources, daemon: MakeDaemon, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon("--settle", "0")
    front, back = [await network(node, resources.name(hint)) for hint in ("front", "back")]
    server = await node.create(
        image,
        arguments=SERVE,
        hostname="the-server",
        networks={front: {"aliases": ["web"]}, back: {"aliases": ["api", "db"]}},
    )
    asks = {"type": "batch", "run_timeout": 20}
    reached = [
        await node.create(image, arguments=fetch(host), networks=networks, **asks)
        for host, networks in (
            ("web", [front]),
            ("db", [back]),
            ("api", [{"name": front, "aliases": ["x"]}, back]),  # on its second network
        )
    ]
    for job_id in reached:
        job = await node.wait(job_id)
        assert (job["status"], job["output"]) == ("complete", ["the-server"]), job["reason"]
    found = await connected(docker, server)
    assert found.keys() == {front, back}
    assert "web" in found[front]["Aliases"]
    assert "web" not in found[back]["Aliases"]
    assert {"api", "db"} <= set(found[back]["Aliases"])
    unknown = ["sh", "-c", "busybox nslookup db >/dev/null 2>&1 || echo unknown"]
    job = await node.wait(await node.create(image, arguments=unknown, networks=[front], **asks))
    assert job["output"] == ["unknown"]


@pytest.mark.docker_only("it knows no links")
async def test_links_are_names_on_the_first_network(
    resources: Resources, daemon: MakeDaemon, image: str
) -> None:
    node = await daemon("--settle", "0")
    name = await network(node, resources.name())
    server = resources.name("server")
    job = await node.create(
        image, name=server, arguments=SERVE, hostname="the-server", networks=[name]
    )
    await node.wait(job)
    job = await node.wait(
        await node.create(
            image,
            type="batch",
            arguments=fetch("database"),
            networks=[name],
            links=[f"{server}:database"],
            run_timeout=20,
        )
    )
    assert (job["status"], job["output"]) == ("complete", ["the-server"]), job["reason"]


@pytest.mark.parametrize("place", ["first", "second", "mode"])
async def test_a_network_that_there_is_not_fails_at_once_by_name(
    resources: Resources, daemon: MakeDaemon, docker: aiodocker.Docker, image: str, place: str
) -> None:
    node = await daemon()
    there, missing = await network(node, resources.name()), resources.name("missing")
    fields: dict[str, Any] = {
        "first": {"networks": [missing, there]},
        "second": {"networks": [there, missing]},
        "mode": {"network_mode": missing},
    }[place]
    job_id = await node.create(image, **fields)
    job = await node.wait(job_id)
    assert (job["status"], job["attempts"]) == ("failed", 1)
    assert missing in job["reason"]
    assert "not found" in job["reason"]
    assert await containers(docker, job_id) == []


CONNECT = "POST /networks/[^/]+/connect"
START = "POST /containers/[^/]+/start"


@pytest.mark.parametrize(
    ("when", "call"),
    [("before", CONNECT), ("after", CONNECT), ("before", START), ("after", START)],
)
async def test_killed_on_the_way_to_the_second_network_it_is_on_both_and_was_started_once(
    resources: Resources,
    daemon: MakeDaemon,
    engine_proxy: EngineProxy,
    docker: aiodocker.Docker,
    image: str,
    when: str,
    call: str,
) -> None:
    node = await daemon("--settle", "0", docker_host=engine_proxy.url)
    first, second, third = [await network(node, resources.name()) for _ in range(3)]
    point = engine_proxy.before if when == "before" else engine_proxy.after
    hook = point(call, node.kill)
    job_id = await node.create(
        image,
        arguments=["sh", "-c", "echo started; exec sleep 600"],
        networks={first: None, second: {"aliases": ["one"]}, third: {"aliases": ["two"]}},
    )
    assert await node.ended() == -9
    assert hook.fired == 1
    before = len(engine_proxy.requests)
    await node.start()
    job = await node.wait(job_id)
    assert (job["status"], job["attempts"]) == ("complete", 1)
    assert job["container"]["state"] == "running"
    found = await connected(docker, job_id)
    assert found.keys() == {first, second, third}
    assert "one" in found[second]["Aliases"]
    assert "two" in found[third]["Aliases"]
    container = docker.containers.container(job["container"]["id"])
    await eventually(lambda: container.log(stdout=True))
    assert await container.log(stdout=True) == ["started\n"]
    made = [one for one in engine_proxy.requests[before:] if "/containers/create" in one]
    assert made == []


async def test_a_connection_that_fails_for_a_while_is_tried_again(
    resources: Resources,
    daemon: MakeDaemon,
    engine_proxy: EngineProxy,
    docker: aiodocker.Docker,
    image: str,
) -> None:
    node = await daemon("--settle", "0", docker_host=engine_proxy.url)
    first, second = [await network(node, resources.name()) for _ in range(2)]
    engine_proxy.before(CONNECT, Answer(500, {"message": "no address to be had"}))
    job_id = await node.create(image, networks=[first, second], retry={"backoff": 0.05})
    job = await node.wait(job_id)
    assert (job["status"], job["attempts"]) == ("complete", 2)
    assert "no address to be had" in [entry["reason"] for entry in job["history"]]
    assert (await connected(docker, job_id)).keys() == {first, second}


async def test_the_engine_goes_away_between_two_networks(
    resources: Resources,
    daemon: MakeDaemon,
    engine_proxy: EngineProxy,
    docker: aiodocker.Docker,
    image: str,
) -> None:
    node = await daemon("--settle", "0", docker_host=engine_proxy.url)
    first, second = [await network(node, resources.name()) for _ in range(2)]
    engine_proxy.after(CONNECT, engine_proxy.go_away)
    job_id = await node.create(image, networks=[first, second])

    async def waits() -> bool:
        reason = (await node.status(job_id))["reason"] or ""
        return bool(reason.startswith("waiting for the container engine"))

    await eventually(waits)
    await engine_proxy.come_back()
    job = await node.wait(job_id)
    assert (job["status"], job["attempts"]) == ("complete", 1)
    assert (await connected(docker, job_id)).keys() == {first, second}
