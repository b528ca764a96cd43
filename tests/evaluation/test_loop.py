"""Our loop gives what detectron2's gives, and ends what it has started."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, inference_on_dataset
from torch import nn

from d2timm.config.build import build_model, instantiate
from d2timm.evaluation import CocoEvaluator, loop
from d2timm.evaluation.loop import detect_and_evaluate
from d2timm.evaluation.speed import WARM_UP
from d2timm.utils.signals import Interrupted, StopSignals


class Recorder(DatasetEvaluator):
    """Keeps the images and the outputs."""

    def __init__(self, name: str = "recorded") -> None:
        self.name = name

    def reset(self) -> None:
        self.seen: list[Any] = []

    def process(self, inputs: Any, outputs: Any) -> None:
        self.seen.append((inputs, outputs))

    def evaluate(self) -> Any:
        return {self.name: {"count": len(self.seen)}}


class Model(nn.Module):
    """Returns what it gets, and the mode it is in."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images: list[int]) -> list[Any]:
        return [(image, self.training, torch.is_grad_enabled()) for image in images]


def encoders() -> int:
    return sum(thread.name.startswith("masks") for thread in threading.enumerate())


def test_metrics_equal_those_of_detectron2(tiny: Callable[..., Any], tmp_path: Path) -> None:
    cfg = tiny("mask_rcnn_timm.py", tmp_path)
    cfg.model.roi_heads.box_predictor.test_score_thresh = 0.0
    torch.manual_seed(0)
    model = build_model(cfg, weights=False)
    loader, (evaluator,) = instantiate(cfg.dataloader.test), instantiate(cfg.dataloader.evaluator)
    assert type(evaluator) is CocoEvaluator
    metrics, speed = detect_and_evaluate(model, loader, [evaluator])
    pasted = inference_on_dataset(model, loader, [evaluator])
    assert speed is not None
    assert model.training
    reference = COCOEvaluator(cfg_name(evaluator), ["bbox", "segm"], output_dir=str(tmp_path / "detectron2"))
    expected = inference_on_dataset(model, loader, [reference])
    for task, values in expected.items():
        np.testing.assert_equal(metrics[task], pasted[task])
        np.testing.assert_equal({key: metrics[task][key] for key in values}, dict(values))
    files = [
        folder / "coco_instances_results.json" for folder in (tmp_path / "inference", tmp_path / "detectron2")
    ]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert len(files[0].read_bytes()) > 1000
    written = {file.name for file in (tmp_path / "inference").iterdir()}
    assert written == {"coco_instances_results.json", "matches-bbox.npz", "matches-segm.npz"}


def cfg_name(evaluator: CocoEvaluator) -> str:
    """The name of the evaluated dataset."""
    name: str = evaluator._metadata.name
    assert name in DatasetCatalog.list()
    return name


@pytest.mark.parametrize("training", [False, True])
def test_each_image_is_evaluated_without_gradients(training: bool) -> None:
    model, recorder = Model().train(training), Recorder()
    loader = [[1, 2], [3], [4, 5, 6]]
    metrics, speed = detect_and_evaluate(model, loader, recorder)
    assert metrics == {"recorded": {"count": 3}}
    assert [images for images, _ in recorder.seen] == loader
    assert {output[1:] for _, outputs in recorder.seen for output in outputs} == {(False, False)}
    assert speed is not None
    assert speed > 0
    assert model.training == training


def test_several_evaluators_and_none() -> None:
    metrics, _ = detect_and_evaluate(Model(), [[1]], [Recorder("a"), Recorder("b")])
    assert metrics == {"a": {"count": 1}, "b": {"count": 1}}
    assert detect_and_evaluate(Model(), [[1]], None)[0] == {}


def test_no_images() -> None:
    assert detect_and_evaluate(Model(), [], [Recorder()]) == ({"recorded": {"count": 0}}, None)


def test_progress_is_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(loop, "log_every_n_seconds", lambda level, text, **more: lines.append(text))
    with caplog.at_level(logging.INFO, "d2timm.evaluation.loop"):
        detect_and_evaluate(Model(), [[1]] * (2 * WARM_UP + 3), [Recorder()])
    assert [line.split(". ")[0] for line in lines] == [f"Inference done {i}/13" for i in (11, 12, 13)]
    assert "ETA=0:00:00" in lines[-1]
    assert len(caplog.messages) == 2


@pytest.mark.parametrize("moment", ["first image", "later image", "evaluation"])
@pytest.mark.parametrize("by_signal", [False, True])
def test_thread_ends_with_an_error(
    moment: str, by_signal: bool, tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = tiny("mask_rcnn_timm.py", tmp_path)
    cfg.model.roi_heads.box_predictor.test_score_thresh = 0.0
    model = build_model(cfg, weights=False)
    loader, evaluators = instantiate(cfg.dataloader.test), instantiate(cfg.dataloader.evaluator)
    running: list[int] = []

    def fail() -> None:
        running.append(encoders())
        if by_signal:
            os.kill(os.getpid(), signal.SIGTERM)
        raise ValueError("broken")

    def images() -> Iterator[Any]:
        for index, batch in enumerate(loader):
            if index == {"first image": 0, "later image": 2}.get(moment):
                fail()
            yield batch

    class Loader:
        __len__ = loader.__len__
        __iter__ = staticmethod(images)

    if moment == "evaluation":
        monkeypatch.setattr(evaluators[0], "evaluate", fail)
    with pytest.raises(Interrupted if by_signal else ValueError), StopSignals().handled():
        detect_and_evaluate(model, Loader(), evaluators)
    assert running == [0 if moment == "first image" else 1]
    assert encoders() == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_notes_the_times() -> None:
    class Multiply(Model):
        def forward(self, images: list[int]) -> list[Any]:
            x = torch.ones(4096, 4096, device=self.weight.device)
            for _ in range(20):
                x = x @ x * 1e-4
            return [x for _ in images]

    loader = [[1]] * 12
    _, speed = detect_and_evaluate(Multiply().cuda(), loader, None)
    assert speed is not None
    assert 1 < speed < 10000
