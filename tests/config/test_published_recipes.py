"""The recipes agree with docs/recipes.md: every row of its tables, and the published results."""

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

LAZY_CONFIGS = resource_folder("lazy_configs")
DOCS = Path(__file__).parents[2] / "docs" / "recipes.md"
TRAIN_IMAGES = 117266  # of COCO's train2017, with annotations
SHARED = ("dataloader.", "optimizer.", "lr_multiplier.", "train.", "model.backbone.bottom_up.")
#: How a recipe follows another one -> whether it follows it in a key; never in attributes of the model
LIKE: dict[str, Callable[[str], bool]] = {
    ", but for": lambda key: not key.startswith("backbone."),
    " outside the ROI heads": lambda key: not key.startswith(("backbone.", "model.roi_heads.")),
    " in data, backbone, optimizer and schedule": lambda key: key.startswith(SHARED),
}


class Row(NamedTuple):
    """A value in the source and in the recipe, and why they differ."""

    published: Any
    here: Any
    why: str  # "" if they are equal


def cells(text: str) -> Iterator[list[str]]:
    """Yield the rows of a table without its head."""
    for line in [line for line in text.splitlines() if line.startswith("|")][2:]:
        yield [cell.strip() for cell in line.strip("|").split(" | ")]


def value(text: str) -> Any:
    """Parse a number, a fraction, a string, null, or a list of these."""
    fraction = re.fullmatch(r"(\d+) / (\d+)", text)
    return int(fraction[1]) / int(fraction[2]) if fraction else yaml.safe_load(text)


@functools.cache
def sections() -> dict[str, str]:
    """Recipe -> its section of the page."""
    _, *parts = DOCS.read_text().split("\n### ")
    return {part.partition("\n")[0]: part for part in parts}


def overview() -> dict[str, list[str]]:
    """Recipe -> its row in the table of all recipes."""
    table = DOCS.read_text().partition("\nAn epoch")[0]
    return {name.strip("`"): rest for name, *rest in cells(table)}


@functools.cache
def rows(recipe: str) -> dict[str, Row]:
    """Key -> its row, in the table of the recipe or of the recipe that it follows."""
    text = sections()[recipe]
    result: dict[str, Row] = {}
    if base := re.search(rf"^As `(\S+)`({'|'.join(LIKE)})", text, re.MULTILINE):
        result = {key: row for key, row in rows(base[1]).items() if LIKE[base[2]](key)}
    for published, _, key, here in cells(text):
        if key == "-":
            assert here.startswith("→ "), f"{published}: the value here is missing"
            continue
        here, _, why = here[2:].partition(": ") if here.startswith("→ ") else (here, "", "")
        result[key.strip("`")] = Row(value(published.rpartition(": ")[2]), value(here), why)
    return result


@functools.cache
def tree(recipe: str) -> DictConfig:
    cfg = get_config(recipe)
    cfg.data.name = "coco_2017"
    resolve_dataset(cfg)
    return cfg


@functools.cache
def detector(recipe: str) -> Any:
    return build_on_meta(tree(recipe))


def actual(recipe: str, key: str) -> Any:
    """The value of a recipe at a key of the page."""
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
    """Whether two values are equal up to rounding."""
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return math.isclose(left, right, rel_tol=1e-6)
    return bool(left == right)


def test_every_published_recipe_is_described() -> None:
    assert set(overview()) == set(sections())
    files = {path.name for path in LAZY_CONFIGS.glob("*.py")}
    assert set(sections()) == files - {path.name for path in LAZY_CONFIGS.glob("*_timm.py")} - {"demo.py"}


@pytest.mark.parametrize("recipe", sections())
def test_every_row_agrees_with_the_recipe(recipe: str) -> None:
    assert len(rows(recipe)) > 10, "the table has been read"
    wrong = {
        key: (row.here, actual(recipe, key))
        for key, row in rows(recipe).items()
        if not same(row.here, actual(recipe, key))
    }
    assert not wrong


@pytest.mark.parametrize("recipe", sections())
def test_every_difference_is_explained(recipe: str) -> None:
    unexplained = {key for key, row in rows(recipe).items() if same(row.published, row.here) == bool(row.why)}
    assert not unexplained


@pytest.mark.parametrize("recipe", sections())
def test_docstring_has_the_schedule_and_the_published_results(recipe: str) -> None:
    iterations, images, epochs, box, mask, _ = overview()[recipe]
    cfg = tree(recipe)
    assert (int(iterations), int(images)) == (cfg.train.max_iter, cfg.dataloader.train.total_batch_size)
    assert float(epochs) == pytest.approx(int(iterations) * int(images) / TRAIN_IMAGES, abs=0.05)
    assert cfg.train.reference_batch_size == int(images), "the learning rate is for this batch size"
    docstring = ast.get_docstring(ast.parse((LAZY_CONFIGS / recipe).read_text())) or ""
    text = " ".join(docstring.split())
    assert "Not run here." in text
    assert "docs/recipes.md" in text
    assert f"{int(iterations):,}" in text
    for kind, score in {"box": box, "mask": mask}.items():
        assert (f"{kind} AP {score}" in text) == (score != "-")
    assert ("Published: none. " in text) == (box == "-")


@pytest.mark.parametrize("recipe", sections())
def test_dry_run_reports_the_schedule_without_data(recipe: str) -> None:
    text = summarize(tree(recipe), detector(recipe))
    iterations, images = overview()[recipe][:2]
    assert f"{iterations} iterations of {images} images" in text
    assert re.search(rf"learning rate {tree(recipe).optimizer.lr:g} x (sqrt\()?{images}/{images}", text)
    assert len(re.findall(r"not usable: data\.name=coco_2017: .*no such file", text)) == 2


# Optimizers of the sources, parameter by parameter


def groups(recipe: str) -> dict[str, dict[str, Any]]:
    """Name of a parameter -> its group in the optimizer of a recipe."""
    model = detector(recipe)
    node = copy.deepcopy(tree(recipe).optimizer.params)
    node._set_parent(tree(recipe).optimizer)
    node.model = model
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {names[p]: group for group in instantiate(node) for p in group["params"]}


def test_learning_rates_of_vitdet_equal_those_of_detectron2() -> None:
    for name, group in groups("mask_rcnn_vitdet_base_100ep.py").items():
        assert group["lr"] == pytest.approx(1e-4 * get_vit_lr_decay_rate(name, 0.7, 12)), name


def test_learning_rates_of_convnext_follow_its_rule() -> None:
    """Three blocks of the third stage are a layer, so are the other stages and the heads."""
    for name, group in groups("mask_rcnn_convnext_tiny_3x.py").items():
        layer = 7
        if match := re.search(r"bottom_up\.model\.stages_?\.?(\d)\.(blocks|downsample)\.(\d+)", name):
            stage, block = int(match[1]), int(match[3]) if match[2] == "blocks" else 0
            layer = (1, 2, 3 + block // 3, 6)[stage]
        elif "bottom_up.model." in name:
            layer = 0
        assert group["lr"] == pytest.approx(1e-4 * 0.95 ** (7 - layer)), name
        assert (group["weight_decay"] == 0) == (detector_parameter(name).ndim <= 1), name


def detector_parameter(name: str) -> Any:
    return detector("mask_rcnn_convnext_tiny_3x.py").get_parameter(name)


def test_weight_decay_of_swin_follows_its_rule() -> None:
    for name, group in groups("mask_rcnn_swin_tiny_1x.py").items():
        exempt = "norm" in name or "relative_position_bias_table" in name or "levels." in name
        assert group["weight_decay"] == (0 if exempt else 0.05), name


def test_weight_decay_of_the_baselines_equals_that_of_detectron2() -> None:
    model = detector("mask_rcnn_resnet50_1x.py")
    theirs = get_default_optimizer_params(model, weight_decay=1e-4, weight_decay_norm=0.0)
    names = {parameter: name for name, parameter in model.named_parameters()}
    expected = {names[p]: group["weight_decay"] for group in theirs for p in group["params"]}
    actual = {name: group["weight_decay"] for name, group in groups("mask_rcnn_resnet50_1x.py").items()}
    assert actual == expected
