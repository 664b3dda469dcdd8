"""The pure parts of run.py."""

from __future__ import annotations

import io
import json
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

import run

README = """
It's a queue. Try curl, that's all:

    curl -s http://127.0.0.1:1/jrpc -H 'Content-Type: application/json' -d '{
      "jsonrpc": "2.0", "id": 1, "method": "ContainerService.Create",
      "params": [{"image": "busybox"}]}'

    curl http://127.0.0.1:1/jrpc \\
      -d '{"jsonrpc":"2.0","id":2,"method":"ContainerService.Status","params":[{"job_id":"x"}]}'
"""


def test_readme_calls_are_taken_byte_for_byte() -> None:
    create = run.readme_call(README, "ContainerService.Create")
    assert create in README.encode()
    assert json.loads(create)["params"] == [{"image": "busybox"}]
    status = run.readme_call(README, "ContainerService.Status")
    assert json.loads(status)["params"] == [{"job_id": "x"}]


def test_a_readme_without_the_call_is_named() -> None:
    with pytest.raises(run.ProblemError, match=r"ContainerService\.Wait"):
        run.readme_call(README, "ContainerService.Wait")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (b"\1\0\0\0\0\0\0\3hi\n\2\0\0\0\0\0\0\1!", "hi\n!"),
        (b"from a terminal\r\n", "from a terminal\r\n"),
        (b"\1\0\0\0\0\0\0\x09cut", "cut"),
    ],
)
def test_log_frames_are_taken_apart(data: bytes, text: str) -> None:
    assert run.demultiplex(data) == text


def test_the_current_docker_context_names_the_engine(tmp_path: Path) -> None:
    assert run.context_url(tmp_path, {}) is None
    meta = tmp_path / ".docker/contexts/meta" / run.sha256(b"lab") / "meta.json"
    meta.parent.mkdir(parents=True)
    meta.write_text('{"Endpoints": {"docker": {"Host": "unix:///lab.sock"}}}')
    (tmp_path / ".docker/config.json").write_text('{"currentContext": "lab"}')
    assert run.engine_urls(tmp_path, {})[:2] == ["unix:///lab.sock", "unix:///var/run/docker.sock"]
    assert run.engine_urls(tmp_path, {"DOCKER_HOST": "tcp://h:1"}) == ["tcp://h:1"]
    assert run.context_url(tmp_path, {"DOCKER_CONTEXT": "default"}) is None


def test_the_image_has_busybox_and_its_applets() -> None:
    packed = run.image_tar(b"elf", ["busybox", "sh", "ls"])
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        assert tar.getmember("bin/sh").linkname == "busybox"
        assert tar.getmember("bin/busybox").size == 3
        assert tar.getmember("tmp").mode == 0o1777


def test_undo_goes_backwards_and_past_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    done: list[int] = []

    def fail() -> None:
        raise OSError("gone")

    with run.Undo() as undo:
        undo.add(lambda: done.append(1), "one")
        undo.add(fail, "two")
        undo.add(lambda: done.append(3), "three")
    assert done == [3, 1]
    assert "gone. By hand: two" in capsys.readouterr().err


def test_undo_can_be_left_to_a_person() -> None:
    done: list[int] = []
    with run.Undo() as undo:
        undo.add(lambda: done.append(1), "one")
        undo.add(lambda: done.append(2), "two")
        assert undo.forget() == ["two", "one"]
    assert done == []


def test_podman_is_configured_apart_from_the_machines_own(tmp_path: Path) -> None:
    settings = run.podman_settings(tmp_path)
    config = tomllib.loads(Path(settings["CONTAINERS_CONF"]).read_text())
    assert config["engine"]["tmp_dir"] == str(tmp_path / "tmp")
    network = config["network"].pop("default_network")
    assert config == {
        **tomllib.loads((tmp_path / "setup.conf").read_text()),
        "network": config["network"],
    }
    assert network == tmp_path.name
    registries = tomllib.loads(Path(settings["CONTAINERS_REGISTRIES_CONF"]).read_text())
    assert registries == {"registry": [{"location": "127.0.0.1", "insecure": True}]}


def test_left_out_podman_is_told_and_one_that_does_not_start_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "environment", lambda *, dev: None)
    monkeypatch.setattr(run, "engine_ready", lambda _undo, _also: run.Server("unix:///none"))
    steps = {run.ON_PODMAN: [sys.executable, "-c", ""], "b": [sys.executable, "-c", ""]}
    monkeypatch.setattr(run, "which", lambda _command: None)
    assert run.run_steps(steps) == 0
    assert f"{run.ON_PODMAN}: left out" in capsys.readouterr().out

    def fail(_undo: run.Undo, _command: str) -> run.Server:
        raise run.ProblemError("no network", "make one")

    monkeypatch.setattr(run, "which", lambda command: command if command == "podman" else None)
    monkeypatch.setattr(run.os, "geteuid", lambda: 0)
    monkeypatch.setattr(run, "podman_ready", fail)
    assert run.run_steps(steps) == 1
    said = capsys.readouterr()
    assert "no network" in said.err
    assert f"{run.ON_PODMAN}: FAILED" in said.out
    assert "b: ok" in said.out


def test_end_to_end_is_left_out_where_there_is_no_compose_and_not_asked_for_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    env = {"CONTAINER_MANAGER_TEST_ENGINE": "unix:///some.sock"}
    steps = run.steps_of("test", [])

    def beside(results: dict[str, str]) -> object:
        with run.Undo() as undo:
            only = {run.E2E: steps[run.E2E]}
            return run.steps_beside(undo, only, env, results).get(run.E2E)

    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\nexit 1\n")  # of its plugins, too, it knows none
    docker.chmod(0o755)
    monkeypatch.setattr(run, "SEARCH_PATH", str(tmp_path))
    told: dict[str, str] = {}
    assert beside(told) is None
    assert f"{run.E2E}: left out" in told[run.E2E]
    for name, text in (("docker-compose", ""), ("docker", "#!/bin/sh\nexit 0\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
        assert beside({}) == (["./e2e_test.sh"], {**env, "DOCKER_HOST": "unix:///some.sock"})
        (tmp_path / "docker-compose").unlink(missing_ok=True)
    assert run.E2E not in run.steps_of("test", ["tests/unit/test_run.py"])


def test_ready_steps_sum_up_every_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "environment", lambda *, dev: None)
    monkeypatch.setattr(run, "engine_ready", lambda _undo, _also: run.Server("unix:///none"))
    monkeypatch.setattr(run, "which", lambda _command: None)
    steps = {"a": [sys.executable, "-c", "exit(1)"], "b": [sys.executable, "-c", ""]}
    assert run.run_steps(steps) == 1
    summary = capsys.readouterr().out.partition("Summary")[2]
    assert "a: FAILED" in summary
    assert "b: ok" in summary
