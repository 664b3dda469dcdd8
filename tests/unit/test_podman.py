"""What engines say, word for word, read alike: Docker 20.10 and Podman 4.3."""

from __future__ import annotations

from typing import Any

import pytest
from aiodocker import DockerError
from hypothesis import given
from hypothesis import strategies as st

from container_manager.engine import podman
from container_manager.engine.answers import inspected
from container_manager.engine.document import container_document
from container_manager.engine.errors import (
    ContainerMissing,
    EngineError,
    EngineRefused,
    EngineRejected,
    ImageMissing,
    NameTaken,
)
from container_manager.engine.refusals import translated
from container_manager.job import ENDED_STATES, LIVE_STATES
from container_manager.spec import Spec
from tests.unit.builders import NODE, NOW, texts, words

RUNC = "runc: runc create failed: unable to start container process"
WORDS: list[tuple[int, str, type[EngineError]]] = [
    # Docker
    (404, "No such image: nobody/absent:latest", ImageMissing),
    (404, "No such container: 5d0c", ContainerMissing),
    (
        409,
        (
            'Conflict. The container name "/web" is already in use by container "5d0c". You have '
            "to remove (or rename) that container to be able to reuse that name."
        ),
        NameTaken,
    ),
    (409, "removal of container 5d0c is already in progress", EngineRefused),
    (
        500,
        (
            "driver failed programming external connectivity on endpoint web: Error starting "
            "userland proxy: listen tcp4 127.0.0.1:80: bind: address already in use"
        ),
        EngineRefused,
    ),
    # Podman
    (404, "no such image: docker.io/nobody/absent: image not known", ImageMissing),
    (404, 'no container with name or ID "5d0c" found: no such container', ContainerMissing),
    (500, "container 5d0c does not exist in database: no such container", ContainerMissing),
    (
        500,
        (
            'container create: creating container storage: the container name "web" is already in '
            "use by 5d0c. You have to remove that container to be able to reuse that name: that "
            "name is already in use"
        ),
        NameTaken,
    ),
    (500, 'adding container to state: name "web" is in use: container already exists', NameTaken),
    (
        500,
        (
            f'{RUNC}: exec: "no-such-command": executable file not found in $PATH: OCI runtime '
            "attempted to invoke a command that was not found"
        ),
        EngineRejected,
    ),
    (500, f'{RUNC}: exec: "/tmp": permission denied: OCI permission denied', EngineRejected),
    (
        500,
        f'{RUNC}: exec: "/bin/sh/x": stat /bin/sh/x: not a directory: OCI runtime error',
        EngineRejected,
    ),
    (
        500,
        "container create: running container create option: invalid log driver: invalid argument",
        EngineRejected,
    ),
    (
        500,
        "cannot listen on the TCP port: listen tcp4 127.0.0.1:80: bind: address already in use",
        EngineRefused,
    ),
    (
        0,
        (
            "initializing source docker://127.0.0.1:5000/absent:latest: reading manifest latest in "
            "127.0.0.1:5000/absent: manifest unknown: manifest unknown"
        ),
        EngineRejected,
    ),
    (
        0,
        (
            "initializing source docker://127.0.0.1:9/absent:latest: pinging container registry "
            '127.0.0.1:9: Get "http://127.0.0.1:9/v2/": dial tcp 127.0.0.1:9: connect: connection '
            "refused"
        ),
        EngineRefused,
    ),
]


@pytest.mark.parametrize(("status", "said", "kind"), WORDS)
def test_errors_are_told_apart_by_what_is_to_be_done(
    status: int, said: str, kind: type[EngineError]
) -> None:
    error = translated(DockerError(status, said))
    assert type(error) is kind
    assert str(error) == said


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("created", "created"),
        ("configured", "created"),
        ("initialized", "created"),
        ("running", "running"),
        ("stopping", "running"),
        ("stopped", "exited"),
        ("exited", "exited"),
        ("paused", "paused"),
        ("removing", "removing"),
    ],
)
def test_each_state_is_one_that_is_known(said: str, read: str) -> None:
    assert podman.state(said) == read
    assert read in LIVE_STATES | ENDED_STATES


def test_podman_is_known_by_its_parts() -> None:
    conmon = {"Name": "Conmon", "Version": "conmon version 2.1.6"}
    engine = {"Name": "Podman Engine", "Version": "4.3.1"}
    assert podman.is_podman({"Version": "4.3.1", "Components": [engine, conmon]})
    assert not podman.is_podman({"Version": "20.10.24", "Components": [{"Name": "Engine"}]})
    assert not podman.is_podman({"Version": "20.10.24", "Components": None})
    assert not podman.is_podman({})


def shown(**state: Any) -> dict[str, Any]:
    """An inspect document of Podman's, as far as it is read."""
    return {
        "Id": "5d0c",
        "Name": "/web",
        "State": {
            "Status": "running",
            "ExitCode": 0,
            "OOMKilled": False,
            "Error": "",
            "StartedAt": "2026-11-21T12:01:23.309402674Z",
            "FinishedAt": "0001-01-01T00:00:00Z",
            "Health": {"Status": "", "FailingStreak": 0, "Log": None},
            **state,
        },
        "Config": {
            "Image": "docker.io/library/busybox:latest",
            "Hostname": "5d0c",
            "Cmd": ["sleep", "1"],
            "Env": ["PATH=/bin", "TERM=xterm", "container=podman", "HOSTNAME=5d0c"],
            "Labels": None,
        },
    }


def test_a_container_without_a_health_check_has_no_health() -> None:
    assert inspected(shown(), NOW).container.health is None
    starting = inspected(shown(Health={"Status": "starting"}), NOW)
    assert starting.container.health == "starting"


def test_a_container_that_has_ended_and_is_not_cleaned_up_has_ended() -> None:
    container = inspected(shown(Status="stopped", ExitCode=7), NOW).container
    assert (container.state, container.exit_code) == ("exited", 7)
    container = inspected(shown(Status="stopping", ExitCode=0), NOW).container
    assert (container.state, container.exit_code) == ("running", None)


@pytest.mark.parametrize(
    ("policy", "most", "restarts", "exit_code", "read"),
    [
        ("", 0, 0, 3, "exited"),
        ("no", 0, 0, 3, "exited"),
        ("always", 0, 7, 0, "restarting"),
        ("unless-stopped", 0, 7, 3, "restarting"),
        ("on-failure", 0, 7, 3, "restarting"),
        ("on-failure", 2, 1, 3, "restarting"),
        ("on-failure", 2, 2, 3, "exited"),
        ("on-failure", 2, 0, 0, "exited"),
    ],
)
def test_a_container_that_will_be_started_again_is_restarting(
    policy: str, most: int, restarts: int, exit_code: int, read: str
) -> None:
    document = {
        **shown(Status="stopped", ExitCode=exit_code),
        "HostConfig": {"RestartPolicy": {"Name": policy, "MaximumRetryCount": most}},
        "RestartCount": restarts,
    }
    container = inspected(document, NOW).container
    assert (container.state, container.exit_code) == (read, exit_code)
    document["State"]["Status"] = "exited"
    assert inspected(document, NOW).container.state == "exited"


def test_volumes_are_asked_for_with_their_labels() -> None:
    spec = Spec(image="nginx", volumes=["data:/data", "cache:/cache:ro"], tmpfs=["/tmp"])
    owner = {"io.container-manager.node": NODE, "io.container-manager.home": "h:/d"}
    asked = podman.volumes(container_document(spec, {}, {"tier": "web", **owner}))
    assert [one["Name"] for one in asked] == ["data", "cache"]
    assert all(one["Labels"] == owner and one["Driver"] == "local" for one in asked)
    assert podman.volumes(container_document(Spec(image="nginx"), {}, {})) == []


def test_variables_that_podman_adds_are_not_the_specs() -> None:
    assert inspected(shown(), NOW).env == {"PATH": "/bin"}
    asked = ["TERM=vt100", "container=podman", "HOSTNAME=mine", "A=1=2"]
    assert podman.environment(asked, "5d0c") == {"TERM": "vt100", "HOSTNAME": "mine", "A": "1=2"}


names = words.filter(lambda name: "=" not in name)


@given(st.dictionaries(names, texts, max_size=5), words)
def test_variables_of_other_engines_are_taken_as_they_are(env: dict[str, str], host: str) -> None:
    env = {**env, "TERM": "xterm", "HOSTNAME": host, "container": "docker"}
    assert podman.environment([f"{k}={v}" for k, v in env.items()], host) == env
