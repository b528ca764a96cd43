"""detectron2's own training loop runs every recipe, without the training code of d2timm."""

from __future__ import annotations

import copy
import functools
import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyConfig, instantiate
from detectron2.engine import (
    AMPTrainer,
    SimpleTrainer,
    create_ddp_model,
    default_setup,
    default_writers,
    hooks,
)
from detectron2.evaluation import inference_on_dataset, print_csv_format
from omegaconf import DictConfig, OmegaConf
from torch import nn

from d2timm.config.build import build_on_meta, resolve_dataset
from d2timm.config.lazy import get_config, load, save
from d2timm.config.overrides import apply_overrides
from d2timm.data.datasets import shapes

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def train_as_detectron2_does(config_file: Path, overrides: list[str]) -> dict[str, dict[str, float]]:
    """The steps of detectron2's tools/lazyconfig_train_net.py."""
    cfg = LazyConfig.load(str(config_file))
    cfg = LazyConfig.apply_overrides(cfg, overrides)
    default_setup(cfg, Namespace(config_file=str(config_file), eval_only=False))

    model = instantiate(cfg.model)
    model.to(cfg.train.device)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    train_loader = instantiate(cfg.dataloader.train)
    model = create_ddp_model(model, **cfg.train.ddp)
    trainer = (AMPTrainer if cfg.train.amp.enabled else SimpleTrainer)(model, train_loader, optimizer)
    checkpointer = DetectionCheckpointer(model, cfg.train.output_dir, trainer=trainer)

    def test() -> dict[str, dict[str, float]]:
        results = inference_on_dataset(
            model, instantiate(cfg.dataloader.test), instantiate(cfg.dataloader.evaluator)
        )
        print_csv_format(results)
        return dict(results)

    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
            hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer),
            hooks.EvalHook(cfg.train.eval_period, test),
            hooks.PeriodicWriter(
                default_writers(cfg.train.output_dir, cfg.train.max_iter), period=cfg.train.log_period
            ),
        ]
    )
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=False)
    trainer.train(0, cfg.train.max_iter)
    return test()


#: Recipe -> the tasks of its detector
RECIPES = {
    "cascade_mask_rcnn_timm.py": {"bbox", "segm"},
    "faster_rcnn_timm.py": {"bbox"},
    "fcos_timm.py": {"bbox"},
    "keypoint_rcnn_timm.py": {"bbox", "keypoints"},
    "mask_rcnn_timm.py": {"bbox", "segm"},
    "panoptic_fpn_timm.py": {"bbox", "segm", "sem_seg", "panoptic_seg"},
    "retinanet_timm.py": {"bbox"},
    "semantic_fpn_timm.py": {"sem_seg"},
}


def fitting(recipe: str, overrides: list[str]) -> list[str]:
    """The overrides whose keys a recipe has, and a width that group norm can divide."""
    cfg = get_config(recipe)
    existing = []
    for override in overrides:
        owner, _, name = override.partition("=")[0].rpartition(".")
        if name in (OmegaConf.select(cfg, owner) or ()):
            existing.append(override)
    return [*existing, "model.backbone.out_channels=64"]


@pytest.mark.sampled("detectors", every=3)
@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_trains_without_our_loop(
    recipe: str,
    tiny_overrides: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("run", "preflight", "process", "training", "trainer", "hooks", "validation"):
        monkeypatch.setitem(sys.modules, f"d2timm.engine.{name}", None)  # an import of it fails
    overrides = tiny_overrides(recipe, tmp_path)
    if RECIPES[recipe] <= {"bbox", "segm"}:
        # d2timm's own commands resolve "auto" to "custom" if there are files
        overrides += ["data.name=custom", "data.settings.custom.max_iter=2"]
    else:
        monkeypatch.setenv("D2TIMM_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(shapes, "COUNTS", {"train": 4, "val": 2})
        overrides = [override for override in overrides if not override.startswith("data.")]
        overrides += ["data.name=shapes", "data.settings.shapes.max_iter=2"]
    results = train_as_detectron2_does(ROOT / "lazy_configs" / recipe, fitting(recipe, overrides))
    assert set(results) == RECIPES[recipe]
    assert (tmp_path / "model_final.pth").is_file()
    assert LazyConfig.load(str(tmp_path / "config.yaml")).train.max_iter == 2


BOTTOM_UP = "model.backbone.bottom_up"
SWIN = ["model_name=swin_tiny_patch4_window7_224", "depths:[1,1,1,1],embed_dim:16,num_heads:[1,1,2,2]"]
#: Published recipe -> the smallest backbone of its kind
KINDS = {
    "cascade_mask_rcnn_swin_small_3x.py": SWIN,
    "fcos_resnet50_1x.py": ["model_name=test_resnet", ""],
    "mask_rcnn_convnext_tiny_3x.py": ["model_name=test_convnext", ""],
    "mask_rcnn_dinov3_convnext_tiny.py": ["model_name=test_convnext", ""],
    "mask_rcnn_dinov3_vit_small.py": [
        "model_name=vit_small_patch16_dinov3",
        "depth:3,embed_dim:32,num_heads:2",
    ],
    "mask_rcnn_efficientnetv2_small.py": ["model_name=test_efficientnet", ""],
    "mask_rcnn_resnet50_1x.py": ["model_name=test_resnet", ""],
    "mask_rcnn_resnet50_3x.py": ["model_name=test_resnet", ""],
    "mask_rcnn_swin_tiny_1x.py": SWIN,
    "mask_rcnn_swin_tiny_3x.py": SWIN,
    "mask_rcnn_vitdet_base_100ep.py": [
        "model_name=samvit_base_patch16",
        "depth:3,embed_dim:32,num_heads:2,global_attn_indexes:[2],img_size:64",
    ],
    "mask_rcnn_xcit_small_12_p8_3x.py": [
        "model_name=xcit_nano_12_p8_224",
        "depth:4,embed_dim:32,num_heads:2",
        "out_indices=[0,1,2,3]",
    ],
    "retinanet_resnet50_1x.py": ["model_name=test_resnet", ""],
}
#: Overrides for heads with several convolutions or stages
NARROW = [
    "data.settings.custom.crop_size=64",
    "model.roi_heads.box_head.conv_dims=[16]",
    "model.roi_heads.box_heads.0.conv_dims=[16]",
    "model.roi_heads.box_heads.0.fc_dims=[16]",
    "model.roi_heads.mask_heads.0.conv_dims=[16,16]",
]


@pytest.mark.parametrize("recipe", KINDS)
def test_published_recipe_trains_with_a_tiny_backbone_of_its_kind(
    recipe: str,
    tiny_overrides: Callable[..., list[str]],
    tmp_path: Path,
) -> None:
    model_name, kwargs, *others = KINDS[recipe]
    overrides = [
        *fitting(recipe, [*tiny_overrides(recipe, tmp_path), *NARROW]),
        *(f"{BOTTOM_UP}.{override}" for override in (model_name, *others)),
        *([f"{BOTTOM_UP}.timm_kwargs={{{kwargs}}}"] if kwargs else []),
        "data.name=custom",
        "data.settings.custom.max_iter=2",
    ]
    results = train_as_detectron2_does(ROOT / "lazy_configs" / recipe, overrides)
    assert set(results) == ({"bbox", "segm"} if "mask" in recipe else {"bbox"})
    assert (tmp_path / "model_final.pth").is_file()


def test_every_published_recipe_is_trained() -> None:
    files = {path.name for path in (ROOT / "lazy_configs").glob("*.py")}
    assert set(KINDS) == files - set(RECIPES) - {"demo.py"}


@pytest.mark.parametrize("recipe", sorted(path.name for path in (ROOT / "lazy_configs").glob("*.py")))
def test_saved_recipe_builds_the_same_model(recipe: str, tmp_path: Path) -> None:
    cfg, model = built(recipe)
    save(cfg, tmp_path / "config.yaml")
    again = build_on_meta(load(tmp_path / "config.yaml"))
    states = [{k: v.shape for k, v in m.state_dict().items()} for m in (model, again)]
    assert states[0] == states[1]


def test_recipe_trains_evaluates_and_resumes(
    tiny_overrides: Callable[..., list[str]], tmp_path: Path
) -> None:
    """With the command of d2timm, which tests of d2timm.engine.run use for other recipes."""
    recipe = "retinanet_timm.py"
    overrides = fitting(recipe, tiny_overrides(recipe, tmp_path))
    command = [sys.executable, str(ROOT / "scripts/lazyconfig_train.py")]
    command += ["--config-file", str(ROOT / "lazy_configs" / recipe)]

    def run(*options: str) -> None:
        subprocess.run([*command, *options[:1], *overrides, *options[1:]], check=True, capture_output=True)

    def iterations() -> list[int]:
        lines = (tmp_path / "metrics.json").read_text().splitlines()
        return [line["iteration"] for line in map(json.loads, lines) if "total_loss" in line]

    run()
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["status"], result["iterations"]) == ("done", 4)
    assert set(result["metrics"]) == {"bbox"}
    assert iterations() == [0, 1, 2, 3]
    run("--resume", "data.settings.custom.max_iter=6")
    assert iterations() == [0, 1, 2, 3, 4, 5]
    run("--eval-only")


@functools.cache
def built(recipe: str) -> tuple[DictConfig, Any]:
    """A recipe and its detector on ``meta``."""
    cfg = get_config(recipe)
    resolve_dataset(cfg)
    return cfg, build_on_meta(cfg)


def with_roi_heads(option: str, *overrides: str) -> Any:
    """The ROI heads of an option, built on ``meta``."""
    cfg = get_config("mask_rcnn_timm.py")
    cfg.model.roi_heads = LazyConfig.load(
        str(ROOT / f"lazy_configs/common/roi_heads/{option}.py"), "roi_heads"
    )
    resolve_dataset(apply_overrides(cfg, overrides))
    return build_on_meta(cfg).roi_heads


def test_retinanet_is_as_in_the_paper() -> None:
    cfg, model = built("retinanet_timm.py")
    assert "roi_heads" not in cfg.model
    assert model.head_in_features == ["p3", "p4", "p5", "p6", "p7"]
    assert model.anchor_generator.strides == [8, 16, 32, 64, 128]
    assert model.anchor_generator.num_anchors == [9] * 5
    sizes = instantiate(cfg.model.anchor_generator.sizes)
    expected = [[side * 2 ** (k / 3) for k in range(3)] for side in (32, 64, 128, 256, 512)]
    assert sizes == [pytest.approx(row) for row in expected]
    assert [shape.stride for shape in model.backbone.output_shape().values()] == [8, 16, 32, 64, 128]


def test_fcos_is_as_in_the_paper() -> None:
    _, model = built("fcos_timm.py")
    assert model.head_in_features == ["p3", "p4", "p5", "p6", "p7"]
    assert model.anchor_generator.strides == [8, 16, 32, 64, 128]
    assert sum(isinstance(layer, nn.GroupNorm) for layer in model.head.modules()) == 8
    assert model.backbone.top_block.in_feature == "p5"


def test_cascade_is_as_in_the_paper() -> None:
    _, model = built("cascade_mask_rcnn_timm.py")
    heads = model.roi_heads
    assert [matcher.thresholds[1] for matcher in heads.proposal_matchers] == [0.5, 0.6, 0.7]
    weights = [predictor.box2box_transform.weights for predictor in heads.box_predictor]
    assert [list(row) for row in weights] == [[10, 10, 5, 5], [20, 20, 10, 10], [30, 30, 15, 15]]
    assert [predictor.bbox_pred.out_features for predictor in heads.box_predictor] == [4, 4, 4]
    assert heads.mask_on
    state = heads.state_dict(keep_vars=True)
    assert len({id(tensor) for tensor in state.values()}) == len(state), "stages share no tensors"


@pytest.mark.parametrize("roi_heads", ["cascade_box", "cascade_mask", "cascade_mask_4conv1fc"])
def test_later_stages_of_a_cascade_follow_the_first(roi_heads: str) -> None:
    heads = with_roi_heads(
        roi_heads,
        "model.roi_heads.box_heads.0.fc_dims=[24,20]",
        "model.roi_heads.box_predictors.0.test_score_thresh=0.3",
        "model.roi_heads.num_classes=5",
    )
    assert [[fc.out_features for fc in head.fcs] for head in heads.box_head] == [[24, 20]] * 3
    assert [predictor.test_score_thresh for predictor in heads.box_predictor] == [0.3] * 3
    assert [predictor.cls_score.in_features for predictor in heads.box_predictor] == [20] * 3
    assert [predictor.cls_score.out_features for predictor in heads.box_predictor] == [6] * 3


def test_heads_of_vitdet() -> None:
    heads = with_roi_heads("mask_4conv1fc")
    assert [conv.out_channels for conv in heads.box_head.conv_norm_relus] == [256] * 4
    assert [fc.out_features for fc in heads.box_head.fcs] == [1024]
    for head in (heads.box_head, heads.mask_head):
        assert {type(conv.norm).__name__ for conv in head.conv_norm_relus} == {"LayerNorm"}
    heads = with_roi_heads("mask_4conv1fc", "model.roi_heads.box_head.conv_norm=naiveSyncBN_N")
    assert {type(conv.norm).__name__ for conv in heads.box_head.conv_norm_relus} == {"NaiveSyncBatchNorm"}


def test_class_agnostic_heads() -> None:
    heads = with_roi_heads("mask_agnostic")
    assert heads.box_predictor.bbox_pred.out_features == 4
    assert heads.mask_head.predictor.out_channels == 1
    assert heads.num_classes > 1


def test_keypoint_head_is_as_in_the_paper() -> None:
    cfg, model = built("keypoint_rcnn_timm.py")
    head = model.roi_heads.keypoint_head
    convolutions = [layer.out_channels for layer in head if isinstance(layer, nn.Conv2d)]
    assert convolutions == [512] * 8
    assert head.score_lowres.out_channels == instantiate(cfg.model.roi_heads.keypoint_head.num_keypoints)
    assert head.loss_normalizer == "visible"
    assert not model.roi_heads.mask_on
    assert model.proposal_generator.post_nms_topk == {True: 1500, False: 1000}


@pytest.mark.parametrize(("recipe", "weight"), [("panoptic_fpn_timm.py", 0.5), ("semantic_fpn_timm.py", 1.0)])
def test_semantic_head_is_as_in_the_paper(recipe: str, weight: float) -> None:
    cfg, model = built(recipe)
    head = model.sem_seg_head
    assert head.in_features == ["p2", "p3", "p4", "p5"]
    assert [sum(isinstance(m, nn.Upsample) for m in part) for part in head.scale_heads] == [0, 1, 2, 3]
    assert (head.common_stride, head.ignore_value, head.loss_weight) == (4, 255, weight)
    assert head.predictor.in_channels == 128
    assert head.predictor.out_channels == instantiate(cfg.model.sem_seg_head.num_classes)


def test_semantic_head_on_a_single_level() -> None:
    cfg = get_config("semantic_fpn_timm.py")
    backbone = cfg.model.backbone.bottom_up
    cfg.model.backbone = LazyConfig.load(str(ROOT / "lazy_configs/common/neck/none.py"), "neck")
    cfg.model.backbone.bottom_up = backbone
    resolve_dataset(cfg)
    head = build_on_meta(cfg).sem_seg_head
    assert (head.in_features, head.common_stride) == (["p4"], 16)


@pytest.mark.parametrize("recipe", sorted(path.name for path in (ROOT / "lazy_configs").glob("*.py")))
def test_tasks_in_the_tree_are_those_of_the_detector(recipe: str) -> None:
    cfg, model = built(recipe)
    tasks = set(instantiate(cfg.data.tasks))
    heads = getattr(model, "roi_heads", None)
    semantic = hasattr(model, "sem_seg_head")
    boxes = heads is not None or not semantic
    assert ("bbox" in tasks) == boxes
    assert ("segm" in tasks) == bool(heads and heads.mask_on)
    assert ("keypoints" in tasks) == bool(heads and heads.keypoint_on)
    assert ("sem_seg" in tasks) == semantic
    assert ("panoptic_seg" in tasks) == (semantic and boxes)


@pytest.mark.parametrize("name", ["shapes", "coco_2017", "custom", "auto"])
def test_all_interpolations_resolve(name: str) -> None:
    """No value depends on itself, so that a config can be resolved, compared and printed."""
    for file in (ROOT / "lazy_configs").glob("*_timm.py"):
        cfg = apply_overrides(get_config(file.name), [f"data.name={name}"])
        resolved = OmegaConf.to_container(cfg, resolve=True)
        assert resolved["data"]["tasks"]["model"] is cfg.model._target_
        assert cfg == copy.deepcopy(cfg)


def test_roi_heads_none_adds_nothing_to_the_tree() -> None:
    file = str(ROOT / "lazy_configs/common/roi_heads/none.py")
    assert LazyConfig.load(file, "roi_heads") is None
    assert "roi_heads" not in LazyConfig.load(file)
