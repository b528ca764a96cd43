"""Hydra's groups: a recipe and the composition of its options are the same tree."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
import timm
import yaml
from detectron2.config import instantiate
from hydra.core.config_store import ConfigStore
from hydra.types import RunMode
from omegaconf import DictConfig

from d2timm import get_config
from d2timm.backbone.zoo_table import read_rows
from d2timm.config.groups import Nodes, read_nodes
from d2timm.config.lazy import PLACES, load, save, to_plain
from d2timm.sweep.hydra_groups import replace_launchers, store_backbones, store_groups
from d2timm.sweep.overrides import CONF, CONFIG
from d2timm.utils.files import resource_folder

MODEL_NAME = "model.backbone.bottom_up.model_name"
RECIPE_FOLDER = resource_folder("lazy_configs")

BOTTOM_UP = "model.backbone.bottom_up"
MAPPER = "dataloader.train.mapper"
TEST_SIZE = "dataloader.test.mapper.augmentations.0"
COCO = "data.settings.coco_2017"
CROP_SIZE = "'${data.settings.${data.name}.crop_size}'"


def schedule(iterations: int, warmup: int, *milestones: int) -> list[str]:
    """A schedule for COCO, and the milestones of its learning rate."""
    joined = ",".join(map(str, milestones))
    return [
        f"{COCO}.max_iter={iterations}",
        f"{COCO}.warmup={warmup / iterations}",
        *([f"lr_multiplier.scheduler.milestones=[{joined}]"] if joined else []),
    ]


#: Overrides that several published recipes share
R50 = [
    "optimizer=sgd",
    "lr_multiplier=multistep",
    f"{MODEL_NAME}=resnet50.tv_in1k",
    f"{BOTTOM_UP}.norm=FrozenBN",
    f"{BOTTOM_UP}.freeze_at=2",
    "optimizer.lr=0.02",
    "optimizer.clip_norm=null",
    "optimizer.params.decay_biases=True",
    "train.reference_batch_size=16",
    "train.amp.enabled=False",
]
ONE_R50 = [*R50, *schedule(90000, 1000, 60000, 80000, 90000)]
DENSE_R50 = [*ONE_R50, "neck=fpn_p6p7", "roi_heads=none", "optimizer.lr=0.01"]
SWIN = [
    "augmentation=resize_crop",
    "lr_multiplier=multistep",
    f"{MODEL_NAME}=swin_tiny_patch4_window7_224.ms_in1k",
    f"{BOTTOM_UP}.drop_path_rate=0.2",
    f"{BOTTOM_UP}.level_norm=all",
    f"{MAPPER}.tight_boxes=False",
    f"{COCO}.train_short_edges=[480,512,544,576,608,640,672,704,736,768,800]",
    "optimizer.lr=0.0001",
    "optimizer.clip_norm=null",
    "optimizer.params.decay_biases=True",
    "train.reference_batch_size=16",
]
THREE_SWIN = [*SWIN, *schedule(263880, 500, 27, 33, 36)]
SHIFTS = f"+{BOTTOM_UP}.timm_kwargs.always_partition=True"
CONVNEXT = [
    *THREE_SWIN,
    f"{MODEL_NAME}=convnext_tiny.fb_in1k",
    f"{BOTTOM_UP}.drop_path_rate=0.4",
    "optimizer.params.layer_decay=0.95",
    "optimizer.params.num_layers=6",
    "optimizer.params.decay_biases=False",
]
VITDET = [
    "augmentation=lsj_unpadded",
    "lr_multiplier=multistep",
    "neck=simple_feature_pyramid",
    "roi_heads=mask_4conv1fc",
    f"model.backbone.square_pad={CROP_SIZE}",
    f"{BOTTOM_UP}.drop_path_rate=0.1",
    "model.proposal_generator.head.conv_dims=[-1,-1]",
    f"{TEST_SIZE}.short_edge_length={CROP_SIZE}",
    f"{TEST_SIZE}.max_size={CROP_SIZE}",
    f"{COCO}.batch_size=64",
    *schedule(184375, 250, 163889, 177546, 184375),
    "optimizer.lr=0.0001",
    "optimizer.weight_decay=0.1",
    "optimizer.clip_norm=null",
    "optimizer.params.layer_decay=0.7",
    "optimizer.params.decay_biases=True",
    "train.reference_batch_size=64",
    "train.ddp.fp16_compression=True",
]
NORM_LAYER = "{_target_:timm.layers.get_norm_layer,norm_layer:layernorm}"

#: Recipe -> the overrides that compose it
RECIPES = {
    "mask_rcnn_resnet50_1x.py": ONE_R50,
    "mask_rcnn_resnet50_3x.py": [*R50, *schedule(270000, 1000, 210000, 250000, 270000)],
    "retinanet_resnet50_1x.py": ["model=retinanet", *DENSE_R50],
    "fcos_resnet50_1x.py": ["model=fcos", *DENSE_R50],
    "mask_rcnn_swin_tiny_1x.py": [
        *SWIN,
        SHIFTS,
        f"{BOTTOM_UP}.drop_path_rate=0.1",
        *schedule(87960, 500),
    ],
    "mask_rcnn_swin_tiny_3x.py": [*THREE_SWIN, SHIFTS],
    "cascade_mask_rcnn_swin_small_3x.py": [
        *THREE_SWIN,
        SHIFTS,
        "roi_heads=cascade_mask_mmdet",
        f"{MODEL_NAME}=swin_small_patch4_window7_224.ms_in1k",
        "model.proposal_generator.post_nms_topk=[2000,1000]",
        f"model.proposal_generator.smooth_l1_beta={1 / 9}",
        "model.proposal_generator.anchor_boundary_thresh=0",
    ],
    "mask_rcnn_convnext_tiny_3x.py": CONVNEXT,
    "mask_rcnn_dinov3_convnext_tiny.py": [*CONVNEXT, f"{MODEL_NAME}=convnext_tiny.dinov3_lvd1689m"],
    "mask_rcnn_xcit_small_12_p8_3x.py": [
        *THREE_SWIN,
        f"{MODEL_NAME}=xcit_small_12_p8_384.fb_dist_in1k",
        f"{BOTTOM_UP}.out_indices=[3,5,7,11]",
        f"{BOTTOM_UP}.drop_path_rate=0.05",
        f"{BOTTOM_UP}.norm=SyncBN",
        f"{BOTTOM_UP}.level_norm=none",
    ],
    "mask_rcnn_efficientnetv2_small.py": [
        *THREE_SWIN,
        f"{MODEL_NAME}=tf_efficientnetv2_s.in21k_ft_in1k",
        f"{BOTTOM_UP}.norm=FrozenBN",
        f"{BOTTOM_UP}.level_norm=resampled",
    ],
    "mask_rcnn_vitdet_base_100ep.py": [
        *VITDET,
        f"{MODEL_NAME}=samvit_base_patch16.sa1b",
        f"+{BOTTOM_UP}.timm_kwargs={{_target_:builtins.dict,norm_layer:{NORM_LAYER}}}",
    ],
    "mask_rcnn_dinov3_vit_small.py": [
        *VITDET,
        f"{MODEL_NAME}=vit_small_patch16_dinov3.lvd1689m",
        *schedule(65963, 250),
    ],
    "mask_rcnn_timm.py": [],
    "faster_rcnn_timm.py": ["roi_heads=box"],
    "cascade_mask_rcnn_timm.py": ["roi_heads=cascade_mask"],
    "keypoint_rcnn_timm.py": ["roi_heads=keypoint", "model.proposal_generator.post_nms_topk=[1500,1000]"],
    "retinanet_timm.py": ["model=retinanet", "neck=fpn_p6p7", "roi_heads=none"],
    "fcos_timm.py": ["model=fcos", "neck=fpn_p6p7", "roi_heads=none"],
    "panoptic_fpn_timm.py": ["model=panoptic_fpn"],
    "semantic_fpn_timm.py": ["model=semantic_fpn", "roi_heads=none"],
    "demo.py": [
        "data=shapes",
        "data.settings.shapes.batch_size=4",
        "data.settings.shapes.rois_per_image=64",
        f"{MODEL_NAME}=resnet18d",
        "model.backbone.out_channels=64",
        "model.proposal_generator.pre_nms_topk=[500,500]",
        "model.proposal_generator.post_nms_topk=[100,100]",
        "model.roi_heads.box_head.fc_dims=[256,256]",
        "model.roi_heads.mask_head.conv_dims=[64,64,64,64,64]",
        "train.max_iter=400",
        "train.output_dir=./output/demo",
    ],
}


@pytest.fixture(scope="module")
def nodes() -> Nodes:
    return read_nodes()


@pytest.fixture(scope="module")
def compose(nodes: Nodes) -> Iterator[Callable[..., DictConfig]]:
    """Compose overrides in the way of ``d2timm sweep``."""
    store_groups(nodes)
    replace_launchers(CONF / "hydra")
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        yield lambda *overrides: hydra.compose(CONFIG, list(overrides))


@pytest.fixture(scope="module")
def compose_hydra(compose: Callable[..., DictConfig]) -> Callable[[str], DictConfig]:
    """Compose only the config of Hydra itself."""
    return lambda override: hydra.compose(None, [override], return_hydra_config=True).hydra


@pytest.fixture(scope="module")
def composed(compose: Callable[..., DictConfig]) -> DictConfig:
    """The tree without overrides."""
    return compose()


def differing(tree: Any, node: Any, path: str) -> Iterator[str]:
    """The paths at which a tree differs from a node; the tree may have values where the node has None."""
    if isinstance(node, dict) and isinstance(tree, dict):
        for key, value in node.items():
            yield from differing(tree.get(key), value, f"{path}.{key}")
    elif node is not None and tree != node:
        yield path


def at(tree: Any, place: str) -> Any:
    for key in place.split("."):
        tree = tree.get(key, {})
    return tree


# The contract


@pytest.mark.parametrize("recipe", sorted(file.name for file in RECIPE_FOLDER.glob("*.py")))
def test_recipe_equals_its_composition(recipe: str, compose: Callable[..., DictConfig]) -> None:
    assert recipe in RECIPES, "add the overrides that compose the new recipe to RECIPES"
    assert to_plain(compose(*RECIPES[recipe])) == to_plain(get_config(recipe))


def test_every_listed_recipe_exists() -> None:
    assert {file.name for file in RECIPE_FOLDER.glob("*.py")} == set(RECIPES)


@pytest.mark.parametrize(
    "number", range(max(len(list(group.glob("*.py"))) for group in RECIPE_FOLDER.glob("common/*")))
)
def test_every_option_composes(number: int, nodes: Nodes, compose: Callable[..., DictConfig]) -> None:
    chosen = {
        group: sorted(options)[number] for group, options in nodes.options.items() if number < len(options)
    }
    tree = to_plain(compose(*(f"{group}={option}" for group, option in chosen.items())))
    for group, option in chosen.items():
        for place, node in nodes.options[group][option].items():
            others = set(PLACES.values()) - {place}  # another group may set these
            wrong = [path for path in differing(at(tree, place), node, place) if path not in others]
            assert not wrong, f"{group}={option}"


def test_composed_tree_is_the_same_after_saving_and_loading(
    composed: DictConfig, compose: Callable[..., DictConfig], tmp_path: Path
) -> None:
    for tree in (composed, compose(*RECIPES["retinanet_timm.py"])):
        save(tree, tmp_path / "config.yaml")
        assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == to_plain(tree)
        assert to_plain(load(tmp_path / "config.yaml")) == to_plain(tree)


def test_tree_has_no_keys_of_hydra(composed: DictConfig) -> None:
    assert set(composed) == {"model", "data", "dataloader", "optimizer", "lr_multiplier", "train"}
    assert "hydra" not in yaml.safe_dump(to_plain(composed))


# Backbones


def test_every_timm_model_is_an_option(compose: Callable[..., DictConfig]) -> None:
    options = {name.removesuffix(".yaml") for name in ConfigStore.instance().repo["backbone"]}
    assert options == {"timm", *timm.list_models()}


def test_option_of_a_model_sets_only_the_model_name(
    composed: DictConfig, compose: Callable[..., DictConfig]
) -> None:
    name = "xcit_small_12_p8_224"
    tree = to_plain(compose(f"backbone={name}"))
    expected = to_plain(composed)
    expected["model"]["backbone"]["bottom_up"]["model_name"] = name
    assert tree == expected
    assert tree == to_plain(compose(f"{MODEL_NAME}={name}"))


def test_values_of_the_backbone_can_be_overridden(compose: Callable[..., DictConfig]) -> None:
    tree = compose(
        "backbone=test_vit",
        "model.backbone.bottom_up.freeze_at=2",
        "model.backbone.bottom_up.remaps=[a,b]",
        "model.backbone.bottom_up.strides=[4,8]",
    )
    assert tree.model.backbone.bottom_up.model_name == "test_vit"
    assert tree.model.backbone.bottom_up.freeze_at == 2
    assert instantiate(tree.model.backbone.in_features) == ["a", "b"]


def test_name_with_a_tag_can_be_added(
    compose: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = ConfigStore.instance().repo
    monkeypatch.setitem(repo, "backbone", dict(repo["backbone"]))
    store_backbones(["resnet50.a1_in1k"])
    assert compose("backbone=resnet50.a1_in1k").model.backbone.bottom_up.model_name == "resnet50.a1_in1k"


# Launchers, sweepers and named sweeps


@pytest.mark.parametrize(
    "file", sorted((CONF / "hydra").glob("*/*.yaml")), ids=lambda file: f"{file.parent.name}={file.stem}"
)
def test_launcher_or_sweeper_has_only_our_values(
    file: Path, compose_hydra: Callable[[str], DictConfig]
) -> None:
    kind = file.parent.name
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = compose_hydra(f"hydra/{kind}={file.stem}")
    ours = yaml.safe_load(file.read_text())
    ours = ours.get("hydra", {kind: ours})
    assert to_plain(tree[kind]) == ours[kind]
    assert to_plain(tree.job.env_set) == ours.get("job", {}).get("env_set", {})


def test_other_launchers_are_not_replaced(compose: Callable[..., DictConfig]) -> None:
    launchers = ConfigStore.instance().repo["hydra"]["launcher"]
    assert "basic.yaml" in launchers
    assert not {file.name for file in (CONF / "hydra" / "launcher").iterdir()} & set(launchers)


@pytest.mark.parametrize(
    "file", sorted((CONF / "hydra").glob("*/*.yaml")), ids=lambda file: f"{file.parent.name}={file.stem}"
)
def test_file_of_a_plugin_names_the_extra_that_installs_it(file: Path) -> None:
    text = file.read_text()
    target = re.search(r"_target_: (\S+)", text)
    assert target
    if target[1].startswith(("hydra.", "hydra_plugins.d2timm_")):
        return
    (extra,) = re.findall(r"^# @extra (\w+)$", text, re.MULTILINE)
    pyproject = (CONF.parent / "pyproject.toml").read_text()
    assert re.search(rf"^{extra} = \[", pyproject, re.MULTILINE)


@pytest.mark.parametrize("sweep", sorted(file.stem for file in (CONF / "sweep").glob("*.yaml")))
def test_named_sweep_is_a_multirun(sweep: str, compose_hydra: Callable[[str], DictConfig]) -> None:
    assert compose_hydra(f"+sweep={sweep}").mode == RunMode.MULTIRUN


def test_small_backbones_are_ten_small_ones_of_ten_families(
    compose_hydra: Callable[[str], DictConfig],
) -> None:
    params = compose_hydra("+sweep=small_backbones").sweeper.params
    assert list(params) == ["backbone"]
    names = [name.strip() for name in params.backbone.split(",")]
    parameters = {row["model_name"]: row["parameters"] for row in read_rows()}
    assert len(names) == 10
    assert set(names) <= set(timm.list_models())
    assert max(parameters[name] for name in names) < 12e6
    assert len({name.removeprefix("tf_").partition("_")[0] for name in names}) == 10
