"""Every weight of a published detector maps to a weight of the recipe's detector, and vice versa."""

from __future__ import annotations

import functools
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import instantiate
from helpers.layouts import (
    Shapes,
    convnext,
    mae,
    mmdet_cascade,
    mmdet_heads,
    numbers,
    resnet50,
    swin,
    vitdet,
    xcit,
    zeros,
    zoo_mask_rcnn,
    zoo_retinanet,
)

from d2timm import get_config
from d2timm.config.overrides import apply_overrides
from d2timm.convert.weights.convert import layout_of
from d2timm.convert.weights.matching import Match, match
from d2timm.convert.weights.report import mapping_report, summarize_problems
from d2timm.convert.weights.target import Target
from d2timm.errors import ConfigError

PYRAMID = (96, 192, 384, 768)
SAME = (384, 384, 384, 384)
BACKBONE = "model.backbone.bottom_up"
COUNTER = "num_batches_tracked"


@functools.cache
def target(recipe: str, *overrides: str) -> Target:
    """The detector of a recipe, for COCO."""
    return Target.of(apply_overrides(get_config(recipe), ["data.name=coco_2017", *overrides]))


def swin_tiny(*overrides: str) -> Target:
    return target("mask_rcnn_swin_tiny_3x.py", *overrides)


COCO_OF = {"keypoint_rcnn": "coco_2017_keypoints", "panoptic_fpn": "coco_2017_panoptic"}


def converted(shapes: Shapes, detector: Target, *parts: str, new_classes: bool = False) -> Match:
    weights = zeros(shapes)
    return match(weights, layout_of(weights, Path("source.pth")), detector, parts, new_classes)


P16 = (f"{BACKBONE}.model_name=xcit_small_12_p16_224", f"{BACKBONE}.doubling_norm=SyncBN")
P6_OF_RES5 = ("model.backbone.top_block.in_channels=2048", "model.backbone.top_block.in_feature=res5")
VITDET = "mask_rcnn_vitdet_base_100ep.py"
#: Detector -> names and shapes; recipe and overrides; reason -> number of weights that are not needed
DETECTORS: dict[str, tuple[Shapes, tuple[str, ...], dict[str, int]]] = {
    "Swin-T": (
        swin() | mmdet_heads(PYRAMID),
        ("mask_rcnn_swin_tiny_3x.py",),
        {"follows from the window size": 12},
    ),
    "Cascade Swin-S": (
        swin(depths=(2, 2, 18, 2)) | mmdet_cascade(PYRAMID),
        ("cascade_mask_rcnn_swin_small_3x.py",),
        {"follows from the window size": 24},
    ),
    "ConvNeXt-T": (convnext() | mmdet_heads(PYRAMID), ("mask_rcnn_convnext_tiny_3x.py",), {}),
    "XCiT-S12/8": (xcit(8) | mmdet_heads(SAME), ("mask_rcnn_xcit_small_12_p8_3x.py",), {}),
    "XCiT-S12/16": (xcit(16) | mmdet_heads(SAME), ("mask_rcnn_xcit_small_12_p8_3x.py", *P16), {}),
    "ViTDet-B": (vitdet(), (VITDET,), {}),
    "R50-FPN": (zoo_mask_rcnn(), ("mask_rcnn_resnet50_3x.py",), {"anchors follow from the recipe": 5}),
    "RetinaNet R50": (zoo_retinanet(), ("retinanet_resnet50_1x.py", *P6_OF_RES5), {}),
}


@pytest.mark.parametrize("name", DETECTORS)
def test_every_weight_of_both_sides_is_mapped(name: str) -> None:
    shapes, recipe, reasons = DETECTORS[name]
    detector = target(*recipe)
    result = converted(shapes, detector)
    print(mapping_report(result, layout_of(zeros(shapes), Path(name)), detector, len(shapes)))
    assert result.complete, summarize_problems(result)
    assert Counter(result.not_needed.values()) == reasons
    assert len(result.mapped) == len(shapes) - sum(reasons.values())
    assert len(set(result.mapped.values())) == len(result.mapped)
    assert {key: x.shape for key, x in result.weights.items()} == {
        k: x.shape for k, x in detector.state.items()
    }
    assert all(place.endswith(COUNTER) for place in result.initialized)


def test_pretrained_backbones_initialize_only_the_backbone() -> None:
    detector = target(VITDET)
    with_positions = converted(mae(), detector, "backbone")
    assert with_positions.complete
    assert set(with_positions.not_needed) == {"cls_token", "norm.weight", "norm.bias"}
    assert len(with_positions.initialized) == 24
    assert all(re.search(r"rel_pos_[hw]$", name) for name in with_positions.initialized)
    assert with_positions.notes == ["position embeddings interpolated from 14x14 to 64x64 cells"]
    everything = converted(mae(), detector)
    assert not everything.complete
    assert not everything.unplaced
    assert {name.split(".")[0] for name in everything.missing} == {
        "backbone",
        "proposal_generator",
        "roi_heads",
    }

    resnet = target("mask_rcnn_timm.py")
    shapes = resnet50(prefix="") | {"stem.fc.weight": (1000, 2048), "stem.fc.bias": (1000,)}
    result = converted(shapes, resnet, "backbone")
    assert result.complete
    assert set(result.not_needed) == {"stem.fc.weight", "stem.fc.bias"}
    assert not result.notes  # torchvision's pixels are timm's


def test_names_of_caffe2_get_statistics() -> None:
    layers = {
        "stem": "conv1",
        "conv1": "branch2a",
        "conv2": "branch2b",
        "conv3": "branch2c",
        "shortcut": "branch1",
    }
    shapes: Shapes = {"fc1000_w": (1000, 2048), "fc1000_b": (1000,)}
    for name, shape in resnet50(prefix="").items():
        first, *rest = name.removeprefix("stem.").split(".")
        if "running" in name:
            continue
        if first == "conv1":
            shapes[
                "conv1_w" if rest == ["weight"] else f"res_conv1_bn_{'s' if 'weight' in rest else 'b'}"
            ] = shape
        else:
            block, layer, *kind = rest
            suffix = "w" if kind == ["weight"] else f"bn_{'s' if 'weight' in kind else 'b'}"
            shapes[f"{first}_{block}_{layers[layer]}_{suffix}"] = shape
    result = converted(shapes, target("mask_rcnn_timm.py"), "backbone")
    assert result.complete
    body = "backbone.bottom_up.model"
    assert result.weights[f"{body}.bn1.running_var"].sum() == pytest.approx(64 * (1 - 1e-5))
    assert len(result.notes) == 2  # pixels, and where the strides are


def test_deeper_wider_and_other_models_are_errors() -> None:
    detector = swin_tiny()
    deeper = converted(swin(depths=(2, 2, 18, 2)) | mmdet_heads(PYRAMID), detector)
    assert len(deeper.unplaced) == 12 * 13
    assert not deeper.missing
    assert "backbone.layers.2.blocks.6." in summarize_problems(deeper)
    shallower = converted(swin(depths=(2, 2, 2, 2)) | mmdet_heads(PYRAMID), detector)
    assert len(shallower.missing) == 4 * 13
    wider = converted(swin(width=128, heads=(4, 8, 16, 32)) | mmdet_heads((128, 256, 512, 1024)), detector)
    assert (
        wider.unplaced["backbone.norm0.weight"]
        == "128, but backbone.bottom_up.levels.res2.scale.0.weight has 96"
    )
    with pytest.raises(ConfigError, match="a ConvNeXt of mmdet has no weights for swin_tiny"):
        converted(convnext() | mmdet_heads(PYRAMID), detector)


def test_other_norms_are_problems_with_a_fix() -> None:
    result = converted(swin() | mmdet_heads(PYRAMID), swin_tiny(f"{BACKBONE}.level_norm=resampled"))
    assert set(result.unplaced) == {f"backbone.norm{i}.{k}" for i in range(4) for k in ("weight", "bias")}
    assert result.notes[0].endswith("give model.backbone.bottom_up.level_norm=all")
    small = target("mask_rcnn_timm.py", f"{BACKBONE}.model_name=xcit_small_12_p8_224")
    result = converted(xcit(8) | mmdet_heads(SAME), small)
    assert not result.unplaced
    assert {re.sub(r"res\d", "*", name) for name in result.missing} == {
        f"backbone.bottom_up.levels.*.scale.0.{kind}" for kind in ("weight", "bias")
    }
    assert "level_norm=none" in result.notes[0]


@pytest.mark.parametrize("name", ["keypoint_rcnn", "panoptic_fpn"])
def test_other_detectors_of_the_zoo_are_mapped(name: str) -> None:
    with torch.device("meta"):
        model = instantiate(model_zoo.get_config(f"common/models/{name.removesuffix('_fpn')}_fpn.py").model)
    detector = target(f"{name}_timm.py", f"data.name={COCO_OF[name]}")
    shapes = {key: tuple(x.shape) for key, x in model.state_dict().items()}
    result = converted(shapes, detector)
    assert result.complete, summarize_problems(result)
    assert len(result.mapped) == len(shapes)


def test_other_classes_are_initialized_on_demand() -> None:
    detector = target("mask_rcnn_timm.py", "data.name=cityscapes")
    incomplete = converted(zoo_mask_rcnn(), detector)
    assert len(incomplete.unplaced) == 6
    result = converted(zoo_mask_rcnn(), detector, new_classes=True)
    assert result.complete
    assert {name.rpartition(".")[0] for name, why in result.initialized.items() if "classes" in why} == {
        "roi_heads.box_predictor.cls_score",
        "roi_heads.box_predictor.bbox_pred",
        "roi_heads.mask_head.predictor",
    }
    assert "roi_heads.box_predictor.cls_score.weight" not in result.weights


def test_parts_exclude_the_others() -> None:
    result = converted(zoo_mask_rcnn(), target("mask_rcnn_timm.py"), "neck", "proposal_generator")
    assert result.complete
    assert {name.split(".")[1] for name in result.weights if name.startswith("backbone")} == {
        f"fpn_{kind}{level}" for kind in ("lateral", "output") for level in (2, 3, 4, 5)
    }
    assert result.not_needed["backbone.bottom_up.stem.conv1.weight"] == "belongs to backbone"


def test_tables_are_interpolated_to_another_window_size() -> None:
    detector = swin_tiny(f"+{BACKBONE}.timm_kwargs.window_size=14")
    result = converted(swin() | mmdet_heads(PYRAMID), detector)
    assert result.complete
    assert result.notes == ["tables of relative positions interpolated from windows of 7 to 14"]
    same = converted(swin(window=14) | mmdet_heads(PYRAMID), detector)
    assert not same.notes


def test_a_last_stage_without_shifts_is_noted() -> None:
    detector = target("mask_rcnn_swin_tiny_3x.py", f"{BACKBONE}.timm_kwargs.always_partition=false")
    result = converted(swin() | mmdet_heads(PYRAMID), detector)
    assert len(result.notes) == 1
    assert "last stage" in result.notes[0]
    assert "always_partition=true" in result.notes[0]


def test_deltas_are_scaled_to_the_weights_of_the_target() -> None:
    detector = swin_tiny("model.roi_heads.box_predictor.box2box_transform.weights=[20,20,10,10]")
    shapes = {"roi_head.bbox_head.fc_reg.bias": (320,), "roi_head.bbox_head.fc_reg.weight": (320, 1024)}
    weights = zeros(swin() | mmdet_heads(PYRAMID)) | numbers(shapes)
    result = match(weights, layout_of(weights, Path()), detector)
    assert result.notes == ["deltas scaled by 2, 2, 2, 2"]
    for kind in ("weight", "bias"):
        theirs = weights[f"roi_head.bbox_head.fc_reg.{kind}"]
        assert torch.equal(result.weights[f"roi_heads.box_predictor.bbox_pred.{kind}"], 2 * theirs)


def test_unknown_layouts_are_errors_that_list_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"source\.pth: .*1 weights \(a\.b, …\).* Swin"):
        layout_of({"a.b": torch.zeros(1)}, Path("source.pth"))
