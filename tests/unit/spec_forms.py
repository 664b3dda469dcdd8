"""The spec's fields as callers write them, in all their forms, and what refusals look like."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from pydantic import ValidationError

from container_manager.spec import MAX_SECONDS, Spec

CANARY = "hunter2-canary"
"""A secret that must not be seen anywhere."""

# By hand


def accepted(**fields: Any) -> Spec:
    """The spec of these fields; stored or sent, it is read back as the same."""
    spec = Spec.model_validate({"image": "nginx", **fields})
    assert Spec.model_validate_json(spec.model_dump_json(exclude_unset=True)) == spec
    return spec


def refused(**fields: Any) -> ValidationError:
    """The refusal of these fields; what was sent is not in it."""
    with pytest.raises(ValidationError) as refusal:
        Spec.model_validate({"image": "nginx", **fields})
    assert CANARY not in str(refusal.value)
    assert CANARY not in repr(refusal.value.errors(include_input=False, include_context=False))
    return refusal.value


def why(**fields: Any) -> str:
    """What the refusal of these fields says first."""
    return str(refused(**fields).errors()[0]["msg"])


def places(error: ValidationError) -> list[tuple[int | str, ...]]:
    return [one["loc"] for one in error.errors()]


# By hypothesis

texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)
words = texts.filter(bool)
seconds = st.floats(0.001, MAX_SECONDS) | st.integers(1, int(MAX_SECONDS))
names = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,20}", fullmatch=True)
hosts = st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,10}[a-zA-Z0-9])?", fullmatch=True)
addresses = st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(str)
paths = st.lists(st.from_regex(r"[a-z]{1,4}", fullmatch=True), min_size=1, max_size=3).map(
    lambda parts: "/" + "/".join(parts)
)
port_numbers = st.integers(1, 65535)
sizes = st.integers(1, 2**50) | st.from_regex(
    r"[1-9][0-9]{0,3}(\.[0-9]{1,2})? ?([kKmMgG]([iI]?[bB])?|[bB])?", fullmatch=True
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(-1e9, 1e9) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def _maybe(**fields: st.SearchStrategy[Any]) -> dict[str, Any]:
    return {"optional": fields}


@st.composite
def _port(draw: st.DrawFn) -> Any:
    container = draw(port_numbers)
    protocol = draw(st.sampled_from(["tcp", "udp", "sctp"]))
    address = draw(st.none() | addresses)
    if draw(st.booleans()):
        port = {"container_port": container, "protocol": protocol}
        return port if address is None else {**port, "host_ip": address}
    before = "" if address is None else f"[{address}]::" if ":" in address else f"{address}::"
    return f"{before}{container}/{protocol}"


@st.composite
def _ports(draw: st.DrawFn) -> list[Any]:
    """Any ports of the node, and then one range of them, so that none is given twice."""
    found = draw(st.lists(_port(), max_size=3))
    first = draw(st.integers(1, 60000))
    length = draw(st.integers(1, 9))
    bound = {
        "one": f"{first}:80",
        "a range for one": f"{first}-{first + length}:80",
        "a range for a range": f"{first}-{first + length}:{first + 7}-{first + 7 + length}/udp",
        "an object": {"container_port": 1, "host_port": first, "host_port_end": first + length},
        "a number": first,
    }
    return [*found, bound[draw(st.sampled_from(sorted(bound)))]]


_volumes = st.lists(
    st.builds(lambda n, p, m: f"{n}:{p}{m}", names, paths, st.sampled_from(["", ":ro", ":nocopy"]))
    | st.fixed_dictionaries(
        {"name": names, "target": paths}, **_maybe(read_only=st.booleans(), nocopy=st.booleans())
    ),
    max_size=3,
    unique_by=lambda v: v["target"] if isinstance(v, dict) else v.split(":")[1],
)
_tmpfs_options = st.lists(
    st.sampled_from(["size=64m", "mode=1777", "uid=1000", "gid=0", "ro", "rw", "exec", "noexec"]),
    max_size=3,
).map(",".join)
_tmpfs = st.dictionaries(paths, _tmpfs_options | st.none(), max_size=3)
_aliases = st.lists(hosts, max_size=2)
# With a letter that no id has, and unlike any mode.
_networks = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,9}_net", fullmatch=True)
_network_forms = st.dictionaries(_networks, _aliases | st.none(), max_size=3).flatmap(
    lambda found: st.sampled_from(
        [
            list(found),
            [{"name": name, "aliases": aliases or []} for name, aliases in found.items()],
            {name: {"aliases": aliases} if aliases else None for name, aliases in found.items()},
        ]
    )
)
_test = words | st.lists(words, min_size=1, max_size=3).filter(lambda t: t[0][:3] != "CMD")
_healthcheck = (
    st.just({"disable": True})
    | st.just({"test": ["NONE"]})
    | st.fixed_dictionaries(
        {},
        **_maybe(
            test=_test | st.builds(lambda t: ["CMD", t], words),
            interval=seconds,
            timeout=seconds,
            start_period=seconds,
            retries=st.integers(1, 99),
        ),
    )
)
_log_driver = st.sampled_from(
    [
        "none",
        "local",
        {"name": "json-file", "options": {"max-size": "10m", "max-file": "3", "tag": "{{.ID}}"}},
        {"name": "journald", "options": {"labels": "a,b", "mode": "non-blocking"}},
    ]
)

forms: dict[str, st.SearchStrategy[Any]] = {
    "entrypoint": texts | st.lists(texts, max_size=3),
    "cpus": st.floats(0.01, 64) | st.integers(1, 64),
    "cpuset": st.sampled_from(["0", "0-3", "0,2,4-5"]),
    "memory": st.integers(6 * 1024 * 1024, 2**50) | st.sampled_from(["6m", "512m", "1.5g", "1 TB"]),
    "shm_size": sizes,
    "pids": st.integers(1, 4194304),
    "hostname": hosts,
    "domainname": hosts,
    "user": st.sampled_from(["root", "1000", "1000:1000", "www-data:staff"]),
    "working_dir": paths,
    "ports": _ports(),
    "publish_all": st.booleans(),
    "volumes": _volumes,
    "tmpfs": _tmpfs
    | _tmpfs.map(lambda mounts: [f"{path}:{o}" if o else path for path, o in mounts.items()]),
    "networks": _network_forms,
    "network_mode": st.sampled_from(["bridge", "none", "default"]) | _networks,
    "dns": st.lists(addresses, max_size=3),
    "extra_hosts": st.dictionaries(hosts, addresses | st.just("host-gateway"), max_size=3)
    | st.lists(st.builds(lambda n, a: f"{n}:{a}", hosts, addresses), max_size=3),
    "links": st.lists(st.builds(lambda n, a: f"{n}:{a}", names, hosts) | names, max_size=3),
    "restart_policy": st.sampled_from(
        ["no", "always", "unless-stopped", "on-failure", "on-failure:3", {"name": "no"}]
    )
    | st.builds(lambda n: {"name": "on-failure", "maximum_retry": n}, st.integers(0, 2**31 - 1)),
    "healthcheck": _healthcheck,
    "init": st.booleans(),
    "read_only": st.booleans(),
    "stop_signal": st.sampled_from(["SIGTERM", "int", "sigrtmin+3", 9, "15"]),
    "stop_timeout": st.integers(0, 3600),
    "log_driver": _log_driver,
    "platform": st.sampled_from(["linux/amd64", "linux/arm64/v8"]),
    "user_data": json_values,
    "remove_on_exit": st.booleans(),
    "keep": st.floats(0, MAX_SECONDS) | st.integers(0, int(MAX_SECONDS)),
    "credential": names,
}
"""Each field that has further forms or goes to the engine, right by itself."""


def fitting(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields less those that do not go with the others."""
    left = dict(fields)
    if left.get("network_mode") is not None:
        left.pop("networks", None)
    if not left.get("networks"):
        left.pop("links", None)
    if left.get("type") == "batch" and left.get("restart_policy") in ("always", "unless-stopped"):
        left.pop("restart_policy")
    if left.get("remove_on_exit"):
        left.pop("keep", None)
        left.pop("restart_policy", None)
    if left.get("volumes"):
        left.pop("tmpfs", None)
    return left
