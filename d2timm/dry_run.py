"""``--dry-run``: what a config builds, told in seconds without a GPU, weights or data."""

from __future__ import annotations

from typing import Any

import torch
from omegaconf import DictConfig
from tabulate import tabulate

from .build import learning_rate
from .data.catalog import check_split, choose, tasks_of
from .describe import count, levels, multiply_adds, table_of_levels
from .errors import ConfigError
from .features import round_up
from .schedules import images_per_step

__all__ = ["length", "report", "trial_image"]


def report(cfg: DictConfig, model: Any) -> str:
    """Describe a detector.

    Args:
        cfg: the tree, settled.
        model: the detector on ``meta``.

    Returns:
        Tables of levels, parameters and FLOPs at the configured image size, and the data to be used.
    """
    bottom_up = model.backbone.bottom_up
    source = bottom_up.source
    images = trial_image(cfg, model)
    flops = {"bottom-up": multiply_adds(bottom_up, images)}
    flops["neck"] = multiply_adds(model.backbone, images) - flops["bottom-up"]
    parts = {"bottom-up": count(bottom_up), "neck": count(model.backbone) - count(bottom_up)}
    for name, part in model.named_children():
        if name != "backbone":
            parts[name.replace("_", " ")] = count(part)
    rows = [[name, n / 1e6, flops[name] / 1e9 if name in flops else None] for name, n in parts.items()]
    rows.append(["all", sum(parts.values()) / 1e6, None])
    size = "x".join(map(str, sides(cfg)))
    rate = [f"  learning rate {learning_rate(cfg)[1]}"] if "lr" in cfg.get("optimizer", {}) else []
    return "\n\n".join(
        [
            f"{source.model_name}, native size {source.native_size[0]}x{source.native_size[1]}; "
            f"images of any size by: {source.needs}",
            table_of_levels(levels(bottom_up)),
            tabulate(
                rows,
                ["part", "parameters (M)", f"GFLOPs at {size} (multiply-adds)"],
                floatfmt=("", ".2f", ".2f"),
            ),
            "data\n" + "\n".join(f"  {line}" for line in _data(cfg)),
            "\n".join(
                [
                    f"schedule\n  {length(cfg)} of {images_per_step(cfg)} images "
                    f"on {cfg.train.device}, into {cfg.train.output_dir}",
                    *rate,
                ]
            ),
        ]
    )


def length(cfg: DictConfig) -> str:
    """How long a run trains, as the config says it."""
    epochs = cfg.train.get("epochs")
    return f"{cfg.train.max_iter} iterations" if epochs is None else f"{epochs} epochs in steps"


def sides(cfg: DictConfig) -> tuple[int, int]:
    """Short and long side in pixels of the largest image that is evaluated."""
    resize = cfg.dataloader.test.mapper.augmentations[0]
    return resize.short_edge_length, resize.max_size


def trial_image(cfg: DictConfig, model: Any) -> torch.Tensor:
    """Such an image on ``meta``, padded as the detector pads it: (1, C, H, W)."""
    padded = [round_up(side, model.backbone.size_divisibility or 1) for side in sides(cfg)]
    return torch.empty(1, model.backbone.bottom_up.source.channels, *padded, device="meta")


def _data(cfg: DictConfig) -> list[str]:
    """A line a split; a set that is not there is told, not an error."""
    if choose(cfg.data) == "shapes":
        return ["shapes: the embedded set, drawn when it is first used"]
    lines = []
    for split in ("train", "val"):
        try:
            lines.append(check_split(cfg.data, split, tasks_of(cfg.data)))
        except ConfigError as error:
            lines.append(f"not usable: {error}")
    return lines
