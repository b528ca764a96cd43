"""Names in configs that earlier versions saved, and what stands for them now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["upgrade"]

#: Former module -> present place of the names that it had
MODULES = {
    "d2timm.bifpn": "d2timm.modeling",
    "d2timm.blocks": "d2timm.backbone",
    "d2timm.cascade": "d2timm.modeling",
    "d2timm.data.catalog": "d2timm.data",
    "d2timm.data.loader": "d2timm.data",
    "d2timm.data.mapper": "d2timm.data",
    "d2timm.detectors": "d2timm.modeling",
    "d2timm.heads": "d2timm.modeling",
    "d2timm.levels": "d2timm.modeling.levels",
    "d2timm.necks": "d2timm.modeling",
    "d2timm.optim": "d2timm.engine",
    "d2timm.pixels": "d2timm.backbone",
    "d2timm.schedules": "d2timm.engine",
    "d2timm.simple_pyramid": "d2timm.modeling",
}
#: Former names that are called otherwise now
NAMES = {"d2timm.optim.build_optimizer": "d2timm.engine.create_optimizer"}
#: Former nodes that have other arguments now
NODES: dict[str, dict[str, Any]] = {
    "d2timm.data.tasks.tasks": {
        "_target_": "d2timm.modeling.detector_tasks",
        "config": {"model": "${model}"},
    }
}


def upgrade(node: Any) -> Any:
    """A tree of plain data in which no ``_target_`` is a name of an earlier version."""
    if isinstance(node, Mapping):
        target = node.get("_target_")
        if target in NODES:
            return dict(NODES[target])
        upgraded = {key: upgrade(value) for key, value in node.items()}
        return {**upgraded, "_target_": _present_name(target)} if isinstance(target, str) else upgraded
    return [upgrade(value) for value in node] if isinstance(node, list) else node


def _present_name(name: str) -> str:
    module, _, last = name.rpartition(".")
    return NAMES.get(name) or (f"{MODULES[module]}.{last}" if module in MODULES else name)
