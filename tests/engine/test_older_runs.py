"""A run folder that version 0.1 saved, when its modules had other names, opens and continues.

``tests/fixtures/run_0_1`` is a run of ``mask_rcnn_timm.py`` on ``shapes``, made small, paused after 2 of 4
iterations.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

import d2timm
from d2timm.cli import main
from d2timm.data.datasets import shapes

FIXTURE = Path(__file__).parents[1] / "fixtures" / "run_0_1"


@pytest.fixture(scope="module", autouse=True)
def few_shapes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The embedded dataset with a handful of pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D2TIMM_CACHE", str(tmp_path_factory.mktemp("few")))
        patch.setattr(shapes, "COUNTS", {"train": 6, "val": 2})
        yield


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A copy of the run folder."""
    return Path(shutil.copytree(FIXTURE, tmp_path / "run"))


def test_fixture_has_the_former_names() -> None:
    text = (FIXTURE / "config.yaml").read_text()
    assert "_target_: d2timm.levels.level_names" in text
    assert "_target_: d2timm.data.tasks.tasks" in text


def test_is_loaded_as_a_predictor(run: Path) -> None:
    predictor = d2timm.load(run, device="cpu", score_threshold=0.0)
    assert predictor.tasks == ["bbox", "segm"]
    assert predictor.class_names == list(shapes.CLASSES)
    found = predictor(np.full((64, 96, 3), 127, np.uint8))
    assert found.image_size == (64, 96)
    assert len(found) > 0


def test_predicts(run: Path, tmp_path: Path) -> None:
    pictures = [shapes.draw_image("val", i)[0] for i in range(2)]
    import cv2

    (tmp_path / "images").mkdir()
    for i, pixels in enumerate(pictures):
        cv2.imwrite(str(tmp_path / "images" / f"{i}.png"), pixels)
    output = tmp_path / "detections"
    assert main(["predict", "--run", str(run), str(tmp_path / "images"), "--output", str(output)]) == 0
    results = json.loads((output / "predictions.json").read_text())
    assert [image["file_name"] for image in results["images"]] == ["0.png", "1.png"]


def test_is_evaluated(run: Path) -> None:
    arguments = ["--config-file", str(run / "config.yaml"), "--eval-only", f"train.output_dir={run}"]
    assert main(["train", *arguments]) == 0
    result = json.loads((run / "result.json").read_text())
    assert (result["status"], result["iterations"]) == ("done", 2)
    assert set(result["metrics"]) == {"bbox", "segm"}


def test_is_resumed(run: Path) -> None:
    arguments = ["--config-file", str(run / "config.yaml"), "--resume", f"train.output_dir={run}"]
    assert main(["train", *arguments, "train.pause_at=null"]) == 0
    result = json.loads((run / "result.json").read_text())
    assert (result["status"], result["iterations"], result["max_iter"]) == ("done", 4, 4)
    assert [iterations for iterations, _ in result["scores"]] == [2, 4]
    config = yaml.safe_load((run / "config.yaml").read_text())  # saved again, with the present names
    assert config["data"]["tasks"]["_target_"] == "d2timm.modeling.detector_tasks"
    assert config["optimizer"]["_target_"] == "d2timm.engine.create_optimizer"
