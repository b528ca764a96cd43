"""What a run has produced, without what a clock decides, to compare runs bit by bit."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

#: Scalars that are measured with a clock
CLOCK = {"time", "data_time", "rank_data_time", "eta_seconds"}
#: Fields of result.json that follow from the config, the data and the seed alone
FIELDS = ("status", "iterations", "max_iter", "metrics", "metric", "best_score", "best_iterations", "labels")


def outcome(folder: Path, checkpoint: str = "model_final") -> dict[str, Any]:
    """Everything that two equal runs have in common, by a path such as ``checkpoint/model/neck.weight``.

    It is the whole checkpoint (weights, averaged weights, optimizer, position in the data), ``metrics.json``,
    the TensorBoard events and ``result.json``.
    """
    state = torch.load(folder / f"{checkpoint}.pth", weights_only=True)
    state["trainer"].pop("hooks", None)  # scalars, which metrics.json has as well
    record = json.loads((folder / "result.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    parts = {
        "checkpoint": state,
        "metrics.json": [{k: v for k, v in line.items() if k not in CLOCK} for line in lines],
        "tensorboard": events(folder),
        "result.json": {field: record[field] for field in FIELDS},
    }
    return dict(leaves(parts, ""))


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Scalar -> its (iteration, value) pairs, as TensorBoard shows them."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
        if tag not in CLOCK
    }


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The paths at which two outcomes differ in a single bit."""
    absent = object()
    paths = one.keys() | other.keys()
    return sorted(path for path in paths if one.get(path, absent) != other.get(path, absent))


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield (path, value) of all values in a tree; those of tensors are their bytes."""
    if isinstance(value, torch.Tensor):
        array = value.detach().cpu().contiguous().reshape(-1)
        yield path, (str(value.dtype), tuple(value.shape), array.view(torch.uint8).numpy().tobytes())
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from leaves(part, f"{path}/{key}" if path else str(key))
    elif isinstance(value, (list, tuple)):
        yield f"{path}/length", len(value)
        for index, part in enumerate(value):
            yield from leaves(part, f"{path}/{index}")
    elif isinstance(value, (float, np.floating)) and math.isnan(value):
        yield path, "nan"
    else:
        yield path, value
