"""Write run folders as finished, failed and killed runs leave them, and read those of real runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from d2timm.runs.record import Record


def put(folder: Path, score: float | None = None, **fields: Any) -> Path:
    """Write the folder of a finished run; ``fields`` replace fields of its record."""
    folder.mkdir(parents=True, exist_ok=True)
    record = Record(**{"status": "done", "iterations": 100, "max_iter": 100, **fields})
    if score is not None:
        record.set_metrics({"bbox": {"AP": score, "AP50": 1.5 * score, "APs": None}})
    record.write(folder)
    return folder


def read_record(folder: Path) -> Record:
    record = Record.read(folder)
    assert record is not None
    return record


def metrics_lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.json."""
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def series(folder: Path, key: str) -> dict[int, float]:
    """Iteration -> value in metrics.json; the later value of iterations that were trained twice."""
    return {line["iteration"]: line[key] for line in metrics_lines(folder) if key in line}


def optimizer_steps(checkpoint: Path) -> set[int]:
    """The numbers of optimizer steps of all parameters."""
    state = torch.load(checkpoint, weights_only=True)["trainer"]["optimizer"]["state"]
    return {int(parameter["step"]) for parameter in state.values()}
