"""Parts that do not fit together are refused with options that do; all others build and train."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from detectron2.config import instantiate
from detectron2.modeling import FPN, GeneralizedRCNN
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints, PolygonMasks
from detectron2.utils.events import EventStorage
from helpers.choices import BOTTOM_UP, COMBINATIONS, compose, fits, options
from omegaconf import DictConfig, OmegaConf

from d2timm import ConfigError
from d2timm.config.build import build_on_meta
from d2timm.config.compatibility import check_compatibility
from d2timm.config.groups import read_nodes
from d2timm.config.lazy import to_plain
from d2timm.engine.run import start
from d2timm.utils.targets import TRUST, check_targets


def assert_refused(choices: Sequence[str], facts: Sequence[str]) -> None:
    """Assert that a combination is refused in one line with these facts, as a recipe and as saved."""
    cfg = compose(*choices)
    messages = []
    for tree in (cfg, OmegaConf.create(to_plain(cfg))):
        with pytest.raises(ConfigError) as caught:
            check_compatibility(tree)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert "\n" not in messages[0]
    assert [fact for fact in facts if fact not in messages[0]] == []


def train_once(cfg: DictConfig) -> torch.nn.Module:
    """A forward and a backward pass on an image of two objects, with annotations for all tasks."""
    torch.manual_seed(0)
    model: torch.nn.Module = instantiate(cfg.model)
    polygons = PolygonMasks([[[4.0, 8.0, 60.0, 8.0, 60.0, 60.0]], [[50.0, 2.0, 90.0, 2.0, 90.0, 30.0]]])
    bitmaps = OmegaConf.select(cfg, "model.roi_heads.mask_head.train_num_points") is not None
    keypoints = instantiate(OmegaConf.select(cfg, "model.roi_heads.keypoint_head.num_keypoints")) or 1
    instances = Instances(
        (64, 136),
        gt_boxes=Boxes(torch.tensor([[4.0, 8.0, 60.0, 60.0], [50.0, 2.0, 90.0, 30.0]])),
        gt_classes=torch.tensor([0, 1]),
        gt_masks=BitMasks.from_polygon_masks(polygons, 64, 136) if bitmaps else polygons,
        gt_keypoints=Keypoints(
            torch.tensor([[[40.0, 20.0, 2.0]], [[70.0, 9.0, 2.0]]]).expand(-1, keypoints, -1)
        ),
    )
    image = torch.randint(0, 256, (3, 64, 136)).float()
    sem_seg = torch.zeros(64, 136, dtype=torch.long)
    sem_seg[32:] = 1
    with EventStorage():
        losses = model([{"image": image, "instances": instances, "sem_seg": sem_seg}])
    sum(losses.values()).backward()
    return model


@pytest.mark.parametrize("choices", COMBINATIONS, ids="-".join)
def test_options_fit_or_are_refused(choices: tuple[str, str, str]) -> None:
    """Combinations that fit are trained in tests/engine/test_product.py."""
    cfg = compose(*choices)
    before = to_plain(cfg)
    if fits(*choices):
        check_compatibility(cfg)
    else:
        with pytest.raises(ConfigError, match=r"use .*=|set model\."):
            check_compatibility(cfg)
    assert to_plain(cfg) == before


ALL_HEADS = (
    "roi_heads=box|cascade_box|cascade_mask|cascade_mask_4conv1fc|cascade_mask_mmdet|keypoint|mask|"
    "mask_4conv1fc|mask_agnostic|point_rend"
)
MASK_HEADS = (
    "roi_heads=cascade_mask|cascade_mask_4conv1fc|cascade_mask_mmdet|mask|mask_4conv1fc|mask_agnostic|"
    "point_rend"
)


@pytest.mark.parametrize(
    ("choices", "facts"),
    [
        (
            ("retinanet", "fpn_p6p7", "mask"),
            ["model=retinanet has no ROI heads", "use roi_heads=none, or model=panoptic_fpn|rcnn"],
        ),
        (
            ("fcos", "fpn", "box"),
            ["model=fcos has no ROI heads", "use roi_heads=none, or model=rcnn"],
        ),
        (
            ("semantic_fpn", "fpn_p6p7", "keypoint"),  # its levels do not fit either, which comes second
            ["model=semantic_fpn has no ROI heads", "use roi_heads=none, or model=rcnn"],
        ),
        (
            ("rcnn", "fpn", "none"),
            ["model=rcnn needs ROI heads", f"use {ALL_HEADS}, or model=fcos|retinanet|semantic_fpn"],
        ),
        (
            ("panoptic_fpn", "fpn", "box"),
            ["model=panoptic_fpn needs ROI heads with masks", f"use {MASK_HEADS}, or model=rcnn"],
        ),
        (
            ("semantic_fpn", "fpn_p6p7", "none"),
            [
                "model=semantic_fpn uses p3, p4, p5 and neck=fpn_p6p7 has p3, p4, p5, p6, p7",
                "p6, p7 would have no gradient",
                "use neck=bifpn|fpn|fpn_gn|none|pafpn|simple_feature_pyramid, or ",
                "set model.backbone.top_block=null",
            ],
        ),
    ],
)
def test_refused_options_and_those_that_fit(choices: tuple[str, ...], facts: list[str]) -> None:
    assert_refused(choices, facts)


def test_suggested_fix_works() -> None:
    cfg = compose("semantic_fpn", "fpn_p6p7", "none", "model.backbone.top_block=null")
    check_compatibility(cfg)
    model = train_once(cfg)
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("dry_run", [True, False])
def test_run_starts_with_the_check(dry_run: bool) -> None:
    with pytest.raises(ConfigError, match="model=rcnn needs ROI heads"):
        start(compose("rcnn", "fpn", "none"), Namespace(dry_run=dry_run), [])


def test_refused_run_writes_nothing(tmp_path: Path, tiny: Callable[..., Any]) -> None:
    cfg = tiny("mask_rcnn_timm.py", tmp_path / "run", "model.roi_heads=null")
    with pytest.raises(ConfigError, match="model=rcnn needs ROI heads"):
        start(cfg, Namespace(dry_run=True), [])
    assert not list(tmp_path.iterdir())


# Classes of a user


@pytest.fixture
def own_package(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A package of a user's, with subclasses of a detector and a neck, and a class without traits."""
    package = ModuleType("own_package")
    for name, base in {"Detector": GeneralizedRCNN, "Neck": FPN, "Undeclared": torch.nn.Module}.items():
        setattr(package, name, type(name, (base,), {"__module__": "own_package"}))
    monkeypatch.setitem(sys.modules, "own_package", package)
    monkeypatch.setenv(TRUST, "own_package")
    return package


@pytest.mark.parametrize("as_text", [True, False])
def test_subclass_of_a_detector_is_checked_and_named_by_its_target(
    as_text: bool, own_package: ModuleType
) -> None:
    cfg = compose("rcnn", "fpn", "none")
    cfg.model._target_ = "own_package.Detector" if as_text else own_package.Detector
    with pytest.raises(
        ConfigError, match=r"^model\._target_=own_package\.Detector needs ROI heads: .*roi_heads=box\|"
    ):
        check_compatibility(cfg)


def test_subclass_of_a_neck_is_checked_and_named_by_its_target(own_package: ModuleType) -> None:
    cfg = compose("semantic_fpn", "fpn_p6p7", "none")
    cfg.model.backbone._target_ = "own_package.Neck"
    with pytest.raises(
        ConfigError, match=r"model\.backbone\._target_=own_package\.Neck has .*use neck=bifpn\|"
    ):
        check_compatibility(cfg)


@pytest.mark.parametrize("target", ["own_package.Undeclared", "own_package.NoSuchClass", "no.such.Class"])
def test_class_without_traits_is_accepted(target: str, own_package: ModuleType) -> None:
    cfg = compose("rcnn", "fpn", "none")
    cfg.model._target_ = target
    check_compatibility(cfg)


# Levels


@pytest.mark.parametrize("model", ["retinanet", "fcos"])
@pytest.mark.parametrize("neck", ["fpn", "pafpn", "bifpn", "simple_feature_pyramid"])
def test_dense_detectors_start_at_p3_with_any_neck(model: str, neck: str) -> None:
    cfg = compose(model, neck, "none")
    for tree in (cfg, OmegaConf.create(to_plain(cfg))):
        built = build_on_meta(tree)
        assert list(built.head_in_features) == list(built.backbone.output_shape()) == ["p3", "p4", "p5", "p6"]
    assert "p2" in build_on_meta(compose("rcnn", neck, "box")).backbone.output_shape()


@pytest.mark.parametrize("neck", ["pafpn", "bifpn"])
def test_finer_levels_that_contribute_to_used_ones_are_accepted(neck: str) -> None:
    cfg = compose("retinanet", neck, "none", "model.backbone.in_features=[res2,res3,res4,res5]")
    check_compatibility(cfg)
    model = train_once(cfg)
    idle = [name for name, p in model.named_parameters() if p.grad is None]
    assert idle == []


@pytest.mark.parametrize("model", ["rcnn", "retinanet"])
def test_single_level_has_the_anchors_of_a_pyramid(model: str) -> None:
    def anchors(neck: str) -> list[list[float]]:
        cfg = compose(model, neck, "box" if model == "rcnn" else "none")
        built = build_on_meta(cfg)
        if model == "rcnn":
            node, generator = cfg.model.proposal_generator, built.proposal_generator.anchor_generator
            deltas = built.proposal_generator.rpn_head.anchor_deltas
        else:
            node, generator, deltas = cfg.model, built.anchor_generator, built.head.bbox_pred
        sizes: list[list[float]] = instantiate(node.anchor_generator.sizes)
        assert generator.num_anchors == [3 * len(level) for level in sizes]
        assert deltas.out_channels == 4 * generator.num_anchors[0]
        return sizes

    pyramid = anchors("fpn_p6p7" if model == "retinanet" else "fpn")
    assert len(pyramid) == 5
    assert anchors("none") == [[side for level in pyramid for side in level]]


RPN_ON_FOUR_LEVELS = [
    "model.proposal_generator.in_features=[p3,p4,p5,p6]",
    "model.proposal_generator.anchor_generator.strides=[8,16,32,64]",
    "model.proposal_generator.anchor_generator.sizes=[[64],[128],[256],[512]]",
]


@pytest.mark.parametrize(
    ("choices", "facts"),
    [
        (
            ("retinanet", "fpn", "none", "model.head_in_features=[p3,p4,p5,p6,p7]"),
            [
                "model.head_in_features=[p3, p4, p5, p6, p7]: neck=fpn has p3, p4, p5, p6, not p7",
                "use neck=fpn_p6p7, or leave model.head_in_features out",
            ],
        ),
        (
            ("rcnn", "fpn", "box", "model.proposal_generator.in_features=[p2,p3,p4,p5,p6,p7]"),
            [
                "model.proposal_generator.in_features=[p2, p3, p4, p5, p6, p7]: ",
                "neck=fpn has p2, p3, p4, p5, p6, not p7; leave model.proposal_generator.in_features out",
            ],
        ),
        (
            ("retinanet", "fpn_p6p7", "none", "model.backbone.in_features=[res2,res3,res4,res5]"),
            [
                "model=retinanet uses p3, p4, p5, p6, p7 and neck=fpn_p6p7 has p2, p3, p4, p5, p6, p7",
                "p2 would have no gradient",
                "use neck=bifpn|pafpn, or set model.backbone.in_features=[res3,res4,res5]",
            ],
        ),
        (
            ("fcos", "simple_feature_pyramid", "none", "model.backbone.scale_factors=[4,2,1,0.5]"),
            [
                "model=fcos uses p3, p4, p5, p6 and neck=simple_feature_pyramid has p2, p3, p4, p5, p6",
                "p2 would have no gradient",
                "use neck=bifpn|fpn|fpn_gn|fpn_p6p7|none|pafpn, or ",
                "set model.backbone.scale_factors=[2,1,0.5]",
            ],
        ),
        (
            ("rcnn", "simple_feature_pyramid", "box", "model.backbone.in_features=[res4,res5]"),
            ["model.backbone.in_features=['res4', 'res5']", "scale_factors"],
        ),
        (
            ("rcnn", "bifpn", "box", "model.backbone.out_channels=48"),
            ["model.backbone.out_channels=48 and model.backbone.norm=GN", "32"],
        ),
        (
            ("fcos", "fpn", "none", "model.head.conv_dims=[32,40]"),
            ["model.head.conv_dims=40 and model.head.norm=GN", "32"],
        ),
        (
            ("rcnn", "fpn_p6p7", "box", *RPN_ON_FOUR_LEVELS),
            [
                "model=rcnn uses p3, p4, p5, p6 and neck=fpn_p6p7 has p3, p4, p5, p6, p7",
                "p7 would have no gradient",
                "use neck=bifpn|fpn|fpn_gn|pafpn|simple_feature_pyramid, or ",
                "set model.backbone.top_block=null",
            ],
        ),
        (
            ("rcnn", "pafpn", "mask", "model.roi_heads.mask_in_features=[p1,p2]"),
            [
                "model.roi_heads.mask_in_features=[p1, p2]: neck=pafpn has p2, p3, p4, p5, p6, not p1; leave "
                "model.roi_heads.mask_in_features out",
            ],
        ),
        (
            ("rcnn", "fpn", "box", "model.roi_heads.box_pooler.scales=[0.25,0.125]"),
            [
                "model.roi_heads.box_pooler.scales=[0.25, 0.125]: ",
                "p2, p3, p4, p5 have [0.25, 0.125, 0.0625, 0.03125]",
                "model.roi_heads.box_in_features",
            ],
        ),
        (
            ("retinanet", "fpn_p6p7", "none", "model.anchor_generator.strides=[4,8,16,32,64]"),
            [
                "model.anchor_generator.strides=[4, 8, 16, 32, 64]: ",
                "p3, p4, p5, p6, p7 have [8, 16, 32, 64, 128]",
                "model.head_in_features",
            ],
        ),
        (
            ("retinanet", "fpn_p6p7", "none", "model.anchor_generator.sizes=[[32],[64]]"),
            ["model.anchor_generator.sizes has 2 entries", "5 levels, p3, p4, p5, p6, p7"],
        ),
        (
            ("rcnn", "fpn", "box", f"{BOTTOM_UP}.strides=[8,16]", f"{BOTTOM_UP}.remaps=[a,b]"),
            [
                "model.backbone.top_block starts from p5",
                "neck=fpn is p4",
                "use neck=bifpn|fpn_p6p7|none|pafpn|simple_feature_pyramid, or ",
                "set model.backbone.top_block=null",
            ],
        ),
        (
            ("rcnn", "fpn", "box", f"{BOTTOM_UP}.strides=[4,8,16,24]"),
            ["strides=[4, 8, 16, 24]", "powers of two"],
        ),
        (
            ("rcnn", "fpn", "box", "model.backbone.in_features=[res2,res4]"),
            ["strides=[4, 16]", "double the stride"],
        ),
        (
            ("rcnn", "pafpn", "box", "model.backbone.in_features=[res2,res9]"),
            ["model.backbone.in_features=['res2', 'res9']: ", "'res9'", "res2, res3, res4, res5"],
        ),
        (
            ("retinanet", "fpn_p6p7", "none", f"{BOTTOM_UP}.strides=[2,4]", f"{BOTTOM_UP}.remaps=[a,b]"),
            ["strides=[2, 4]: ", ">= 8"],
        ),
    ],
)
def test_refused_levels_and_their_fix(choices: tuple[str, ...], facts: list[str]) -> None:
    assert_refused(choices, facts)


@pytest.mark.parametrize(
    "choices",
    [
        ("rcnn", "fpn", "box", "model.backbone.top_block=null"),
        ("rcnn", "fpn", "mask", "model.backbone.in_features=[res4,res5]"),
        ("rcnn", "pafpn", "box", f"{BOTTOM_UP}.strides=[8,16]", f"{BOTTOM_UP}.remaps=[a,b]"),
        ("rcnn", "fpn_p6p7", "box", f"{BOTTOM_UP}.strides=[8,16]", f"{BOTTOM_UP}.remaps=[a,b]"),
        ("rcnn", "fpn", "box", "model.proposal_generator.anchor_generator.sizes=[[32,64]]"),
        ("rcnn", "none", "mask", "model.backbone.in_features=[res5]"),
        ("rcnn", "simple_feature_pyramid", "cascade_mask", "model.backbone.in_features=[res5]"),
        ("rcnn", "simple_feature_pyramid", "box", "model.backbone.scale_factors=[1,0.5]"),
        ("rcnn", "fpn", "cascade_box", "model.roi_heads.box_heads.0.conv_dims=[32]"),
        ("retinanet", "fpn_p6p7", "none", f"{BOTTOM_UP}.strides=[4,8,16]", f"{BOTTOM_UP}.remaps=[a,b,c]"),
        ("retinanet", "fpn", "none", f"{BOTTOM_UP}.strides=[8,16,32]", f"{BOTTOM_UP}.remaps=[a,b,c]"),
        ("fcos", "bifpn", "none", "model.backbone.in_features=[res4,res5]"),
        ("fcos", "none", "none", f"{BOTTOM_UP}.strides=[8]", f"{BOTTOM_UP}.remaps=[a]"),
        ("semantic_fpn", "bifpn", "none", "model.backbone.top_block=null"),
        ("panoptic_fpn", "none", "point_rend", f"{BOTTOM_UP}.strides=[8]", f"{BOTTOM_UP}.remaps=[a]"),
    ],
    ids=lambda choices: "-".join(choices[:3]),
)
def test_detector_follows_from_other_levels(choices: tuple[str, ...]) -> None:
    cfg = compose(*choices)
    check_compatibility(cfg)
    model = train_once(cfg)
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize(
    "override",
    [
        f"{BOTTOM_UP}.remaps=[a,b,c]",
        f"{BOTTOM_UP}.remaps=[a,b,b,c]",
        f"{BOTTOM_UP}.strides=null",
        f"{BOTTOM_UP}.strides=4",
        "++model.backbone.top_block={_target_: my.package.Block}",
        "model.backbone.in_features='${model.no_such_key}'",
        "model.backbone.in_features={_target_: my.package.features}",
        "model.backbone=null",
        "~model.backbone",
        "model.proposal_generator.anchor_generator={_target_: my.package.Anchors}",
        "model.proposal_generator.in_features={_target_: my.package.features}",
        "~model",
    ],
)
def test_values_that_are_not_cheap_are_accepted(override: str) -> None:
    for neck in options("neck"):
        check_compatibility(compose("rcnn", neck, "box", override))


@pytest.mark.parametrize("neck", options("neck"))
@pytest.mark.parametrize(
    ("override", "message"),
    [("remaps=[a,b,c]", "remaps has 3.*strides has 4"), ("strides=null", "strides=None: ")],
)
def test_builder_refuses_outputs_without_strides(neck: str, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_on_meta(compose("rcnn", neck, "box", f"{BOTTOM_UP}.{override}"))


@pytest.mark.parametrize("value", ["x", 3, [1], {"a": 1}])
@pytest.mark.parametrize(
    "key", ["top_block", "in_features", "out_channels", "norm", "bottom_up.strides", "bottom_up.remaps"]
)
def test_values_of_another_type_raise_no_other_error(key: str, value: Any) -> None:
    cfg = compose("rcnn", "fpn", "box")
    OmegaConf.update(cfg, f"model.backbone.{key}", value, merge=False)
    with suppress(ConfigError):
        check_compatibility(cfg)


@pytest.mark.parametrize("value", ["x", 3, [1], {"a": 1}])
def test_top_block_must_be_a_node(value: Any) -> None:
    cfg = compose("rcnn", "fpn", "box")
    OmegaConf.update(cfg, "model.backbone.top_block", value, merge=False)
    with pytest.raises(ConfigError, match="top_block"):
        check_targets(cfg)


def test_no_heavy_import(tmp_path: Path) -> None:
    """A front-end checks trees before it imports torch, whether they fit or not."""
    read_nodes()  # into the cache
    trees = []
    for i, choices in enumerate(
        [("rcnn", "pafpn", "mask"), ("semantic_fpn", "fpn_p6p7", "none"), ("rcnn", "fpn", "none")]
    ):
        trees.append(tmp_path / f"{i}.yaml")
        OmegaConf.save(OmegaConf.create(to_plain(compose(*choices))), trees[-1])
    program = (
        "import sys; from omegaconf import OmegaConf\n"
        "from d2timm.config.compatibility import check_compatibility\n"
        "for file in sys.argv[1:]:\n"
        "    try: check_compatibility(OmegaConf.load(file)); print('fits')\n"
        "    except ValueError: print('refused')\n"
        "print([name for name in ('torch', 'timm', 'detectron2') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, *map(str, trees)], capture_output=True, text=True, check=True
    )
    assert result.stdout.split("\n")[:4] == ["fits", "refused", "refused", "[]"]
