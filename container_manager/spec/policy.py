"""What no spec may ask for, by the names that people know it by.

Every value that is denied here fails validation, too: policy only puts a name to the refusal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from container_manager.errors import PolicyDenied
from container_manager.spec.mounts import denied_volumes
from container_manager.spec.networks import denied_networks

_NAMESPACES = "no host namespaces"
_PATHS = "no host paths"

# What people know from `docker run` and from Docker's own documents, and what no spec can ask for.
# Any of these fields set to something answers -32009 with the rule; unset they are merely unknown.
DENIED_FIELDS: dict[str, str] = {
    **dict.fromkeys(("privileged",), "no privileged containers"),
    **dict.fromkeys(
        ("pid", "pid_mode", "ipc", "ipc_mode", "uts", "uts_mode", "userns", "userns_mode"),
        _NAMESPACES,
    ),
    **dict.fromkeys(("cgroupns", "cgroupns_mode", "cgroup_parent", "net"), _NAMESPACES),
    **dict.fromkeys(("devices", "device_requests", "device_cgroup_rules", "gpus"), "no devices"),
    **dict.fromkeys(("binds", "mounts", "volumes_from", "volume_driver"), _PATHS),
    **dict.fromkeys(("cap_add", "security_opt", "sysctls", "runtime"), "no added privileges"),
    **dict.fromkeys(("host_config", "HostConfig"), "no raw engine documents"),
}

# Fields that there are, and of which some values are denied: which ones, the rule, what to do.
_DENIED_VALUES: dict[str, tuple[Callable[[Any], bool], str, str]] = {
    "network_mode": (denied_networks, _NAMESPACES, "Name a network, or leave the field out."),
    "networks": (denied_networks, _NAMESPACES, "Name networks, or leave the field out."),
    "volumes": (denied_volumes, _PATHS, 'Name a volume: "data:/path".'),
}


def check_policy(fields: dict[str, Any]) -> None:
    """Refuse what no spec may ask for by its rule, before it is called merely invalid.

    Args:
        fields: a spec as its caller wrote it, which has failed validation.

    Raises:
        PolicyDenied: naming the first such field and the rule.
    """
    check_fields(fields, DENIED_FIELDS)
    for field, value in fields.items():
        if (known := _DENIED_VALUES.get(field)) is not None:
            is_denied, rule, remedy = known
            if is_denied(value):
                raise PolicyDenied(f"{field} is denied: {rule}. {remedy}", field=field, rule=rule)


def check_fields(fields: dict[str, Any], denied: Mapping[str, str]) -> None:
    """Refuse fields that are never granted, each by its rule.

    Raises:
        PolicyDenied: naming the first such field and the rule.
    """
    for field, value in fields.items():
        if value and (rule := denied.get(field)):
            raise PolicyDenied(
                f"{field} is denied: {rule}. Leave the field out.", field=field, rule=rule
            )
