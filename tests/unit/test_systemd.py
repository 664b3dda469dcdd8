"""What the service manager is told, and the unit by which it runs the daemon."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from click.testing import CliRunner

from container_manager.cli.main import cli
from container_manager.daemon import GRACE
from container_manager.systemd import ServiceManager
from tests.support.daemon import ROOT

# Who is spoken to


@pytest.mark.parametrize(
    ("variables", "watchdog"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getppid())}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_ours_by_time_and_process(
    variables: dict[str, str], watchdog: float | None
) -> None:
    environ = {"PATH": "/bin", "NOTIFY_SOCKET": "/run/systemd/notify", **variables}
    assert ServiceManager.from_environment(environ).watchdog == watchdog
    assert environ == {"PATH": "/bin"}  # and no child takes it for its own


@pytest.mark.parametrize("address", ["", "relative", "vsock:2:1234"])
async def test_without_a_manager_nothing_is_said(address: str) -> None:
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000"}
    manager = ServiceManager.from_environment(environ)
    assert manager.watchdog is None
    manager.notify("READY=1")
    async with asyncio.timeout(5):
        await manager.keep_informed(lambda: "well", lambda: asyncio.sleep(0))


@pytest.mark.parametrize("address", ["/nonexistent/notify", "/" + 200 * "x", "@nobody-is-here"])
def test_a_manager_that_is_not_there_is_no_reason_to_fail(address: str) -> None:
    ServiceManager(address).notify("READY=1", "STATUS=\udcff")


@pytest.fixture
def receiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    """A manager's socket, at `notify` in the working directory."""
    monkeypatch.chdir(tmp_path)
    ours = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    ours.bind("notify")
    return ours


def test_each_assignment_is_one_line(receiver: socket.socket) -> None:
    with receiver:
        ServiceManager("notify").notify("READY=1", "STATUS=two\n\tlines ", "STATUS=" + 1000 * "x")
        lines = receiver.recv(4096).decode().split("\n")
    assert lines[:2] == ["READY=1", "STATUS=two lines"]
    assert len(lines[2]) == 500


async def test_no_sign_of_life_until_all_has_answered(receiver: socket.socket) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def answers() -> None:
        asked.set()
        await answer.wait()

    loop = asyncio.get_running_loop()
    with receiver:
        manager = ServiceManager("notify", watchdog=0.02)
        telling = asyncio.create_task(manager.keep_informed(lambda: "well", answers))
        async with asyncio.timeout(5):
            await asked.wait()
            assert await loop.sock_recv(receiver, 4096) == b"STATUS=well"
        # The status goes on to be told; that it was there first says that this is not too early.
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await loop.sock_recv(receiver, 4096)
        answer.set()
        async with asyncio.timeout(5):
            for _ in range(3):
                assert await loop.sock_recv(receiver, 4096) == b"WATCHDOG=1"
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)


# The unit


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(cli, arguments, prog_name="container-manager")
    assert result.exit_code == 0, result.output
    return result.stdout


def entries(unit: str) -> dict[str, list[str]]:
    """The values of each key, of all sections."""
    found = defaultdict(list)
    for line in unit.splitlines():
        if line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            found[key].append(value)
    return found


def command(unit: str) -> list[str]:
    """The command line, as systemd takes it apart."""
    (line,) = entries(unit)["ExecStart"]
    return [word.replace("$$", "$").replace("%%", "%") for word in shlex.split(line)]


def test_the_unit_starts_this_installation() -> None:
    unit = printed("systemd-unit")
    program = command(unit)
    assert Path(program[0]).is_absolute()
    (place,) = entries(unit)["WorkingDirectory"] or [str(ROOT)]
    done = subprocess.run(
        [*program, "--version"], cwd=place, capture_output=True, text=True, check=True
    )
    assert done.stdout == printed("--version")


def test_the_unit_has_the_settings_it_was_given(tmp_path: Path) -> None:
    given = ["--port", "9000", "--trust", "gateway", "--trust", "10.0.0.0/8", "--require-token"]
    config = tmp_path / "with space, 100 % and $HOME.toml"
    config.write_text(f'worker_count = 3\ndata_dir = "{tmp_path}/%i data"\n')
    unit = printed("--config", str(config), *given, "systemd-unit")
    show = [*command(unit), "config", "show"]
    done = subprocess.run(show, cwd=ROOT, capture_output=True, text=True, check=True)
    shown = {line.split()[0]: line.split(maxsplit=1)[1] for line in done.stdout.splitlines()}
    assert shown["port"].split() == ["9000", "flag", "--port"]
    assert shown["trust"].startswith("gateway, 10.0.0.0/8 ")
    assert shown["require_token"].startswith("true ")
    assert shown["worker_count"] == f"{'3':<40} file {config}"
    assert shown["data_dir"].startswith(f"{tmp_path}/%i data ")
    # The directory is the one thing that it may write.
    assert entries(unit)["ReadWritePaths"] == [f'"{tmp_path}/%%i data"']
    assert not entries(unit)["StateDirectory"]


def test_the_environment_goes_into_the_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTAINER_MANAGER_SETTLE", "2.5")
    assert command(printed("systemd-unit"))[-2:] == ["--settle", "2.5"]


@pytest.mark.parametrize(
    ("given", "variable", "flags"),
    [
        (["--no-mdns"], None, ["--no-mdns"]),
        (["--mdns"], None, ["--mdns"]),
        (["--mdns"], "false", ["--mdns"]),
        ([], "false", ["--no-mdns"]),
        ([], None, []),
    ],
)
def test_a_switch_goes_into_the_unit_as_the_flag_that_turns_it(
    given: list[str], variable: str | None, flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable is not None:
        monkeypatch.setenv("CONTAINER_MANAGER_MDNS", variable)
    words = command(printed(*given, "systemd-unit"))
    assert [word for word in words if "mdns" in word] == flags


def test_peers_go_into_the_unit_one_by_one() -> None:
    peers = ["--peer", "node-b:4001", "--peer", "[::1]:4001"]
    assert command(printed(*peers, "systemd-unit"))[-4:] == peers


def test_data_is_kept_where_systemd_makes_it() -> None:
    unit = printed("systemd-unit")
    assert command(unit)[-2:] == ["--data-dir", "/var/lib/container-manager"]
    assert entries(unit)["StateDirectory"] == ["container-manager"]


def test_the_unit_runs_as_another_user_in_the_group_of_the_engine() -> None:
    unit = entries(printed("systemd-unit", "--user", "cm"))
    assert (unit["User"], unit["SupplementaryGroups"]) == (["cm"], ["docker"])
    unit = entries(printed("systemd-unit"))
    assert (unit["User"], unit["SupplementaryGroups"]) == (["root"], [])


@pytest.mark.parametrize(
    ("port", "capabilities"), [("80", "CAP_NET_BIND_SERVICE"), ("8080", ""), ("0", "")]
)
def test_a_low_port_takes_the_right_to_it_and_nothing_else(port: str, capabilities: str) -> None:
    unit = entries(printed("--port", port, "systemd-unit"))
    assert unit["CapabilityBoundingSet"] == unit["AmbientCapabilities"] == [capabilities]


def test_systemd_waits_longer_than_the_daemon_takes_to_end() -> None:
    unit = entries(printed("systemd-unit"))
    (stop,), (watchdog,) = unit["TimeoutStopSec"], unit["WatchdogSec"]
    assert GRACE + 5 < float(stop) < float(watchdog)


def test_an_installation_that_the_service_cannot_see_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/tmp/venv/bin/python")
    result = CliRunner().invoke(cli, ["systemd-unit"])
    assert "/tmp/venv/bin" in result.stderr
    assert "PrivateTmp=" in result.stderr


@pytest.fixture
def systemd_analyze() -> str:
    """The checker of units."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze (Debian: systemd)")
    return program


@pytest.mark.parametrize("arguments", [[], ["--user", "games"]])
def test_systemd_takes_the_unit_and_finds_little_exposed(
    arguments: list[str], systemd_analyze: str, tmp_path: Path
) -> None:
    file = tmp_path / "container-manager.service"
    file.write_text(printed("systemd-unit", *arguments))
    done = subprocess.run(
        [systemd_analyze, "verify", file], capture_output=True, text=True, check=False
    )
    assert (done.returncode, str(file) in done.stderr) == (0, False), done.stderr
    # Exposure from 0 to 10, in tenths; a service that does nothing about it has 96.
    check = [systemd_analyze, "security", "--offline=true", "--threshold=20", "--no-pager", file]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-300:]
