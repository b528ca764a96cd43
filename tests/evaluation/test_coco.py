"""The evaluators' numbers are pycocotools' own: boxes, masks and keypoints; and those of pixels."""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from d2timm.config.build import instantiate
from d2timm.evaluation.coco import KEYPOINTS, OBJECTS, CocoEvaluator, SemanticEvaluator, keypoint_sigmas

Coco = dict[str, Any]

SIDE = 400
FEW, MANY = 3, 130  # detections of an image; 100 count


@pytest.fixture(scope="module")
def truth(small_coco: Any) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(small_coco.val_json)


@pytest.fixture
def evaluator(tiny: Callable[..., Any], tmp_path: Path) -> CocoEvaluator:
    """That of the mask recipe."""
    loaders = tiny("mask_rcnn_timm.py", tmp_path).dataloader
    instantiate(loaders.test.dataset)  # as in a run, where it is loaded first
    made: CocoEvaluator
    (made,) = instantiate(loaders.evaluator)
    made.reset()
    return made


def class_number(truth: COCO, category_id: int) -> int:
    return sorted(truth.getCatIds()).index(category_id)


def perfect(truth: COCO, image: dict[str, Any]) -> Instances:
    """The annotations of an image as detections."""
    annotations = truth.imgToAnns[image["id"]]
    corners = [[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in annotations)]
    return Instances(
        (image["height"], image["width"]),
        pred_boxes=Boxes(torch.tensor(corners, dtype=torch.float64)),
        pred_masks=torch.tensor(np.stack([truth.annToMask(a) for a in annotations])).bool(),
        pred_classes=torch.tensor([class_number(truth, a["category_id"]) for a in annotations]),
        scores=torch.linspace(0.9, 0.6, len(annotations)),
    )


def disturbed(truth: COCO, image: dict[str, Any], rng: np.random.Generator) -> Instances:
    """Detections of all qualities: moved, of wrong classes, doubled, and some of nothing."""
    found = perfect(truth, image)
    repeats = torch.tensor(rng.integers(0, len(found), 3 * len(found)))
    found = found[repeats]
    n = len(found)
    found.pred_boxes = Boxes(found.pred_boxes.tensor + torch.tensor(rng.normal(0, 4, (n, 4))))
    shifts = rng.integers(-5, 6, (n, 2)).tolist()
    moved = [torch.roll(m, s, (0, 1)) for m, s in zip(found.pred_masks, shifts, strict=True)]
    found.pred_masks = torch.stack(moved)
    wrong = torch.tensor(rng.random(n) < 0.2)
    found.pred_classes[wrong] = (found.pred_classes[wrong] + 1) % 4
    found.scores = torch.tensor(rng.random(n))
    return found


def evaluate(
    evaluator: CocoEvaluator, truth: COCO, detections: Callable[[dict[str, Any]], Instances]
) -> dict[str, dict[str, float]]:
    for image in truth.dataset["images"]:
        inputs = {"image_id": image["id"], "height": image["height"], "width": image["width"]}
        evaluator.process([inputs], [{"instances": detections(image)}])
    return dict(evaluator.evaluate())


def reference(
    truth: COCO, results: list[dict[str, Any]], task: str, sigmas: Sequence[float] = ()
) -> dict[str, float]:
    """The numbers of COCO's summary and AP of each class, by pycocotools."""
    # with boxes, areas would be theirs; copied because loadRes adds to them
    unused = {"bbox"} if task == "segm" else set()
    results = [{k: v for k, v in r.items() if k not in unused} for r in results]
    with contextlib.redirect_stdout(io.StringIO()):
        coco_eval = COCOeval(truth, truth.loadRes(results), task)
        if sigmas:
            coco_eval.params.kpt_oks_sigmas = np.array(sigmas)
        coco_eval.evaluate()
        coco_eval.accumulate()
        coco_eval.summarize()
    names = KEYPOINTS if task == "keypoints" else OBJECTS
    numbers = {k: v * 100 if v >= 0 else math.nan for k, v in zip(names, coco_eval.stats, strict=True)}
    if len(coco_eval.params.catIds) == 1:
        return numbers
    for k, category in enumerate(coco_eval.params.catIds):
        precision = coco_eval.eval["precision"][:, :, k, 0, -1]  # all areas, most detections
        valid = precision[precision > -1]
        numbers[f"AP-{truth.cats[category]['name']}"] = valid.mean() * 100 if valid.size else math.nan
    return numbers


@pytest.mark.parametrize("seed", range(3))
def test_numbers_are_those_of_pycocotools(evaluator: CocoEvaluator, truth: COCO, seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = {image["id"]: disturbed(truth, image, rng) for image in truth.dataset["images"]}
    numbers = evaluate(evaluator, truth, lambda image: found[image["id"]])

    categories = sorted(truth.getCatIds())
    results = []
    for image_id, instances in found.items():
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
    assert set(numbers) == {"bbox", "segm"}
    for task, got in numbers.items():
        expected = reference(truth, results, task)
        assert set(got) == set(expected)
        assert 0 < expected["AP"] < 100, "neither nothing nor everything is right"
        for key, value in expected.items():
            assert got[key] == pytest.approx(value, abs=1e-6, nan_ok=True), f"{task} {key}"


def test_perfect_detections_are_100(evaluator: CocoEvaluator, truth: COCO) -> None:
    numbers = evaluate(evaluator, truth, lambda image: perfect(truth, image))
    there = {truth.cats[a["category_id"]]["name"] for a in truth.dataset["annotations"]}
    for task in ("bbox", "segm"):
        for key in ("AP", "AP50", "AP75", "APs", "AR100", *(f"AP-{name}" for name in there)):
            assert numbers[task][key] == pytest.approx(100, abs=1e-6), f"{task} {key}"


def test_nothing_detected_is_0_for_every_task(evaluator: CocoEvaluator, truth: COCO) -> None:
    numbers = evaluate(evaluator, truth, lambda image: perfect(truth, image)[:0])
    expected = {*OBJECTS} | {f"AP-{category['name']}" for category in truth.cats.values()}
    assert set(numbers) == {"bbox", "segm"}
    for task in numbers.values():
        assert task == dict.fromkeys(expected, 0.0)


def test_detections_are_written_in_coco_format(evaluator: CocoEvaluator, truth: COCO, tmp_path: Path) -> None:
    evaluate(evaluator, truth, lambda image: perfect(truth, image))
    written = json.loads((tmp_path / "inference" / "coco_instances_results.json").read_text())
    assert len(written) == len(truth.anns)
    assert {d["category_id"] for d in written} == {a["category_id"] for a in truth.anns.values()}


@pytest.mark.parametrize(
    ("recipe", "tasks"),
    [("faster_rcnn_timm.py", {"bbox"}), ("mask_rcnn_timm.py", {"bbox", "segm"})],
)
def test_what_the_detector_finds_is_evaluated(
    recipe: str, tasks: set[str], tiny: Callable[..., Any], truth: COCO, tmp_path: Path
) -> None:
    loaders = tiny(recipe, tmp_path).dataloader
    instantiate(loaders.test.dataset)
    (made,) = instantiate(loaders.evaluator)
    made.reset()
    assert set(evaluate(made, truth, lambda image: perfect(truth, image))) == tasks


# A set of every kind of object


def ellipse(box: Sequence[int]) -> NDArray[np.uint8]:
    """The mask of an object."""
    x, y, w, h = box
    rows, columns = np.ogrid[:SIDE, :SIDE]
    inside = ((columns + 0.5 - x - w / 2) / (w / 2)) ** 2 + ((rows + 0.5 - y - h / 2) / (h / 2)) ** 2 <= 1
    return np.asarray(inside, np.uint8)


def run_lengths(mask: NDArray[np.uint8]) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask))
    return {**rle, "counts": rle["counts"].decode()}


def anywhere(rng: np.random.Generator, sides: tuple[int, int]) -> list[int]:
    """A box with whole numbers."""
    w, h = rng.integers(*sides, 2).tolist()
    return [*rng.integers(0, (SIDE - w, SIDE - h)).tolist(), w, h]


def objects_of_all_sizes(rng: np.random.Generator) -> Coco:
    """Small, medium and large objects and crowds of three classes; the fourth has none."""
    annotations: list[Coco] = []
    for image_id in (5, 2, 9, 4):
        for sides in [(8, 30), (8, 30), (34, 90), (34, 90), (100, 250)]:
            for crowd in (0, rng.random() < 0.2):
                mask = ellipse(box := anywhere(rng, sides))
                annotations.append(
                    {
                        "id": len(annotations),  # from 0: pycocotools gives wrong numbers for that
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
    """Some like the truth, some of nothing, with the same score for many."""
    found = []
    for image in coco["images"]:
        near = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
        for _ in range(count):
            if near and rng.random() < 0.6:
                like = near[rng.integers(len(near))]
                shift = rng.integers(-3, 4, 4) * rng.integers(0, 4)
                x, y, w, h = (int(v) for v in np.array(like["bbox"]) + shift)
                box, kind = [max(x, 0), max(y, 0), max(w, 2), max(h, 2)], like["category_id"]
            else:
                box, kind = anywhere(rng, (8, 200)), int(rng.choice([3, 11, 20, 21]))
            mask = run_lengths(ellipse(box))
            score = float(rng.integers(1, 10) / 8)
            found.append(
                {
                    "image_id": image["id"],
                    "category_id": kind,
                    "bbox": box,
                    "segmentation": mask,
                    "score": score,
                }
            )
    return found


def registered(coco: Coco, folder: Path, tasks: list[str], **more: Any) -> tuple[CocoEvaluator, COCO]:
    """An evaluator of a set, and its truth for pycocotools, whose ids count from 1."""
    file = folder / "truth.json"
    file.write_text(json.dumps(coco))
    kinds = {category["id"]: i for i, category in enumerate(coco["categories"])}
    MetadataCatalog.get(str(file)).set(
        json_file=str(file),
        thing_classes=[category["name"] for category in coco["categories"]],
        thing_dataset_id_to_contiguous_id=kinds,
    )
    evaluator = CocoEvaluator(str(file), tasks, **more)
    evaluator.reset()
    for number, annotation in enumerate(coco["annotations"], start=1):
        annotation["id"] = number
    file.write_text(json.dumps(coco))
    with contextlib.redirect_stdout(io.StringIO()):
        return evaluator, COCO(str(file))


def process(evaluator: CocoEvaluator, coco: Coco, found: list[Coco]) -> dict[str, dict[str, float]]:
    """Give detections to an evaluator as a model does."""
    kinds = [category["id"] for category in coco["categories"]]
    for image in coco["images"]:
        own = [d for d in found if d["image_id"] == image["id"]]
        instances = Instances((SIDE, SIDE))
        boxes = np.array([d["bbox"] for d in own], float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        instances.pred_boxes = Boxes(torch.tensor(boxes))
        instances.scores = torch.tensor([d["score"] for d in own], dtype=torch.float64)
        instances.pred_classes = torch.tensor([kinds.index(d["category_id"]) for d in own])
        if own and "segmentation" in own[0]:
            masks = [coco_mask.decode(d["segmentation"]) for d in own]
            instances.pred_masks = torch.tensor(np.stack(masks)).bool()
        if own and "keypoints" in own[0]:
            points = [np.array(d["keypoints"]).reshape(-1, 3) for d in own]
            instances.pred_keypoints = torch.tensor(np.stack(points)) + torch.tensor([0.5, 0.5, 0])
        evaluator.process([{"image_id": image["id"]}], [{"instances": instances}])
    return dict(evaluator.evaluate())


def same(got: dict[str, float], expected: dict[str, float]) -> None:
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        assert got[key] == pytest.approx(value, abs=1e-6, nan_ok=True), key


@pytest.mark.parametrize("count", [FEW, MANY])
@pytest.mark.parametrize("seed", range(2))
def test_crowds_sizes_ties_and_many_detections(tmp_path: Path, seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    coco = objects_of_all_sizes(rng)
    found = detections_of_all_kinds(rng, coco, count)
    evaluator, truth = registered(coco, tmp_path, ["bbox", "segm"])
    numbers = process(evaluator, coco, found)
    for task in ("bbox", "segm"):
        expected = reference(truth, found, task)
        there = {key for key, value in expected.items() if not math.isnan(value)}
        assert there == {*OBJECTS, "AP-class 3", "AP-class 11", "AP-class 20"}
        assert 0 < expected["AP"] < 100
        same(numbers[task], expected)


def test_annotations_may_lack_area_and_crowd(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    coco = objects_of_all_sizes(rng)
    for annotation in coco["annotations"]:
        annotation.update(iscrowd=0, area=annotation["bbox"][2] * annotation["bbox"][3])
    found = detections_of_all_kinds(rng, coco, 20)
    bare = {**coco, "annotations": [{**a} for a in coco["annotations"]]}
    for annotation in bare["annotations"]:
        del annotation["iscrowd"], annotation["area"]
    evaluator, _ = registered(bare, tmp_path, ["bbox", "segm"])
    (tmp_path / "whole").mkdir()
    _, truth = registered(coco, tmp_path / "whole", ["bbox", "segm"])
    for task, numbers in process(evaluator, bare, found).items():
        same(numbers, reference(truth, found, task))


def points_in(box: Sequence[int], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """(count, 3) of x, y and visibility."""
    x, y, w, h = box
    return rng.integers((x, y, 0), (x + w, y + h, 3), (count, 3))


@pytest.mark.parametrize("names", [("left", "right", "top"), tuple("abcdefghijklmnopq")])
def test_keypoints_are_those_of_pycocotools(tmp_path: Path, names: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    coco = objects_of_all_sizes(rng)
    coco["categories"] = coco["categories"][:1]
    for annotation in coco["annotations"]:
        points = points_in(annotation["bbox"], len(names), rng)
        annotation.update(category_id=3, keypoints=points.ravel().tolist())
        annotation["num_keypoints"] = int((points[:, 2] > 0).sum())
    found = []
    for annotation in coco["annotations"] * 2:
        points = np.array(annotation["keypoints"]).reshape(-1, 3)
        points[:, :2] += rng.integers(-6, 7, (len(names), 2))
        points[:, 2] = 1
        score = float(rng.integers(1, 30) / 32)
        like = {key: annotation[key] for key in ("image_id", "category_id", "bbox")}
        found.append({**like, "keypoints": points.ravel().tolist(), "score": score})
    sigmas = keypoint_sigmas(names)
    evaluator, truth = registered(coco, tmp_path, ["keypoints"], kpt_oks_sigmas=sigmas)
    expected = reference(truth, found, "keypoints", sigmas)
    assert 0 < expected["AP"] < 100
    same(process(evaluator, coco, found)["keypoints"], expected)


def test_sigmas_are_those_of_a_person_or_all_alike() -> None:
    assert keypoint_sigmas(["a"] * 17) == []
    assert keypoint_sigmas(["a", "b", "c", "d"]) == [0.25] * 4


# Pixels


def test_pixels_are_counted(tmp_path: Path) -> None:
    truth = np.array([[0, 0, 0, 1], [1, 1, 2, 255]])
    found = np.array([[0, 0, 1, 1], [1, 0, 1, 2]])
    name = str(tmp_path)
    entry = {"file_name": "image.png", "sem_seg_file_name": "truth.png"}
    DatasetCatalog.register(name, lambda: [entry])
    MetadataCatalog.get(name).set(stuff_classes=["a", "b", "c", "d"], ignore_label=255)
    try:
        read = {"truth.png": truth}
        evaluator = SemanticEvaluator(name, lambda file, dtype: read[file].astype(dtype), str(tmp_path))
        evaluator.reset()
        scores = torch.nn.functional.one_hot(torch.tensor(found), 4).permute(2, 0, 1)
        evaluator.process([entry], [{"sem_seg": scores}])
        numbers = evaluator.evaluate()["sem_seg"]
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    # a: 2 of 3 found, 1 too many; b: 2 of 3, 2 too many; c: 0 of 1; d is not there; one pixel has no truth
    ious = {"a": 2 / 4, "b": 2 / 5, "c": 0}
    for kind, iou in ious.items():
        assert numbers[f"IoU-{kind}"] == pytest.approx(100 * iou)
    assert math.isnan(numbers["IoU-d"])
    assert numbers["mIoU"] == pytest.approx(100 * sum(ious.values()) / 3)
    assert numbers["pACC"] == pytest.approx(100 * 4 / 7)
    assert truth[1, 3] == 255, "the truth stays as it is"
