"""Whose a network or a volume is: the labels that say so. Pure.

Several nodes may share one engine, and each minds only what is its own. Containers bear these
labels too, beside those of their job.
"""

from __future__ import annotations

from collections.abc import Mapping

from container_manager.node import Node
from container_manager.spec import LABEL_PREFIX

NODE_LABEL = f"{LABEL_PREFIX}node"
HOME_LABEL = f"{LABEL_PREFIX}home"


def own_labels(me: Node) -> dict[str, str]:
    """The labels of what this node makes."""
    return {NODE_LABEL: me.id, HOME_LABEL: me.home}


def is_own(me: Node, labels: Mapping[str, str]) -> bool:
    """Whether this node has made it, or one before it on a data directory that was lost since."""
    return labels.get(NODE_LABEL) == me.id or labels.get(HOME_LABEL) == me.home
