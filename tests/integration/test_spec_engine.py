"""Every field on the real engine: a job's container is what `docker create` makes of the flags."""

from __future__ import annotations

import asyncio
import os
import shutil
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import aiodocker
import pytest
import pytest_asyncio

from tests.support.daemon import RpcError, free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import MakeDaemon

LABEL = "io.container-manager.job"
OWNER_LABELS = {"io.container-manager.node", "io.container-manager.home"}
SLEEP = ["sh", "-c", "sleep 300"]

# What differs between any two containers, and what the client sets for a terminal.
NOT_COMPARED = {"Labels", "AttachStdout", "AttachStderr", "ConsoleSize", "SecurityOpt"}


async def inspected(docker: aiodocker.Docker, job_id: str) -> dict[str, Any]:
    (found,) = await docker.containers.list(all=True, filters=f'{{"label": ["{LABEL}={job_id}"]}}')
    shown: dict[str, Any] = await found.show()
    return shown


def comparable(shown: dict[str, Any], part: str) -> dict[str, Any]:
    """A part of the engine's document less what is not set."""
    found = {
        key: value
        for key, value in shown[part].items()
        if value not in (None, "", 0, False, [], {}) and key not in NOT_COMPARED
    }
    if found.get("Hostname") == shown["Id"][:12]:
        del found["Hostname"]
    # The client says what the engine does anyway where nothing is said.
    if found.get("RestartPolicy", {}).get("Name") in ("", "no"):
        del found["RestartPolicy"]
    for mount in found.get("Mounts", []):
        mount["VolumeOptions"] = {k: v for k, v in mount.get("VolumeOptions", {}).items() if v}
    return found


class Client:
    """Docker's own client, with the containers that it has made."""

    def __init__(self, program: str, docker_host: str) -> None:
        self._program = program
        self._environment = {**os.environ, "DOCKER_HOST": docker_host}
        self.made: list[str] = []

    async def create(self, *words: str) -> str:
        """The id of the container of `docker create …`."""
        process = await asyncio.create_subprocess_exec(
            *(self._program, "create", *words),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment,
        )
        out, error = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, error.decode()
        self.made.append(out.decode().split()[-1])
        return self.made[-1]


@pytest_asyncio.fixture
async def client(engine_url: str, docker: aiodocker.Docker) -> AsyncIterator[Client]:
    program = shutil.which("docker")
    if program is None:
        pytest.skip("no docker on the PATH to compare with")
    one = Client(program, engine_url)
    yield one
    for container in one.made:
        await docker.containers.container(container).delete(force=True)


@pytest_asyncio.fixture
async def names(docker: aiodocker.Docker) -> AsyncIterator[dict[str, str]]:
    """Two networks, a neighbour's name and a volume's, for one test; whatever is made is removed.

    It comes before `daemon` in a test's arguments, so that its end comes after the containers'.
    """
    mark = uuid.uuid4().hex[:8]
    things = ("front", "back", "neighbour", "data", "more")
    found = {thing: f"cm-test-{thing}-{mark}" for thing in things}
    networks = [
        await docker.networks.create({"Name": found[one], "CheckDuplicate": True})
        for one in ("front", "back")
    ]
    try:
        yield found
    finally:
        with suppress(aiodocker.DockerError):
            await docker.containers.container(found["neighbour"]).delete(force=True)
        for network in networks:
            await network.delete()
        for volume in ("data", "more"):
            with suppress(aiodocker.DockerError):
                await (await docker.volumes.get(found[volume])).delete()


PORT = free_port()
CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "nothing": ({}, []),
    "process": (
        {
            "entrypoint": "sh",
            "arguments": ["-c", "sleep 300"],
            "env": {"A": "1=2"},
            "user": "1000:1000",
            "working_dir": "/tmp",
            "hostname": "web",
            "domainname": "example.org",
            "init": True,
            "stop_signal": "usr1",
            "stop_timeout": 3,
        },
        [
            *("--entrypoint", "sh", "--env", "A=1=2", "--user", "1000:1000", "--workdir", "/tmp"),
            *("--hostname", "web", "--domainname", "example.org", "--init"),
            *("--stop-signal", "SIGUSR1", "--stop-timeout", "3"),
        ],
    ),
    "no entrypoint": (
        {"entrypoint": "", "arguments": SLEEP, "init": False},
        ["--entrypoint", "", "--init=false"],
    ),
    "resources": (
        {"cpus": 0.3, "cpuset": "0", "memory": "64m", "shm_size": "1.5 MiB", "pids": 20},
        [
            *("--cpus", "0.3", "--cpuset-cpus", "0", "--memory", "64m", "--shm-size", "1.5m"),
            *("--pids-limit", "20"),
        ],
    ),
    "ports": (
        {
            "ports": [
                "80",
                "127.0.0.1::81/udp",
                f"127.0.0.1:{PORT}:82",
                "40000-40999:83",
                "84-85/tcp",
                {"container_port": 86, "host_ip": "127.0.0.1"},
            ],
            "publish_all": True,
        },
        [
            *("-p", "80", "-p", "127.0.0.1::81/udp", "-p", f"127.0.0.1:{PORT}:82"),
            *("-p", "40000-40999:83", "-p", "84-85", "-p", "127.0.0.1::86", "--publish-all"),
        ],
    ),
    "network": (
        {
            "networks": [{"name": "{front}", "aliases": ["web", "www.internal"]}],
            "links": ["{neighbour}:db"],
            "dns": ["198.18.0.9", "2001:db8::1"],
            "extra_hosts": {"a": "198.18.0.7", "node": "host-gateway", "six": "::1"},
        },
        [
            *("--network", "{front}", "--network-alias", "web", "--network-alias", "www.internal"),
            *("--link", "{neighbour}:db", "--dns", "198.18.0.9", "--dns", "2001:db8::1"),
            *("--add-host", "a:198.18.0.7", "--add-host", "node:host-gateway"),
            *("--add-host", "six:::1"),
        ],
    ),
    "network by mode": ({"network_mode": "{back}"}, ["--network", "{back}"]),
    "no network": ({"network_mode": "none"}, ["--network", "none"]),
    "bridge": ({"networks": ["bridge"]}, ["--network", "bridge"]),
    "files": (
        {
            "volumes": ["{data}:/data", {"name": "{more}", "target": "/more", "nocopy": True}],
            "tmpfs": ["/run", "/scratch:size=64m,mode=1777,exec"],
            "read_only": True,
        },
        [
            *("--mount", "type=volume,source={data},target=/data"),
            *("--mount", "type=volume,source={more},target=/more,volume-nocopy=true"),
            *("--tmpfs", "/run", "--tmpfs", "/scratch:size=64m,mode=1777,exec", "--read-only"),
        ],
    ),
    "read-only volume": (
        {"volumes": ["{data}:/data:ro"]},
        ["--mount", "type=volume,source={data},target=/data,readonly"],
    ),
    "health": (
        {
            "healthcheck": {
                "test": "true",
                "interval": 0.5,
                "timeout": 5,
                "start_period": 1.5,
                "retries": 2,
            }
        },
        [
            *("--health-cmd", "true", "--health-interval", "500ms", "--health-timeout", "5s"),
            *("--health-start-period", "1500ms", "--health-retries", "2"),
        ],
    ),
    "no health": ({"healthcheck": {"disable": True}}, ["--no-healthcheck"]),
    "restart and logs": (
        {
            "restart_policy": "on-failure:3",
            "log_driver": {"name": "json-file", "options": {"max-size": "1m", "max-file": "2"}},
        },
        [
            *("--restart", "on-failure:3", "--log-driver", "json-file"),
            *("--log-opt", "max-size=1m", "--log-opt", "max-file=2"),
        ],
    ),
    "restart always, no logs": (
        {"restart_policy": {"name": "always"}, "log_driver": "none"},
        ["--restart", "always", "--log-driver", "none"],
    ),
    "local logs": (
        {"log_driver": {"name": "local", "options": {"compress": "false", "mode": "blocking"}}},
        ["--log-driver", "local", "--log-opt", "compress=false", "--log-opt", "mode=blocking"],
    ),
}


def filled(value: Any, names: dict[str, str]) -> Any:
    """With the names of this test's own networks and volumes in their places."""
    if isinstance(value, str):
        return value.format(**names) if "{" in value else value
    if isinstance(value, list):
        return [filled(one, names) for one in value]
    if isinstance(value, dict):
        return {key: filled(one, names) for key, one in value.items()}
    return value


@pytest.mark.parametrize("case", CASES)
async def test_container_is_what_docker_makes_of_the_flags(
    names: dict[str, str],
    client: Client,
    docker: aiodocker.Docker,
    daemon: MakeDaemon,
    image: str,
    case: str,
) -> None:
    spec, flags = (filled(part, names) for part in CASES[case])
    if "links" in spec:
        await docker.containers.run(
            {"Image": image, "HostConfig": {"NetworkMode": names["front"]}},
            name=names["neighbour"],
        )
    node = await daemon("--settle", "0")
    job = await node.wait(await node.create(image, **spec))
    assert job["status"] == "complete", job["reason"]

    ours = await inspected(docker, job["job_id"])
    # Said to every engine, as not all of them have Docker's own default.
    stop = ["--stop-timeout", "10"] if "stop_timeout" not in spec else []
    made = await client.create(*stop, *flags, image, *spec.get("arguments", []))
    theirs = await (await docker.containers.get(made)).show()

    for mount in ours["HostConfig"].get("Mounts") or []:
        assert mount["VolumeOptions"].pop("Labels").keys() == OWNER_LABELS
    for part in ("Config", "HostConfig"):
        assert comparable(ours, part) == comparable(theirs, part)
    assert ours["HostConfig"]["SecurityOpt"] == ["no-new-privileges"]
    networks = ours["NetworkSettings"]["Networks"]
    assert networks.keys() == theirs["NetworkSettings"]["Networks"].keys()
    for name, endpoint in networks.items():
        other = theirs["NetworkSettings"]["Networks"][name]
        assert endpoint["Links"] == other["Links"]
        own = {ours["Id"][:12], theirs["Id"][:12]}
        assert {*(endpoint["Aliases"] or [])} - own == {*(other["Aliases"] or [])} - own


async def test_fields_do_in_the_container_what_they_say(
    names: dict[str, str], docker: aiodocker.Docker, daemon: MakeDaemon, image: str
) -> None:
    """One job with all of them, which looks for itself."""
    await docker.containers.run(
        {"Image": image, "HostConfig": {"NetworkMode": names["front"]}}, name=names["neighbour"]
    )
    script = """
        set -e
        test "$(busybox id -u):$(busybox id -g)" = 1000:1000
        test "$PWD" = /tmp
        test "$(busybox hostname)" = web
        busybox grep -q '198.18.0.7.*elsewhere' /etc/hosts
        busybox nslookup db >/dev/null
        busybox nslookup alias-of-web >/dev/null
        touch /scratch/file
        ! touch /file 2>/dev/null
        busybox grep -q ' /scratch tmpfs .*size=1024k' /proc/mounts
        ! touch /data/file 2>/dev/null
        test "$(busybox df -k /dev/shm | busybox awk 'END {print $2}')" = 2048
        test "$(busybox ps | busybox awk '$1 == 1 {print $4}')" != sh
        busybox grep -q 'NoNewPrivs:.*1' /proc/self/status
    """
    node = await daemon()
    job_id = await node.create(
        image,
        type="batch",
        entrypoint=["sh", "-c"],
        arguments=[script],
        user="1000:1000",
        working_dir="/tmp",
        hostname="web",
        init=True,
        networks=[{"name": names["front"], "aliases": ["alias-of-web"]}],
        links=[f"{names['neighbour']}:db"],
        extra_hosts=["elsewhere:198.18.0.7"],
        volumes=[f"{names['data']}:/data:ro"],
        tmpfs={"/scratch": "size=1m,mode=1777"},
        shm_size="2m",
        memory="64m",
        pids=50,
        read_only=True,
        restart_policy="no",
        user_data={"ticket": 5},
    )
    job = await node.wait(job_id)
    shown = await inspected(docker, job_id)
    log = await docker.containers.container(shown["Id"]).log(stdout=True, stderr=True)
    assert job["status"] == "complete", (job["reason"], log)
    assert "ticket" not in str(shown)


async def test_volume_that_was_made_is_labelled_and_kept(
    names: dict[str, str], docker: aiodocker.Docker, daemon: MakeDaemon, image: str
) -> None:
    node = await daemon("--settle", "0")
    volumes = [f"{names['data']}:/data"]
    write = ["sh", "-c", "echo kept >/data/file"]
    job = await node.wait(await node.create(image, type="batch", arguments=write, volumes=volumes))
    assert job["status"] == "complete"
    await docker.containers.container(job["container"]["id"]).delete(v=True, force=True)
    volume = await (await docker.volumes.get(names["data"])).show()
    assert volume["Labels"].keys() == OWNER_LABELS
    read = ["sh", "-c", 'test "$(cat /data/file)" = kept']
    job = await node.wait(await node.create(image, type="batch", arguments=read, volumes=volumes))
    assert job["status"] == "complete"


async def test_health_check_of_the_spec_decides(daemon: MakeDaemon, image: str) -> None:
    node = await daemon("--settle", "0")
    check = {"interval": 0.2, "timeout": 5, "retries": 1}
    well, ill = [
        await node.create(image, healthcheck={"test": test, **check}, retry={"max_attempts": 1})
        for test in (["CMD", "true"], "exit 1")
    ]
    job = await node.wait(well)
    assert (job["status"], job["container"]["health"]) == ("complete", "healthy")
    assert (await node.wait(ill))["reason"] == "the container is unhealthy"


async def test_batch_ends_when_its_restart_policy_gives_up(
    docker: aiodocker.Docker, daemon: MakeDaemon, image: str
) -> None:
    node = await daemon()
    job_id = await node.create(
        image, type="batch", arguments=["sh", "-c", "exit 4"], restart_policy="on-failure:2"
    )
    job = await node.wait(job_id)
    assert (job["status"], job["reason"]) == ("failed", "exited with code 4")
    assert (await inspected(docker, job_id))["RestartCount"] == 2


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"network_mode": "host"}, -32009),
        ({"networks": ["host"]}, -32009),
        ({"volumes": ["/etc:/data"]}, -32009),
        ({"volumes": ["/data"]}, -32602),
        ({"memory": 512}, -32602),
    ],
)
async def test_what_is_refused_is_refused_by_the_daemon(
    daemon: MakeDaemon, image: str, fields: dict[str, Any], code: int
) -> None:
    node = await daemon()
    with pytest.raises(RpcError) as refusal:
        await node.create(image, **fields)
    assert refusal.value.code == code
    assert refusal.value.data["name"] == ("policy_denied" if code == -32009 else "invalid_params")
