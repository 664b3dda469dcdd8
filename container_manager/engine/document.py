"""The document that an engine is asked for, compiled from a spec by allow-list. Pure.

Only what is named here is ever sent, so that a field which a spec does not have cannot be smuggled
in, and what is never asked for is never granted: no privileges, no host namespaces, no devices, no
host paths. Each field becomes what `docker run` makes of its flag (docs/spec.md has the table).
Source: https://docs.docker.com/reference/api/engine/version/v1.41/ (ContainerCreate).
"""

from __future__ import annotations

from typing import Any

from container_manager.engine.ownership import HOME_LABEL, NODE_LABEL
from container_manager.spec import Spec
from container_manager.spec.health import Healthcheck
from container_manager.spec.mounts import Volume
from container_manager.spec.networks import Network
from container_manager.spec.ports import Port

STOP_TIMEOUT = 10
"""Seconds that a container has to end by itself. Docker's default is said, since Podman's is 0 for
a container that was created by this API."""

# What is sent as it is, wherever it is set. Their names in the document, by those in the spec.
_CONFIG = {
    "entrypoint": "Entrypoint",
    "arguments": "Cmd",
    "user": "User",
    "working_dir": "WorkingDir",
    "hostname": "Hostname",
    "domainname": "Domainname",
    "stop_signal": "StopSignal",
    "stop_timeout": "StopTimeout",
}
_HOST_CONFIG = {
    "cpuset": "CpusetCpus",
    "memory": "Memory",
    "shm_size": "ShmSize",
    "pids": "PidsLimit",
    "publish_all": "PublishAllPorts",
    "dns": "Dns",
    "extra_hosts": "ExtraHosts",
    "init": "Init",
    "read_only": "ReadonlyRootfs",
}


def container_document(spec: Spec, env: dict[str, str], labels: dict[str, str]) -> dict[str, Any]:
    """The body of the engine's create call.

    It joins the container to the first of its networks, since the engine takes no more of them at
    once (up to API 1.43); `further_networks` gives the others. The platform is no part of the body
    but a parameter of the call.

    Args:
        spec: what is to run; its own `env` is not looked at.
        env: the environment, unsealed.
        labels: all that the container is to bear.
    """
    document: dict[str, Any] = {
        "Image": spec.image,
        "Env": [f"{key}={value}" for key, value in env.items()],
        "Labels": labels,
        "StopTimeout": STOP_TIMEOUT,
        **_as_it_is(spec, _CONFIG),
        "HostConfig": _host_config(spec, labels),
    }
    if spec.ports:
        document["ExposedPorts"] = {_key(port): {} for port in spec.ports}
    if spec.healthcheck is not None:
        document["Healthcheck"] = _healthcheck(spec.healthcheck)
    if spec.networks:
        first = spec.networks[0]
        endpoint = _endpoint(first)
        if spec.links:
            endpoint["Links"] = list(spec.links)
        document["NetworkingConfig"] = {"EndpointsConfig": {first.name: endpoint}}
    return document


def further_networks(spec: Spec) -> list[tuple[str, dict[str, Any]]]:
    """The networks that the container is to be connected to between its creation and its start.

    Each is given by name, with the `EndpointConfig` of the engine's call to connect.
    """
    return [(network.name, _endpoint(network)) for network in spec.networks[1:]]


def _as_it_is(spec: Spec, names: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field, name in names.items():
        value = getattr(spec, field)
        # False and an empty list are what the engine takes when nothing is said; 0 seconds and
        # `"init": false` are not.
        if value is None or value == () or value == [] or (value is False and field != "init"):
            continue
        found[name] = list(value) if isinstance(value, tuple) else value
    return found


def _host_config(spec: Spec, labels: dict[str, str]) -> dict[str, Any]:
    host: dict[str, Any] = {
        # The engine's own AutoRemove would take exit code and logs away with the container.
        "AutoRemove": False,
        "Privileged": False,
        "SecurityOpt": ["no-new-privileges"],
        **_as_it_is(spec, _HOST_CONFIG),
    }
    if spec.cpus is not None:
        host["NanoCpus"] = round(spec.cpus * 1e9)
    if spec.ports:
        host["PortBindings"] = _port_bindings(spec.ports)
    if spec.networks:
        host["NetworkMode"] = spec.networks[0].name
    elif spec.network_mode is not None:
        host["NetworkMode"] = spec.network_mode
    if spec.volumes:
        host["Mounts"] = [_mount(volume, labels) for volume in spec.volumes]
    if spec.tmpfs:
        host["Tmpfs"] = {mount.target: mount.options for mount in spec.tmpfs}
    if (restart := spec.restart_policy) is not None:
        host["RestartPolicy"] = {"Name": restart.name, "MaximumRetryCount": restart.maximum_retry}
    if (log := spec.log_driver) is not None:
        host["LogConfig"] = {"Type": log.name, "Config": log.options}
    return host


def _key(port: Port) -> str:
    return f"{port.container_port}/{port.protocol}"


def _port_bindings(ports: tuple[Port, ...]) -> dict[str, list[dict[str, str]]]:
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in ports:
        # Nothing lets the engine pick any port, and a range one of the range.
        host_port = str(port.host_port) if port.host_port else ""
        if port.host_port_end is not None:
            host_port += f"-{port.host_port_end}"
        binding = {"HostIp": port.host_ip or "", "HostPort": host_port}
        bindings.setdefault(_key(port), []).append(binding)
    return bindings


def _mount(volume: Volume, labels: dict[str, str]) -> dict[str, Any]:
    # For a volume that the engine has to make, to say whose it is; one that there is keeps its own.
    owner = {key: labels[key] for key in (NODE_LABEL, HOME_LABEL) if key in labels}
    return {
        "Type": "volume",
        "Source": volume.name,
        "Target": volume.target,
        "ReadOnly": volume.read_only,
        "VolumeOptions": {"NoCopy": volume.nocopy, "Labels": owner},
    }


def _endpoint(network: Network) -> dict[str, Any]:
    return {"Aliases": list(network.aliases)} if network.aliases else {}


def _healthcheck(check: Healthcheck) -> dict[str, Any]:
    if check.disable:
        return {"Test": ["NONE"]}
    periods = {
        "Interval": check.interval,
        "Timeout": check.timeout,
        "StartPeriod": check.start_period,
    }
    # What is left out is as the image has it.
    found: dict[str, Any] = {
        name: round(seconds * 1e9) for name, seconds in periods.items() if seconds is not None
    }
    if check.test is not None:
        found["Test"] = list(check.test)
    if check.retries is not None:
        found["Retries"] = check.retries
    return found
