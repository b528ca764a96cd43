"""``--dry-run``: what a config builds, in seconds and without a GPU, weights or data."""

from __future__ import annotations

from typing import Any

import torch
from omegaconf import DictConfig
from tabulate import tabulate

from ..backbone.description import count_parameters, levels, multiply_adds, table_of_levels
from ..data.catalog import check_split, resolve_name, tasks_of
from ..data.mapper import test_size
from ..errors import ConfigError
from ..utils.sizes import Size, round_up
from .optim import learning_rate
from .schedules import images_per_step

__all__ = ["length", "summarize", "trial_image"]


def summarize(cfg: DictConfig, model: Any) -> str:
    """Describe a detector.

    Args:
        cfg: the tree, settled.
        model: the detector on ``meta``.

    Returns:
        Tables of levels, parameters and FLOPs at the configured image size, and the data to be used.
    """
    bottom_up = model.backbone.bottom_up
    source = bottom_up.spec
    size = test_size(cfg.dataloader.test.mapper)
    images = trial_image(size, model)
    flops = {"bottom-up": multiply_adds(bottom_up, images)}
    flops["neck"] = multiply_adds(model.backbone, images) - flops["bottom-up"]
    parts = {"bottom-up": count_parameters(bottom_up), "neck": count_parameters(model.backbone) - count_parameters(bottom_up)}
    for name, part in model.named_children():
        if name != "backbone":
            parts[name.replace("_", " ")] = count_parameters(part)
    rows = [[name, n / 1e6, flops[name] / 1e9 if name in flops else None] for name, n in parts.items()]
    rows.append(["all", sum(parts.values()) / 1e6, None])
    rate = [f"  learning rate {learning_rate(cfg)[1]}"] if "lr" in cfg.get("optimizer", {}) else []
    return "\n\n".join(
        [
            f"{source.model_name}, native size {source.native_size[0]}x{source.native_size[1]}; "
            f"images of any size by: {source.input_spec}",
            table_of_levels(levels(bottom_up)),
            tabulate(
                rows,
                ["part", "parameters (M)", f"GFLOPs at {size[0]}x{size[1]} (multiply-adds)"],
                floatfmt=("", ".2f", ".2f"),
            ),
            "data\n" + "\n".join(f"  {line}" for line in _data(cfg)),
            "\n".join(
                [
                    f"schedule\n  {length(cfg.train)} of {images_per_step(cfg)} images "
                    f"on {cfg.train.device}, into {cfg.train.output_dir}",
                    *rate,
                ]
            ),
        ]
    )


def length(train: DictConfig) -> str:
    """How long a run trains, in the unit of its config.

    Args:
        train: the node ``train``.
    """
    epochs = train.get("epochs")
    return f"{train.max_iter} iterations" if epochs is None else f"{epochs} epochs in steps"


def trial_image(size: Size, model: Any) -> torch.Tensor:
    """An image of a size on ``meta``, padded as the detector pads it: (1, C, H, W)."""
    padded = [round_up(side, model.backbone.size_divisibility or 1) for side in size]
    return torch.empty(1, model.backbone.bottom_up.spec.channels, *padded, device="meta")


def _data(cfg: DictConfig) -> list[str]:
    """A line a split; a set that is not there is told, not an error."""
    if resolve_name(cfg.data) == "shapes":
        return ["shapes: the embedded set, drawn when it is first used"]
    lines = []
    for split in ("train", "val"):
        try:
            lines.append(check_split(cfg.data, split, tasks_of(cfg.data)))
        except ConfigError as error:
            lines.append(f"not usable: {error}")
    return lines
