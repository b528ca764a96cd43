"""Annotations that are given as detections score 100, whatever a dataset is like."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
from helpers.evaluation import Coco, as_detections, evaluator_of, process

from d2timm.data.datasets import shapes
from d2timm.data.datasets.shapes_dataset import write_shapes
from d2timm.evaluation.annotations import Annotations
from d2timm.evaluation.matching import detection_limit, most_in_an_image

TASKS = ("bbox", "segm", "keypoints")
NAMES = ["left", "right", "top"]  # of keypoints
SIZE = (200, 260)  # (H, W)


def dataset(objects: int, side: float = 9, first: int = 1, step: int = 1, **more: Any) -> Coco:
    """Images with a grid of objects of the classes a and b; there are none of class c.

    Args:
        objects: in an image.
        side: of an object, in pixels.
        first: the first id of images, annotations and categories.
        step: from one id to the next.
        more: fields of all annotations.
    """
    images = [
        {"id": first + step * i, "file_name": f"{i}.png", "height": SIZE[0], "width": SIZE[1]}
        for i in range(1 if objects > 100 else 3)
    ]
    categories = [{"id": first + step * i, "name": name, "keypoints": NAMES} for i, name in enumerate("abc")]
    annotations: list[Coco] = []
    for image in images:
        for index in range(objects):
            annotation = {"id": first + step * len(annotations), "image_id": image["id"], "iscrowd": 0}
            annotation |= {"category_id": categories[index % 2]["id"]}
            row, column = divmod(index, 25)
            annotations.append({**annotation, **square(10.0 * column, 10.0 * row, side), **more})
    # classes are in the order of their ids
    return {"images": images, "annotations": annotations, "categories": categories}


def square(x: float, y: float, side: float) -> Coco:
    """The box, mask and keypoints of an object."""
    points = [(x + side / 3, y + side / 2, 2), (x + side / 2, y + side / 2, 1), (0, 0, 0)]
    return {
        "bbox": [x, y, side, side],
        "area": side * side,
        "segmentation": [[x, y, x + side, y, x + side, y + side, x, y + side]],
        "keypoints": [value for point in points for value in point],
    }


def changed(coco: Coco, every: int = 1, *, drop: tuple[str, ...] = (), **values: Any) -> Coco:
    """A dataset with changes to every n-th annotation."""
    for annotation in coco["annotations"][::every]:
        annotation.update(values)
        for key in drop:
            del annotation[key]
    return coco


def shrunk(coco: Coco, side: float, every: int) -> Coco:
    """A dataset in which every n-th object is smaller than a pixel."""
    for annotation in coco["annotations"][::every]:
        x, y = annotation["bbox"][:2]
        annotation.update(square(x + 0.1, y + 0.1, side))
    return coco


def evaluated(coco: Coco, folder: Path, tasks: tuple[str, ...] = TASKS, **more: Any) -> tuple[Any, list[str]]:
    """The metrics of a dataset's annotations as detections, and the notes of the evaluation."""
    sigmas = [1 / len(NAMES)] * len(NAMES)
    evaluator = evaluator_of(coco, folder, tasks, kpt_oks_sigmas=sigmas, **more)
    return process(evaluator, coco, as_detections(coco, tasks)), evaluator.notes


@pytest.mark.parametrize(
    ("coco", "limit"),
    [
        (dataset(5), 100),
        (dataset(100), 100),
        (dataset(300), 300),
        (changed(dataset(300), 7, iscrowd=1), 257),  # most detections in an image
        (changed(dataset(30), 7, iscrowd=1, drop=("area",)), 100),
        (changed(dataset(30), drop=("area", "iscrowd")), 100),
        (dataset(30, iscrowd=None, area=None), 100),
        (dataset(30, first=0), 100),
        (dataset(30, first=-60), 100),
        (dataset(30, first=-4, step=-1), 100),
        (dataset(30, first=2**40), 100),
        (dataset(120, side=1), 120),
        (shrunk(dataset(120), 0.3, 3), 120),
        (changed(dataset(300), 3, drop=("segmentation",)), 300),
        (changed(dataset(300), 3, drop=("keypoints",)), 300),
        (changed(dataset(300), 1000, drop=("keypoints", "segmentation")), 300),  # the first one
        (changed(dataset(30), 3, segmentation=[], keypoints=[]), 100),
        (dataset(25, side=35), 100),
        (dataset(30, num_keypoints=2), 100),
    ],
    ids=[
        *("few", "hundred", "many", "crowds", "crowds without area", "without area", "null", "from 0"),
        *("negative", "falling", "large ids", "pixels", "no pixels", "partial masks", "partial keypoints"),
        *("first without", "empty lists", "overlapping", "counted keypoints"),
    ],
)
def test_annotations_score_100(coco: Coco, limit: int, tmp_path: Path) -> None:
    metrics, _ = evaluated(coco, tmp_path)
    recalls = {"bbox": f"AR{limit}", "segm": f"AR{limit}", "keypoints": "AR"}
    for task, values in metrics.items():
        for key in ("AP", "AP50", "AP75", "AP-a", "AP-b", recalls[task]):
            assert values[key] == pytest.approx(100, abs=1e-9), (task, key)
        assert math.isnan(values["AP-c"]), task
        others = [value for key, value in values.items() if key not in ("AR1", "AR10")]
        assert all(math.isnan(value) or value == pytest.approx(100, abs=1e-9) for value in others), task


def test_other_fields_of_images_are_not_read(tmp_path: Path) -> None:
    coco = dataset(5)
    for image in coco["images"]:
        image |= {"file_name": 7, "license": -1, "original_id": 10**400}
    metrics, _ = evaluated(coco, tmp_path)
    assert [values["AP"] for values in metrics.values()] == pytest.approx([100] * 3, abs=1e-9)


def test_embedded_dataset_scores_100(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "COUNTS", {"val": 8})
    write_shapes(tmp_path)
    coco = json.loads((tmp_path / "annotations" / "instances_val.json").read_text())
    sigmas = [1 / len(shapes.KEYPOINTS)] * len(shapes.KEYPOINTS)
    evaluator = evaluator_of(coco, tmp_path, TASKS, kpt_oks_sigmas=sigmas)
    for task, values in process(evaluator, coco, as_detections(coco, TASKS)).items():
        for key in ("AP", "AP50", "AP75", "AR" if task == "keypoints" else "AR100"):
            assert values[key] == pytest.approx(100, abs=1e-9), (task, key)


def test_crowds_as_detections_are_ignored(tmp_path: Path) -> None:
    coco = changed(dataset(30), 7, iscrowd=1)
    everything = {**coco, "annotations": [{**a, "iscrowd": 0} for a in coco["annotations"]]}
    evaluator = evaluator_of(coco, tmp_path, ("bbox", "segm"))
    for values in process(evaluator, coco, as_detections(everything, ("bbox", "segm"))).values():
        assert values["AP"] == pytest.approx(100, abs=1e-9)


def test_detections_of_objects_without_masks_are_ignored(tmp_path: Path) -> None:
    coco = dataset(30)
    detections = as_detections(coco, ("bbox", "segm"))
    changed(coco, 2, drop=("segmentation",))
    metrics = process(evaluator_of(coco, tmp_path, ("bbox", "segm")), coco, detections)
    assert metrics["segm"]["AP"] == metrics["bbox"]["AP"] == pytest.approx(100, abs=1e-9)
    assert math.isnan(metrics["segm"]["AP-a"]), "no object of the class has a mask"
    assert metrics["bbox"]["AP-a"] == pytest.approx(100, abs=1e-9)


def test_all_objects_without_masks(tmp_path: Path) -> None:
    metrics, _ = evaluated(changed(dataset(5), drop=("segmentation",)), tmp_path, ("bbox", "segm"))
    assert metrics["bbox"]["AP"] == pytest.approx(100, abs=1e-9)
    assert all(math.isnan(value) for value in metrics["segm"].values())


def test_annotations_are_not_changed() -> None:
    coco = changed(dataset(5, first=-7), 2, drop=("segmentation", "keypoints"))
    before = copy.deepcopy(coco)
    annotations = Annotations(coco, {-7: 0, -6: 1, -5: 2})
    assert sum(a["iscrowd"] for a in annotations.prepared("segm")) == 8
    assert {len(a["keypoints"]) for a in annotations.prepared("keypoints", 3)} == {9}
    assert sum(a["iscrowd"] for a in annotations.prepared("bbox")) == 0
    assert coco == before


def test_images_and_categories_are_numbered() -> None:
    annotations = Annotations(dataset(5, first=-7), {-7: 0, -6: 1, -5: 2})
    assert annotations.images == annotations.categories == {-7: 1, -6: 2, -5: 3}
    numbers = {(a["image_id"], a["category_id"]) for a in annotations.prepared("bbox")}
    assert numbers == {(image, category) for image in (1, 2, 3) for category in (1, 2)}


def test_classes_of_the_same_name_are_kept_apart(tmp_path: Path) -> None:
    coco = dataset(5)
    coco["categories"][2]["name"] = "a"
    metrics, _ = evaluated(coco, tmp_path, ("bbox",))
    assert metrics["bbox"]["AP-a (1)"] == pytest.approx(100, abs=1e-9)
    assert math.isnan(metrics["bbox"]["AP-a (3)"])


@pytest.mark.parametrize(
    ("task", "detections", "objects", "limit"),
    [
        ("bbox", 0, 0, 100),
        ("segm", 100, 300, 100),
        ("bbox", 300, 3, 300),
        ("keypoints", 100, 20, 20),
        ("keypoints", 100, 21, 100),
        ("keypoints", 5, 21, 20),
        ("keypoints", 300, 3, 300),
    ],
)
def test_limit_is_that_of_coco_unless_it_limits(task: str, detections: int, objects: int, limit: int) -> None:
    assert detection_limit(task, detections, objects) == limit


def test_most_in_an_image() -> None:
    assert most_in_an_image([]) == 0
    assert most_in_an_image([1, 2, 1]) == 2
