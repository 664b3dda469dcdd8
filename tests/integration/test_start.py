"""Starting and stopping: settings that are refused, starts that fail, signals, an absent engine."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from container_manager import __version__
from tests.support.daemon import COMMAND, ROOT, free_port
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import aiodocker

    from tests.conftest import MakeDaemon
    from tests.support.daemon import Daemon
    from tests.support.engine_proxy import EngineProxy

AWAY = "unix:///nonexistent.sock"
LABEL = "io.container-manager.job"


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CONTAINER_MANAGER_")}
    return {**kept, "PYTHONPATH": str(ROOT), **(more or {})}


def run(
    *arguments: str, env: Mapping[str, str] | None = None, command: Sequence[str] = COMMAND
) -> subprocess.CompletedProcess[str]:
    """Run the program until it ends by itself, which it has to."""
    ended = subprocess.run(
        [*command, *arguments],
        env=environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert "Traceback" not in ended.stdout + ended.stderr, ended.stderr
    return ended


def refused(ended: subprocess.CompletedProcess[str], *words: str) -> None:
    """It ended with code 2, and said what is wrong."""
    assert ended.returncode == 2, ended
    assert ended.stdout == ""
    message = ended.stderr.strip().splitlines()[-1]
    assert message.startswith("Error: ")
    for word in words:
        assert word in message, message


def failed(ended: subprocess.CompletedProcess[str], *words: str) -> None:
    """It ended with code 1, and said why in one line."""
    assert ended.returncode == 1, ended
    assert ended.stdout == ""
    (message,) = ended.stderr.splitlines()
    assert message.startswith("container-manager: ")
    for word in words:
        assert word in message, message


# Settings that are refused


@pytest.fixture
def harmless(tmp_path: Path) -> dict[str, str]:
    """Variables with which a daemon that starts against all expectation does no harm."""
    return {
        "CONTAINER_MANAGER_DATA_DIR": str(tmp_path / "unexpected"),
        "CONTAINER_MANAGER_LISTEN_ADDRESS": "127.0.0.1",
        "CONTAINER_MANAGER_PORT": "0",
        "CONTAINER_MANAGER_DOCKER_HOST": AWAY,
    }


BAD = {
    "port": ("70000", ["--port", "0<=x<=65535"]),
    "queue_size": ("0", ["--queue-size", "1<=x<=10000000"]),
    "worker_count": ("0", ["--worker-count", "1<=x<=1000"]),
    "settle": ("-1", ["--settle", "0<=x<=3600"]),
    "log_level": ("x", ["--log-level", "debug", "info", "warning", "error"]),
    "trust": ("nonsense", ["--trust", "gateway", "192.168.1.0/24"]),
    "listen_address": ("nonsense", ["--listen-address", "0.0.0.0", "127.0.0.1"]),
    "docker_host": ("ftp://x", ["--docker-host", "unix:///path", "tcp://host:port"]),
}
NUMBERS = {"port", "queue_size", "worker_count", "settle"}


@pytest.mark.parametrize("name", BAD)
def test_bad_flag_is_refused_by_name_and_range(name: str, harmless: dict[str, str]) -> None:
    value, words = BAD[name]
    refused(run(f"--{name.replace('_', '-')}", value, env=harmless), *words)


@pytest.mark.parametrize("name", BAD)
def test_bad_variable_is_refused_by_name_and_range(name: str, harmless: dict[str, str]) -> None:
    value, words = BAD[name]
    refused(run(env={**harmless, f"CONTAINER_MANAGER_{name.upper()}": value}), *words)


@pytest.mark.parametrize("name", BAD)
def test_bad_value_in_the_file_is_refused_by_name_and_range(
    name: str, tmp_path: Path, harmless: dict[str, str]
) -> None:
    value, words = BAD[name]
    file = tmp_path / "settings.toml"
    file.write_text(f"{name} = {value if name in NUMBERS else repr(value)}\n")
    # The environment goes before the file.
    harmless.pop(f"CONTAINER_MANAGER_{name.upper()}", None)
    refused(run("--config", str(file), env=harmless), *words)


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--port", "-1"),
        ("--port", "8080.0"),
        ("--jrpc-port", "65536"),
        ("--queue-size", "ten"),
        ("--worker-count", "1001"),
        ("--settle", "nan"),
        ("--settle", "3601"),
        ("--trust", "10.0.0.0/33"),
        ("--listen-address", "localhost"),
        ("--no-such-flag", "1"),
    ],
)
def test_value_beyond_its_range_is_refused(flag: str, value: str, harmless: dict[str, str]) -> None:
    refused(run(flag, value, env=harmless), flag)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("prot = 8080", ["'prot'", "no setting", "Did you mean port?"]),
        ("[daemon]\nport = 8080", ["'daemon'", "no setting"]),
        ('port = "8080"', ["'port'", "wrong type"]),
        ("require_token = 1", ["'require_token'", "wrong type"]),
        ("queue-size = 1.5", ["'queue-size'", "wrong type"]),
        ("port = ", ["not TOML"]),
    ],
)
def test_file_with_a_mistake_is_refused(
    tmp_path: Path, harmless: dict[str, str], content: str, words: list[str]
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(content)
    refused(run("--config", str(file), env=harmless), "--config", str(file), *words)


def test_file_that_is_not_there_is_refused(tmp_path: Path, harmless: dict[str, str]) -> None:
    file = str(tmp_path / "none.toml")
    refused(run("--config", file, env=harmless), "--config", file, "No such file")
    refused(run(env={**harmless, "CONTAINER_MANAGER_CONFIG": file}), "--config", file)


# Starts that fail


def start(data_dir: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """A start that has to fail, on a port that is free."""
    own = ("--listen-address", "127.0.0.1", "--port", str(free_port()), "--docker-host", AWAY)
    return run(*own, "--data-dir", str(data_dir), *flags)


def test_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        failed(start(tmp_path / "node", "--port", port), port, "in use", "--port")


def test_address_that_is_not_ours(tmp_path: Path) -> None:
    ended = start(tmp_path / "node", "--listen-address", "203.0.113.1")
    failed(ended, "203.0.113.1", "--listen-address")


async def test_data_directory_in_use_by_a_running_daemon(daemon: MakeDaemon) -> None:
    node = await daemon(docker_host=AWAY, wait_ready=False)
    ended = await asyncio.to_thread(start, node.data_dir)
    failed(ended, str(node.data_dir), "in use", "--data-dir")
    await node.create("nginx")
    # Freed even by a daemon that had no time to tidy up.
    await node.restart(wait_ready=False)


def test_data_directory_that_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    failed(start(file), str(file), "--data-dir")
    failed(start(file / "below"), str(file / "below"), "--data-dir")
    assert file.read_bytes() == b""


@contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """A directory that not even root can write."""
    if os.geteuid() != 0:
        directory.mkdir(mode=0o500)
        yield
        return
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "cmt", directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", directory], check=True)


def test_data_directory_that_cannot_be_written(tmp_path: Path) -> None:
    directory = tmp_path / "read-only"
    with read_only(directory):
        failed(start(directory), str(directory), "cannot be written", "--data-dir")
        failed(start(directory / "below"), str(directory / "below"), "cannot be written")


def test_token_file_that_cannot_be_made(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    failed(start(tmp_path / "node", "--token-file", str(file / "token")), str(file / "token"))


def first_line(data_dir: Path, *flags: str) -> str:
    """What it says first: why it doesn't start, or that it has, and then it is killed."""
    own = ("--listen-address", "127.0.0.1", "--port", "0", "--docker-host", AWAY)
    with subprocess.Popen(
        [*COMMAND, *own, "--data-dir", str(data_dir), *flags],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        try:
            return process.stderr.readline()
        finally:
            process.kill()


@pytest.mark.parametrize("content", ["", "\n", "   \n"])
def test_token_file_without_a_token_is_refused(tmp_path: Path, content: str) -> None:
    """With an empty token `Authorization: Bearer` alone would let everybody in."""
    file = tmp_path / "token"
    file.write_text(content)
    said = first_line(tmp_path / "node", "--token-file", str(file))
    assert said.startswith("container-manager: "), said
    assert str(file) in said


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("jobs.sqlite", b"no database " * 400),
        ("node.key", b"no key"),
        ("node.key", b""),
        ("seal.key", b""),
    ],
)
async def test_damaged_file_in_the_data_directory_is_named(
    daemon: MakeDaemon, name: str, content: bytes
) -> None:
    node = await daemon(docker_host=AWAY, wait_ready=False)
    await node.create("nginx", env={"A": "1"})
    assert await node.terminate() == 0
    for left in node.data_dir.glob(f"{name}*"):
        left.unlink()
    (node.data_dir / name).write_bytes(content)
    said = await asyncio.to_thread(first_line, node.data_dir)
    assert said.startswith("container-manager: "), said
    assert str(node.data_dir / name) in said
    # It is for a person to repair, and not overwritten meanwhile.
    assert (node.data_dir / name).read_bytes() == content


# What it says of itself


def test_config_show_tells_each_setting_and_where_it_came_from(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(
        'queue-size = 5\nworker_count = 6\nport = 1111\ntrust = ["gateway", "10.0.0.0/8"]\n'
    )
    env = {"CONTAINER_MANAGER_PORT": "2222", "CONTAINER_MANAGER_WORKER_COUNT": "7"}
    flags = ("--config", str(file), "--worker-count", "8", "--data-dir", str(tmp_path / "d"))
    ended = run(*flags, "config", "show", env=env)
    assert ended.returncode == 0, ended.stderr
    shown = {line.split()[0]: line.split(maxsplit=1)[1] for line in ended.stdout.splitlines()}
    told = {name: " ".join(rest.split()) for name, rest in shown.items()}
    assert told == {
        "listen_address": "0.0.0.0 default",
        "port": "2222 environment CONTAINER_MANAGER_PORT",
        "queue_size": f"5 file {file}",
        "worker_count": "8 flag --worker-count",
        "log_level": "info default",
        "data_dir": f"{tmp_path / 'd'} flag --data-dir",
        "docker_host": "- default",
        "token_file": f"{tmp_path / 'd' / 'token'} default",
        "require_token": "false default",
        "trust": f"gateway, 10.0.0.0/8 file {file}",
        "secret_file": "- default",
        "p2p_port": "4001 default",
        "peer": "- default",
        "mdns": "true default",
        "mdns_interface": "- default",
        "settle": "1.0 default",
        "retain_age": "7d default",
        "retain_jobs": "100000 default",
    }
    assert not (tmp_path / "d").exists()


def test_config_show_takes_the_file_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("require_token = true\n")
    ended = run("config", "show", env={"CONTAINER_MANAGER_CONFIG": str(file)})
    (line,) = [line for line in ended.stdout.splitlines() if line.startswith("require_token")]
    assert line.split() == ["require_token", "true", "file", str(file)]


def test_config_show_refuses_bad_values_too() -> None:
    refused(run("--port", "70000", "config", "show"), "--port", "0<=x<=65535")


def test_version() -> None:
    ended = run("--version")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert __version__ in ended.stdout
    assert "container-manager" in ended.stdout


def test_help_names_every_flag_and_is_quick() -> None:
    took = []
    for _ in range(3):
        began = time.monotonic()
        ended = run("--help")
        took.append(time.monotonic() - began)
    assert ended.returncode == 0
    flags = ("listen-address", "port", "jrpc-port", "queue-size", "worker-count", "log-level")
    more = ("data-dir", "docker-host", "config", "token-file", "require-token", "trust", "settle")
    for flag in (*flags, *more, "version", "help"):
        assert f"--{flag}" in ended.stdout
    assert "CONTAINER_MANAGER_PORT" in ended.stdout
    assert min(took) < 1.0
    # What makes a start slow is not even loaded.
    script = (
        "import sys\nfrom container_manager.cli.main import main\n"
        "try: main(['--help'])\n"
        "finally: print([m for m in ('aiohttp', 'pydantic', 'aiodocker') if m in sys.modules])"
    )
    assert run("-c", script, command=[sys.executable]).stdout.splitlines()[-1] == "[]"


async def test_port_zero_picks_a_free_one_and_logs_it(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(*COMMAND, "--listen-address", "127.0.0.1", "--port", "0", "--docker-host", AWAY),
        *("--data-dir", str(tmp_path / "node")),
        env=environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        started = orjson.loads(await asyncio.wait_for(process.stderr.readline(), 20))
        assert started["event"] == "started"
        _, writer = await asyncio.open_connection("127.0.0.1", started["port"])
        writer.close()
        await writer.wait_closed()
    finally:
        process.kill()
        await process.communicate()


# The engine is away


async def test_engine_that_is_away_at_the_start_is_waited_for(
    daemon: MakeDaemon, engine_proxy: EngineProxy, docker: aiodocker.Docker, image: str
) -> None:
    await engine_proxy.go_away()
    node = await daemon("--settle", "0", docker_host=engine_proxy.url, wait_ready=False)
    assert (await node.get("/livez"))[0] == 200
    status, text = await node.get("/readyz")
    assert status == 503
    assert orjson.loads(text)["engine"]["reason"]
    job_id = await node.create(image)
    job = await node.status(job_id)
    assert (job["status"], job["attempts"]) == ("pending", 0)
    assert job["reason"].startswith("waiting for the container engine: ")

    await engine_proxy.come_back()

    job = await node.wait(job_id)
    assert job["status"] == "complete", job
    assert (await node.get("/readyz"))[0] == 200
    assert len(await containers(docker, job_id)) == 1
    assert "Traceback" not in node.log


# Stopping


async def containers(docker: aiodocker.Docker, job_id: str) -> list[Any]:
    return await docker.containers.list(all=True, filters=f'{{"label": ["{LABEL}={job_id}"]}}')


def events(node: Daemon) -> list[str]:
    """What has been logged; every line of it is JSON."""
    return [orjson.loads(line)["event"] for line in node.log.splitlines()]


def send(node: Daemon, number: signal.Signals) -> None:
    assert node.process is not None
    node.process.send_signal(number)


async def stopping(node: Daemon) -> None:
    """Return once the daemon has heard that it is to stop."""
    await eventually(lambda: "stopping" in events(node))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("engine_is", ["away", "there"])
async def test_idle_daemon_ends_at_once_and_says_so(
    daemon: MakeDaemon, engine_url: str, number: signal.Signals, engine_is: str
) -> None:
    there = engine_is == "there"
    node = await daemon(docker_host=engine_url if there else AWAY, wait_ready=there)
    began = time.monotonic()
    send(node, number)
    assert await node.ended() == 0
    assert time.monotonic() - began < 2
    assert events(node)[-2:] == ["stopping", "stopped"]
    # Nothing is left that a next start would stumble over.
    await node.start(wait_ready=there)


async def test_stopping_daemon_lets_a_running_deployment_finish(
    daemon: MakeDaemon, engine_proxy: EngineProxy, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon("--settle", "0", "--worker-count", "1", docker_host=engine_proxy.url)
    gate = engine_proxy.hold("POST /containers/[^/]+/start")
    job_id = await node.create(image)
    waiting = await node.create(image)
    await gate.reached()

    send(node, signal.SIGTERM)
    await stopping(node)
    assert node.running
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", node.port)
    gate.release()

    assert await node.ended() == 0
    assert events(node)[-1] == "stopped"
    assert len(await containers(docker, job_id)) == 1
    # No work was begun any more.
    assert await containers(docker, waiting) == []
    await node.start()
    job = await node.status(job_id)
    assert (job["status"], job["attempts"]) == ("complete", 1)
    assert (await node.wait(waiting))["status"] == "complete"
    for each in (job_id, waiting):
        assert len(await containers(docker, each)) == 1
    assert "Traceback" not in node.log


async def test_second_signal_ends_a_hanging_deployment_at_once(
    daemon: MakeDaemon, engine_proxy: EngineProxy, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon("--settle", "0", docker_host=engine_proxy.url)
    gate = engine_proxy.hold("POST /containers/create")
    job_id = await node.create(image)
    await gate.reached()
    send(node, signal.SIGTERM)
    await stopping(node)
    assert node.running

    began = time.monotonic()
    send(node, signal.SIGTERM)
    assert await node.ended() == 128 + signal.SIGTERM
    assert time.monotonic() - began < 1

    gate.release()
    await node.start()
    assert (await node.wait(job_id))["status"] == "complete"
    assert len(await containers(docker, job_id)) == 1
    assert "Traceback" not in node.log


async def test_deployment_that_hangs_holds_up_the_end_for_a_bounded_time(
    daemon: MakeDaemon, engine_proxy: EngineProxy, docker: aiodocker.Docker, image: str
) -> None:
    node = await daemon("--settle", "0", docker_host=engine_proxy.url)
    gate = engine_proxy.hold("POST /containers/[^/]+/start")
    job_id = await node.create(image)
    await gate.reached()
    began = time.monotonic()
    send(node, signal.SIGTERM)
    assert await node.ended() == 0
    # Less than the ten seconds after which `docker stop` and systemd's like lose patience.
    assert time.monotonic() - began < 10
    assert events(node)[-1] == "stopped"

    gate.release()
    await node.start()
    assert (await node.wait(job_id))["status"] == "complete"
    assert len(await containers(docker, job_id)) == 1
    assert "Traceback" not in node.log
