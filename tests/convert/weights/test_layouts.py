"""Every weight of a published detector has its place in the recipe's, and the other way round."""

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
from d2timm.config.lazy import apply_overrides
from d2timm.convert.weights.convert import layout_of
from d2timm.convert.weights.matching import Match, match
from d2timm.convert.weights.report import mapping_report, summary_of_faults
from d2timm.convert.weights.target import Target
from d2timm.errors import ConfigError

PYRAMID = (96, 192, 384, 768)
SAME = (384, 384, 384, 384)
BACKBONE = "model.backbone.bottom_up"
COUNTER = "num_batches_tracked"


@functools.cache
def target(recipe: str, *overrides: str) -> Target:
    """The detector of one of our recipes for COCO."""
    return Target.of(apply_overrides(get_config(recipe), ["data.name=coco_2017", *overrides]))


def swin_tiny(*overrides: str) -> Target:
    return target("mask_rcnn_swin_tiny_3x.py", *overrides)


COCO_OF = {"keypoint_rcnn": "coco_2017_keypoints", "panoptic_fpn": "coco_2017_panoptic"}


def converted(shapes: Shapes, made: Target, *parts: str, new_classes: bool = False) -> Match:
    weights = zeros(shapes)
    return match(weights, layout_of(weights, Path("source.pth")), made, parts, new_classes)


P16 = (f"{BACKBONE}.model_name=xcit_small_12_p16_224", f"{BACKBONE}.doubling_norm=SyncBN")
P6_OF_RES5 = ("model.backbone.top_block.in_channels=2048", "model.backbone.top_block.in_feature=res5")
VITDET = "mask_rcnn_vitdet_base_100ep.py"
#: Detector -> names and shapes; recipe and overrides; reasons of weights that are left over
DETECTORS: dict[str, tuple[Shapes, tuple[str, ...], dict[str, int]]] = {
    "Swin-T": (
        swin() | mmdet_heads(PYRAMID),
        ("mask_rcnn_swin_tiny_3x.py",),
        {"follows from the size of the windows": 12},
    ),
    "Cascade Swin-S": (
        swin(depths=(2, 2, 18, 2)) | mmdet_cascade(PYRAMID),
        ("cascade_mask_rcnn_swin_small_3x.py",),
        {"follows from the size of the windows": 24},
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
    made = target(*recipe)
    found = converted(shapes, made)
    print(mapping_report(found, layout_of(zeros(shapes), Path(name)), made, len(shapes)))
    assert found.complete, summary_of_faults(found)
    assert Counter(found.left_over.values()) == reasons
    assert len(found.mapped) == len(shapes) - sum(reasons.values())
    assert len(set(found.mapped.values())) == len(found.mapped)
    assert {key: x.shape for key, x in found.weights.items()} == {k: x.shape for k, x in made.state.items()}
    assert all(place.endswith(COUNTER) for place in found.fresh)


def test_pretrained_backbones_start_the_backbone_alone() -> None:
    made = target(VITDET)
    with_positions = converted(mae(), made, "backbone")
    assert with_positions.complete
    assert set(with_positions.left_over) == {"cls_token", "norm.weight", "norm.bias"}
    assert len(with_positions.fresh) == 24
    assert all(re.search(r"rel_pos_[hw]$", name) for name in with_positions.fresh)
    assert with_positions.notes == ["position embeddings interpolated from 14x14 to 64x64 cells"]
    whole = converted(mae(), made)
    assert not whole.complete
    assert not whole.homeless
    assert {name.split(".")[0] for name in whole.missing} == {"backbone", "proposal_generator", "roi_heads"}

    resnet = target("mask_rcnn_timm.py")
    shapes = resnet50(prefix="") | {"stem.fc.weight": (1000, 2048), "stem.fc.bias": (1000,)}
    found = converted(shapes, resnet, "backbone")
    assert found.complete
    assert set(found.left_over) == {"stem.fc.weight", "stem.fc.bias"}
    assert not found.notes  # torchvision's pixels are those of timm's


def test_names_of_caffe2_bring_no_statistics() -> None:
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
    found = converted(shapes, target("mask_rcnn_timm.py"), "backbone")
    assert found.complete
    body = "backbone.bottom_up.model"
    assert found.weights[f"{body}.bn1.running_var"].sum() == pytest.approx(64 * (1 - 1e-5))
    assert len(found.notes) == 2  # pixels, and where the strides are


def test_what_is_deeper_wider_or_another_model_is_refused() -> None:
    made = swin_tiny()
    deeper = converted(swin(depths=(2, 2, 18, 2)) | mmdet_heads(PYRAMID), made)
    assert len(deeper.homeless) == 12 * 13
    assert not deeper.missing
    assert "backbone.layers.2.blocks.6." in summary_of_faults(deeper)
    shallower = converted(swin(depths=(2, 2, 2, 2)) | mmdet_heads(PYRAMID), made)
    assert len(shallower.missing) == 4 * 13
    wider = converted(swin(width=128, heads=(4, 8, 16, 32)) | mmdet_heads((128, 256, 512, 1024)), made)
    assert (
        wider.homeless["backbone.norm0.weight"]
        == "128, where backbone.bottom_up.levels.res2.scale.0.weight has 96"
    )
    with pytest.raises(ConfigError, match="a ConvNeXt of mmdet has no weights for swin_tiny"):
        converted(convnext() | mmdet_heads(PYRAMID), made)


def test_norms_that_differ_are_refused_with_what_to_give() -> None:
    found = converted(swin() | mmdet_heads(PYRAMID), swin_tiny(f"{BACKBONE}.level_norm=resampled"))
    assert set(found.homeless) == {f"backbone.norm{i}.{k}" for i in range(4) for k in ("weight", "bias")}
    assert found.notes[0].endswith("give model.backbone.bottom_up.level_norm=all")
    small = target("mask_rcnn_timm.py", f"{BACKBONE}.model_name=xcit_small_12_p8_224")
    found = converted(xcit(8) | mmdet_heads(SAME), small)
    assert not found.homeless
    assert {re.sub(r"res\d", "*", name) for name in found.missing} == {
        f"backbone.bottom_up.levels.*.scale.0.{kind}" for kind in ("weight", "bias")
    }
    assert "level_norm=none" in found.notes[0]


@pytest.mark.parametrize("detector", ["keypoint_rcnn", "panoptic_fpn"])
def test_other_detectors_of_the_zoo(detector: str) -> None:
    with torch.device("meta"):
        model = instantiate(
            model_zoo.get_config(f"common/models/{detector.removesuffix('_fpn')}_fpn.py").model
        )
    made = target(f"{detector}_timm.py", f"data.name={COCO_OF[detector]}")
    shapes = {name: tuple(x.shape) for name, x in model.state_dict().items()}
    found = converted(shapes, made)
    assert found.complete, summary_of_faults(found)
    assert len(found.mapped) == len(shapes)


def test_other_classes_start_anew_if_the_user_says_so() -> None:
    made = target("mask_rcnn_timm.py", "data.name=cityscapes")
    refused = converted(zoo_mask_rcnn(), made)
    assert len(refused.homeless) == 6
    found = converted(zoo_mask_rcnn(), made, new_classes=True)
    assert found.complete
    assert {name.rpartition(".")[0] for name, why in found.fresh.items() if "classes" in why} == {
        "roi_heads.box_predictor.cls_score",
        "roi_heads.box_predictor.bbox_pred",
        "roi_heads.mask_head.predictor",
    }
    assert "roi_heads.box_predictor.cls_score.weight" not in found.weights


def test_parts_leave_the_others_out() -> None:
    found = converted(zoo_mask_rcnn(), target("mask_rcnn_timm.py"), "neck", "proposal_generator")
    assert found.complete
    assert {name.split(".")[1] for name in found.weights if name.startswith("backbone")} == {
        f"fpn_{kind}{level}" for kind in ("lateral", "output") for level in (2, 3, 4, 5)
    }
    assert found.left_over["backbone.bottom_up.stem.conv1.weight"] == "of the part backbone"


def test_windows_of_another_size_interpolate_the_tables_and_say_so() -> None:
    made = swin_tiny(f"+{BACKBONE}.timm_kwargs.window_size=14")
    found = converted(swin() | mmdet_heads(PYRAMID), made)
    assert found.complete
    assert found.notes == ["tables of relative positions interpolated from windows of 7 to 14"]
    same = converted(swin(window=14) | mmdet_heads(PYRAMID), made)
    assert not same.notes


def test_last_stage_without_shifts_is_told() -> None:
    made = target("mask_rcnn_swin_tiny_3x.py", f"{BACKBONE}.timm_kwargs.always_partition=false")
    found = converted(swin() | mmdet_heads(PYRAMID), made)
    assert [note.split(";")[0] for note in found.notes] == [
        "blocks of the last stage are not shifted, those of the published detectors are"
    ]


def test_deltas_are_scaled_for_what_the_target_divides_them_by() -> None:
    made = swin_tiny("model.roi_heads.box_predictor.box2box_transform.weights=[20,20,10,10]")
    shapes = {"roi_head.bbox_head.fc_reg.bias": (320,), "roi_head.bbox_head.fc_reg.weight": (320, 1024)}
    weights = zeros(swin() | mmdet_heads(PYRAMID)) | numbers(shapes)
    found = match(weights, layout_of(weights, Path()), made)
    assert found.notes == ["deltas scaled by 2, 2, 2, 2"]
    for kind in ("weight", "bias"):
        theirs = weights[f"roi_head.bbox_head.fc_reg.{kind}"]
        assert torch.equal(found.weights[f"roi_heads.box_predictor.bbox_pred.{kind}"], 2 * theirs)


def test_unknown_layouts_are_named_with_those_known() -> None:
    with pytest.raises(
        ConfigError, match=r"source\.pth: the layout of its 1 weights \(a\.b, …\) is none of: Swin"
    ):
        layout_of({"a.b": torch.zeros(1)}, Path("source.pth"))
