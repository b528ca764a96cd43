"""``train.recipe`` sets what the user does not set, and says what it has set."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
from omegaconf import OmegaConf

from d2timm import ConfigError
from d2timm.cli import main
from d2timm.config.lazy import get_config
from d2timm.engine.family import Family
from d2timm.engine.recipes import (
    AUTO,
    _by_size,
    _choose,
    _table,
    apply_recipe,
    describe_recipe,
    given_keys,
    recipe_keys,
)

MASK = "mask_rcnn_timm.py"
NAME = "model.backbone.bottom_up.model_name"
PRETRAINED = "model.backbone.bottom_up.pretrained"
NO_FILES = [f"data.{key}=null" for key in ("train_json", "train_images", "val_json", "val_images")]


@pytest.fixture
def compose(tiny: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """A config with a recipe: ``compose(model_name, *overrides)``."""
    return lambda model, *more: tiny(MASK, tmp_path / "run", "train.recipe=auto", f"{NAME}={model}", *more)


def test_values_of_the_first_prior_that_fits(compose: Callable[..., Any]) -> None:
    cfg = compose("convnext_atto")
    recipe = apply_recipe(cfg)
    assert recipe["name"] == "convolution_pyramid"
    assert cfg.optimizer.params.layer_decay == 0.95
    assert cfg.model.backbone.bottom_up.drop_path_rate == 0.4
    assert cfg.train.reference_batch_size == 16
    assert cfg.train.recipe is None
    for key, value in recipe["values"].items():
        assert OmegaConf.select(cfg, key) == value
        assert key in recipe_keys()
    assert len(describe_recipe(recipe)) == 1 + len(recipe["values"])


def test_without_a_recipe_nothing_changes(tiny: Callable[..., Any], tmp_path: Path) -> None:
    cfg = tiny(MASK, tmp_path)
    before = cfg.copy()
    assert apply_recipe(cfg) == {}
    assert cfg == before


def test_norms_are_frozen_only_with_weights(compose: Callable[..., Any]) -> None:
    scratch, pretrained = compose("resnet18"), compose("resnet18", f"{PRETRAINED}=True")
    apply_recipe(scratch)
    apply_recipe(pretrained)
    assert (scratch.model.backbone.bottom_up.norm, scratch.model.backbone.bottom_up.freeze_at) == ("keep", 0)
    frozen = pretrained.model.backbone.bottom_up
    assert (frozen.norm, frozen.freeze_at) == ("FrozenBN", 2)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["optimizer.weight_decay"], {"optimizer.weight_decay": 0.05, "train.reference_batch_size": 16}),
        (["optimizer.lr"], {"optimizer.lr": 1e-4, "train.reference_batch_size": None}),
        (["optimizer.lr"], {"optimizer.params.layer_decay": 0.95}),
        (["optimizer.opt"], {"optimizer.params.layer_decay": 1.0, "train.reference_batch_size": None}),
        (["optimizer"], {"optimizer.params.layer_decay": 1.0, "train.reference_batch_size": None}),
        (["model.backbone.bottom_up"], {"model.backbone.bottom_up.drop_path_rate": None}),
    ],
)
def test_overrides_stay(given: list[str], kept: dict[str, Any], compose: Callable[..., Any]) -> None:
    cfg = compose("convnext_atto", "data.settings.custom.lr=1e-4")
    apply_recipe(cfg, given)
    for key, value in kept.items():
        assert OmegaConf.select(cfg, key) == value


def test_optimizer_alone(compose: Callable[..., Any]) -> None:
    cfg = compose("convnext_atto", "train.recipe=null", "optimizer.opt=auto")
    values = apply_recipe(cfg, ["optimizer"])["values"]
    assert (cfg.optimizer.opt, cfg.optimizer.params.layer_decay) == ("adamw", 0.95)
    assert cfg.model.backbone.bottom_up.drop_path_rate is None
    assert {key.partition(".")[0] for key in values} == {"optimizer", "train"}
    assert "train.epochs" not in values


def test_keys_of_a_command() -> None:
    command = ["d2timm", "train", "--config-file", "a.py", "--trust=me", "a.b=1", "+c=[1,2]", "~d"]
    path = "data.root=~/Photos (1), #é=&/it's"
    assert given_keys([*command, "optimizer=sgd", path]) == ["a.b", "c", "optimizer", "data.root"]


def test_drop_path_is_left_out_where_a_model_has_none(compose: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        "priors = dict(own=dict(when=dict(), source='me', values={"
        "'optimizer.weight_decay': 0.5, 'model.backbone.bottom_up.drop_path_rate': 0.3}))"
    )
    cfg = compose("vgg11", f"train.recipe={file}")
    assert "model.backbone.bottom_up.drop_path_rate" not in apply_recipe(cfg)["values"]
    cfg = compose("resnet18", f"train.recipe={file}")
    assert apply_recipe(cfg)["values"]["model.backbone.bottom_up.drop_path_rate"] == 0.3


def test_name_of_a_prior(compose: Callable[..., Any]) -> None:
    cfg = compose("resnet18", "train.recipe=attention_pyramid")
    assert apply_recipe(cfg)["name"] == "attention_pyramid"
    assert cfg.model.backbone.bottom_up.drop_path_rate == 0.1


@pytest.mark.parametrize(
    ("recipe", "named"),
    [("attention_pyramids", "attention_pyramid"), ("none.py", "none.py")],
)
def test_unknown_recipe(recipe: str, named: str, compose: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=named):
        apply_recipe(compose("resnet18", f"train.recipe={recipe}"))


@pytest.mark.parametrize("text", ["priors = dict(a=dict(values={}))", "priors = dict(a=1)", "x = dict()"])
def test_damaged_table(text: str, compose: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(ConfigError, match=r"own\.py"):
        apply_recipe(compose("resnet18", f"train.recipe={tmp_path}/own.py"))


def test_length_follows_the_data(compose: Callable[..., Any]) -> None:
    cfg = compose("resnet18")
    assert "train.epochs" in apply_recipe(cfg)["values"]
    assert cfg.train.epochs == AUTO
    for given in ("train.max_iter=7", "train.epochs=3"):
        cfg = compose("resnet18", given)
        assert "train.epochs" not in apply_recipe(cfg)["values"]
    cfg = compose("resnet18", *NO_FILES, "data.name=shapes")
    assert "train.epochs" not in apply_recipe(cfg)["values"]


@pytest.mark.parametrize("labels", [0, 1000])
@pytest.mark.parametrize("norm", ["batch", "other"])
@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize("kind", ["pyramid", "part of a pyramid", "one stride"])
@pytest.mark.parametrize("parameters", [1.0, 70.0, 2000.0])
def test_every_family_has_a_prior(
    kind: str, attention: bool, norm: str, labels: int, parameters: float
) -> None:
    name, prior = _choose(AUTO, Family(kind, norm, attention, labels, parameters))
    assert prior["source"]
    values = {key: _by_size(value, parameters) for key, value in prior["values"].items()}
    assert {"optimizer.lr", "train.reference_batch_size"} <= values.keys(), name
    assert 1e-5 <= values["optimizer.lr"] <= 0.1


def test_keys_of_all_priors_exist() -> None:
    cfg = get_config(MASK)
    for key in recipe_keys():
        parent, _, last = key.rpartition(".")
        assert last in OmegaConf.select(cfg, parent)


def test_priors_name_no_model() -> None:
    names = {*timm.list_models(), *timm.list_modules()}
    for name, prior in _table().items():
        assert name not in names
        assert prior["when"].keys() <= {*Family.__dataclass_fields__}


def test_run_records_its_recipe(
    tiny_overrides: Callable[..., list[str]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = "train.recipe=auto"
    arguments = tiny_overrides(MASK, tmp_path / "run", recipe, f"{NAME}=test_vit", "optimizer.lr=0.002")
    assert main(["train", "--config-file", MASK, *arguments, "train.epochs=0.5"]) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["recipe"]["name"] == "vit"
    assert recipe in result["command"]
    saved = OmegaConf.load(tmp_path / "run" / "config.yaml")
    assert saved.optimizer.lr == 0.002
    assert saved.model.backbone.bottom_up.drop_path_rate == 0.05
    assert saved.train.recipe is None
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "vit" in log
    again = ["train", "--config-file", str(tmp_path / "run" / "config.yaml"), "--resume", "train.epochs=0.5"]
    assert main(again) == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["recipe"] == result["recipe"]


def test_dry_run_says_it(
    tiny_overrides: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = tiny_overrides(MASK, tmp_path / "run", "train.recipe=auto", f"{NAME}=test_convnext")
    assert main(["train", "--config-file", MASK, "--dry-run", *arguments]) == 0
    output = capsys.readouterr().out
    assert "convolution_pyramid" in output
    assert "train.epochs=auto" in output
