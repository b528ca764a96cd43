"""Published detection checkpoints -> weights for d2timm's detectors."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig
from safetensors.torch import save_file

from ...config import lazy as config
from ...data.catalog import CUSTOM, PUBLISHED, resolve_name, tasks_of
from ...errors import ConfigError
from ...utils.checks import suggest
from ...utils.files import atomic_write
from .convnext import CONVNEXT
from .layout import Layout, Values
from .matching import match
from .reading import read
from .report import mapping_report, summary_of_faults
from .resnet import RESNET, RESNET_IMAGENET, RESNET_MSRA
from .swin import SWIN
from .target import Target
from .vitdet import MAE, VITDET
from .xcit import XCIT

__all__ = ["LAYOUTS", "convert_weights", "layout_of"]

LAYOUTS: tuple[Layout, ...] = (
    SWIN,
    CONVNEXT,
    XCIT,
    VITDET,
    RESNET,
    RESNET_IMAGENET,
    RESNET_MSRA,
    MAE,
)
COCO = ("coco_2017", "coco_2017_keypoints", "coco_2017_panoptic")
SUFFIXES = (".pth", ".safetensors")


def convert_weights(
    source: Path,
    out: Path,
    recipe: Path,
    overrides: Sequence[str] = (),
    parts: Collection[str] = (),
    new_classes: bool = False,
    every: bool = False,
) -> str:
    """Convert a published checkpoint for the detector of a recipe.

    Args:
        source: the checkpoint; it is read as data, nothing in it is executed.
        out: .pth (``{"model": …}``) or .safetensors, for ``train.init_checkpoint``.
        recipe: a LazyConfig file or a saved ``config.yaml``; of COCO's classes unless its data say otherwise.
        overrides: of the recipe, ``key=value``.
        parts: of the detector, that are wanted, such as ``backbone``; none: all.
        new_classes: leave out what depends on the number of classes where that is another.
        every: name each weight in the report, instead of patterns of names.

    Returns:
        The report: what became of each weight.

    Raises:
        ConfigError: something cannot be; nothing is written. If weights are lost, its ``__notes__`` hold the
            report.
    """
    _check_out(source, out)
    cfg = config.apply_overrides(config.load(recipe), overrides)
    _choose_coco(cfg)
    target = Target.of(cfg)
    for part in parts:
        if part not in target.parts:
            raise ConfigError(
                f"--parts {part}: {suggest(part, target.parts)}; there are {', '.join(target.parts)}"
            )
    checkpoint = read(source)
    layout = layout_of(checkpoint.weights, source)
    found = match(checkpoint.weights, layout, target, parts, new_classes)
    for name in checkpoint.beside:
        found.left_over[f"[{name}]"] = "beside the weights"
    told = mapping_report(found, layout, target, len(checkpoint.weights), every)
    if not found.complete:
        fix = "give the recipe of that model, --parts for some of it, or --new-classes for other classes"
        error = ConfigError(f"{source}: {summary_of_faults(found)}: {fix}")
        error.add_note(told)
        raise error
    _write(found.weights, out)
    return told


def layout_of(weights: Values, source: Path) -> Layout:
    """The layout that a file has.

    Raises:
        ConfigError: it is none that is known.
    """
    for layout in LAYOUTS:
        if layout.fits(weights):
            return layout
    known = "; ".join(layout.name for layout in LAYOUTS)
    raise ConfigError(
        f"{source}: the layout of its {len(weights)} weights ({next(iter(weights))}, …) is none of: {known}"
    )


def _choose_coco(cfg: DictConfig) -> None:
    """Name COCO, with the truth that the detector needs, where the tree leaves the data open."""
    if "data" in cfg and cfg.data.name == "auto" and resolve_name(cfg.data) != CUSTOM:
        tasks = set(tasks_of(cfg.data))
        cfg.data.name = next(
            (name for name in COCO if tasks <= set(PUBLISHED[name].annotated_tasks)), COCO[0]
        )


def _check_out(source: Path, out: Path) -> None:
    """Raise ConfigError unless a file can be written there."""
    if out.suffix not in SUFFIXES:
        raise ConfigError(f"{out}: the converted file ends in {' or '.join(SUFFIXES)}")
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise ConfigError(f"{out}: a file in a folder that exists is needed")
    if out.exists() and source.exists() and out.samefile(source):
        raise ConfigError(f"{out}: the source would be overwritten; give another file")
    if not os.access(out.absolute().parent, os.W_OK):
        raise ConfigError(f"{out}: the folder cannot be written to")


def _write(weights: Values, out: Path) -> None:
    try:
        with atomic_write(out) as partial:
            if out.suffix == ".safetensors":
                save_file({name: x.contiguous().clone() for name, x in weights.items()}, partial)
            else:
                torch.save({"model": weights}, partial)
    except OSError as error:
        raise ConfigError(f"{out}: it cannot be written ({error.strerror or error})") from error
