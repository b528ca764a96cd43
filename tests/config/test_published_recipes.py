"""The recipes are what docs/recipes.md says of them: every row of its tables, and what is published."""

from __future__ import annotations

import ast
import copy
import functools
import math
import operator
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from detectron2.config import instantiate
from detectron2.modeling.backbone.vit import get_vit_lr_decay_rate
from detectron2.solver.build import get_default_optimizer_params
from omegaconf import DictConfig, OmegaConf

from d2timm.config.build import build_on_meta, resolve_dataset
from d2timm.config.lazy import get_config
from d2timm.engine.dry_run import summarize
from d2timm.utils.files import resource_folder

DOCS = Path(__file__).parents[2] / "docs" / "recipes.md"
TRAIN_IMAGES = 117266  # of COCO's train2017, with annotations
SHARED = ("dataloader.", "optimizer.", "lr_multiplier.", "train.", "model.backbone.bottom_up.")
#: How a recipe is like another -> whether that holds for a key, which it does not for attributes of models
LIKE: dict[str, Callable[[str], bool]] = {
    ", but for": lambda key: not key.startswith("backbone."),
    " outside the ROI heads": lambda key: not key.startswith(("backbone.", "model.roi_heads.")),
    " in data, backbone, optimizer and schedule": lambda key: key.startswith(SHARED),
}


class Row(NamedTuple):
    """A value as it is published and as it is here."""

    published: Any
    here: Any
    why: str  # they differ


def cells(text: str) -> Iterator[list[str]]:
    """The rows of a table below its head."""
    for line in [line for line in text.splitlines() if line.startswith("|")][2:]:
        yield [cell.strip() for cell in line.strip("|").split(" | ")]


def value(text: str) -> Any:
    """A number, a fraction, a text, nothing, or a list of such."""
    fraction = re.fullmatch(r"(\d+) / (\d+)", text)
    return int(fraction[1]) / int(fraction[2]) if fraction else yaml.safe_load(text)


@functools.cache
def sections() -> dict[str, str]:
    """What is said of each recipe, by its name."""
    _, *parts = DOCS.read_text().split("\n### ")
    return {part.partition("\n")[0]: part for part in parts}


def overview() -> dict[str, list[str]]:
    """The table of all recipes."""
    table = DOCS.read_text().partition("\nAn epoch")[0]
    return {name.strip("`"): rest for name, *rest in cells(table)}


@functools.cache
def rows(recipe: str) -> dict[str, Row]:
    """Key -> what is said of it, by the recipe's own table and those that it goes back to."""
    text = sections()[recipe]
    found: dict[str, Row] = {}
    if base := re.search(rf"^As `(\S+)`({'|'.join(LIKE)})", text, re.MULTILINE):
        found = {key: row for key, row in rows(base[1]).items() if LIKE[base[2]](key)}
    for published, _, key, here in cells(text):
        if key == "-":
            assert here.startswith("→ "), f"{published}: it is not said what is here"
            continue
        here, _, why = here[2:].partition(": ") if here.startswith("→ ") else (here, "", "")
        found[key.strip("`")] = Row(value(published.rpartition(": ")[2]), value(here), why)
    return found


@functools.cache
def tree(recipe: str) -> DictConfig:
    cfg = get_config(recipe)
    cfg.data.name = "coco_2017"
    resolve_dataset(cfg)
    return cfg


@functools.cache
def detector(recipe: str) -> Any:
    return build_on_meta(tree(recipe))


def found(recipe: str, key: str) -> Any:
    """What a recipe has at a key of the docs."""
    if key == "parameters":
        return round(sum(p.numel() for p in detector(recipe).parameters()) / 1e6)
    if key.startswith("backbone."):
        return operator.attrgetter(key.partition(".")[2])(detector(recipe).backbone.bottom_up.model)
    owner, _, name = key.rpartition(".")
    node = OmegaConf.select(tree(recipe), key)
    assert node is not None or name in OmegaConf.select(tree(recipe), owner), f"there is no key {key}"
    node = instantiate(node) if OmegaConf.is_config(node) else node
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def same(left: Any, right: Any) -> bool:
    """Whether two values are equal, numbers up to rounding."""
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return math.isclose(left, right, rel_tol=1e-6)
    return bool(left == right)


def test_every_published_recipe_is_described() -> None:
    assert set(overview()) == set(sections())
    assert set(sections()) == {path.name for path in resource_folder("lazy_configs").glob("*.py")} - {
        *(path.name for path in resource_folder("lazy_configs").glob("*_timm.py")),
        "demo.py",
    }


@pytest.mark.parametrize("recipe", sections())
def test_every_row_is_as_said(recipe: str) -> None:
    assert len(rows(recipe)) > 10, "the table is read"
    wrong = {
        key: (row.here, found(recipe, key))
        for key, row in rows(recipe).items()
        if not same(row.here, found(recipe, key))
    }
    assert not wrong


@pytest.mark.parametrize("recipe", sections())
def test_what_differs_is_explained(recipe: str) -> None:
    unexplained = {key for key, row in rows(recipe).items() if same(row.published, row.here) == bool(row.why)}
    assert not unexplained


@pytest.mark.parametrize("recipe", sections())
def test_docstring_says_what_is_published_and_what_was_not_run(recipe: str) -> None:
    iterations, images, epochs, box, mask, _ = overview()[recipe]
    cfg = tree(recipe)
    assert (int(iterations), int(images)) == (cfg.train.max_iter, cfg.dataloader.train.total_batch_size)
    assert float(epochs) == pytest.approx(int(iterations) * int(images) / TRAIN_IMAGES, abs=0.05)
    assert cfg.train.reference_batch_size == int(images), "the rate is meant for it"
    text = " ".join(
        (ast.get_docstring(ast.parse((resource_folder("lazy_configs") / recipe).read_text())) or "").split()
    )
    assert "Not run here." in text
    assert "docs/recipes.md" in text
    assert f"{int(iterations):,}" in text
    for kind, score in {"box": box, "mask": mask}.items():
        assert (f"{kind} AP {score}" in text) == (score != "-")
    assert ("Published: none. " in text) == (box == "-")


@pytest.mark.parametrize("recipe", sections())
def test_dry_run_tells_the_schedule_without_data(recipe: str) -> None:
    text = summarize(tree(recipe), detector(recipe))
    iterations, images = overview()[recipe][:2]
    assert f"{iterations} iterations of {images} images" in text
    assert re.search(rf"learning rate {tree(recipe).optimizer.lr:g} x (sqrt\()?{images}/{images}", text)
    assert len(re.findall(r"not usable: data\.name=coco_2017: .*no such file", text)) == 2


# Rules of the sources' optimizers, parameter by parameter


def groups(recipe: str) -> dict[str, dict[str, Any]]:
    """Name -> the group that a parameter of a recipe is in."""
    model = detector(recipe)
    node = copy.deepcopy(tree(recipe).optimizer.params)
    node._set_parent(tree(recipe).optimizer)
    node.model = model
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {names[p]: group for group in instantiate(node) for p in group["params"]}


def test_rates_of_vitdet_are_those_of_detectron2() -> None:
    for name, group in groups("mask_rcnn_vitdet_base_100ep.py").items():
        assert group["lr"] == pytest.approx(1e-4 * get_vit_lr_decay_rate(name, 0.7, 12)), name


def test_rates_of_convnext_are_those_of_its_rule() -> None:
    """Three blocks a layer in the third stage, the other stages one each, heads above the seventh."""
    for name, group in groups("mask_rcnn_convnext_tiny_3x.py").items():
        layer = 7
        if found := re.search(r"bottom_up\.model\.stages_?\.?(\d)\.(blocks|downsample)\.(\d+)", name):
            stage, block = int(found[1]), int(found[3]) if found[2] == "blocks" else 0
            layer = (1, 2, 3 + block // 3, 6)[stage]
        elif "bottom_up.model." in name:
            layer = 0
        assert group["lr"] == pytest.approx(1e-4 * 0.95 ** (7 - layer)), name
        assert (group["weight_decay"] == 0) == (detector_parameter(name).ndim <= 1), name


def detector_parameter(name: str) -> Any:
    return detector("mask_rcnn_convnext_tiny_3x.py").get_parameter(name)


def test_decay_of_swin_is_that_of_its_rule() -> None:
    for name, group in groups("mask_rcnn_swin_tiny_1x.py").items():
        without = "norm" in name or "relative_position_bias_table" in name or "levels." in name
        assert group["weight_decay"] == (0 if without else 0.05), name


def test_decay_of_the_baselines_is_that_of_detectron2() -> None:
    model = detector("mask_rcnn_resnet50_1x.py")
    theirs = get_default_optimizer_params(model, weight_decay=1e-4, weight_decay_norm=0.0)
    names = {parameter: name for name, parameter in model.named_parameters()}
    expected = {names[p]: group["weight_decay"] for group in theirs for p in group["params"]}
    found = {name: group["weight_decay"] for name, group in groups("mask_rcnn_resnet50_1x.py").items()}
    assert found == expected
