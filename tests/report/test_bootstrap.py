"""AP of any choice of images, and how sure a difference is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from d2timm import ConfigError
from d2timm.evaluation import matches
from d2timm.report.bootstrap import Matches, compare, draw_scores, interval

IMAGES, CLASSES = 12, 3


def scene(seed: int, noise: float, model: int = 0, images: int = IMAGES) -> tuple[dict[str, Any], list[Any]]:
    """Annotations, and detections by a model that misses and moves some of them."""
    annotator, own = np.random.default_rng(seed), np.random.default_rng((seed, model))
    annotations, detections = [], []
    for image in range(1, images + 1):
        for _ in range(annotator.integers(0, 6)):
            x, y, w, h = annotator.uniform(5, 60, 4)
            category = int(annotator.integers(1, CLASSES))  # one class has no objects
            box = [x, y, w, h]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": category,
                    "bbox": box,
                    "area": w * h,
                    "iscrowd": int(annotator.random() < 0.1),
                }
            )
            for _ in range(own.integers(0, 3)):
                moved = (np.array(box) + own.normal(0, noise, 4)).clip(1)
                detections.append(
                    {
                        "image_id": image,
                        "category_id": category if own.random() > 0.1 else CLASSES,
                        "bbox": moved.tolist(),
                        "score": float(round(own.random(), 2)),  # with ties
                    }
                )
    content = {
        "images": [{"id": i, "width": 200, "height": 200} for i in range(1, images + 1)],
        "annotations": annotations,
        "categories": [{"id": i, "name": str(i)} for i in range(1, CLASSES + 1)],
    }
    return content, detections


def evaluate(content: dict[str, Any], detections: list[Any], images: list[int] | None = None) -> COCOeval:
    coco = COCO()
    coco.dataset = content
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes(detections), "bbox")
    if images is not None:
        evaluation.params.imgIds = images
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


def average_precision(evaluation: COCOeval) -> float:
    precision = evaluation.eval["precision"][..., 0, -1]
    return 100 * float(precision[precision > -1].mean())


def collect(*arguments: Any, **options: Any) -> Matches:
    collected = matches.collect(evaluate(*scene(*arguments, **options)))
    assert collected is not None
    return Matches(collected)


@pytest.mark.parametrize("seed", range(5))
def test_ap_is_that_of_pycocotools(seed: int) -> None:
    content, detections = scene(seed, noise=3)
    evaluation = evaluate(content, detections)
    collected = matches.collect(evaluation)
    assert collected is not None
    assert Matches(collected).average_precision() == pytest.approx(average_precision(evaluation), abs=1e-9)


def test_weights_choose_images() -> None:
    content, detections = scene(1, noise=3)
    chosen = [1, 4, 5, 9]
    weights = np.array([float(i in chosen) for i in range(1, IMAGES + 1)])
    collected = matches.collect(evaluate(content, detections))
    assert collected is not None
    expected = average_precision(evaluate(content, detections, chosen))
    assert Matches(collected).average_precision(weights) == pytest.approx(expected, abs=1e-9)


def test_weight_of_two_is_the_image_twice() -> None:
    content, detections = scene(2, noise=4)
    weights = np.ones(IMAGES)
    weights[3] = 2
    twice = content | {
        "images": [*content["images"], {"id": 99, "width": 200, "height": 200}],
        "annotations": content["annotations"]
        + [a | {"id": 1000 + a["id"], "image_id": 99} for a in content["annotations"] if a["image_id"] == 4],
    }
    more = detections + [d | {"image_id": 99} for d in detections if d["image_id"] == 4]
    collected = matches.collect(evaluate(content, detections))
    assert collected is not None
    # equal scores of two images may be sorted otherwise
    expected = average_precision(evaluate(twice, more))
    assert Matches(collected).average_precision(weights) == pytest.approx(expected, abs=1.0)


def test_file_holds_everything(tmp_path: Path) -> None:
    collected = matches.collect(evaluate(*scene(0, noise=2)))
    assert collected is not None
    file = tmp_path / "new" / matches.file_name("bbox")
    matches.write(collected, file)
    assert Matches.read(file).average_precision() == Matches(collected).average_precision()


def test_nothing_detected() -> None:
    content, _ = scene(0, noise=1)
    content["annotations"] = [a | {"iscrowd": 0} for a in content["annotations"]]
    far = [{"image_id": 1, "category_id": 1, "bbox": [190.0, 190, 2, 2], "score": 0.5}]
    collected = matches.collect(evaluate(content, far))
    assert collected is not None
    assert Matches(collected).average_precision() == 0
    assert np.isnan(Matches(collected).average_precision(np.zeros(IMAGES)))


def test_better_model_is_better() -> None:
    good, bad = collect(3, 1.0, images=60), collect(3, 12.0, model=1, images=60)
    scores = draw_scores([[good], [bad]], draws=200)
    result = compare(scores[:, 0], scores[:, 1], good.average_precision() - bad.average_precision())
    assert result.probability > 0.99
    assert 0 < result.low < result.difference < result.high
    assert not result.is_tie


def test_equal_models_tie() -> None:
    runs = [[collect(3, 5.0, model=2 * entry + seed, images=60) for seed in range(2)] for entry in range(2)]
    scores = draw_scores(runs, draws=200)
    means = [np.mean([run.average_precision() for run in entry]) for entry in runs]
    result = compare(scores[:, 0], scores[:, 1], float(means[0] - means[1]))
    assert result.is_tie
    assert 0.02 < result.probability < 0.98


def test_identical_runs_are_even() -> None:
    run = collect(3, 5.0)
    scores = draw_scores([[run], [run]], draws=50)
    assert compare(scores[:, 0], scores[:, 1], 0.0).probability == 0.5


def test_draws_are_repeatable_and_contain_the_score() -> None:
    run = collect(4, 3.0, images=60)
    one, two = (draw_scores([[run]], draws=100) for _ in range(2))
    assert np.array_equal(one, two)
    low, high = interval(one[:, 0])
    assert low < run.average_precision() < high


def test_other_images_are_an_error() -> None:
    with pytest.raises(ConfigError):
        draw_scores([[collect(0, 1.0)], [collect(0, 1.0, images=5)]])


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04cut", b"no file of numpy"])
def test_damaged_file(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "matches-bbox.npz"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="matches-bbox"):
        Matches.read(file)
