"""Options of an optimizer, such as its learning rate, when a run continues with another config."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch

__all__ = ["apply_changed_options", "options_of"]

logger = logging.getLogger(__name__)


def options_of(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Return the options of each parameter group, such as its learning rate."""
    return [
        {key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups
    ]


def apply_changed_options(
    optimizer: torch.optim.Optimizer, old: list[dict[str, Any]] | None, new: list[dict[str, Any]]
) -> None:
    """Set the options of an optimizer, whose state was loaded, that another config has than its first one.

    Args:
        optimizer: the optimizer; its options may have changed during the training.
        old: its options at the start of the run, by group; None: unknown, all are set.
        new: the options that the config of this process gives, by group.
    """
    changes = {}
    for index, (group, options) in enumerate(zip(optimizer.param_groups, new, strict=True)):
        for key, value in options.items():
            if old is not None and old[index].get(key) == value:
                continue
            if old is not None:
                changes[key] = f"{key}={value} instead of {old[index].get(key)}"
            group[key] = value
            if key == "fused":
                _move_counters(optimizer, group, bool(value))
            if key == "lr":
                group["initial_lr"] = value  # from which schedules compute the rate
    if changes:
        logger.info("The optimizer continues with %s", ", ".join(changes.values()))


def _move_counters(optimizer: torch.optim.Optimizer, group: Mapping[str, Any], fused: bool) -> None:
    """Move the steps counted by Adam to where its kernels read them: fused ones, from the device."""
    for parameter in group["params"]:
        state = optimizer.state.get(parameter, {})
        if isinstance(state.get("step"), torch.Tensor):
            state["step"] = state["step"].to(parameter.device if fused else "cpu")
