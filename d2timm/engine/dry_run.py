"""``--dry-run``: summarize what a config builds, in seconds and without a GPU, weights or data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from omegaconf import DictConfig
from tabulate import tabulate

from ..backbone.description import count_parameters, levels, multiply_adds, table_of_levels
from ..data.catalog import resolve_name, splits_of
from ..data.mapper import largest_size
from ..data.paths import SPLITS
from ..errors import ConfigError
from ..utils.sizes import Size, round_up
from .left_out import NO_VALIDATION, describe_split
from .optim import learning_rate
from .recipes import describe_recipe
from .schedules import images_per_step

__all__ = ["length", "summarize", "trial_image"]


def summarize(cfg: DictConfig, model: Any, recipe: Mapping[str, Any] | None = None) -> str:
    """Summarize a detector, its data and its schedule as text.

    Args:
        cfg: the tree, its dataset resolved.
        model: the detector on ``meta``.
        recipe: what ``train.recipe`` applied.

    Returns:
        Tables of levels, parameters and multiply-adds at the evaluated image size; the data; the schedule.
    """
    spec = model.backbone.bottom_up.spec
    native = f"{spec.native_size[0]}x{spec.native_size[1]}"
    parts = ["\n  ".join(["recipe", *describe_recipe(recipe)])] if recipe else []
    return "\n\n".join(
        [
            f"{spec.model_name}, native size {native}, route: {spec.input_spec}",
            table_of_levels(levels(model.backbone.bottom_up)),
            _table_of_parts(model, largest_size(cfg.dataloader.test.mapper)),
            "\n  ".join(["data", *_data(cfg)]),
            *parts,
            "\n  ".join(["schedule", *_schedule(cfg)]),
        ]
    )


def length(train: DictConfig) -> str:
    """Return how long a run trains, in the unit that its config uses.

    Args:
        train: the node ``train``.
    """
    hours, epochs = train.get("budget_hours"), train.get("epochs")
    if hours is not None:
        return f"{hours} hours in steps"
    return f"{train.max_iter} iterations" if epochs is None else f"{epochs} epochs in steps"


def trial_image(size: Size, model: Any) -> torch.Tensor:
    """Return an image on ``meta``, (1, C, H, W), padded as the detector pads images.

    Args:
        size: (height, width) in pixels before the padding.
        model: the detector.
    """
    padded = [round_up(side, model.backbone.size_divisibility or 1) for side in size]
    return torch.empty(1, model.backbone.bottom_up.spec.channels, *padded, device="meta")


def _table_of_parts(model: Any, size: Size) -> str:
    """Parameters of each part of a detector, and multiply-adds of backbone and neck."""
    bottom_up, images = model.backbone.bottom_up, trial_image(size, model)
    flops = {"bottom-up": multiply_adds(bottom_up, images)}
    flops["neck"] = multiply_adds(model.backbone, images) - flops["bottom-up"]
    parts = {"bottom-up": count_parameters(bottom_up)}
    parts["neck"] = count_parameters(model.backbone) - parts["bottom-up"]
    for name, part in model.named_children():
        if name != "backbone":
            parts[name.replace("_", " ")] = count_parameters(part)
    rows = [[name, n / 1e6, flops[name] / 1e9 if name in flops else None] for name, n in parts.items()]
    rows.append(["all", sum(parts.values()) / 1e6, None])
    headers = ["part", "parameters (M)", f"GFLOPs at {size[0]}x{size[1]} (multiply-adds)"]
    return str(tabulate(rows, headers, floatfmt=("", ".2f", ".2f")))


def _data(cfg: DictConfig) -> list[str]:
    """Describe each split in a line; a split that is missing is reported, without an error."""
    data = cfg.data
    if resolve_name(data) == "shapes":
        return ["shapes: the embedded dataset, drawn at its first use"]
    lines = []
    for split in SPLITS:
        try:
            if split == "val" and "val" not in splits_of(data):
                lines.append(NO_VALIDATION)
            else:
                lines += describe_split(cfg, split)
        except ConfigError as error:
            lines.append(f"not usable: {error}")
    return lines


def _schedule(cfg: DictConfig) -> list[str]:
    train = cfg.train
    lines = [f"{length(train)} of {images_per_step(cfg)} images on {train.device}, into {train.output_dir}"]
    if "lr" in cfg.get("optimizer", {}):
        lines.append(f"learning rate {learning_rate(cfg)[1]}")
    return lines
