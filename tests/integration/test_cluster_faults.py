"""Whole clusters on networks that fail, and of nodes that fail: in the end all know the same."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from container_manager.cluster.secret import ClusterSecret
from tests.support.cluster import (
    NO_ENGINE,
    Load,
    equal,
    id_of,
    jobs,
    linked,
    logged,
    stands,
    states,
)
from tests.support.daemon import free_port
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    import aiodocker

    from tests.conftest import MakeDaemon, MakeNetwork
    from tests.integration.conftest import MakeNode
    from tests.support.daemon import Daemon
    from tests.support.netns import Host, Network

HEALED = 5.0
"""Seconds after the end of a fault in which all nodes list the same."""
DETECTED = 20.0
"""Seconds in which a dead node is taken for gone."""


# Networks that fail. A fault lasts for some time: shorter and longer than links bear silence.


async def _split(net: Network, rng: random.Random) -> None:
    hosts = rng.sample(net.hosts, len(net.hosts))
    await net.split(set(hosts[:2]), set(hosts[2:]))
    await asyncio.sleep(rng.uniform(2, 9))


async def _isolated(net: Network, rng: random.Random) -> None:
    await net.isolate(rng.choice(net.hosts))
    await asyncio.sleep(rng.uniform(2, 9))


async def _one_way(net: Network, rng: random.Random) -> None:
    sender, *receivers = rng.sample(net.hosts, len(net.hosts))
    for receiver in receivers[: rng.choice([1, 2, 4])]:
        await net.one_way(sender, receiver)
    await asyncio.sleep(rng.uniform(2, 9))


async def _lossy(net: Network, rng: random.Random) -> None:
    for host in rng.sample(net.hosts, 2):
        await net.loss(host, 0.3)
    await asyncio.sleep(rng.uniform(2, 9))


async def _flapping(net: Network, rng: random.Random) -> None:
    host = rng.choice(net.hosts)
    for _ in range(5):
        await net.unplug(host)
        await asyncio.sleep(rng.uniform(0.2, 1.5))
        await net.plug(host)
        await asyncio.sleep(rng.uniform(0.1, 0.8))


FAULTS = (_split, _isolated, _one_way, _lossy, _flapping)


async def _rounds(network: MakeNetwork, node: MakeNode, number: int) -> None:
    """Go through rounds of faults, with work on all sides; print what they took."""
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    net = await network(5)
    nodes = list(await asyncio.gather(*(node(host) for host in net.hosts)))
    await linked(*nodes)
    everything: dict[str, str] = {}
    for n in range(number):
        fault = FAULTS[n % len(FAULTS)]
        since = datetime.now(UTC).isoformat()
        loads = [Load(one, random.Random(rng.random())).start() for one in nodes]
        await fault(net, rng)
        await net.heal()
        of_round: dict[str, str] = {}
        for load in loads:
            of_round |= await load.stop()
        assert all(load.acknowledged for load in loads)
        try:
            took = await equal(nodes, of_round, HEALED, since)
        except AssertionError as error:
            raise AssertionError(f"round {n} {fault.__name__}, seed {seed}: {error}") from None
        print(f"{fault.__name__}: {len(of_round)} jobs, all equal {took:.1f} s after healing")
        everything |= of_round
        await linked(*nodes)
    await equal(nodes, everything, HEALED)


async def test_whatever_the_network_does_all_are_equal_after_it(
    network: MakeNetwork, node: MakeNode
) -> None:
    await _rounds(network, node, 5)


@pytest.mark.soak
async def test_a_named_node_that_comes_late_is_called_soon(
    network: MakeNetwork, node: MakeNode
) -> None:
    net = await network(["a", "b"])
    a = await node(net["a"], "--no-mdns", "--peer", f"{net['b'].address}:4001")
    await asyncio.sleep(13.0)  # refused again and again
    b = await node(net["b"], "--no-mdns")
    await linked(a, b, within=1.5)


@pytest.mark.soak
async def test_after_a_long_cut_all_are_equal_as_soon(network: MakeNetwork, node: MakeNode) -> None:
    net = await network(3)
    nodes = list(
        await asyncio.gather(*(node(host, "--no-mdns", *_others(net, host)) for host in net.hosts))
    )
    await linked(*nodes)
    made: dict[str, str] = {}
    for cut in (net.unplug, net.isolate):
        await cut(net.hosts[0])
        made |= {await one.create("busybox"): "pending" for one in nodes}
        await asyncio.sleep(60.0)
        await net.plug(net.hosts[0])
        await net.heal()
        took = await equal(nodes, made, HEALED)
        print(f"all equal {took:.1f} s after a cut of a minute")


def _others(net: Network, host: Host) -> list[str]:
    peers = [f"{other.address}:4001" for other in net.hosts if other is not host]
    return [word for peer in peers for word in ("--peer", peer)]


@pytest.mark.soak
async def test_fifty_rounds_of_faults(network: MakeNetwork, node: MakeNode) -> None:
    await _rounds(network, node, 50)


# Nodes that fail


@pytest_asyncio.fixture
async def three(network: MakeNetwork, node: MakeNode) -> list[Daemon]:
    """Three linked nodes."""
    net = await network(["a", "b", "c"])
    nodes = list(await asyncio.gather(*(node(host) for host in net.hosts)))
    await linked(*nodes)
    return nodes


async def _alive_meanwhile(watching: list[Daemon], other: str, until: asyncio.Event) -> set[str]:
    """All that these nodes say of another one until an event."""
    seen = set()
    while not until.is_set():
        seen |= {(await states(one))[other] for one in watching}
        try:
            async with asyncio.timeout(0.1):
                await until.wait()
        except TimeoutError:
            continue
    return seen


async def test_a_killed_node_is_detected(three: list[Daemon]) -> None:
    a, b, c = three
    dead = await id_of(c)
    job = await c.create("busybox")
    await equal(three, {job: "pending"}, HEALED)
    await c.kill()
    took = max(await asyncio.gather(*(stands(one, dead, "gone", DETECTED) for one in (a, b))))
    print(f"a killed node was gone after {took:.1f} s")
    assert await jobs(a) == await jobs(b) == {job: "pending"}
    await c.start(wait_ready=False)
    await linked(*three)
    await equal(three, {job: "pending"}, HEALED)


async def test_a_pause_of_three_seconds_is_no_alarm(three: list[Daemon]) -> None:
    a, b, c = three
    paused, over = await id_of(c), asyncio.Event()
    lost = [len(logged(one, "peer lost")) for one in three]
    watching = asyncio.create_task(_alive_meanwhile([a, b], paused, over))
    assert c.process is not None
    c.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(3.0)
    c.process.send_signal(signal.SIGCONT)
    made = {await one.create("busybox"): "pending" for one in three}
    await equal(three, made, HEALED)
    over.set()
    assert await watching == {"alive"}
    assert [len(logged(one, "peer lost")) for one in three] == lost


async def test_a_stopped_node_is_detected_and_catches_up(three: list[Daemon]) -> None:
    a, b, c = three
    stopped = await id_of(c)
    assert c.process is not None
    c.process.send_signal(signal.SIGSTOP)
    took = max(await asyncio.gather(*(stands(one, stopped, "gone", DETECTED) for one in (a, b))))
    print(f"a stopped node was gone after {took:.1f} s")
    made = {await one.create("busybox"): "pending" for one in (a, b)}
    c.process.send_signal(signal.SIGCONT)
    made[await c.create("busybox")] = "pending"
    await equal(three, made, HEALED)
    await linked(*three)


async def test_a_wiped_node_is_another_one_and_its_jobs_stay_known(three: list[Daemon]) -> None:
    a, b, c = three
    old, job = await id_of(c), await c.create("busybox")
    await equal(three, {job: "pending"}, HEALED)
    await c.kill()
    shutil.rmtree(c.data_dir)
    await c.start(wait_ready=False)
    await linked(*three)
    new = await id_of(c)
    assert new != old
    # The new one is told by the others what it had written as the old one.
    made = {job: "pending", await c.create("busybox"): "pending"}
    await equal(three, made, HEALED)
    for one in (a, b):
        await stands(one, old, "gone", DETECTED)
        assert (await states(one))[new] == "alive"
        assert (await one.status(job))["owner_reachable"] is False


async def test_a_node_put_back_from_an_older_copy_is_told_what_it_did_since(
    three: list[Daemon], tmp_path: Path
) -> None:
    _, b, c = three
    before = await c.create("busybox")
    kept = await c.create("busybox")
    await equal(three, {before: "pending", kept: "pending"}, HEALED)
    await c.terminate()
    shutil.copytree(c.data_dir, tmp_path / "copy")
    await c.start(wait_ready=False)
    await linked(*three)

    await c.call("ContainerService.Cancel", {"job_id": before})
    later, ended = await c.create("busybox"), await c.create("busybox")
    await c.call("ContainerService.Cancel", {"job_id": ended})
    elsewhere = await b.create("busybox")
    expected = {
        before: "cancelled",
        kept: "pending",
        later: "pending",
        ended: "cancelled",
        elsewhere: "pending",
    }
    await equal(three, expected, HEALED)
    id_ = await id_of(c)

    await c.kill()
    shutil.rmtree(c.data_dir)
    shutil.copytree(tmp_path / "copy", c.data_dir)
    await c.start(wait_ready=False)
    assert await id_of(c) == id_
    await equal(three, expected, HEALED)
    # What it writes from now on counts everywhere.
    await c.call("ContainerService.Cancel", {"job_id": later})
    expected[later] = "cancelled"
    expected[await c.create("busybox")] = "pending"
    await equal(three, expected, HEALED)


async def test_a_clone_is_refused_and_the_first_stays_well(
    network: MakeNetwork, node: MakeNode, tmp_path: Path
) -> None:
    net = await network(["a", "b", "c"])
    a, b = await asyncio.gather(node(net["a"]), node(net["b"]))
    await linked(a, b)
    await b.terminate()
    clone = await node(net["c"], name="clone", start=False)
    shutil.copytree(b.data_dir, clone.data_dir)
    await b.start(wait_ready=False)
    await linked(a, b)
    lost, id_ = len(logged(a, "peer lost")), await id_of(b)

    over = asyncio.Event()
    watching = asyncio.create_task(_alive_meanwhile([a], id_, over))
    await clone.start(wait_ready=False)

    def told() -> bool:
        return any("copy of the other" in line["reason"] for line in logged(clone, "no link"))

    await eventually(told, 10)
    foreign = await clone.create("busybox")
    job = await b.create("busybox")
    await equal([a, b], {job: "pending"}, HEALED)
    over.set()
    assert await watching == {"alive"}
    assert len(logged(a, "peer lost")) == lost
    assert foreign not in await jobs(a)


# What goes over the wire


async def test_what_is_secret_is_nowhere_in_the_clear_on_the_wire(node: MakeNode) -> None:
    canary, port = "canary-in-the-environment", str(free_port())
    listening = ("--listen-address", "127.0.0.1", "--no-mdns")
    a = await node(None, *listening, "--p2p-port", port, name="a")
    async with TcpProxy(f"127.0.0.1:{port}") as proxy:
        b = await node(
            None, *listening, "--p2p-port", str(free_port()), "--peer", proxy.address, name="b"
        )
        await linked(a, b)
        expected = {}
        for here, there in ((a, b), (b, a)):
            spec = {"env": {"PASSWORD": canary}, "labels": {"label": canary}}
            job = await here.create("busybox", **spec)
            expected[job] = "cancelled"
            await eventually(lambda there=there, job=job: _lists(there, job), HEALED)
            await there.call("ContainerService.Cancel", {"job_id": job})
        await equal([a, b], expected, HEALED)
        token = (a.data_dir / "token").read_text().strip()
        words = (canary, token, a.env["CONTAINER_MANAGER_SECRET"])
        for seen in proxy.seen.values():
            assert len(seen) > 2000  # which is all that was said
            assert [word for word in words if word.encode() in seen] == []


async def _lists(node: Daemon, job: str) -> bool:
    return job in await jobs(node)


# With an engine


@pytest.mark.engine
async def test_nothing_that_ended_since_a_copy_was_made_is_run_again(
    daemon: MakeDaemon, tmp_path: Path, engine_url: str, docker: aiodocker.Docker, image: str
) -> None:
    a, b = await _pair(daemon)
    cancelled = await a.create(image)
    finished = await a.create(image, type="batch", arguments=["true"])
    await equal([a, b], {cancelled: "pending", finished: "pending"}, HEALED)
    await a.terminate()
    shutil.copytree(a.data_dir, tmp_path / "copy")

    await a.start(wait_ready=False)
    await a.call("ContainerService.Cancel", {"job_id": cancelled})
    await a.kill()
    a.docker_host = engine_url
    await a.start()
    done = await a.wait(finished)
    await equal([a, b], {cancelled: "cancelled", finished: "complete"}, HEALED)
    await docker.containers.container(done["container"]["id"]).delete(force=True)
    await a.kill()

    shutil.rmtree(a.data_dir)
    shutil.copytree(tmp_path / "copy", a.data_dir)
    new = await _started_before_it_is_told(a, b, image)
    await equal([a, b], {cancelled: "cancelled", finished: "complete", new: "complete"}, HEALED)
    for one in (a, b):
        said = [entry["status"] for entry in (await one.status(cancelled))["history"]]
        assert said == ["pending", "cancelled"]
        again = await one.status(finished)
        assert (again["attempts"], again["container"]["id"]) == (1, done["container"]["id"])
    assert await _containers(docker, cancelled, finished) == set()


@pytest.mark.engine
async def test_nothing_that_ran_when_a_copy_was_made_and_ended_since_is_run_again(
    daemon: MakeDaemon, tmp_path: Path, engine_url: str, docker: aiodocker.Docker, image: str
) -> None:
    a, b = await _pair(daemon)
    await a.terminate()
    a.docker_host = engine_url
    await a.start()
    # As often as it ends it would be tried again.
    retry = {"max_attempts": 9, "backoff": 0.1, "on_exit": True}
    job = await a.create(image, type="batch", retry=retry)

    async def runs() -> bool:
        return (await a.status(job))["phase"] == "running"

    await eventually(runs, 10)
    await a.terminate()
    shutil.copytree(a.data_dir, tmp_path / "copy")

    await a.start()
    await a.call("ContainerService.Cancel", {"job_id": job})
    ended = await a.wait(job)
    await equal([a, b], {job: "cancelled"}, HEALED)
    await docker.containers.container(ended["container"]["id"]).delete(force=True)
    await a.kill()

    shutil.rmtree(a.data_dir)
    shutil.copytree(tmp_path / "copy", a.data_dir)
    new = await _started_before_it_is_told(a, b, image)
    await equal([a, b], {job: "cancelled", new: "complete"}, HEALED)
    for one in (a, b):
        again = await one.status(job)
        assert (again["attempts"], again["history"]) == (1, ended["history"])
    assert await _containers(docker, job) == set()


async def _pair(daemon: MakeDaemon) -> tuple[Daemon, Daemon]:
    """Two linked nodes on this machine, without an engine."""
    secret = {"CONTAINER_MANAGER_SECRET": ClusterSecret.new_text()}
    ports = [str(free_port()), str(free_port())]
    a, b = [
        await daemon(
            *("--no-mdns", "--settle", "0", "--p2p-port", mine, "--peer", f"127.0.0.1:{other}"),
            name=name,
            docker_host=NO_ENGINE,
            env=secret,
            wait_ready=False,
        )
        for name, mine, other in (("a", *ports), ("b", *reversed(ports)))
    ]
    await linked(a, b)
    return a, b


async def _started_before_it_is_told(a: Daemon, b: Daemon, image: str) -> str:
    """Start a node while the other one cannot say anything; a new job, which it runs meanwhile."""
    assert b.process is not None
    b.process.send_signal(signal.SIGSTOP)
    try:
        await a.start()
        new = await a.create(image, type="batch", arguments=["true"])
        assert (await a.wait(new))["status"] == "complete"
    finally:
        b.process.send_signal(signal.SIGCONT)
    return new


async def _containers(docker: aiodocker.Docker, *job_ids: str) -> set[str]:
    """The names of the containers that there are of these jobs."""
    listed = await docker.containers.list(all=True)
    names = {name for one in listed for name in one["Names"]}
    return {name for name in names if any(job in name for job in job_ids)}
