"""hotcoco, as it is used here, equals pycocotools bit for bit, and faster-coco-eval by the rules of LVIS."""

from __future__ import annotations

import contextlib
import io
import json
import math
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes, Instances
from faster_coco_eval import COCO, COCOeval_faster
from helpers.evaluation import Coco, indexed, run_lengths
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.cocoeval import COCOeval

from d2timm.evaluation import matching
from d2timm.evaluation.annotations import Annotations
from d2timm.evaluation.coco import LVIS, LVIS_DETECTIONS, LvisEvaluator
from d2timm.evaluation.detections import ImageDetections

SIZE = (90, 120)  # (H, W)
CLASSES = {2: 0, 5: 1, 9: 2, 11: 3}  # the last one has no object
KEYPOINTS = 17


def box(rng: np.random.Generator) -> list[float]:
    """x, y, width and height, of all sizes."""
    sides = 2 ** rng.uniform(1, 6.4, 2)
    x, y = rng.uniform(0, 1, 2) * (SIZE[1] - sides[0], SIZE[0] - sides[1])
    return [float(x), float(y), float(sides[0]), float(sides[1])]


def polygon(rng: np.random.Generator, x: float, y: float, w: float, h: float) -> list[float]:
    """An outline of 3 to 8 points, around the centre of the box so that it has pixels."""
    corners = int(rng.integers(3, 9))
    angles = (np.arange(corners) + rng.uniform(0, 0.4, corners)) * 2 * np.pi / corners
    points = np.stack([x + w / 2 * (1 + np.cos(angles)), y + h / 2 * (1 + np.sin(angles))], 1)
    return [float(value) for value in points.ravel()]


def rasterized(outline: list[float]) -> NDArray[np.uint8]:
    mask: NDArray[np.uint8] = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([outline], *SIZE)))
    return mask


def dataset(rng: np.random.Generator, images: int, objects: int) -> Coco:
    """Objects with polygons, run lengths and keypoints, a tenth of them crowds; images without objects."""
    annotations: list[Coco] = []
    for image in range(1, images + 1):
        for _ in range(int(rng.integers(0, objects)) if image % 4 else 0):
            x, y, w, h = box(rng)
            outline, crowd = polygon(rng, x, y, w, h), int(rng.random() < 0.1)
            points = rng.uniform((x, y, 0), (x + w, y + h, 3), (KEYPOINTS, 3)).round(1)
            points[:, 2] = points[:, 2].astype(int)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(rng.choice([2, 5, 9])),
                    "bbox": [x, y, w, h],
                    "area": float(w * h * rng.uniform(0.4, 1)),
                    "iscrowd": crowd,
                    "segmentation": run_lengths(rasterized(outline)) if crowd else [outline],
                    "keypoints": points.ravel().tolist(),
                    "num_keypoints": int((points[:, 2] > 0).sum()),
                }
            )
    return {
        "images": [{"id": i + 1, "height": SIZE[0], "width": SIZE[1]} for i in range(images)],
        "categories": [{"id": i, "name": f"{i}"} for i in CLASSES],
        "annotations": annotations,
    }


def detections(coco: Coco, rng: np.random.Generator, count: int) -> list[ImageDetections]:
    """Detections near objects and elsewhere, many with equal scores; the second image has none."""
    found = []
    for image in coco["images"]:
        objects = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
        boxes, classes, masks, points = [], [], [], []
        for _ in range(int(rng.integers(1, count)) if image["id"] != 2 else 0):
            if objects and rng.random() < 0.7:
                like = objects[rng.integers(len(objects))]
                boxes.append((np.array(like["bbox"]) + rng.normal(0, 1, 4)).clip(0.5))
                classes.append(CLASSES[like["category_id"]] if rng.random() < 0.9 else 3)
                points.append(np.array(like["keypoints"]).reshape(-1, 3) + rng.normal(0, 2, (KEYPOINTS, 3)))
            else:
                boxes.append(np.array(box(rng)))
                classes.append(int(rng.integers(4)))
                points.append(rng.uniform(0, 90, (KEYPOINTS, 3)))
            masks.append(run_lengths(rasterized(polygon(rng, *boxes[-1])))["counts"].encode())
        scores = (rng.integers(1, 12, len(boxes)) / 12).astype(np.float32)
        corners = np.array(boxes, np.float32).reshape(-1, 4)
        keypoints = np.array(points, np.float32).reshape(-1, KEYPOINTS, 3)
        found.append(
            ImageDetections(image["id"], SIZE, corners, scores, np.array(classes, int), masks, keypoints)
        )
    return found


def by_pycocotools(coco: Coco, found: list[ImageDetections], task: str, images: list[int], limit: int) -> Any:
    results = [r for image in found for r in image.results(image.image_id, [*CLASSES])]
    for result in results:
        if task == "segm":
            del result["bbox"]  # otherwise areas would be those of the boxes
    with contextlib.redirect_stdout(io.StringIO()):
        index = indexed(coco)
        evaluation = COCOeval(index, index.loadRes(results), task)
        evaluation.params.imgIds = images
        evaluation.params.maxDets = [limit] if task == "keypoints" else [1, 10, limit]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


@pytest.mark.parametrize("task", ["bbox", "segm", "keypoints"])
@pytest.mark.parametrize(
    ("seed", "images", "count", "limit"), [(0, 30, 20, 100), (1, 8, 160, 100), (2, 8, 160, 300)]
)
def test_precision_and_recall_equal_those_of_pycocotools(
    task: str, seed: int, images: int, count: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(seed)
    coco = dataset(rng, images, 12)
    found = detections(coco, rng, count)
    chosen = [image["id"] for image in coco["images"] if image["id"] != 5]
    limit = 20 if task == "keypoints" and limit == 100 else limit
    expected = by_pycocotools(coco, found, task, chosen, limit)
    annotations = Annotations(coco, CLASSES)
    evaluation = matching.match(
        annotations, annotations.prepared(task, KEYPOINTS), found, task, chosen, limit
    )
    monkeypatch.setattr(matching, "has_threads", lambda: False)
    forked = matching.match(annotations, annotations.prepared(task, KEYPOINTS), found, task, chosen, limit)
    for name in ("precision", "recall", "scores"):
        assert np.array_equal(evaluation.eval[name], expected.eval[name]), name
        assert np.array_equal(evaluation.eval[name], forked.eval[name]), name
    assert [*evaluation.params.area_rng_lbl] == expected.params.areaRngLbl
    average = expected.eval["precision"][..., 0, -1]
    assert 0 < average[average > -1].mean() < 1


def test_forked_process_evaluates_like_its_parent(tmp_path: Path) -> None:
    coco = dataset(rng := np.random.default_rng(0), 6, 6)
    coco["annotations"][0]["segmentation"] = [[1, 1, 1.1, 1, 1.1, 1.1, 1, 1.1]]  # without a pixel
    coco["annotations"][0] |= {"bbox": [1, 1, 0.1, 0.1], "area": 0.01}
    found = detections(coco, rng, 12)

    def evaluated() -> Any:
        annotations = Annotations(coco, CLASSES)
        objects, ids = annotations.prepared("segm"), [*annotations.images]
        return matching.averages(matching.match(annotations, objects, found, "segm", ids, 100))

    expected, context = evaluated(), multiprocessing.get_context("fork")
    results = context.Queue()
    process = context.Process(target=lambda: results.put(evaluated()))
    process.start()
    np.testing.assert_equal(results.get(timeout=60), expected)
    process.join(60)


def lvis(rng: np.random.Generator) -> Coco:
    """Images that are annotated for some of the classes."""
    coco = dataset(rng, 24, 12)
    for category, frequency in zip(coco["categories"], "rcff", strict=True):
        category |= {"frequency": frequency, "image_count": 1, "synonyms": [category["name"]]}
    for annotation in coco["annotations"]:
        del annotation["iscrowd"]
        if not isinstance(annotation["segmentation"], list):
            annotation["segmentation"] = [polygon(rng, *annotation["bbox"])]
    for image in coco["images"]:
        present = {a["category_id"] for a in coco["annotations"] if a["image_id"] == image["id"]}
        absent = [i for i in CLASSES if i not in present]
        # faster-coco-eval fails if it ignores all detections of an image without objects
        image["neg_category_ids"] = [i for i in absent if not present or rng.random() < 0.6]
        image["not_exhaustive_category_ids"] = [i for i in sorted(present) if rng.random() < 0.3]
    return coco


def lvis_by_faster_coco_eval(file: Path, found: list[ImageDetections], task: str) -> dict[str, float]:
    """The metrics of LVIS's 300 best detections of each image."""
    ranked = []
    for image in found:
        results = image.results(image.image_id, [*CLASSES])
        ranked += sorted(results, key=lambda r: -r["score"])[:LVIS_DETECTIONS]
    if task == "segm":
        ranked = [{key: value for key, value in r.items() if key != "bbox"} for r in ranked]
    ranked = [{key: value for key, value in r.items() if key != "keypoints"} for r in ranked]
    with contextlib.redirect_stdout(io.StringIO()):
        index = COCO(str(file))
        evaluation = COCOeval_faster(index, index.loadRes(ranked), task, lvis_style=True)
        evaluation.params.maxDets = [LVIS_DETECTIONS]
        evaluation.params.imgIds = [image.image_id for image in found]
        evaluation.run()
    stats = evaluation.stats_as_dict
    long = ("AP_all", "AP_50", "AP_75", "AP_small", "AP_medium", "AP_large", "AR_all", "APr", "APc", "APf")
    values = (float(stats[name]) for name in long)
    return {name: 100 * v if v >= 0 else math.nan for name, v in zip(LVIS.values(), values, strict=True)}


@pytest.mark.parametrize("task", ["bbox", "segm"])
@pytest.mark.parametrize(("seed", "count"), [(0, 20), (1, 500)])
def test_lvis_equals_faster_coco_eval(task: str, seed: int, count: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    file = tmp_path / "lvis.json"
    file.write_text(json.dumps(coco := lvis(rng)))
    found = detections(coco, rng, count)
    MetadataCatalog.get(str(file)).set(
        json_file=str(file),
        thing_classes=[*map(str, CLASSES)],
        thing_dataset_id_to_contiguous_id=CLASSES,
    )
    evaluator = LvisEvaluator(str(file), [task])
    evaluator.reset()
    for image in found:
        evaluator.process([{"image_id": image.image_id}], [{"instances": as_instances(image)}])
    metrics = evaluator.evaluate()[task]
    expected = lvis_by_faster_coco_eval(file, found, task)
    assert 0 < expected["AP"] < 100
    assert metrics == pytest.approx(expected, abs=1e-9, nan_ok=True)


def as_instances(image: ImageDetections) -> Instances:
    corners = torch.from_numpy(image.boxes.astype(float))
    corners[:, 2:] += corners[:, :2]
    masks = [coco_mask.decode({"size": SIZE, "counts": counts}) for counts in image.masks or ()]
    return Instances(
        SIZE,
        pred_boxes=Boxes(corners),
        scores=torch.from_numpy(image.scores),
        pred_classes=torch.from_numpy(image.classes),
        pred_masks=torch.from_numpy(np.array(masks).reshape(-1, *SIZE)).bool(),
    )
