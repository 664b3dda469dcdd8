"""The command line: its settings from four places, and what it says of bad ones."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from container_manager import __version__
from container_manager.cli.main import cli
from container_manager.config import SETTINGS, Settings, default_data_dir

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the environment in which the tests run."""
    for name in list(os.environ):
        if name.startswith("CONTAINER_MANAGER"):
            monkeypatch.delenv(name)


def call(*arguments: str, **variables: str) -> Result:
    env = {f"CONTAINER_MANAGER_{name}": value for name, value in variables.items()}
    return CliRunner().invoke(cli, arguments, env=env, prog_name="container-manager")


def shown(result: Result) -> dict[str, list[str]]:
    """What `config show` says: value and origin by setting."""
    assert result.exit_code == 0, result.output
    lines = [line.split(maxsplit=2) for line in result.stdout.splitlines()]
    return {name: [value, origin] for name, value, origin in lines}


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("--port", "65536", "0<=x<=65535"),
        ("--port", "-1", "0<=x<=65535"),
        ("--port", "http", "not a valid int"),
        ("--jrpc-port", "65536", "0<=x<=65535"),
        ("--queue-size", "0", "1<=x<=10000000"),
        ("--queue-size", "1.5", "not a valid int"),
        ("--worker-count", "0", "1<=x<=1000"),
        ("--worker-count", "1001", "1<=x<=1000"),
        ("--settle", "-0.1", "0<=x<=3600"),
        ("--settle", "3601", "0<=x<=3600"),
        ("--settle", "inf", "0<=x<=3600"),
        ("--settle", "nan", "0<=x<=3600"),
        ("--settle", "soon", "not a valid float"),
        ("--log-level", "loud", "'debug', 'info', 'warning', 'error'"),
        ("--listen-address", "localhost", "no IP address"),
        ("--listen-address", "", "no IP address"),
        ("--trust", "10.0.0.0/33", "nor a network"),
        ("--trust", "everybody", "nor a network"),
        ("--docker-host", "ssh://host", "unix:///path or tcp://host:port"),
    ],
)
def test_a_bad_value_is_refused_with_the_flag_and_what_it_may_be(
    flag: str, value: str, words: str
) -> None:
    result = call(flag, value, "config", "show")
    assert result.exit_code == 2
    assert flag in result.stderr
    assert words in result.stderr
    assert result.stdout == ""


def test_a_bad_value_of_the_environment_is_refused_as_well() -> None:
    for name, value in (("PORT", "70000"), ("REQUIRE_TOKEN", "maybe"), ("TRUST", "gateway x")):
        result = call("config", "show", **{name: value})
        assert result.exit_code == 2
        assert "--" + name.lower().replace("_", "-") in result.stderr


def test_a_flag_that_there_is_not_is_refused_with_the_nearest() -> None:
    result = call("--prot", "80")
    assert result.exit_code == 2
    assert "--port" in result.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("prot = 80", "Did you mean port?"),
        ("worker-cuont = 3", "Did you mean worker_count?"),
        ("xyz = 80", "'xyz', which is no setting"),
        ("[daemon]\nport = 80", "'daemon', which is no setting"),
        ('port = "80"', "'port' to a value of the wrong type"),
        ("port = true", "'port' to a value of the wrong type"),
        ("port = 80.0", "'port' to a value of the wrong type"),
        ('settle = "1"', "'settle' to a value of the wrong type"),
        ("require_token = 1", "'require_token' to a value of the wrong type"),
        ("listen_address = 1", "'listen_address' to a value of the wrong type"),
        ("trust = [1]", "'trust' to a value of the wrong type"),
        ("port = [80]", "'port' to a value of the wrong type"),
        ("port = 70000", "0<=x<=65535"),
        ("settle = nan", "0<=x<=3600"),
        ('trust = ["gateway", "x"]', "nor a network"),
        ("port = ", "is not TOML"),
        ("port = 1\nport = 2", "is not TOML"),
    ],
)
def test_a_bad_file_is_refused_with_the_key_and_a_hint(
    tmp_path: Path, content: str, words: str
) -> None:
    file = tmp_path / "file.toml"
    file.write_text(content)
    result = call("--config", str(file), "config", "show")
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b'docker_host = "\xff"')
    for path, words in ((tmp_path, "cannot be read"), (tmp_path / "latin", "is not TOML")):
        result = call("--config", str(path), "config", "show")
        assert result.exit_code == 2
        assert words in result.stderr
    assert call("config", "show", CONFIG=str(tmp_path / "none")).exit_code == 2


def test_a_flag_wins_over_the_environment_that_over_the_file_that_over_the_default(
    tmp_path: Path,
) -> None:
    file = tmp_path / "file.toml"
    file.write_text("port = 1\nqueue-size = 11\nworker_count = 21\n")
    flags = ("--config", str(file), "--port", "3")
    found = shown(call(*flags, "config", "show", PORT="2", QUEUE_SIZE="12"))
    assert found["port"] == ["3", "flag --port"]
    assert found["queue_size"] == ["12", "environment CONTAINER_MANAGER_QUEUE_SIZE"]
    assert found["worker_count"] == ["21", f"file {file}"]
    assert found["log_level"] == ["info", "default"]
    by_variable = shown(call("config", "show", CONFIG=str(file)))
    assert by_variable["port"] == ["1", f"file {file}"]


def test_every_setting_can_be_given_in_all_three_ways(tmp_path: Path) -> None:
    values = {
        "listen_address": "::1",
        "port": "81",
        "queue_size": "7",
        "worker_count": "3",
        "log_level": "debug",
        "data_dir": "/d",
        "docker_host": "tcp://a:1",
        "token_file": "/t",
        "require_token": "true",
        "trust": "10.0.0.0/8",
        "secret_file": "/s",
        "p2p_port": "4002",
        "peer": "node-b:4001",
        "mdns": "false",
        "mdns_interface": "eth0",
        "settle": "2.5",
        "retain_age": "36h",
        "retain_jobs": "9",
    }
    assert values.keys() == {setting.name for setting in SETTINGS}
    alone = {"flag": lambda setting: setting.flag, "switch": lambda setting: setting.off}
    flags = [
        part
        for setting in SETTINGS
        for part in (
            [alone[setting.kind](setting)]
            if setting.kind in alone
            else [setting.flag, values[setting.name]]
        )
    ]
    file = tmp_path / "file.toml"
    bare = ("int", "float", "flag", "switch")
    file.write_text(
        "\n".join(
            f"{s.name} = {values[s.name]}" if s.kind in bare else f'{s.name} = "{values[s.name]}"'
            for s in SETTINGS
        )
    )
    variables = {name.upper(): value for name, value in values.items()}
    for found in (
        shown(call(*flags, "config", "show")),
        shown(call("config", "show", **variables)),
        shown(call("--config", str(file), "config", "show")),
    ):
        assert {name: value for name, (value, _) in found.items()} == values


def test_trust_can_be_said_more_than_once(tmp_path: Path) -> None:
    flags = ("--trust", "gateway", "--trust", "10.0.0.0/8")
    assert "gateway, 10.0.0.0/8" in call(*flags, "config", "show").stdout
    assert "gateway, ::/0" in call("config", "show", TRUST="gateway ::/0").stdout
    file = tmp_path / "file.toml"
    file.write_text('trust = ["gateway", "fd00::/8"]')
    assert "gateway, fd00::/8" in call("--config", str(file), "config", "show").stdout


def test_a_switch_is_turned_off_and_on_again_by_what_comes_first(tmp_path: Path) -> None:
    file = tmp_path / "file.toml"
    file.write_text("mdns = false")
    from_file = ("--config", str(file), "config", "show")
    assert shown(call("config", "show"))["mdns"] == ["true", "default"]
    assert shown(call("--no-mdns", "config", "show"))["mdns"] == ["false", "flag --no-mdns"]
    assert shown(call(*from_file))["mdns"] == ["false", f"file {file}"]
    assert shown(call(*from_file, MDNS="true"))["mdns"][0] == "true"
    assert shown(call("--mdns", *from_file))["mdns"] == ["true", "flag --mdns"]
    for said in ("false", "0", "no", "off"):
        found = shown(call("config", "show", MDNS=said))["mdns"]
        assert found == ["false", "environment CONTAINER_MANAGER_MDNS"]
    assert shown(call("--mdns", "config", "show", MDNS="false"))["mdns"][0] == "true"
    assert call("config", "show", MDNS="maybe").exit_code == 2


PEERS = ("node-b:4001", "10.0.0.2:1", "node_b.example.:65535", "[fe80::1%eth0]:4001", "[::1]:4001")


def test_peers_are_hosts_with_ports(tmp_path: Path) -> None:
    flags = [part for peer in PEERS for part in ("--peer", peer)]
    assert ", ".join(PEERS) in call(*flags, "config", "show").stdout
    assert ", ".join(PEERS) in call("config", "show", PEER=" ".join(PEERS)).stdout
    file = tmp_path / "file.toml"
    file.write_text(f"peer = {list(PEERS)}")
    assert ", ".join(PEERS) in call("--config", str(file), "config", "show").stdout


@pytest.mark.parametrize(
    "value",
    [
        *("", ":", "node-b", "node-b:", ":4001", "4001", "node-b:0", "node-b:65536", "node-b:-1"),
        *("node-b:http", "node-b:٤٠٠١", "node-b:000004001", "node-b:4001 ", " node-b:4001"),
        *("no de:4001", "http://node-b:4001", "node-b:4001/", "me@node-b:4001", "node-b\n:4001"),
        *("::1", "::1:4001", "fe80::1:4001", "[::1]", "[::1:4001", "::1]:4001", "[]:4001"),
        *("[node-b:4001", "node-b]:4001", "a:1,b:2", "a:1 b:2"),
    ],
)
def test_what_is_no_address_of_a_node_is_refused_in_words(value: str) -> None:
    result = call("--peer", value, "config", "show")
    assert result.exit_code == 2
    words = " ".join(result.stderr.replace("│", " ").split())
    assert "is no address of a node; write host:port, or [host]:port." in words


def test_the_other_name_of_the_port_is_the_same_setting() -> None:
    assert shown(call("--jrpc-port", "81", "config", "show"))["port"][0] == "81"


def test_the_token_is_kept_in_the_data_directory_unless_told_otherwise() -> None:
    found = shown(call("--data-dir", "/d", "config", "show"))
    assert found["token_file"] == ["/d/token", "default"]
    found = shown(call("config", "show"))
    assert found["data_dir"] == [str(default_data_dir()), "default"]


def test_the_settings_have_a_default_for_everything() -> None:
    settings = Settings.from_values({one.name: one.default for one in SETTINGS})
    assert (settings.port, settings.queue_size, settings.worker_count) == (8080, 100, 10)
    assert (settings.listen_address, settings.log_level, settings.settle) == ("0.0.0.0", "info", 1)
    assert settings.token_file == settings.data_dir / "token"


def test_the_version_is_told() -> None:
    result = call("--version")
    assert result.exit_code == 0
    assert result.stdout.split()[-1] == __version__


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_the_help_tells_each_setting_and_its_variable(flag: str) -> None:
    result = call(flag)
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    for setting in SETTINGS:
        assert {setting.flag, setting.flag + ","} & set(text.split())
        assert setting.variable in text
        assert " ".join(setting.help.split())[:30] in text
    assert "--jrpc-port" in text
    assert "--config" in text


def test_the_command_line_is_quick_because_it_imports_nothing_large() -> None:
    code = "import sys, container_manager.cli.main; print('\\n'.join(sys.modules))"
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert "container_manager.config" in loaded.stdout.split()
    large = {"aiohttp", "aiodocker", "pydantic", "apsw", "cryptography", "asyncio", "structlog"}
    assert not large & set(loaded.stdout.split())
