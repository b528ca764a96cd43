"""Convert published detection checkpoints into weights for d2timm's detectors."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig

from ...config.lazy import load
from ...config.overrides import apply_overrides
from ...data.catalog import PUBLISHED, resolve_name, tasks_of
from ...data.own import CUSTOM
from ...errors import ConfigError
from ...utils.checks import suggest
from ...utils.files import atomic_write, disk_errors
from ...utils.safetensors_file import write_safetensors
from ...utils.text import one_line
from .convnext import CONVNEXT
from .layout import Layout, Values
from .matching import match
from .reading import read
from .report import mapping_report, summarize_problems
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
        source: the checkpoint; it is read as data, and nothing in it is executed.
        out: the file to write, .pth (``{"model": …}``) or .safetensors, for ``train.init_checkpoint``.
        recipe: a LazyConfig file or a saved ``config.yaml``; it gets the classes of COCO unless it names a
            dataset.
        overrides: overrides of the recipe, ``key=value``.
        parts: parts of the detector to convert, such as ``backbone``; empty: all.
        new_classes: whether to leave out weights that depend on the number of classes, if it differs.
        every: whether the report lists each weight, instead of patterns of names.

    Returns:
        The report on what became of each weight.

    Raises:
        ConfigError: a file or an option is invalid, or weights would be lost; nothing is written. If weights
            would be lost, the ``__notes__`` of the error contain the report.
    """
    _check_out(source, out)
    cfg = apply_overrides(load(recipe), overrides)
    _choose_coco(cfg)
    target = Target.of(cfg)
    for part in parts:
        if part not in target.parts:
            raise ConfigError(
                f"--parts {part}: {suggest(part, target.parts)} The parts are {', '.join(target.parts)}"
            )
    checkpoint = read(source)
    layout = layout_of(checkpoint.weights, source)
    result = match(checkpoint.weights, layout, target, parts, new_classes)
    result.not_needed |= {f"[{key}]": "not a weight of the model" for key in checkpoint.other_keys}
    report = mapping_report(result, layout, target, len(checkpoint.weights), every)
    if not result.complete:
        fix = (
            "give the recipe of that model, --parts to convert some parts, or --new-classes for other classes"
        )
        error = ConfigError(f"{source}: {summarize_problems(result)}: {fix}")
        error.__notes__ = [report]  # add_note needs Python 3.11
        raise error
    _write(result.weights, out)
    return report


def layout_of(weights: Values, source: Path) -> Layout:
    """The layout of a file.

    Raises:
        ConfigError: the layout is unknown.
    """
    for layout in LAYOUTS:
        if layout.fits(weights):
            return layout
    known = "; ".join(layout.name for layout in LAYOUTS)
    raise ConfigError(
        f"{source}: unknown layout of {len(weights)} weights ({next(iter(weights))}, …); known are {known}"
    )


def _choose_coco(cfg: DictConfig) -> None:
    """Select the variant of COCO that has the detector's annotations, if the tree does not name a dataset."""
    if "data" in cfg and cfg.data.name == "auto" and resolve_name(cfg.data) != CUSTOM:
        tasks = set(tasks_of(cfg.data))
        cfg.data.name = next(
            (name for name in COCO if tasks <= set(PUBLISHED[name].annotated_tasks)), COCO[0]
        )


def _check_out(source: Path, out: Path) -> None:
    """Raise ConfigError if ``out`` cannot be written."""
    if out.suffix not in SUFFIXES:
        raise ConfigError(f"{out}: the name of the new file ends in {' or '.join(SUFFIXES)}")
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise ConfigError(f"{out}: give a file in an existing folder")
    if out.exists() and source.exists() and out.samefile(source):
        raise ConfigError(f"{out} is the source: give another file")
    if not os.access(out.absolute().parent, os.W_OK):
        raise ConfigError(f"{out}: the folder is not writable")


def _write(weights: Values, out: Path) -> None:
    try:
        with atomic_write(out) as partial:
            if out.suffix == ".safetensors":
                write_safetensors(weights, partial, {})
            else:
                with disk_errors(out, RuntimeError):
                    torch.save({"model": weights}, partial)
    except OSError as error:
        raise ConfigError(one_line(error)) from error
