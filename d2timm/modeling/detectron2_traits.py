"""Traits of detectron2's classes, and functions that read the traits of any class."""

from __future__ import annotations

import inspect
from typing import Any

from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool, LastLevelP6P7
from detectron2.modeling.meta_arch import GeneralizedRCNN, PanopticFPN, SemanticSegmentor
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import StandardROIHeads

from ..errors import ConfigError
from ..utils.targets import config_target, resolve_target
from .traits import TASKS, TopBlock, Traits

__all__ = ["detector_tasks", "takes_partial_masks", "traits_of"]

#: Traits of classes that cannot declare them; subclasses inherit them
DETECTRON2: dict[type, Traits] = {
    GeneralizedRCNN: Traits(roi_heads="any"),
    PanopticFPN: Traits(tasks={"sem_seg": "", "panoptic_seg": ""}, roi_heads="masks"),
    DenseDetector: Traits(tasks={"bbox": ""}, levels={"head_in_features": "anchor_generator"}),
    SemanticSegmentor: Traits(tasks={"sem_seg": ""}),
    RPN: Traits(levels={"in_features": "anchor_generator"}),
    StandardROIHeads: Traits(
        tasks={"bbox": "", "segm": "mask_in_features", "keypoints": "keypoint_in_features"},
        levels={
            "box_in_features": "box_pooler",
            "mask_in_features": "mask_pooler",
            "keypoint_in_features": "keypoint_pooler",
        },
    ),
    SemSegFPNHead: Traits(levels={"input_shape": ""}),
    FPN: Traits(own_last_level=False),
    LastLevelMaxPool: Traits(top_block=TopBlock(1, "p5", learned=False)),
    LastLevelP6P7: Traits(top_block=TopBlock(2, "res5", learned=True)),
}


def traits_of(part: Any) -> Traits | None:
    """The traits of a class, declared by itself or by its nearest base class; None if there are none.

    Args:
        part: a class; functions have no traits.
    """
    for base in inspect.getmro(part) if isinstance(part, type) else ():
        if isinstance(declared := vars(base).get("traits") or DETECTRON2.get(base), Traits):
            return declared
    return None


@config_target
def detector_tasks(model: Any, roi_heads: Any = None, **arguments: Any) -> list[str]:
    """The tasks of a detector, as its classes declare them.

    Args:
        model: ``_target_`` of the detector, a class or its dotted name.
        roi_heads: ``_target_`` of its ROI heads; None if it has none.
        arguments: the arguments of both that enable tasks; one that is None does not.

    Returns:
        A selection of ``TASKS``, in their order.

    Raises:
        ConfigError: a class does not declare its tasks or cannot be imported, or an argument is missing.
    """
    tasks = set[str]()
    for place, target in {"model": model, "model.roi_heads": roi_heads}.items():
        if target is None:
            continue
        for task, argument in _declared_traits(place, target).tasks.items():
            if argument and argument not in arguments:
                raise ConfigError(
                    f"{place}._target_={target}: its argument {argument} enables {task}, so add "
                    f"'+data.tasks.{argument}=${{{place}.{argument}}}', or set data.tasks=[bbox]"
                )
            if not argument or arguments[argument] is not None:
                tasks.add(task)
    return [task for task in TASKS if task in tasks]


@config_target
def takes_partial_masks(roi_heads: Any = None) -> bool:
    """Whether a mask head can be trained on a dataset in which some objects have no mask.

    Args:
        roi_heads: ``_target_`` of the ROI heads, a class or its dotted name; None if there are none.
    """
    traits = traits_of(
        resolve_target(roi_heads, "model.roi_heads") if isinstance(roi_heads, str) else roi_heads
    )
    return traits is not None and traits.partial_masks


def _traits(place: str, target: Any) -> Traits | None:
    return traits_of(resolve_target(target, place) if isinstance(target, str) else target)


def _declared_traits(place: str, target: Any) -> Traits:
    traits = _traits(place, target)
    if traits is None:
        raise ConfigError(
            f"{place}._target_={target} does not declare its tasks: give the class an attribute "
            "traits = d2timm.modeling.Traits(tasks=...), or set data.tasks, such as data.tasks=[bbox]"
        )
    return traits
