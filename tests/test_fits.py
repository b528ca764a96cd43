"""Choices that do not go together are refused by name; all others build and train."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig, OmegaConf

from d2timm import ConfigError
from d2timm.build import build_on_meta, check
from d2timm.config import apply_overrides, get_config, to_plain
from d2timm.fits import check_fit
from d2timm.nodes import read_nodes

COMMON = Path(__file__).parents[1] / "lazy_configs" / "common"
BOTTOM_UP = "model.backbone.bottom_up"


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (COMMON / group).glob("*.py"))


def compose(model: str, neck: str, roi_heads: str, *overrides: str) -> DictConfig:
    """A tree as a recipe of these options assembles it."""
    cfg = get_config("mask_rcnn_timm.py")
    backbone = cfg.model.backbone.bottom_up
    node = {
        group: LazyConfig.load(str(COMMON / group / f"{option}.py"), group)
        for group, option in (("model", model), ("neck", neck), ("roi_heads", roi_heads))
    }
    cfg.model = node["model"]
    cfg.model.backbone = node["neck"]
    cfg.model.backbone.bottom_up = backbone
    if node["roi_heads"] is not None:
        cfg.model.roi_heads = node["roi_heads"]
    small = ["model_name=test_efficientnet", "pretrained=False"]
    cfg.data.name = "shapes"
    return apply_overrides(
        cfg,
        [
            *(f"{BOTTOM_UP}.{o}" for o in small),
            "model.backbone.out_channels=16",
            "train.device=cpu",
            *overrides,
        ],
    )


def refusal(*choices: str) -> str:
    """The line that a composition is refused with, in both forms that a tree comes in."""
    cfg = compose(*choices)
    texts = []
    for tree in (cfg, OmegaConf.create(to_plain(cfg))):  # as a recipe gives it, and as a saved one
        with pytest.raises(ConfigError) as caught:
            check_fit(tree)
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
    assert "\n" not in texts[0]
    return texts[0]


def train_once(cfg: DictConfig) -> torch.nn.Module:
    """A forward and a backward pass of an image of two objects."""
    torch.manual_seed(0)
    model: torch.nn.Module = instantiate(cfg.model)
    instances = Instances(
        (64, 96),
        gt_boxes=Boxes(torch.tensor([[4.0, 8.0, 60.0, 60.0], [50.0, 2.0, 90.0, 30.0]])),
        gt_classes=torch.tensor([0, 1]),
        gt_masks=PolygonMasks([[[4.0, 8.0, 60.0, 8.0, 60.0, 60.0]], [[50.0, 2.0, 90.0, 2.0, 90.0, 30.0]]]),
    )
    image = torch.randint(0, 256, (3, 64, 96)).float()
    with EventStorage():
        losses = model([{"image": image, "instances": instances}])
    sum(losses.values()).backward()
    return model


COMBINATIONS = list(itertools.product(*map(options, ("model", "neck", "roi_heads"))))


def is_refused(cfg: DictConfig) -> bool:
    try:
        check_fit(cfg)
    except ConfigError:
        return True
    return False


@pytest.mark.parametrize("choices", COMBINATIONS, ids="-".join)
def test_options_are_refused_or_train_all_their_parameters(choices: tuple[str, str, str]) -> None:
    cfg = compose(*choices)
    before = to_plain(cfg)
    if is_refused(cfg):
        with pytest.raises(ConfigError, match=re.escape(refusal(*choices))):
            build_on_meta(cfg)
    else:
        build_on_meta(cfg)
        model = train_once(cfg)
        assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert to_plain(cfg) == before


def test_fitting_options() -> None:
    fitting = {choices for choices in COMBINATIONS if not is_refused(compose(*choices))}
    rcnn = itertools.product(["rcnn"], ["fpn", "fpn_p6p7", "pafpn"], ["box", "mask"])
    assert fitting >= {("retinanet", "fpn_p6p7", "none"), *rcnn}
    assert all((model == "retinanet") == (heads == "none") for model, _, heads in fitting)


@pytest.mark.parametrize("heads", ["box", "mask"])
def test_roi_heads_for_a_detector_without(heads: str) -> None:
    told = "model=retinanet has no ROI heads: use roi_heads=none, or model=rcnn"
    assert refusal("retinanet", "fpn_p6p7", heads) == told
    assert refusal("retinanet", "fpn", heads) == told, "the levels come second"


def test_no_roi_heads_for_a_detector_that_needs_them() -> None:
    told = "model=rcnn needs ROI heads: use roi_heads=box or roi_heads=mask, or model=retinanet"
    assert refusal("rcnn", "fpn", "none") == told
    cfg = compose("rcnn", "fpn", "none")
    with pytest.raises(ConfigError, match="needs ROI heads"):
        check(cfg, ["train", "val"])


def test_detector_of_a_users_own_is_named_by_its_target() -> None:
    cfg = compose("rcnn", "fpn", "none")
    cfg.model._target_ = "my.package.Detector"
    with pytest.raises(ConfigError, match=r"^model\._target_=Detector needs ROI heads: use roi_heads=box or"):
        check_fit(cfg)


@pytest.mark.parametrize("neck", ["fpn", "pafpn"])
def test_retinanet_on_a_neck_that_starts_at_p2(neck: str) -> None:
    told = refusal("retinanet", neck, "none")
    assert told == (
        f"model=retinanet uses p3, p4, p5, p6 and neck={neck} gives p2, p3, p4, p5, p6: parameters of p2 "
        "would have no gradient; use neck=fpn_p6p7, or give model.backbone.in_features=[res3,res4,res5]"
    )
    fix = told.rpartition("give ")[2]
    cfg = compose("retinanet", neck, "none", fix)
    check_fit(cfg)
    assert list(build_on_meta(cfg).head_in_features) == ["p3", "p4", "p5", "p6"]
    model = train_once(cfg)
    idle = [name for name, p in model.named_parameters() if p.grad is None]
    assert idle == []


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (
            ("retinanet", "fpn", "none", "model.head_in_features=[p3,p4,p5,p6,p7]"),
            "model.head_in_features=[p3, p4, p5, p6, p7]: neck=fpn gives p2, p3, p4, p5, p6, not p7; use "
            "neck=fpn_p6p7, or leave model.head_in_features out, it follows from the neck",
        ),
        (
            ("rcnn", "fpn", "box", "model.proposal_generator.in_features=[p2,p3,p4,p5,p6,p7]"),
            "model.proposal_generator.in_features=[p2, p3, p4, p5, p6, p7]: neck=fpn gives p2, p3, p4, p5, "
            "p6, not p7; leave model.proposal_generator.in_features out, it follows from the neck",
        ),
        (
            ("retinanet", "fpn_p6p7", "none", "model.backbone.in_features=[res2,res3,res4,res5]"),
            "model=retinanet uses p3, p4, p5, p6, p7 and neck=fpn_p6p7 gives p2, p3, p4, p5, p6, p7: "
            "parameters of p2 would have no gradient; give model.backbone.in_features=[res3,res4,res5]",
        ),
        (
            ("rcnn", "pafpn", "mask", "model.roi_heads.mask_in_features=[p1,p2]"),
            "model.roi_heads.mask_in_features=[p1, p2]: neck=pafpn gives p2, p3, p4, p5, p6, not p1; leave "
            "model.roi_heads.mask_in_features out, it follows from the neck",
        ),
        (
            ("rcnn", "fpn", "box", "model.roi_heads.box_pooler.scales=[0.25,0.125]"),
            "model.roi_heads.box_pooler.scales=[0.25, 0.125]: p2, p3, p4, p5 have [0.25, 0.125, 0.0625, "
            "0.03125]; leave it and model.roi_heads.box_in_features out, both follow from the neck",
        ),
        (
            ("retinanet", "fpn_p6p7", "none", "model.anchor_generator.strides=[4,8,16,32,64]"),
            "model.anchor_generator.strides=[4, 8, 16, 32, 64]: p3, p4, p5, p6, p7 have [8, 16, 32, 64, "
            "128]; leave it and model.head_in_features out, both follow from the neck",
        ),
        (
            ("retinanet", "fpn_p6p7", "none", "model.anchor_generator.sizes=[[32],[64]]"),
            "model.anchor_generator.sizes has 2 entries, and the levels are 5, p3, p4, p5, p6, p7; give one "
            "entry for each level, or one for all",
        ),
        (
            ("rcnn", "fpn", "box", f"{BOTTOM_UP}.strides=[8,16]", f"{BOTTOM_UP}.remaps=[a,b]"),
            "model.backbone.top_block makes more levels of p5, and the last one that neck=fpn has is p4; use "
            "neck=fpn_p6p7 or neck=pafpn, or give model.backbone.top_block=null",
        ),
        (
            ("rcnn", "fpn", "box", f"{BOTTOM_UP}.strides=[4,8,16,24]"),
            "strides=[4, 8, 16, 24]: the levels of a neck are powers of two, such as 4, 8, 16, 32",
        ),
        (
            ("rcnn", "fpn", "box", "model.backbone.in_features=[res2,res4]"),
            "strides=[4, 16]: each level of a neck has double the stride of the one before",
        ),
        (
            ("rcnn", "pafpn", "box", "model.backbone.in_features=[res2,res9]"),
            "model.backbone.in_features=['res2', 'res9']: the backbone has no 'res9', it gives res2, res3, "
            "res4, res5",
        ),
        (
            ("retinanet", "fpn_p6p7", "none", f"{BOTTOM_UP}.strides=[2,4]", f"{BOTTOM_UP}.remaps=[a,b]"),
            "strides=[2, 4]: the neck needs at least one of >= 8",
        ),
    ],
)
def test_levels_that_the_neck_does_not_give(choices: tuple[str, ...], message: str) -> None:
    assert refusal(*choices) == message


@pytest.mark.parametrize(
    "choices",
    [
        ("rcnn", "fpn", "box", "model.backbone.top_block=null"),
        ("rcnn", "fpn", "mask", "model.backbone.in_features=[res4,res5]"),
        ("rcnn", "pafpn", "box", f"{BOTTOM_UP}.strides=[8,16]", f"{BOTTOM_UP}.remaps=[a,b]"),
        ("rcnn", "fpn_p6p7", "box", f"{BOTTOM_UP}.strides=[8,16]", f"{BOTTOM_UP}.remaps=[a,b]"),
        ("rcnn", "fpn", "box", "model.proposal_generator.anchor_generator.sizes=[[32,64]]"),
        ("retinanet", "fpn_p6p7", "none", f"{BOTTOM_UP}.strides=[4,8,16]", f"{BOTTOM_UP}.remaps=[a,b,c]"),
        ("retinanet", "fpn", "none", f"{BOTTOM_UP}.strides=[8,16,32]", f"{BOTTOM_UP}.remaps=[a,b,c]"),
    ],
    ids=lambda choices: "-".join(choices[:3]),
)
def test_everything_follows_from_other_levels(choices: tuple[str, ...]) -> None:
    if "sizes" in choices[-1]:  # what does not follow is the user's to say
        choices = (*choices, "model.proposal_generator.head.num_anchors=6")
    cfg = compose(*choices)
    check_fit(cfg)
    train_once(cfg)


@pytest.mark.parametrize(
    "override",
    [
        f"{BOTTOM_UP}.remaps=[a,b,c]",
        f"{BOTTOM_UP}.remaps=[a,b,b,c]",
        f"{BOTTOM_UP}.strides=null",
        f"{BOTTOM_UP}.strides=4",
        "model.backbone.top_block={_target_: my.package.Block}",
        "model.backbone.in_features='${model.no_such_key}'",
        "model.backbone.in_features={_target_: my.package.features}",
        "model.backbone=null",
        "~model.backbone",
        "model.proposal_generator.anchor_generator={_target_: my.package.Anchors}",
        "model.proposal_generator.in_features={_target_: my.package.features}",
        "~model",
    ],
)
def test_what_is_not_known_lightly_is_left_to_the_builder(override: str) -> None:
    for neck in options("neck"):
        check_fit(compose("rcnn", neck, "box", override))


def test_no_heavy_import(tmp_path: Path) -> None:
    """A front-end may ask before torch is imported, of trees that fit and that do not."""
    read_nodes()  # into the cache
    trees = []
    for i, choices in enumerate(
        [("rcnn", "pafpn", "mask"), ("retinanet", "fpn", "none"), ("rcnn", "fpn", "none")]
    ):
        trees.append(tmp_path / f"{i}.yaml")
        OmegaConf.save(OmegaConf.create(to_plain(compose(*choices))), trees[-1])
    program = (
        "import sys; from omegaconf import OmegaConf; from d2timm.fits import check_fit\n"
        "for file in sys.argv[1:]:\n"
        "    try: check_fit(OmegaConf.load(file)); print('fits')\n"
        "    except ValueError: print('refused')\n"
        "print([name for name in ('torch', 'timm', 'detectron2') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, *map(str, trees)], capture_output=True, text=True, check=True
    )
    assert result.stdout.split("\n")[:4] == ["fits", "refused", "refused", "[]"]


def test_dry_run_refuses(tmp_path: Path, tiny: Callable[..., Any]) -> None:
    cfg = tiny("mask_rcnn_timm.py", tmp_path / "run", "model.roi_heads=null")
    with pytest.raises(ConfigError, match="model=rcnn needs ROI heads"):
        build_on_meta(cfg)
    assert not list(tmp_path.iterdir())
