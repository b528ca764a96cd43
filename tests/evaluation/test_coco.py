"""The metrics of boxes, masks and keypoints equal those of pycocotools; semantic segmentation by hand."""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from helpers import published
from helpers.evaluation import as_detections, evaluator_of, indexed, process, run_lengths
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from d2timm.config.build import instantiate
from d2timm.data.datasets.lvis import LvisDataset
from d2timm.evaluation.coco import (
    OBJECTS,
    CocoEvaluator,
    SemanticEvaluator,
    keypoint_sigmas,
    metric_names,
)

Coco = dict[str, Any]

SIDE = 400
FEW, MANY = 3, 130  # detections of an image, of which COCO evaluates 100


@pytest.fixture(scope="module")
def annotations(small_coco: Any) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(small_coco.val_json)


@pytest.fixture
def evaluator(tiny: Callable[..., Any], tmp_path: Path) -> CocoEvaluator:
    """The evaluator of the Mask R-CNN recipe."""
    return first_evaluator(tiny("mask_rcnn_timm.py", tmp_path))


def first_evaluator(cfg: Any) -> CocoEvaluator:
    instantiate(cfg.dataloader.test.dataset)  # as in a run, which loads it first
    evaluator: CocoEvaluator
    (evaluator,) = instantiate(cfg.dataloader.evaluator)
    evaluator.reset()
    return evaluator


def class_index(coco: COCO, category_id: int) -> int:
    return sorted(coco.getCatIds()).index(category_id)


def perfect(coco: COCO, image: dict[str, Any]) -> Instances:
    """The annotations of an image as detections."""
    annotations = coco.imgToAnns[image["id"]]
    corners = [[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in annotations)]
    return Instances(
        (image["height"], image["width"]),
        pred_boxes=Boxes(torch.tensor(corners, dtype=torch.float64)),
        pred_masks=torch.tensor(np.stack([coco.annToMask(a) for a in annotations])).bool(),
        pred_classes=torch.tensor([class_index(coco, a["category_id"]) for a in annotations]),
        scores=torch.linspace(0.9, 0.6, len(annotations)),
    )


def disturbed(coco: COCO, image: dict[str, Any], rng: np.random.Generator) -> Instances:
    """Detections of all qualities: shifted, duplicated, and of wrong classes."""
    detections = perfect(coco, image)
    repeats = torch.tensor(rng.integers(0, len(detections), 3 * len(detections)))
    detections = detections[repeats]
    n = len(detections)
    detections.pred_boxes = Boxes(detections.pred_boxes.tensor + torch.tensor(rng.normal(0, 4, (n, 4))))
    shifts = rng.integers(-5, 6, (n, 2)).tolist()
    shifted = [torch.roll(m, s, (0, 1)) for m, s in zip(detections.pred_masks, shifts, strict=True)]
    detections.pred_masks = torch.stack(shifted)
    wrong = torch.tensor(rng.random(n) < 0.2)
    detections.pred_classes[wrong] = (detections.pred_classes[wrong] + 1) % 4
    detections.scores = torch.tensor(rng.random(n))
    return detections


def evaluate(
    evaluator: CocoEvaluator, coco: COCO, detect: Callable[[dict[str, Any]], Instances]
) -> dict[str, dict[str, float]]:
    for image in coco.dataset["images"]:
        inputs = {"image_id": image["id"], "height": image["height"], "width": image["width"]}
        evaluator.process([inputs], [{"instances": detect(image)}])
    return dict(evaluator.evaluate())


def reference(
    coco: COCO, results: list[dict[str, Any]], task: str, sigmas: Sequence[float] = (), limit: int = 100
) -> dict[str, float]:
    """The metrics of COCO's summary and the AP of each class, by pycocotools.

    Args:
        coco: the annotations.
        results: the detections.
        task: ``bbox``, ``segm`` or ``keypoints``.
        sigmas: of keypoints.
        limit: number of detections of an image that count, if there are no keypoints.
    """
    # with boxes, areas of masks would be computed from them; copied because loadRes changes them
    unused = {"bbox"} if task == "segm" else set()
    results = [{k: v for k, v in r.items() if k not in unused} for r in results]
    with contextlib.redirect_stdout(io.StringIO()):
        coco_eval = COCOeval(coco, coco.loadRes(results), task)
        if sigmas:
            coco_eval.params.kpt_oks_sigmas = np.array(sigmas)
        if task != "keypoints":
            coco_eval.params.maxDets = [1, 10, limit]
        coco_eval.evaluate()
        coco_eval.accumulate()
        if limit != 100:  # with which its summary knows no other limit
            coco_eval.params.maxDets = [1, 10, 100]
        coco_eval.summarize()
    names = metric_names(task, limit)
    metrics = {k: v * 100 if v >= 0 else math.nan for k, v in zip(names, coco_eval.stats, strict=True)}
    if len(coco_eval.params.catIds) == 1:
        return metrics
    for k, category in enumerate(coco_eval.params.catIds):
        precision = coco_eval.eval["precision"][:, :, k, 0, -1]  # all areas, most detections
        valid = precision[precision > -1]
        metrics[f"AP-{coco.cats[category]['name']}"] = valid.mean() * 100 if valid.size else math.nan
    return metrics


@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_those_of_pycocotools(evaluator: CocoEvaluator, annotations: COCO, seed: int) -> None:
    rng = np.random.default_rng(seed)
    detections = {image["id"]: disturbed(annotations, image, rng) for image in annotations.dataset["images"]}
    metrics = evaluate(evaluator, annotations, lambda image: detections[image["id"]])

    categories = sorted(annotations.getCatIds())
    results = []
    for image_id, instances in detections.items():
        for box, mask, label, score in zip(
            instances.pred_boxes.tensor.tolist(),
            instances.pred_masks,
            instances.pred_classes.tolist(),
            instances.scores.tolist(),
            strict=True,
        ):
            rle = coco_mask.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
            results.append(
                {
                    "image_id": image_id,
                    "category_id": categories[label],
                    "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                    "segmentation": rle,
                    "score": score,
                }
            )
    assert set(metrics) == {"bbox", "segm"}
    for task, of_task in metrics.items():
        expected = reference(annotations, results, task)
        assert 0 < expected["AP"] < 100, "some detections are right and some are wrong"
        assert_same(of_task, expected)


def test_perfect_detections_score_100(evaluator: CocoEvaluator, annotations: COCO) -> None:
    metrics = evaluate(evaluator, annotations, lambda image: perfect(annotations, image))
    present = {annotations.cats[a["category_id"]]["name"] for a in annotations.dataset["annotations"]}
    for task in ("bbox", "segm"):
        for key in ("AP", "AP50", "AP75", "APs", "AR100", *(f"AP-{name}" for name in present)):
            assert metrics[task][key] == pytest.approx(100, abs=1e-6), f"{task} {key}"


def test_no_detections_score_0_in_every_task(evaluator: CocoEvaluator, annotations: COCO) -> None:
    metrics = evaluate(evaluator, annotations, lambda image: perfect(annotations, image)[:0])
    present = {annotations.cats[a["category_id"]]["name"] for a in annotations.dataset["annotations"]}
    expected = {*OBJECTS} | {f"AP-{category['name']}" for category in annotations.cats.values()}
    lacking = {"APl", "ARl"} | (expected - {*OBJECTS} - {f"AP-{name}" for name in present})
    assert set(metrics) == {"bbox", "segm"}
    for of_task in metrics.values():
        assert set(of_task) == expected
        assert {key for key, value in of_task.items() if math.isnan(value)} == lacking
        assert {value for key, value in of_task.items() if key not in lacking} == {0}


def test_detections_are_written_in_coco_format(
    evaluator: CocoEvaluator, annotations: COCO, tmp_path: Path
) -> None:
    evaluate(evaluator, annotations, lambda image: perfect(annotations, image))
    written = json.loads((tmp_path / "inference" / "coco_instances_results.json").read_text())
    assert len(written) == len(annotations.anns)
    assert {d["category_id"] for d in written} == {a["category_id"] for a in annotations.anns.values()}


@pytest.mark.parametrize(
    ("recipe", "tasks"),
    [("faster_rcnn_timm.py", {"bbox"}), ("mask_rcnn_timm.py", {"bbox", "segm"})],
)
def test_tasks_of_the_detector_are_evaluated(
    recipe: str, tasks: set[str], tiny: Callable[..., Any], annotations: COCO, tmp_path: Path
) -> None:
    evaluator = first_evaluator(tiny(recipe, tmp_path))
    assert set(evaluate(evaluator, annotations, lambda image: perfect(annotations, image))) == tasks


# A dataset with objects of all kinds


def ellipse(box: Sequence[int]) -> NDArray[np.uint8]:
    """The mask of an ellipse in a box."""
    x, y, w, h = box
    rows, columns = np.ogrid[:SIDE, :SIDE]
    inside = ((columns + 0.5 - x - w / 2) / (w / 2)) ** 2 + ((rows + 0.5 - y - h / 2) / (h / 2)) ** 2 <= 1
    return np.asarray(inside, np.uint8)


def random_box(rng: np.random.Generator, sides: tuple[int, int]) -> list[int]:
    """A random box with integer coordinates."""
    w, h = rng.integers(*sides, 2).tolist()
    return [*rng.integers(0, (SIDE - w, SIDE - h)).tolist(), w, h]


def objects_of_all_sizes(rng: np.random.Generator) -> Coco:
    """Small, medium and large objects and crowds of three classes; the fourth has none."""
    annotations: list[Coco] = []
    for image_id in (5, 2, 9, 4):
        for sides in [(8, 30), (8, 30), (34, 90), (34, 90), (100, 250)]:
            for crowd in (0, rng.random() < 0.2):
                mask = ellipse(box := random_box(rng, sides))
                annotations.append(
                    {
                        "id": len(annotations),  # from 0, with which pycocotools gives wrong metrics
                        "image_id": image_id,
                        "category_id": int(rng.choice([3, 11, 20])),
                        "bbox": box,
                        "area": int(mask.sum()),
                        "segmentation": run_lengths(mask),
                        "iscrowd": int(crowd),
                    }
                )
    images = [{"id": i, "file_name": f"{i}.png", "height": SIDE, "width": SIDE} for i in (5, 2, 9, 4, 7)]
    categories = [{"id": i, "name": f"class {i}"} for i in (3, 11, 20, 21)]
    return {"images": images, "annotations": annotations, "categories": categories}


def detections_of_all_kinds(rng: np.random.Generator, coco: Coco, count: int) -> list[Coco]:
    """Detections near annotations and elsewhere, many of them with the same score."""
    detections = []
    for image in coco["images"]:
        annotations = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
        for _ in range(count):
            if annotations and rng.random() < 0.6:
                annotation = annotations[rng.integers(len(annotations))]
                shift = rng.integers(-3, 4, 4) * rng.integers(0, 4)
                x, y, w, h = (int(v) for v in np.array(annotation["bbox"]) + shift)
                box, category = [max(x, 0), max(y, 0), max(w, 2), max(h, 2)], annotation["category_id"]
            else:
                box, category = random_box(rng, (8, 200)), int(rng.choice([3, 11, 20, 21]))
            mask = run_lengths(ellipse(box))
            score = float(rng.integers(1, 10) / 8)
            detections.append(
                {
                    "image_id": image["id"],
                    "category_id": category,
                    "bbox": box,
                    "segmentation": mask,
                    "score": score,
                }
            )
    return detections


def numbered(coco: Coco) -> COCO:
    """The annotations for pycocotools, with ids that count from 1."""
    annotations = [{**a, "id": number} for number, a in enumerate(coco["annotations"], start=1)]
    return indexed({**coco, "annotations": annotations})


def assert_same(metrics: dict[str, float], expected: dict[str, float]) -> None:
    assert metrics.keys() == expected.keys()
    for key, value in expected.items():
        assert metrics[key] == pytest.approx(value, abs=1e-6, nan_ok=True), key


@pytest.mark.parametrize("count", [FEW, MANY])
@pytest.mark.parametrize("seed", range(2))
def test_crowds_sizes_ties_and_many_detections(tmp_path: Path, seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    coco = objects_of_all_sizes(rng)
    detections = detections_of_all_kinds(rng, coco, count)
    evaluator = evaluator_of(coco, tmp_path, ["bbox", "segm"])
    metrics = process(evaluator, coco, detections)
    limit = max(count, 100)
    for task in ("bbox", "segm"):
        expected = reference(numbered(coco), detections, task, limit=limit)
        numbers = {key for key, value in expected.items() if not math.isnan(value)}
        assert numbers == {*metric_names(task, limit), "AP-class 3", "AP-class 11", "AP-class 20"}
        assert 0 < expected["AP"] < 100
        assert_same(metrics[task], expected)


def test_annotations_may_lack_area_and_crowd(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    coco = objects_of_all_sizes(rng)
    for annotation in coco["annotations"]:
        annotation.update(iscrowd=0, area=annotation["bbox"][2] * annotation["bbox"][3])
    detections = detections_of_all_kinds(rng, coco, 20)
    bare = {**coco, "annotations": [{**a} for a in coco["annotations"]]}
    for annotation in bare["annotations"]:
        del annotation["iscrowd"], annotation["area"]
    evaluator = evaluator_of(bare, tmp_path, ["bbox", "segm"])
    for task, metrics in process(evaluator, bare, detections).items():
        assert_same(metrics, reference(numbered(coco), detections, task))


def points_in(box: Sequence[int], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Random x, y and visibility of keypoints in a box, (count, 3)."""
    x, y, w, h = box
    return rng.integers((x, y, 0), (x + w, y + h, 3), (count, 3))


@pytest.mark.parametrize("names", [("left", "right", "top"), tuple("abcdefghijklmnopq")])
def test_keypoint_metrics_equal_those_of_pycocotools(tmp_path: Path, names: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    coco = objects_of_all_sizes(rng)
    coco["categories"] = [{**coco["categories"][0], "keypoints": list(names)}]
    for annotation in coco["annotations"]:
        points = points_in(annotation["bbox"], len(names), rng)
        annotation.update(category_id=3, keypoints=points.ravel().tolist())
        annotation["num_keypoints"] = int((points[:, 2] > 0).sum())
    detections = []
    for annotation in coco["annotations"] * 2:
        points = np.array(annotation["keypoints"]).reshape(-1, 3)
        points[:, :2] += rng.integers(-6, 7, (len(names), 2))
        points[:, 2] = 1
        score = float(rng.integers(1, 30) / 32)
        same = {key: annotation[key] for key in ("image_id", "category_id", "bbox")}
        detections.append({**same, "keypoints": points.ravel().tolist(), "score": score})
    sigmas = keypoint_sigmas(names)
    evaluator = evaluator_of(coco, tmp_path, ["keypoints"], kpt_oks_sigmas=sigmas)
    expected = reference(numbered(coco), detections, "keypoints", sigmas)
    assert 0 < expected["AP"] < 100
    assert_same(process(evaluator, coco, detections)["keypoints"], expected)


@pytest.mark.parametrize(
    ("kept", "made", "limit"), [(0, FEW, 100), (0, MANY, MANY), (100, FEW, 100), (300, FEW, 300)]
)
def test_limit_is_noted_where_it_is_not_that_of_coco(
    kept: int, made: int, limit: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    coco = objects_of_all_sizes(rng)
    evaluator = evaluator_of(coco, tmp_path, ["bbox", "segm"], detections_per_image=kept)
    metrics = process(evaluator, coco, detections_of_all_kinds(rng, coco, made))
    for task, values in metrics.items():
        assert [k for k in values if re.fullmatch(r"AR\d+", k)] == ["AR1", "AR10", f"AR{limit}"]
        noted = f"{task}: up to {limit} detections per image count, where COCO counts 100"
        assert (noted in evaluator.notes) == (limit != 100)


@pytest.mark.parametrize(("kept", "warned"), [(0, False), (3, True), (100, False)])
def test_more_objects_than_the_detector_keeps(kept: int, warned: bool, tmp_path: Path) -> None:
    coco = objects_of_all_sizes(np.random.default_rng(0))
    evaluator = evaluator_of(coco, tmp_path, ["bbox"], detections_per_image=kept)
    process(evaluator, coco, as_detections(coco, ("bbox",)))
    most = max(Counter(a["image_id"] for a in coco["annotations"] if not a["iscrowd"]).values())
    start = f"bbox: an image has {most} objects, and the detector keeps {kept} detections"
    assert any(note.startswith(start) for note in evaluator.notes) == warned


def test_only_processed_images_are_evaluated(tmp_path: Path) -> None:
    coco = objects_of_all_sizes(np.random.default_rng(0))
    everything = as_detections(coco, ("bbox", "segm"))
    evaluator = evaluator_of(coco, tmp_path, ["bbox", "segm"])
    whole = process(evaluator, coco, everything, images={2, 4})
    assert whole["bbox"]["AP"] == whole["segm"]["AP"] == pytest.approx(100, abs=1e-9)
    evaluator.reset()
    first = {**coco, "images": [i for i in coco["images"] if i["id"] in (2, 4)]}
    first["annotations"] = [a for a in coco["annotations"] if a["image_id"] in (2, 4)]
    detections = detections_of_all_kinds(np.random.default_rng(1), first, 20)
    for task, metrics in process(evaluator, coco, detections, images={2, 4}).items():
        assert_same(metrics, reference(numbered(first), detections, task))


def test_no_image_at_all_gives_no_number(tmp_path: Path) -> None:
    coco = objects_of_all_sizes(np.random.default_rng(0))
    evaluator = evaluator_of(coco, tmp_path, ["bbox", "segm"])
    metrics = process(evaluator, coco, [], images=())
    assert {task: all(map(math.isnan, m.values())) for task, m in metrics.items()} == {
        "bbox": True,
        "segm": True,
    }
    assert {"AP", "AR100", "AP-class 3"} <= set(metrics["bbox"])
    assert evaluator.notes == ["no image was evaluated"]


def test_results_have_the_ids_of_the_user(tmp_path: Path) -> None:
    coco = objects_of_all_sizes(np.random.default_rng(0))
    for entry in [*coco["images"], *coco["categories"]]:
        entry["original_id"] = f"id {entry['id']}"
    evaluator = evaluator_of(coco, tmp_path, ["bbox"], output_dir=str(tmp_path / "out"))
    assert process(evaluator, coco, as_detections(coco, ["bbox"]))["bbox"]["AP"] == pytest.approx(100)
    written = json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())
    assert {d["image_id"] for d in written} == {"id 5", "id 2", "id 9", "id 4"}
    assert {d["category_id"] for d in written} == {"id 3", "id 11", "id 20"}


def test_sigmas_are_equal_except_for_persons() -> None:
    assert keypoint_sigmas(["a"] * 17) == []
    assert keypoint_sigmas(["a", "b", "c", "d"]) == [0.25] * 4


def test_lvis_without_detections_and_with_some_images(tmp_path: Path, monkeypatch: Any) -> None:
    published.lvis(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    dataset = LvisDataset()
    name = dataset.register("val", ["bbox"])
    dicts = DatasetCatalog.get(name)
    (evaluator,) = dataset.evaluators(name, ["bbox"], str(tmp_path / "out"))
    for processed in (dicts, dicts[:1], []):
        evaluator.reset()
        for entry in processed:
            size = (entry["height"], entry["width"])
            nothing = Instances(size, pred_boxes=Boxes(torch.zeros(0, 4)), scores=torch.zeros(0))
            evaluator.process([entry], [{"instances": nothing}])
        metrics = evaluator.evaluate()["bbox"]
        assert set(metrics) == {*("AP", "AP50", "AP75", "APs", "APm", "APl", "AR300", "APr", "APc", "APf")}
        numbers = {value for value in metrics.values() if not math.isnan(value)}
        assert numbers == ({0.0} if processed else set())


# Semantic segmentation


def test_iou_of_each_class(tmp_path: Path) -> None:
    gt = np.array([[0, 0, 0, 1], [1, 1, 2, 255]])
    predicted = np.array([[0, 0, 1, 1], [1, 0, 1, 2]])
    name = str(tmp_path)
    entry = {"file_name": "image.png", "sem_seg_file_name": "gt.png"}
    DatasetCatalog.register(name, lambda: [entry])
    MetadataCatalog.get(name).set(stuff_classes=["a", "b", "c", "d"], ignore_label=255)
    try:
        files = {"gt.png": gt}
        evaluator = SemanticEvaluator(name, lambda file, dtype: files[file].astype(dtype), str(tmp_path))
        evaluator.reset()
        scores = torch.nn.functional.one_hot(torch.tensor(predicted), 4).permute(2, 0, 1)
        evaluator.process([entry], [{"sem_seg": scores}])
        metrics = evaluator.evaluate()["sem_seg"]
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    # true and false positives: a 2 of 3 and 1, b 2 of 3 and 2, c 0 of 1; d is absent, one pixel is unlabelled
    ious = {"a": 2 / 4, "b": 2 / 5, "c": 0}
    for category, iou in ious.items():
        assert metrics[f"IoU-{category}"] == pytest.approx(100 * iou)
    assert math.isnan(metrics["IoU-d"])
    assert metrics["mIoU"] == pytest.approx(100 * sum(ious.values()) / 3)
    assert metrics["pACC"] == pytest.approx(100 * 4 / 7)
    assert gt[1, 3] == 255, "the ground truth is not changed"


def test_no_image_gives_no_semantic_metric(tmp_path: Path) -> None:
    name = str(tmp_path)
    DatasetCatalog.register(name, lambda: [{"file_name": "image.png", "sem_seg_file_name": "gt.png"}])
    MetadataCatalog.get(name).set(stuff_classes=["a", "b"], ignore_label=255)
    try:
        evaluator = SemanticEvaluator(name, lambda file, dtype: None, str(tmp_path))
        evaluator.reset()
        results = evaluator.evaluate()
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    assert results is not None
    assert all(map(math.isnan, results["sem_seg"].values()))
    assert {"mIoU", "IoU-a", "pACC"} <= set(results["sem_seg"])
    assert evaluator.notes == ["no image was evaluated"]
