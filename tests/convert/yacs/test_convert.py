"""Old configs become short files with the detector, optimizer and schedule that they describe."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import filter as match_keys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from detectron2.config import CfgNode, get_cfg, instantiate
from detectron2.solver import build_lr_scheduler
from detectron2.solver import build_optimizer as build_detectron2_optimizer
from omegaconf import DictConfig
from torch import nn

from d2timm import get_config
from d2timm.config.build import build_on_meta
from d2timm.config.lazy import load, to_plain
from d2timm.convert.yacs.account import CARRIED, NOT_CONVERTED, NOT_NEEDED, TOGETHER, Account
from d2timm.convert.yacs.convert import convert_config, translate
from d2timm.convert.yacs.read import read
from d2timm.convert.yacs.rules import RULES
from d2timm.engine.optim import build_optimizer
from d2timm.errors import ConfigError

NAME = "MODEL.BACKBONE.NAME"
#: Like a file of detectron2_timm: a pyramid over named layers, trained on COCO
PYRAMID = """
VERSION: 2
MODEL:
  META_ARCHITECTURE: GeneralizedRCNN
  MASK_ON: true
  PIXEL_MEAN: [127.5, 127.5, 127.5]  # timm's of this model
  PIXEL_STD: [127.5, 127.5, 127.5]
  BACKBONE:
    NAME: build_test_resnet_fpn_backbone
    FREEZE_AT: 0
    CONFIG:
      OUT_FEATURES: [layer1, layer2, layer3, layer4]
      REMAPS: [res2, res3, res4, res5]
      STRIDES: [4, 8, 16, 32]
      CHANNELS: [32, 48, 192, 96]
      REMOVE_LAYERS: [global_pool, fc]
      PRETRAINED: true
  FPN: {IN_FEATURES: [res2, res3, res4, res5]}
  ANCHOR_GENERATOR:
    SIZES: [[32], [64], [128], [256], [512]]
    ASPECT_RATIOS: [[0.5, 1.0, 2.0]]
  RPN:
    IN_FEATURES: [p2, p3, p4, p5, p6]
    PRE_NMS_TOPK_TRAIN: 2000
    PRE_NMS_TOPK_TEST: 1000
    POST_NMS_TOPK_TRAIN: 1000
    POST_NMS_TOPK_TEST: 1000
  ROI_HEADS: {NAME: StandardROIHeads, IN_FEATURES: [p2, p3, p4, p5]}
  ROI_BOX_HEAD: {NAME: FastRCNNConvFCHead, NUM_FC: 2, POOLER_RESOLUTION: 7}
  ROI_MASK_HEAD: {NAME: MaskRCNNConvUpsampleHead, NUM_CONV: 4}
DATASETS: {TRAIN: [coco_2017_train], TEST: [coco_2017_val]}
INPUT:
  FORMAT: RGB
  FIXED_INPUT_SIZE: false
  MIN_SIZE_TRAIN: [640, 672, 704, 736, 768, 800]
SOLVER:
  BASE_LR: 0.02
  STEPS: [60000, 80000]
  MAX_ITER: 90000
  WARMUP_ITERS: 500
  WEIGHT_DECAY_BIAS: 0.0
TEST: {EVAL_PERIOD: 5000}
"""
LINES = """\
from d2timm import get_config

_cfg = get_config("mask_rcnn_timm.py")
model, data, dataloader, train = _cfg.model, _cfg.data, _cfg.dataloader, _cfg.train
optimizer = get_config("common/optimizer/sgd.py").optimizer
lr_multiplier = get_config("common/lr_multiplier/multistep.py").lr_multiplier

data.name = "coco_2017"

model.backbone.bottom_up.model_name = "test_resnet"
model.proposal_generator.anchor_generator.aspect_ratios = [[0.5, 1.0, 2.0]]

optimizer.lr = 0.02
optimizer.clip_norm = None

train.max_iter = 90000
train.eval_period = 5000

lr_multiplier.scheduler.milestones = [60000, 80000, 90000]
lr_multiplier.warmup_length = 0.005555555555555556
"""


class Converted(NamedTuple):
    text: str
    account: Account


Run = Callable[..., tuple[Converted, DictConfig]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Convert the file above with other values, ``KEY=value``, and load what was written."""

    def convert(*changes: str) -> tuple[Converted, DictConfig]:
        (tmp_path / "old.yaml").write_text(PYRAMID)
        opts = [text for change in changes for text in change.split("=", 1)]
        out = tmp_path / f"new{len(list(tmp_path.iterdir()))}.py"
        account = convert_config(tmp_path / "old.yaml", out, opts)
        return Converted(out.read_text(), account), load(out)

    return convert


def test_a_usual_config_is_a_short_file(run: Run) -> None:
    converted, cfg = run()
    head, _, rest = converted.text.partition("from d2timm")
    assert f"from d2timm{rest}" == LINES
    assert "old.yaml" in head
    sections = converted.account.sections()
    assert not sections["not converted"]
    assert not sections["notes"]
    assert "MODEL.BACKBONE.CONFIG.REMOVE_LAYERS" in sections["not needed"]
    assert build_on_meta(cfg).backbone.bottom_up.output_shape()["res3"].channels == 48
    assert "_cfg" not in cfg


def test_keys_that_are_not_set_follow_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text("MODEL: {BACKBONE: {NAME: build_test_resnet_fpn_backbone}}\n")
    convert_config(tmp_path / "old.yaml", tmp_path / "new.py")
    cfg, recipe = load(tmp_path / "new.py"), get_config("faster_rcnn_timm.py")
    for key in ("optimizer", "lr_multiplier", "train", "dataloader"):
        assert to_plain(cfg[key]) == to_plain(recipe[key])
    assert cfg.data.settings == recipe.data.settings


def test_defaults_that_are_part_of_the_detector_are_carried_over(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text(
        "MODEL: {BACKBONE: {NAME: build_test_resnet_fpn_backbone}, MASK_ON: true}"
    )
    opts = ["MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.NUM_CONV", "1"]
    account = convert_config(tmp_path / "old.yaml", tmp_path / "new.py", opts)
    model = load(tmp_path / "new.py").model
    assert (model.input_format, model.pixel_std) == ("BGR", [1.0, 1.0, 1.0])
    assert model.backbone.bottom_up.pretrained is False
    assert model.proposal_generator.pre_nms_topk == [12000, 6000]
    assert model.proposal_generator.anchor_generator.sizes == [[32, 64, 128, 256, 512]]
    assert model.roi_heads.box_pooler.output_size == 14
    assert model.roi_heads.box_heads[0].fc_dims == []
    assert model.roi_heads.mask_head.conv_dims == [256]
    written = account.written - account.old.given
    assert written >= CARRIED - {"MODEL.BACKBONE.FREEZE_AT", "INPUT.FIXED_INPUT_SIZE"}  # as in the recipe
    text = (tmp_path / "new.py").read_text()
    assert all(f"#   {key}={account.old[key]}\n" in text for key in written & CARRIED)


def test_one_key_of_the_solver_brings_the_defaults_of_the_others(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text("MODEL: {BACKBONE: {NAME: build_test_resnet_fpn_backbone}}\n")
    convert_config(tmp_path / "old.yaml", tmp_path / "new.py", ["SOLVER.BASE_LR", "0.02"])
    cfg = load(tmp_path / "new.py")
    optimizer = build_optimizer(cfg, nn.Linear(2, 2))
    assert isinstance(optimizer, torch.optim.SGD)
    assert (optimizer.defaults["lr"], cfg.optimizer.weight_decay) == (0.02, 1e-4)
    assert (cfg.train.max_iter, cfg.lr_multiplier.scheduler.milestones) == (40000, [30000, 40000])


def test_settings_of_the_detector(run: Run) -> None:
    _, cfg = run(
        "MODEL.BACKBONE.FREEZE_AT=1",
        "MODEL.FPN.OUT_CHANNELS=64",
        "MODEL.FPN.NORM=GN",
        "MODEL.ANCHOR_GENERATOR.SIZES=[[16],[32],[64],[128],[256]]",
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS=[[0.5,1.0]]",
        "MODEL.RPN.IOU_THRESHOLDS=[0.2,0.6]",
        "MODEL.RPN.PRE_NMS_TOPK_TEST=500",
        "MODEL.RPN.SMOOTH_L1_BETA=0.1",
        "MODEL.RPN.BBOX_REG_LOSS_WEIGHT=2.0",
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE=128",
        "MODEL.ROI_HEADS.IOU_THRESHOLDS=[0.6]",
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST=0.1",
        "MODEL.ROI_BOX_HEAD.NUM_CONV=2",
        "MODEL.ROI_BOX_HEAD.CONV_DIM=32",
        "MODEL.ROI_BOX_HEAD.NUM_FC=0",
        "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE=giou",
        "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT=3.0",
        "MODEL.ROI_MASK_HEAD.NUM_CONV=1",
        "MODEL.ROI_MASK_HEAD.CONV_DIM=32",
        "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK=True",
        "TEST.DETECTIONS_PER_IMAGE=50",
    )
    model = build_on_meta(cfg)
    assert model.backbone.output_shape()["p3"].channels == 64
    assert "norm" in dict(model.backbone.fpn_lateral2.named_children())
    assert not next(model.backbone.bottom_up.model.conv1.parameters()).requires_grad
    rpn, heads = model.proposal_generator, model.roi_heads
    assert [len(cell) for cell in rpn.anchor_generator.cell_anchors] == [2] * 5
    assert cfg.model.proposal_generator.anchor_generator.sizes == [[16], [32], [64], [128], [256]]
    assert rpn.anchor_matcher.thresholds[1:-1] == [0.2, 0.6]
    assert (rpn.pre_nms_topk[True], rpn.pre_nms_topk[False]) == (2000, 500)
    assert (rpn.smooth_l1_beta, rpn.loss_weight["loss_rpn_loc"]) == (0.1, 2.0)
    assert heads.batch_size_per_image == 128
    assert heads.proposal_matcher.thresholds[1:-1] == [0.6]
    predictor = heads.box_predictor
    assert (
        predictor.cls_score.in_features == 32 * 7 * 7
    )  # the predictor sees the map: there is no layer in between
    assert (predictor.test_score_thresh, predictor.test_topk_per_image) == (0.1, 50)
    assert (predictor.box_reg_loss_type, predictor.loss_weight["loss_box_reg"]) == ("giou", 3.0)
    assert heads.mask_head.predictor.weight.shape[:2] == (1, 32)


def test_settings_of_images_data_and_the_run(run: Run) -> None:
    converted, cfg = run(
        "INPUT.MIN_SIZE_TRAIN=(200, 300)",
        "INPUT.MIN_SIZE_TRAIN_SAMPLING=range",
        "INPUT.MAX_SIZE_TRAIN=500",
        "INPUT.MAX_SIZE_TEST=600",
        "INPUT.MIN_SIZE_TEST=400",
        "INPUT.RANDOM_FLIP=vertical",
        "INPUT.MASK_FORMAT=bitmask",
        "INPUT.CROP.ENABLED=True",
        "DATALOADER.NUM_WORKERS=2",
        "DATALOADER.SAMPLER_TRAIN=RepeatFactorTrainingSampler",
        "DATALOADER.REPEAT_THRESHOLD=0.01",
        "SOLVER.IMS_PER_BATCH=8",
        "SOLVER.AMP.ENABLED=True",
        "SOLVER.CHECKPOINT_PERIOD=77",
        "TEST.EVAL_PERIOD=88",
        "TEST.AUG.ENABLED=True",
        "TEST.AUG.MIN_SIZES=(200, 600)",
        "TEST.AUG.FLIP=False",
        "MODEL.DEVICE=cpu",
        "MODEL.WEIGHTS=old.pth",
        "SEED=7",
        "OUTPUT_DIR=../runs",
        "VIS_PERIOD=5",
    )
    resize, flip = (instantiate(node) for node in cfg.dataloader.train.mapper.augmentations)
    assert (resize.short_edge_length, resize.is_range, resize.max_size) == ((200, 300), True, 500)
    assert (flip.vertical, flip.horizontal, flip.prob) == (True, False, 0.5)
    assert cfg.dataloader.train.mapper.instance_mask_format == "bitmask"
    test = cfg.dataloader.test.mapper.augmentations[0]
    assert (test.short_edge_length, test.max_size) == (400, 600)
    assert (cfg.dataloader.train.total_batch_size, cfg.dataloader.train.num_workers) == (8, 2)
    assert cfg.dataloader.train.repeat_threshold == 0.01
    train = cfg.train
    assert (train.checkpointer.period, train.eval_period, train.seed, train.device) == (77, 88, 7, "cpu")
    assert (train.tta.enabled, train.tta.scales, train.tta.flip) == (True, [0.5, 1.5], False)
    assert train.output_dir == "../runs"
    assert "train.amp" not in converted.text  # on wherever there is a GPU
    values = {"INPUT.CROP.ENABLED": "True", "MODEL.WEIGHTS": "old.pth", "VIS_PERIOD": "5"}
    reasons = converted.account.sections()["not converted"]
    assert set(reasons) == set(values)
    for key, value in values.items():
        assert f"#   {key}={value}: {reasons[key]}\n" in converted.text
        assert f"{key}={value}" in converted.account.report()


def test_one_maximum_size_may_differ_from_the_recipe(run: Run) -> None:
    _, cfg = run("INPUT.MAX_SIZE_TRAIN=1333", "INPUT.MAX_SIZE_TEST=600")
    assert instantiate(cfg.dataloader.train.mapper.augmentations[0]).max_size == 1333
    assert cfg.dataloader.test.mapper.augmentations[0].max_size == 600


SOLVERS = {
    "steps": ["SOLVER.STEPS=(30, 60, 95)", "SOLVER.GAMMA=0.5", "SOLVER.WARMUP_ITERS=7"],
    "step after the end": ["SOLVER.STEPS=(50, 120)", "SOLVER.WARMUP_ITERS=0"],
    "no steps": ["SOLVER.STEPS=()", "SOLVER.WARMUP_METHOD=constant", "SOLVER.WARMUP_FACTOR=0.2"],
    "cosine": ["SOLVER.LR_SCHEDULER_NAME=WarmupCosineLR", "SOLVER.BASE_LR_END=0.002"],
    "fixed gamma": ["SOLVER.LR_SCHEDULER_NAME=WarmupStepWithFixedGammaLR", "SOLVER.NUM_DECAYS=4"],
    "rescaled": ["SOLVER.STEPS=(40,)", "SOLVER.RESCALE_INTERVAL=True", "SOLVER.WARMUP_ITERS=20"],
    "biases": ["SOLVER.WEIGHT_DECAY_BIAS=None", "SOLVER.BIAS_LR_FACTOR=2.0", "SOLVER.WEIGHT_DECAY=0.05"],
    "norms": ["SOLVER.WEIGHT_DECAY_NORM=0.01", "SOLVER.MOMENTUM=0.8", "SOLVER.NESTEROV=True"],
}


@pytest.mark.parametrize("name", SOLVERS)
def test_optimizer_and_schedule_equal_detectron2s(run: Run, tmp_path: Path, name: str) -> None:
    changes = ["SOLVER.MAX_ITER=100", "SOLVER.WARMUP_ITERS=10", *SOLVERS[name]]
    _, cfg = run(*changes)
    old = get_cfg()
    values = read(tmp_path / "old.yaml", [text for change in changes for text in change.split("=", 1)]).values
    old.SOLVER.merge_from_other_cfg(
        CfgNode({k: values[f"SOLVER.{k}"] for k, v in old.SOLVER.items() if not isinstance(v, dict)})
    )
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 4))
    theirs, ours = build_detectron2_optimizer(old, model), build_optimizer(cfg, model)

    def groups(optimizer: torch.optim.Optimizer) -> dict[int, tuple[float, ...]]:
        keys = ("lr", "weight_decay", "momentum", "nesterov")
        return {id(p): tuple(g[k] for k in keys) for g in optimizer.param_groups for p in g["params"]}

    assert groups(ours) == groups(theirs)
    schedule = build_lr_scheduler(old, theirs)._multiplier
    multiplier = instantiate(cfg.lr_multiplier)
    assert cfg.train.max_iter == 100
    for where in [k / 100 for k in range(100)]:
        assert multiplier(where) == pytest.approx(schedule(where)), where


def test_gradient_clipping(run: Run) -> None:
    clip = "SOLVER.CLIP_GRADIENTS"
    converted, cfg = run(f"{clip}.ENABLED=True", f"{clip}.CLIP_VALUE=0.5", f"{clip}.CLIP_TYPE=full_model")
    assert cfg.optimizer.clip_norm == 0.5
    assert not converted.account.not_converted
    converted, cfg = run(f"{clip}.ENABLED=True")
    assert cfg.optimizer.clip_norm == 1.0
    assert list(converted.account.not_converted) == [f"{clip}.CLIP_TYPE"]  # the default clips each value


def test_other_optimizers(run: Run) -> None:
    _, cfg = run("SOLVER.OPTIMIZER=ADAMW", "SOLVER.WEIGHT_DECAY=0.05", "SOLVER.BASE_LR=0.0001")
    optimizer = build_optimizer(cfg, nn.Linear(2, 2))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (1e-4, 0.05)


def test_other_pixel_statistics_are_kept(run: Run) -> None:
    mean, std = "MODEL.PIXEL_MEAN=[103.53,116.28,123.675]", "MODEL.PIXEL_STD=[1.0,1.0,1.0]"
    converted, cfg = run("INPUT.FORMAT=BGR", mean, std)
    model = build_on_meta(cfg)
    assert model.input_format == "BGR"
    assert (cfg.model.pixel_mean, cfg.model.pixel_std) == ([103.53, 116.28, 123.675], [1.0, 1.0, 1.0])
    assert "model.pixel_mean" in converted.account.notes["INPUT.FORMAT"]


@pytest.mark.parametrize(
    ("changes", "target", "there"),
    [
        (["MODEL.META_ARCHITECTURE=RetinaNet"], "RetinaNet", "model.head"),
        (["MODEL.MASK_ON=False"], "GeneralizedRCNN", "model.roi_heads.box_head"),
        (
            ["MODEL.MASK_ON=False", "MODEL.KEYPOINT_ON=True"],
            "GeneralizedRCNN",
            "model.roi_heads.keypoint_head",
        ),
        (["MODEL.META_ARCHITECTURE=SemanticSegmentor"], "SemanticSegmentor", "model.sem_seg_head"),
    ],
)
def test_meta_architectures(run: Run, changes: list[str], target: str, there: str) -> None:
    if "KEYPOINT" in changes[-1]:
        changes = [*changes, "DATASETS.TRAIN=('keypoints_coco_2017_train',)", "DATASETS.TEST=()"]
    if "Semantic" in target:
        changes = [*changes, "DATASETS.TRAIN=('cityscapes_fine_instance_seg_train',)", "DATASETS.TEST=()"]
    _, cfg = run(*changes)
    assert type(build_on_meta(cfg)).__name__ == target
    node: Any = cfg
    for key in there.split("."):
        node = node[key]


def test_settings_of_retinanet(run: Run) -> None:
    retina = "MODEL.RETINANET"
    converted, cfg = run(
        "MODEL.META_ARCHITECTURE=RetinaNet",
        f"{retina}.NUM_CONVS=2",
        f"{retina}.SMOOTH_L1_LOSS_BETA=0.2",
        f"{retina}.IOU_THRESHOLDS=[0.3,0.4]",
        f"{retina}.PRIOR_PROB=0.02",
        "MODEL.ANCHOR_GENERATOR.SIZES=[[32],[64],[128],[256],[512]]",
        "MODEL.RPN.NMS_THRESH=0.6",
    )
    model = build_on_meta(cfg)
    assert model.smooth_l1_beta == 0.2
    assert len(model.head.cls_subnet) == 4  # two convolutions, each with a ReLU
    assert model.anchor_matcher.thresholds[1:-1] == [0.3, 0.4]
    assert [len(cell) for cell in model.anchor_generator.cell_anchors] == [3] * 5
    assert "MODEL.RPN.NMS_THRESH" in converted.account.not_needed


def test_cascade_heads(run: Run) -> None:
    cascade = ["MODEL.ROI_HEADS.NAME=CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG=True"]
    _, cfg = run(
        *cascade,
        "MODEL.MASK_ON=False",
        "MODEL.ROI_BOX_CASCADE_HEAD.IOUS=(0.4, 0.6, 0.8)",
        "MODEL.ROI_BOX_HEAD.FC_DIM=64",
        "MODEL.ROI_HEADS.NMS_THRESH_TEST=0.4",
    )
    heads = build_on_meta(cfg).roi_heads
    assert [matcher.thresholds[1] for matcher in heads.proposal_matchers] == [0.4, 0.6, 0.8]
    assert [head.fc2.out_features for head in heads.box_head] == [64] * 3
    assert heads.box_predictor[0].test_nms_thresh == 0.4
    assert not heads.mask_on
    converted, cfg = run(*cascade)
    assert "cascade_mask_rcnn_timm.py" in converted.text
    assert build_on_meta(cfg).roi_heads.mask_on


def test_detector_without_a_pyramid(run: Run) -> None:
    converted, cfg = run(
        "MODEL.BACKBONE.NAME=build_test_resnet_backbone",
        "MODEL.RPN.IN_FEATURES=['res5']",
        "MODEL.ROI_HEADS.IN_FEATURES=['res5']",
        "MODEL.ANCHOR_GENERATOR.SIZES=[[32,64,128,256,512]]",
    )
    model = build_on_meta(cfg)
    assert list(model.backbone.output_shape()) == ["p5"]
    assert list(model.backbone.bottom_up.output_shape()) == ["res5"]
    assert not converted.account.not_converted


def test_datasets(run: Run) -> None:
    converted, cfg = run("DATASETS.TRAIN=('mine',)", "DATASETS.TEST=('theirs',)")
    assert cfg.data.name == "custom"
    assert {"DATASETS.TRAIN", "DATASETS.TEST"} == set(converted.account.not_converted)
    assert "data.settings.custom.batch_size = 16" in converted.text
    converted, cfg = run("DATASETS.TRAIN=('lvis_v1_train',)", "DATASETS.TEST=()")
    assert cfg.data.name == "lvis_v1"
    assert not converted.account.not_converted  # the file does not set 80 classes, the default
    converted, _ = run("MODEL.ROI_HEADS.NUM_CLASSES=3")
    assert "80" in converted.account.not_converted["MODEL.ROI_HEADS.NUM_CLASSES"]


def test_strings_and_infinity_are_written_as_literals(run: Run) -> None:
    text = 'a"b\\\nimport no_such_module'
    converted, cfg = run(f"OUTPUT_DIR={text}", f"MODEL.WEIGHTS={text}", "MODEL.RPN.SMOOTH_L1_BETA=1e999")
    assert cfg.train.output_dir == text
    assert cfg.model.proposal_generator.smooth_l1_beta == float("inf")
    assert "\nimport no" not in converted.text


def test_replaced_classes_are_reported(run: Run) -> None:
    converted, _ = run("MODEL.RPN.HEAD_NAME=MyHead", "MODEL.ROI_HEADS.NAME=Res5ROIHeads")
    reasons = converted.account.not_converted
    assert set(reasons) == {"MODEL.RPN.HEAD_NAME", "MODEL.ROI_HEADS.NAME"}
    assert "StandardRPNHead" in reasons["MODEL.RPN.HEAD_NAME"]
    assert "StandardROIHeads" in reasons["MODEL.ROI_HEADS.NAME"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("MODEL.META_ARCHITECTURE=Mine", "META_ARCHITECTURE=Mine .*GeneralizedRCNN, RetinaNet"),
        ("SOLVER.OPTIMIZER=adamww", "OPTIMIZER=adamww .*did you mean adamw"),
        ("MODEL.BACKBONE.CONFIG.STRIDES=[4, 8, 16, 16]", "double the stride"),
        ("MODEL.FPN.NORM=XX", "model.backbone cannot be built"),
        ("SOLVER.MAX_ITER=0", "MAX_ITER=0.* lr_multiplier.warmup_length"),
        ("MODEL.BACKBONE.CONFIG.STRIDES=['a', 'b', 'c', 'd']", "STRIDES=\\[.*list of pixels"),
        ("SOLVER.WARMUP_METHOD=slow", "schedule .*slow"),
    ],
)
def test_invalid_configs_are_errors_and_write_nothing(
    run: Run, tmp_path: Path, change: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(change)
    assert [file.name for file in tmp_path.iterdir()] == ["old.yaml"]


def test_existing_files_are_not_overwritten(tmp_path: Path) -> None:
    old = tmp_path / "old.yaml"
    old.write_text(PYRAMID)
    (tmp_path / "new.py").write_text("mine")
    for out, message in (
        (tmp_path / "new.py", "new.py exists"),
        (tmp_path / "new.yaml", r"ends in \.py"),
        (tmp_path / "no" / "new.py", "folder .*no does not exist"),
    ):
        with pytest.raises(ConfigError, match=message):
            convert_config(old, out)
    assert (tmp_path / "new.py").read_text() == "mine"


def test_every_rule_names_keys_that_exist(tmp_path: Path) -> None:
    file = tmp_path / "old.yaml"
    file.write_text("MODEL: {}")
    keys = read(file).defaults
    assert {key for rule in RULES for key in rule.old} <= set(keys)
    assert CARRIED.union(*TOGETHER) <= set(keys)
    assert all(match_keys(keys, pattern) for pattern in [*NOT_NEEDED, *NOT_CONVERTED])


def test_every_key_that_is_set_is_accounted_for(tmp_path: Path) -> None:
    file = tmp_path / "old.yaml"
    file.write_text(PYRAMID)
    _, account = translate(file)
    assert all(account.has(key) for key in account.old.given)
