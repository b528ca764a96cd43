"""Every compatible combination of detector, neck and ROI heads is trained, evaluated and drawn."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.choices import COMBINATIONS, compose, fits
from omegaconf import DictConfig
from torch import nn

from d2timm.config.build import resolve_dataset
from d2timm.data.catalog import tasks_of
from d2timm.data.datasets import shapes
from d2timm.data.tasks import main_metric
from d2timm.engine import validation
from d2timm.engine.preflight import check
from d2timm.engine.process import run
from d2timm.runs.samples import FILE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def few_shapes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The embedded dataset with a handful of pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D2TIMM_CACHE", str(tmp_path_factory.mktemp("few")))
        patch.setattr(shapes, "COUNTS", {"train": 6, "val": 2})
        yield


@pytest.mark.sampled("detectors", every=5)
@pytest.mark.parametrize("choices", [c for c in COMBINATIONS if fits(*c)], ids="-".join)
def test_trains_and_evaluates(
    choices: tuple[str, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = compose(
        *choices,
        "train.max_iter=3",
        "train.amp.enabled=False",
        f"train.output_dir={tmp_path}/run",
    )
    resolve_dataset(cfg)
    check(cfg, ["train", "val"])
    models: list[nn.Module] = []
    draw = validation.draw_predictions

    def draw_and_keep_model(dataloader: DictConfig, model: nn.Module, file: Path, samples: Path) -> None:
        models.append(model)
        draw(dataloader, model, file, samples=samples)

    monkeypatch.setattr(validation, "draw_predictions", draw_and_keep_model)
    run(cfg)
    idle = [name for name, p in models[0].named_parameters() if p.requires_grad and p.grad is None]
    assert not idle, f"{idle} have no gradient"
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["status"], result["iterations"]) == ("done", 3)
    tasks = tasks_of(cfg.data)
    assert set(result["metrics"]) == set(tasks)
    task, metric = main_metric(tasks).split("/")
    assert math.isfinite(result["metrics"][task][metric])
    assert (tmp_path / "run" / "predictions.png").is_file()
    assert (tmp_path / "run" / FILE).is_file() == ("bbox" in tasks)
