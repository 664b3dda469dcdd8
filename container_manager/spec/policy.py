"""What no spec may ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from container_manager.errors import PolicyDenied

# What people know from `docker run` and from Docker's own documents, and what no spec can ask for.
# Any of these fields set to something answers -32009 with the rule; unset they are merely unknown.
DENIED_FIELDS: dict[str, str] = {
    **dict.fromkeys(("privileged",), "no privileged containers"),
    **dict.fromkeys(
        ("pid", "pid_mode", "ipc", "ipc_mode", "uts", "uts_mode", "userns", "userns_mode"),
        "no host namespaces",
    ),
    **dict.fromkeys(("cgroupns", "cgroupns_mode", "cgroup_parent"), "no host namespaces"),
    **dict.fromkeys(("net", "network_mode"), "no host namespaces"),
    **dict.fromkeys(("devices", "device_requests", "device_cgroup_rules", "gpus"), "no devices"),
    **dict.fromkeys(("binds", "mounts", "volumes", "volumes_from"), "no host paths"),
    **dict.fromkeys(("cap_add", "security_opt", "sysctls", "runtime"), "no added privileges"),
    **dict.fromkeys(("host_config", "HostConfig"), "no raw engine documents"),
}


def check_policy(fields: dict[str, Any]) -> None:
    """Refuse what no spec may ask for, by name, before it is called an unknown field.

    Raises:
        PolicyDenied: naming the first such field and the rule.
    """
    check_fields(fields, DENIED_FIELDS)


def check_fields(fields: dict[str, Any], denied: Mapping[str, str]) -> None:
    """Refuse fields that are never granted, each with its rule.

    Raises:
        PolicyDenied: naming the first such field and the rule.
    """
    for field, value in fields.items():
        if value and (rule := denied.get(field)):
            raise PolicyDenied(
                f"{field} is denied: {rule}. Leave the field out.", field=field, rule=rule
            )
