"""The engine's document: nothing in it that was not named, whatever the spec says."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from container_manager.engine.document import container_document
from container_manager.spec import Spec
from tests.unit.builders import specs, texts, words

KEYS = {"Image", "Env", "Labels", "HostConfig", "Cmd"}
HOST_KEYS = {"AutoRemove", "Privileged", "SecurityOpt"}
# By name as well, so that whoever lengthens the lists above meets them here.
NEVER = {
    *("CapAdd", "Binds", "Mounts", "Volumes", "VolumesFrom", "Devices", "DeviceRequests"),
    *("DeviceCgroupRules", "PidMode", "IpcMode", "UTSMode", "UsernsMode", "CgroupnsMode"),
    *("NetworkMode", "CgroupParent", "Sysctls", "Runtime", "Isolation"),
}
labels = st.dictionaries(words, texts, max_size=3)


@given(specs, labels)
def test_only_allowed_keys_are_ever_sent(spec: Spec, labels: dict[str, str]) -> None:
    document = container_document(spec, spec.env, labels)
    assert document.keys() <= KEYS
    assert document["HostConfig"].keys() <= HOST_KEYS
    assert not (document.keys() | document["HostConfig"].keys()) & NEVER


@given(specs, labels)
def test_no_container_removes_itself_or_has_privileges(spec: Spec, labels: dict[str, str]) -> None:
    host = container_document(spec, spec.env, labels)["HostConfig"]
    assert host["AutoRemove"] is False
    assert not host.get("Privileged")
    assert host["SecurityOpt"] == ["no-new-privileges"]


@given(specs, labels)
def test_what_the_spec_says_arrives_unchanged(spec: Spec, labels: dict[str, str]) -> None:
    document = json.loads(json.dumps(container_document(spec, spec.env, labels)))
    assert document["Image"] == spec.image
    assert document["Labels"] == labels
    assert dict(line.split("=", 1) for line in document["Env"]) == spec.env
    assert document.get("Cmd", []) == spec.arguments


def test_without_arguments_the_image_keeps_its_own_command() -> None:
    assert "Cmd" not in container_document(Spec(image="nginx"), {}, {})


def test_the_environment_is_the_one_that_was_unsealed() -> None:
    document = container_document(Spec(image="nginx"), {"A": "1=2", "B": ""}, {})
    assert document["Env"] == ["A=1=2", "B="]
