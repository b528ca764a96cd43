"""Configs that version 0.1 saved load with the present names, and present names are as short as possible."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from detectron2.config import instantiate
from detectron2.utils.registry import locate
from omegaconf import OmegaConf

from d2timm.config.build import build_on_meta, resolve_dataset
from d2timm.config.former_names import upgrade
from d2timm.config.lazy import get_config, load, parse, to_plain, to_yaml
from d2timm.utils.files import resource_folder

#: Each d2timm name in configs that version 0.1 saved -> the arguments that its nodes had
SAVED = {
    "d2timm.backbone.TimmBackbone": (
        "checkpoint_path doubling_norm drop_path_rate fixed_input_size freeze freeze_at "
        "grad_checkpointing in_chans level_norm model_name norm out_features out_indices output_stride "
        "pretrained remaps strides timm_kwargs"
    ),
    "d2timm.bifpn.BiFPN": "bottom_up in_features norm num_layers out_channels top_block",
    "d2timm.cascade.CascadeMaskROIHeads": (
        "batch_size_per_image box_heads box_in_features box_pooler box_predictors keypoint_in_features "
        "mask_heads mask_in_features mask_pooler num_classes positive_fraction proposal_matchers "
        "stage_weights"
    ),
    "d2timm.data.catalog.dataset_dicts": "data split",
    "d2timm.data.catalog.evaluators": "data output_dir split",
    "d2timm.data.catalog.keypoint_names": "data",
    "d2timm.data.catalog.num_classes": "data",
    "d2timm.data.catalog.num_keypoints": "data",
    "d2timm.data.catalog.num_semantic_classes": "data",
    "d2timm.data.loader.build_train_loader": "dataset mapper num_workers repeat_threshold total_batch_size",
    "d2timm.data.mapper.Mapper": (
        "augmentations image_format instance_mask_format is_train keypoint_names tasks tight_boxes"
    ),
    "d2timm.data.mapper.mask_format": "points",
    "d2timm.data.tasks.tasks": "dense keypoints masks proposals semantic",
    "d2timm.detectors.FCOS": (
        "backbone center_sampling_radius focal_loss_alpha focal_loss_gamma head head_in_features "
        "input_format max_detections_per_image num_classes pixel_mean pixel_std test_nms_thresh "
        "test_score_thresh test_topk_candidates"
    ),
    "d2timm.detectors.SemanticSegmentor": "backbone input_format pixel_mean pixel_std sem_seg_head",
    "d2timm.heads.point_rend_mask_head": (
        "coarse_pred_each_layer coarse_resolution conv_dim fc_dim importance_sample_ratio input_shape "
        "num_classes num_fc oversample_ratio point_fc_dim point_num_fc pooler_resolution "
        "subdivision_num_points subdivision_steps train_num_points"
    ),
    "d2timm.levels.anchor_sizes": "finest scales strides top_block",
    "d2timm.levels.anchors_per_cell": "aspect_ratios sizes",
    "d2timm.levels.coarse_features": "finest remaps strides",
    "d2timm.levels.finest_stride": "strides",
    "d2timm.levels.fused_top_block": "num_layers top_block",
    "d2timm.levels.last": "dims",
    "d2timm.levels.last_name": "strides",
    "d2timm.levels.level_names": "strides top_block",
    "d2timm.levels.level_strides": "strides top_block",
    "d2timm.levels.nearest_feature": "remaps stride strides",
    "d2timm.levels.pooler_scales": "strides",
    "d2timm.levels.pyramid_scales": "features finest remaps strides",
    "d2timm.levels.taken_strides": "features finest remaps scale_factors strides",
    "d2timm.necks.PAFPN": "bottom_up fuse_type in_features norm out_channels top_block",
    "d2timm.necks.SingleLevel": "bottom_up in_features norm out_channels",
    "d2timm.necks.level_shapes": "channels strides top_block",
    "d2timm.necks.named_shapes": "channels strides top_block",
    "d2timm.optim.build_optimizer": "betas clip_norm lr momentum nesterov opt params weight_decay",
    "d2timm.optim.param_groups": "decay_biases layer_decay lr num_layers weight_decay",
    "d2timm.pixels.image_format": "in_chans",
    "d2timm.pixels.pixel_mean": "in_chans model_name",
    "d2timm.pixels.pixel_std": "in_chans model_name",
    "d2timm.schedules.one_cycle": "end rise start",
    "d2timm.simple_pyramid.SimpleFeaturePyramid": (
        "bottom_up in_features norm out_channels scale_factors square_pad top_block"
    ),
}
FOREIGN = [
    "${..0._target_}",
    "detectron2.layers.ShapeSpec",
    "detectron2.modeling.backbone.fpn.FPN",
    "fvcore.common.param_scheduler.CosineParamScheduler",
    "my.package.d2timm.levels.level_names",
    "d2timm_plugin.levels.level_names",
    "builtins.dict",
]
LAZY_CONFIGS = resource_folder("lazy_configs")


def targets(node: Any) -> Iterator[str]:
    """Yield the names in a tree of plain data."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from targets(value)


def exports(package: str, name: str) -> Any:
    """What a package has under a name; None if it has nothing."""
    return getattr(import_module(package), name, None)


def assert_shortest(name: str) -> None:
    """Assert that a name imports, and that no package above its module exports the same object."""
    target = locate(name)
    module, _, last = name.rpartition(".")
    parts = module.split(".")
    shorter = [".".join(parts[:length]) for length in range(2, len(parts))]
    assert [package for package in shorter if exports(package, last) is target] == []


# Former names


def test_version_0_1_saved_40_names() -> None:
    assert len(SAVED) == 40


@pytest.mark.parametrize("name", SAVED)
def test_former_name_becomes_one_that_imports(name: str) -> None:
    present = upgrade({"_target_": name})["_target_"]
    assert callable(locate(present))
    assert_shortest(present)
    assert upgrade({"_target_": present}) == {"_target_": present}


@pytest.mark.parametrize("name", SAVED)
def test_present_object_takes_the_saved_arguments(name: str) -> None:
    node = upgrade({"_target_": name, **dict.fromkeys(SAVED[name].split())})
    inspect.signature(locate(node.pop("_target_"))).bind_partial(**node)


@pytest.mark.parametrize("name", FOREIGN)
def test_other_names_do_not_change(name: str) -> None:
    node = {"_target_": name, "strides": [4, 8]}
    assert upgrade(node) == node


def test_names_are_upgraded_everywhere_and_values_are_not() -> None:
    saved = {
        "data": {"tasks": {"_target_": "d2timm.data.tasks.tasks", "proposals": "${model.x}"}},
        "nodes": [1, {"a": {"_target_": "d2timm.necks.PAFPN", "norm": "d2timm.necks.PAFPN", "levels": None}}],
        "path": "d2timm.levels.level_names",
    }
    before = copy.deepcopy(saved)
    upgraded = upgrade(saved)
    assert saved == before
    assert upgraded["data"]["tasks"]["_target_"] == "d2timm.modeling.detector_tasks"
    assert "proposals" not in upgraded["data"]["tasks"]
    assert upgraded["nodes"] == [
        1,
        {"a": {"_target_": "d2timm.modeling.PAFPN", "norm": "d2timm.necks.PAFPN", "levels": None}},
    ]
    assert upgraded["path"] == saved["path"]


def former(node: Any) -> Any:
    """A tree as version 0.1 saved it."""
    names = {upgrade({"_target_": name})["_target_"]: name for name in SAVED}
    if isinstance(node, dict):
        if node.get("_target_") == "d2timm.modeling.detector_tasks":
            return {"_target_": "d2timm.data.tasks.tasks", "proposals": 0.7}
        target = node.get("_target_")
        return {key: names.get(target, target) if key == "_target_" else former(node[key]) for key in node}
    return [former(value) for value in node] if isinstance(node, list) else node


@pytest.mark.parametrize("recipe", ["mask_rcnn_timm.py", "panoptic_fpn_timm.py", "retinanet_timm.py"])
def test_saved_config_loads_as_the_present_one(recipe: str) -> None:
    cfg = get_config(recipe)
    saved = former(to_plain(cfg))
    assert "d2timm.levels.level_names" in set(targets(saved))
    loaded = parse(to_yaml(OmegaConf.create(saved)), "config.yaml")
    assert to_plain(loaded) == to_plain(cfg)
    resolve_dataset(loaded)
    assert instantiate(loaded.data.tasks) == instantiate(cfg.data.tasks)
    build_on_meta(loaded)


# Present names


@pytest.mark.parametrize("file", sorted(LAZY_CONFIGS.rglob("*.py")), ids=lambda file: file.stem)
def test_names_in_configs_are_the_shortest_that_import(file: Any) -> None:
    for name in set(targets(to_plain(load(file)))):
        if "${" not in name:
            assert_shortest(name)
