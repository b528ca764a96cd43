"""Upgrade configs that earlier versions saved: former names in ``_target_`` -> present names."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

__all__ = ["upgrade"]

#: Former module -> package or module that exports its names now
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
#: Former name -> present name, if the last part has changed as well
NAMES = {
    "d2timm.optim.build_optimizer": "d2timm.engine.create_optimizer",
    # it can read pickles, which a config may not; recipes of version 0.1 named it
    "detectron2.data.build.build_detection_test_loader": "d2timm.data.build_test_loader",
}
#: Former name -> node that replaces its node, if the arguments have changed as well
NODES: dict[str, dict[str, Any]] = {
    "d2timm.data.tasks.tasks": {
        "_target_": "d2timm.modeling.detector_tasks",
        "model": "${model._target_}",
        "roi_heads": "${oc.select:model.roi_heads._target_,null}",
        "mask_in_features": "${oc.select:model.roi_heads.mask_in_features,null}",
        "keypoint_in_features": "${oc.select:model.roi_heads.keypoint_in_features,null}",
    }
}


def upgrade(node: Any) -> Any:
    """Return a tree of plain data in which every ``_target_`` has its present name."""
    if isinstance(node, Mapping):
        target = node.get("_target_")
        if isinstance(target, str) and target in NODES:
            return copy.deepcopy(NODES[target])
        upgraded = {key: upgrade(value) for key, value in node.items()}
        return {**upgraded, "_target_": _present_name(target)} if isinstance(target, str) else upgraded
    return [upgrade(value) for value in node] if isinstance(node, list) else node


def _present_name(name: str) -> str:
    module, _, last = name.rpartition(".")
    return NAMES.get(name) or (f"{MODULES[module]}.{last}" if module in MODULES else name)
