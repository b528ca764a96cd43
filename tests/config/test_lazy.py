"""Configs: errors that name the fix, and saved files that load as the same config."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig

from d2timm import ConfigError, get_config
from d2timm.config.build import build_on_meta
from d2timm.config.lazy import load, save, target_name, to_plain
from d2timm.config.overrides import apply_overrides
from d2timm.engine.optim import build_optimizer

RECIPES = ["faster_rcnn_timm.py", "mask_rcnn_timm.py"]


def leaves(node: Any) -> Iterator[Any]:
    """Keys and values of a tree of dicts and lists."""
    if isinstance(node, dict):
        yield from node
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from leaves(value)
    else:
        yield node


def shapes(cfg: DictConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the parameters of a config's model."""
    return {name: tuple(p.shape) for name, p in build_on_meta(cfg).named_parameters()}


@pytest.mark.parametrize("recipe", RECIPES)
def test_get_config_finds_the_recipes(recipe: str) -> None:
    cfg = get_config(recipe)
    assert set(cfg) == {"model", "dataloader", "optimizer", "lr_multiplier", "train", "data"}
    assert set(cfg.dataloader) == {"train", "test", "evaluator"}
    assert cfg.model.backbone.bottom_up.model_name == "resnet50"


def test_get_config_finds_a_part_of_a_recipe() -> None:
    assert set(get_config("common/neck/fpn.py")) == {"neck"}


def test_get_config_suggests_similar_names() -> None:
    with pytest.raises(ConfigError, match=r"'mask_rcnn\.py': .*mask_rcnn_timm\.py"):
        get_config("mask_rcnn.py")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.py", "model = (", "syntax"),
        ("config.py", "import no_such_module", "no_such_module"),
        ("config.py", "from .missing import model", "missing"),
        ("config.py", "from .common import model", "Relative import of directories is not allowed"),
        ("config.py", "raise ValueError('no GPU here')", "no GPU here"),
        ("config.yaml", "a: [1", r"line 1"),
        ("config.yaml", "- a\n- b", "not a config"),
        ("config.yaml", "", "not a config"),
        ("config.yaml", "a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("config.yaml", "a: '${b'", r"\$\{b"),
    ],
)
def test_unreadable_config_is_an_error_of_one_line(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    file = tmp_path / name
    file.write_text(text)
    (tmp_path / "common").mkdir()
    original = builtins.__import__
    with pytest.raises(ConfigError, match=message) as caught:
        load(file)
    assert str(caught.value).startswith(f"--config-file {file}: ")
    assert "\n" not in str(caught.value)
    assert builtins.__import__ is original, "detectron2's import for config files is removed"


def test_exception_in_the_code_of_a_config_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text("model = dict(depth=DEPTH)")
    original = builtins.__import__
    with pytest.raises(NameError, match="DEPTH"):
        load(tmp_path / "config.py")
    assert builtins.__import__ is original


def test_missing_config_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--config-file .*nothing\.py: no such file"):
        load(tmp_path / "nothing.py")


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_is_plain_data(recipe: str) -> None:
    plain = to_plain(get_config(recipe))
    assert set(map(type, leaves(plain))) <= {str, int, float, bool, type(None)}
    strings = [value for value in leaves(plain) if isinstance(value, str)]
    assert "_partial_" not in strings
    assert not [string for string in strings if "lambda" in string]
    assert yaml.safe_load(yaml.safe_dump(plain)) == plain


@pytest.mark.parametrize("recipe", RECIPES)
def test_saved_recipe_builds_the_same_model_and_optimizer(recipe: str, tmp_path: Path) -> None:
    cfg = apply_overrides(get_config(recipe), ["model.backbone.bottom_up.model_name=test_efficientnet"])
    save(cfg, tmp_path / "config.yaml")
    saved = load(tmp_path / "config.yaml")
    assert to_plain(saved) == to_plain(cfg)
    assert shapes(saved) == shapes(cfg)
    options = []
    for tree in (cfg, saved):
        optimizer = build_optimizer(tree, build_on_meta(tree))
        options.append((type(optimizer), {k: v for k, v in optimizer.defaults.items() if k != "params"}))
    assert options[0] == options[1]


def test_saved_recipe_follows_the_model_name(tmp_path: Path) -> None:
    save(get_config("mask_rcnn_timm.py"), tmp_path / "config.yaml")
    name = "vit_tiny_patch16_224"  # has other pixel statistics than resnet50
    overrides = [
        f"model.backbone.bottom_up.model_name={name}",
        "model.backbone.bottom_up.remaps=[a,b,c,d]",
    ]
    cfg = apply_overrides(load(tmp_path / "config.yaml"), overrides)
    model = build_on_meta(cfg)
    before = build_on_meta(load(tmp_path / "config.yaml"))
    assert list(model.backbone.in_features) == ["a", "b", "c", "d"]
    assert {shape.channels for shape in model.backbone.bottom_up.output_shape().values()} == {192}
    assert model.backbone.bottom_up.spec.model_name == name
    assert list(before.backbone.in_features) == ["res2", "res3", "res4", "res5"]
    names = [cfg.model[key].model_name for key in ("pixel_mean", "pixel_std")]
    assert names == [name, name]


def test_pixel_statistics_follow_the_model_name() -> None:
    from d2timm.config.build import instantiate

    cfg = get_config("mask_rcnn_timm.py")
    assert instantiate(cfg.model.pixel_mean) == pytest.approx([123.675, 116.28, 103.53])
    assert instantiate(cfg.model.pixel_std) == pytest.approx([58.395, 57.12, 57.375])
    apply_overrides(cfg, ["model.backbone.bottom_up.model_name=vit_tiny_patch16_224"])
    assert instantiate(cfg.model.pixel_mean) == [127.5] * 3
    assert instantiate(cfg.model.pixel_std) == [127.5] * 3


@pytest.mark.parametrize("name", ["shapes", "coco_2017", "custom", "auto"])
def test_settings_follow_the_dataset(name: str) -> None:
    cfg = apply_overrides(get_config("mask_rcnn_timm.py"), [f"data.name={name}"])
    settings = cfg.data.settings["shapes" if name == "auto" else name]
    assert cfg.train.max_iter == settings.max_iter
    assert cfg.train.eval_period == settings.eval_period
    assert cfg.train.checkpointer.period == settings.checkpoint_period
    assert cfg.optimizer.lr == settings.lr
    assert cfg.lr_multiplier.warmup_length == settings.warmup
    assert cfg.model.backbone.bottom_up.pretrained is (name in ("coco_2017", "custom"))
    assert cfg.model.roi_heads.batch_size_per_image == settings.rois_per_image
    train, test = cfg.dataloader.train, cfg.dataloader.test
    assert train.total_batch_size == settings.batch_size
    assert train.num_workers == test.num_workers == settings.workers
    assert train.mapper.augmentations[0].short_edge_length == settings.train_short_edges
    assert test.mapper.augmentations[0].short_edge_length == settings.test_short_edge


@pytest.mark.parametrize("value", [lambda x: x, object(), {1, 2}, b"bytes"])
def test_other_objects_cannot_be_saved(value: Any) -> None:
    with pytest.raises(ConfigError, match="config cannot hold"):
        to_plain({"a": [1, value]})


def test_classes_and_functions_are_saved_by_their_shortest_name() -> None:
    assert to_plain({"a": Path, "b": load}) == {"a": "pathlib.Path", "b": "d2timm.config.load"}


@pytest.mark.parametrize("target", [True, 3, None, [], {"a": 1}])
def test_target_that_is_no_name_is_an_error(target: Any) -> None:
    with pytest.raises(ConfigError, match="is not the name of a class or function"):
        target_name(target)
