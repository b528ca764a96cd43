"""Traits: every class of the options declares them, and what they declare is what the class does."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch
from detectron2.config import instantiate
from detectron2.modeling import FPN, RetinaNet
from detectron2.modeling.backbone import fpn
from helpers.choices import compose, fits, node, options
from omegaconf import OmegaConf
from torch import nn

from d2timm import ConfigError
from d2timm.config.lazy import to_plain
from d2timm.modeling import BiFPN, TopBlock, Traits, detector_tasks
from d2timm.modeling.detectron2_traits import DETECTRON2, traits_of
from d2timm.modeling.levels import level_strides
from d2timm.modeling.traits import TASKS

OPTIONS = [
    (group, option)
    for group in ("model", "neck", "roi_heads")
    for option in options(group)
    if (group, option) != ("roi_heads", "none")
]
DETECTORS = [
    (model, roi_heads)
    for model in options("model")
    for roi_heads in options("roi_heads")
    if fits(model, "fpn", roi_heads)
]

RCNN = "detectron2.modeling.GeneralizedRCNN"
HEADS = "detectron2.modeling.roi_heads.StandardROIHeads"


class Undeclared(nn.Module):
    """A detector without traits."""


class Own(RetinaNet):
    """A detector of a user's, with the traits of its base class."""


class OwnSegmentor(RetinaNet):
    """A detector of a user's, with traits of its own."""

    traits = Traits(tasks={"sem_seg": ""})


# What classes declare


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_class_of_every_option_declares_traits(group: str, option: str) -> None:
    assert traits_of(node(group, option)._target_) is not None


@pytest.mark.parametrize("part", [*DETECTRON2, BiFPN])
def test_traits_survive_json(part: type) -> None:
    traits = traits_of(part)
    assert traits is not None
    assert Traits.from_dict(json.loads(json.dumps(dataclasses.asdict(traits)))) == traits


def test_subclass_inherits_traits() -> None:
    assert traits_of(Own) is traits_of(RetinaNet)
    assert traits_of(BiFPN) is BiFPN.traits
    assert traits_of(type("Custom", (BiFPN,), {})) is BiFPN.traits


def test_own_traits_come_before_inherited_ones() -> None:
    assert traits_of(OwnSegmentor) is OwnSegmentor.traits


@pytest.mark.parametrize("part", [Undeclared, nn.Module, dict, level_strides, "RetinaNet", None])
def test_everything_else_has_no_traits(part: Any) -> None:
    assert traits_of(part) is None


def test_attribute_of_another_type_is_ignored() -> None:
    assert traits_of(type("Custom", (FPN,), {"traits": ["calm"]})) is traits_of(FPN)


# Top blocks


@pytest.mark.parametrize(("name", "arguments"), [("LastLevelMaxPool", ()), ("LastLevelP6P7", (8, 8))])
def test_traits_of_a_top_block_agree_with_an_instance(name: str, arguments: tuple[int, ...]) -> None:
    block = getattr(fpn, name)(*arguments)
    traits = traits_of(type(block))
    assert traits is not None
    learned = any(True for _ in block.parameters())
    assert traits.top_block == TopBlock(block.num_levels, block.in_feature, learned)
    assert len(block(torch.zeros(1, 8, 16, 16))) == traits.top_block.num_levels
    assert level_strides([4, 8, 16, 32], traits.top_block) == level_strides([4, 8, 16, 32], block)


def test_all_top_blocks_of_detectron2_declare_traits() -> None:
    blocks = [part for name, part in vars(fpn).items() if name.startswith("LastLevel")]
    assert len(blocks) == 2
    assert all(getattr(traits_of(block), "top_block", None) for block in blocks)


@pytest.mark.parametrize("neck", options("neck"))
def test_top_block_of_every_neck_declares_traits(neck: str) -> None:
    block = node("neck", neck).get("top_block")
    if block is None:
        assert neck == "none"
        return
    traits = traits_of(block._target_)
    assert traits is not None
    assert traits.top_block is not None
    built = instantiate(compose("rcnn", neck, "box").model.backbone.top_block)
    assert traits.top_block.num_levels == built.num_levels


# Tasks


def results(model: nn.Module) -> set[str]:
    """The tasks for which a detector has results on an image."""
    torch.manual_seed(0)
    with torch.no_grad():
        (output,) = model.eval()([{"image": torch.randint(0, 256, (3, 64, 96)).float()}])
    fields = {"bbox": "pred_boxes", "segm": "pred_masks", "keypoints": "pred_keypoints"}
    tasks = {task for task in ("sem_seg", "panoptic_seg") if task in output}
    if "instances" in output:
        tasks |= {task for task, field in fields.items() if output["instances"].has(field)}
    return tasks


@pytest.mark.parametrize(("model", "roi_heads"), DETECTORS)
def test_tasks_are_what_the_detector_does(model: str, roi_heads: str) -> None:
    cfg = compose(model, "fpn", roi_heads)
    tasks = instantiate(cfg.data.tasks)
    saved = OmegaConf.create(to_plain(cfg))  # with names instead of classes
    assert tasks == instantiate(saved.data.tasks)
    assert tasks == [task for task in TASKS if task in results(instantiate(cfg.model))]


@pytest.mark.parametrize(
    ("model", "roi_heads", "enabled", "tasks"),
    [
        ("GeneralizedRCNN", HEADS, [], ["bbox"]),
        ("RetinaNet", None, [], ["bbox"]),
        ("GeneralizedRCNN", HEADS, ["mask"], ["bbox", "segm"]),
        ("GeneralizedRCNN", HEADS, ["keypoint"], ["bbox", "keypoints"]),
        ("GeneralizedRCNN", HEADS, ["keypoint", "mask"], ["bbox", "segm", "keypoints"]),
        ("SemanticSegmentor", None, [], ["sem_seg"]),
        ("PanopticFPN", HEADS, ["mask"], ["bbox", "segm", "sem_seg", "panoptic_seg"]),
    ],
)
@pytest.mark.parametrize("value", [0, 0.7, ["p2"]])
def test_argument_that_is_not_none_enables_a_task(
    model: str, roi_heads: str | None, enabled: list[str], tasks: list[str], value: Any
) -> None:
    arguments = {f"{part}_in_features": value if part in enabled else None for part in ("mask", "keypoint")}
    assert detector_tasks(f"detectron2.modeling.{model}", roi_heads, **arguments) == tasks


def test_target_may_be_a_class() -> None:
    assert detector_tasks(Own) == ["bbox"]
    assert detector_tasks(OwnSegmentor) == ["sem_seg"]


@pytest.mark.parametrize(
    ("model", "roi_heads", "place"),
    [
        (Undeclared, None, r"model\._target_=.*Undeclared"),
        ("torch.nn.Identity", None, r"model\._target_=torch\.nn\.Identity"),
        (RCNN, "torch.nn.Identity", r"model\.roi_heads\._target_=torch\.nn\.Identity"),
    ],
)
def test_class_without_traits_is_refused(model: Any, roi_heads: Any, place: str) -> None:
    with pytest.raises(ConfigError, match=rf"{place}.*traits = .*data\.tasks=\[bbox\]") as caught:
        detector_tasks(model, roi_heads)
    assert "\n" not in str(caught.value)


def test_missing_argument_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"mask_in_features enables segm.*\+data\.tasks\.mask_in_features="):
        detector_tasks(RCNN, HEADS, keypoint_in_features=None)


@pytest.mark.parametrize("target", ["no.such.Detector", "d2timm.modeling.NoSuchDetector"])
def test_class_that_cannot_be_imported_is_refused(target: str) -> None:
    with pytest.raises(ConfigError, match=rf"^model\._target_={target}: ") as caught:
        detector_tasks(target)
    assert "\n" not in str(caught.value)
