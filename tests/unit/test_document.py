"""The engine's document: nothing in it that was not named, whatever the spec says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from container_manager.engine.document import container_document, further_networks
from container_manager.spec import LABEL_PREFIX, Spec
from tests.unit.builders import specs, texts, words

KEYS = {
    *("Image", "Env", "Labels", "Cmd", "Entrypoint", "User", "WorkingDir", "Hostname"),
    *("Domainname", "StopSignal", "StopTimeout", "ExposedPorts", "Healthcheck", "HostConfig"),
    "NetworkingConfig",
}
HOST_KEYS = {
    *("AutoRemove", "Privileged", "SecurityOpt", "NanoCpus", "CpusetCpus", "Memory", "ShmSize"),
    *("PidsLimit", "PortBindings", "PublishAllPorts", "NetworkMode", "Dns", "ExtraHosts"),
    *("Mounts", "Tmpfs", "RestartPolicy", "Init", "ReadonlyRootfs", "LogConfig"),
}
# By name as well, so that whoever lengthens the lists above meets them here.
NEVER = {
    *("CapAdd", "CapDrop", "Binds", "Volumes", "VolumesFrom", "VolumeDriver", "Devices"),
    *("DeviceRequests", "DeviceCgroupRules", "PidMode", "IpcMode", "UTSMode", "UsernsMode"),
    *("CgroupnsMode", "CgroupParent", "Cgroup", "Sysctls", "Runtime", "Isolation", "Links"),
    *("GroupAdd", "OomScoreAdj", "OomKillDisable", "MaskedPaths", "ReadonlyPaths", "StorageOpt"),
    *("ContainerIDFile", "PublishService", "MacAddress", "Ulimits"),
}
labels = st.dictionaries(words, texts, max_size=3)


def document(**fields: Any) -> dict[str, Any]:
    """The document of these fields, as it goes over the wire."""
    spec = Spec.model_validate({"image": "nginx", **fields})
    found: dict[str, Any] = json.loads(json.dumps(container_document(spec, spec.env, {})))
    return found


def host_config(**fields: Any) -> dict[str, Any]:
    """What these fields add to the host's part of the document."""
    always = document()["HostConfig"].items()
    return {key: value for key, value in document(**fields)["HostConfig"].items()
            if (key, value) not in always}  # fmt: skip


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
    assert host["Privileged"] is False
    assert host["SecurityOpt"] == ["no-new-privileges"]


@given(specs)
def test_no_container_gets_anything_of_the_host_or_of_another(spec: Spec) -> None:
    document = container_document(spec, spec.env, {})
    host = document["HostConfig"]
    endpoints = document.get("NetworkingConfig", {"EndpointsConfig": {}})["EndpointsConfig"]
    further = further_networks(spec)
    for network in [host.get("NetworkMode", "default"), *endpoints, *(name for name, _ in further)]:
        assert network != "host"
        assert ":" not in network
    for endpoint in [*endpoints.values(), *(endpoint for _, endpoint in further)]:
        assert endpoint.keys() <= {"Aliases", "Links"}
    for mount in host.get("Mounts", []):
        assert mount.keys() == {"Type", "Source", "Target", "ReadOnly", "VolumeOptions"}
        assert mount["Type"] == "volume"
        assert mount["Source"]
        assert "/" not in mount["Source"]
        assert mount["VolumeOptions"].keys() == {"NoCopy", "Labels"}
    for options in host.get("Tmpfs", {}).values():
        assert not {"suid", "dev"} & set(options.split(","))
    assert host.get("LogConfig", {"Type": "none"})["Type"] in {
        *("json-file", "local", "journald", "none"),
    }


@given(specs, labels)
def test_what_the_spec_says_arrives_unchanged(spec: Spec, labels: dict[str, str]) -> None:
    document = json.loads(json.dumps(container_document(spec, spec.env, labels)))
    assert document["Image"] == spec.image
    assert document["Labels"] == labels
    assert dict(line.split("=", 1) for line in document["Env"]) == spec.env
    assert document.get("Cmd", []) == spec.arguments
    assert document.get("Entrypoint") == (spec.entrypoint and list(spec.entrypoint))
    host = document["HostConfig"]
    assert host.get("Init") is spec.init
    assert host.get("Memory") == spec.memory
    assert document["StopTimeout"] == (10 if spec.stop_timeout is None else spec.stop_timeout)
    assert sum(map(len, host.get("PortBindings", {}).values())) == len(spec.ports)
    assert host.get("PortBindings", {}).keys() == document.get("ExposedPorts", {}).keys()
    assert [mount["Source"] for mount in host.get("Mounts", [])] == [v.name for v in spec.volumes]


@given(specs)
def test_each_network_is_joined_once_in_the_order_given(spec: Spec) -> None:
    document = container_document(spec, spec.env, {})
    first = document.get("NetworkingConfig", {"EndpointsConfig": {}})["EndpointsConfig"]
    joined = [*first, *(name for name, _ in further_networks(spec))]
    assert joined == [network.name for network in spec.networks]
    if spec.networks:
        assert document["HostConfig"]["NetworkMode"] == spec.networks[0].name


def test_a_bare_spec_asks_for_nothing() -> None:
    assert document() == {
        "Image": "nginx",
        "Env": [],
        "Labels": {},
        "StopTimeout": 10,
        "HostConfig": {
            "AutoRemove": False,
            "Privileged": False,
            "SecurityOpt": ["no-new-privileges"],
        },
    }
    # Nor do fields that say what is so anyway, or that are not the engine's.
    assert document() == document(
        arguments=[], ports=[], volumes=[], tmpfs={}, networks={}, dns=[], extra_hosts={}, links=[],
        publish_all=False, read_only=False, platform="linux/amd64", user_data={"a": 1}, keep=5,
        credential="hub", pull="always", cpus=None,
    )  # fmt: skip


def test_the_environment_is_the_one_that_was_unsealed() -> None:
    document = container_document(Spec(image="nginx"), {"A": "1=2", "B": ""}, {})
    assert document["Env"] == ["A=1=2", "B="]


@pytest.mark.parametrize(
    ("fields", "config"),
    [
        ({"entrypoint": "/run"}, {"Entrypoint": ["/run"]}),
        ({"entrypoint": ""}, {"Entrypoint": [""]}),
        ({"arguments": ["a"]}, {"Cmd": ["a"]}),
        ({"user": "1:2", "working_dir": "/w"}, {"User": "1:2", "WorkingDir": "/w"}),
        ({"hostname": "h", "domainname": "d"}, {"Hostname": "h", "Domainname": "d"}),
        ({"stop_signal": "int", "stop_timeout": 0}, {"StopSignal": "SIGINT", "StopTimeout": 0}),
        ({"healthcheck": {"disable": True}}, {"Healthcheck": {"Test": ["NONE"]}}),
        ({"healthcheck": {}}, {"Healthcheck": {}}),
        (
            {"healthcheck": {"test": "true", "interval": 0.001, "timeout": 1.5, "retries": 2}},
            {
                "Healthcheck": {
                    "Test": ["CMD-SHELL", "true"],
                    "Interval": 1_000_000,
                    "Timeout": 1_500_000_000,
                    "Retries": 2,
                }
            },
        ),
        ({"healthcheck": {"start_period": 30}}, {"Healthcheck": {"StartPeriod": 30_000_000_000}}),
    ],
)
def test_each_field_of_the_containers_own_part(
    fields: dict[str, Any], config: dict[str, Any]
) -> None:
    bare = document()
    assert document(**fields) == {**bare, **config}


@pytest.mark.parametrize(
    ("fields", "host"),
    [
        ({"cpus": 0.1}, {"NanoCpus": 100_000_000}),
        ({"cpus": 2}, {"NanoCpus": 2_000_000_000}),
        ({"cpuset": "0-1"}, {"CpusetCpus": "0-1"}),
        ({"memory": "64m", "shm_size": "1m"}, {"Memory": 67_108_864, "ShmSize": 1_048_576}),
        ({"pids": 9}, {"PidsLimit": 9}),
        ({"publish_all": True}, {"PublishAllPorts": True}),
        ({"read_only": True}, {"ReadonlyRootfs": True}),
        ({"init": True}, {"Init": True}),
        ({"init": False}, {"Init": False}),
        ({"dns": ["10.0.0.2"]}, {"Dns": ["10.0.0.2"]}),
        ({"extra_hosts": {"a": "::1"}}, {"ExtraHosts": ["a:::1"]}),
        ({"network_mode": "none"}, {"NetworkMode": "none"}),
        ({"tmpfs": ["/a", "/b:ro"]}, {"Tmpfs": {"/a": "", "/b": "ro"}}),
        ({"restart_policy": "no"}, {"RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}}),
        (
            {"restart_policy": "on-failure:3"},
            {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}},
        ),
        ({"log_driver": "none"}, {"LogConfig": {"Type": "none", "Config": {}}}),
        (
            {"log_driver": {"name": "local", "options": {"max-file": "2"}}},
            {"LogConfig": {"Type": "local", "Config": {"max-file": "2"}}},
        ),
        (
            {"volumes": ["data:/d:ro,nocopy"]},
            {
                "Mounts": [
                    {
                        "Type": "volume",
                        "Source": "data",
                        "Target": "/d",
                        "ReadOnly": True,
                        "VolumeOptions": {
                            "NoCopy": True,
                            "Labels": {},
                        },
                    }
                ]
            },
        ),
    ],
)
def test_each_field_of_the_hosts_part(fields: dict[str, Any], host: dict[str, Any]) -> None:
    assert host_config(**fields) == host


def test_ports_are_exposed_and_bound() -> None:
    found = document(ports=["80", "8080:80", "[::1]:53:53/udp", "8000-8010:90", "0:91"])
    assert found["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}, "90/tcp": {}, "91/tcp": {}}
    assert found["HostConfig"]["PortBindings"] == {
        "80/tcp": [{"HostIp": "", "HostPort": ""}, {"HostIp": "", "HostPort": "8080"}],
        "53/udp": [{"HostIp": "::1", "HostPort": "53"}],
        "90/tcp": [{"HostIp": "", "HostPort": "8000-8010"}],
        "91/tcp": [{"HostIp": "", "HostPort": ""}],
    }


def test_a_volume_bears_whose_it_is_and_nothing_else() -> None:
    owner = {f"{LABEL_PREFIX}node": "n", f"{LABEL_PREFIX}home": "host:/data"}
    spec = Spec.model_validate({"image": "nginx", "volumes": ["data:/d"]})
    labels = {**owner, f"{LABEL_PREFIX}job": "j", "team": "a"}
    (mount,) = container_document(spec, {}, labels)["HostConfig"]["Mounts"]
    assert mount["VolumeOptions"]["Labels"] == owner


def test_the_first_network_is_joined_at_once_and_has_the_links() -> None:
    networks = [{"name": "a", "aliases": ["x"]}, "b", {"name": "c", "aliases": ["y", "z"]}]
    fields = {"networks": networks, "links": ["db", "cache:redis"]}
    found = document(**fields)
    assert found["HostConfig"]["NetworkMode"] == "a"
    assert found["NetworkingConfig"] == {
        "EndpointsConfig": {"a": {"Aliases": ["x"], "Links": ["db:db", "cache:redis"]}}
    }
    spec = Spec.model_validate({"image": "nginx", **fields})
    assert further_networks(spec) == [("b", {}), ("c", {"Aliases": ["y", "z"]})]
    assert further_networks(Spec(image="nginx")) == []
