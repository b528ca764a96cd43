#!/usr/bin/env python3
"""Compare d2timm's evaluation of boxes and masks with detectron2's, from the heads' output to the metrics.

    python benchmarks/evaluation.py [--images 300] [--detections 100] [--repeats 3]

Both get the same synthetic detections, as a Mask R-CNN makes them: boxes, and masks of 28 x 28
probabilities. Each pastes or encodes the masks, writes coco_instances_results.json and computes the
metrics. They take turns in one process. Printed as JSON: medians and spread of seconds (CPU time, and wall
clock), their ratio, and the largest difference of any metric. detectron2's compiled evaluation is not used,
which its package for pip does not contain.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from numpy.typing import NDArray

from d2timm.evaluation import CocoEvaluator
from d2timm.evaluation.roi_masks import set_masks_aside
from d2timm.utils.quiet import silence

SIZE = (480, 640)  # (H, W)
CELLS = 28
CLASSES = 80
OBJECTS = 7  # in an image, as in COCO
SIDES = (8, 400)  # pixels of a box, uniform in their logarithm

Metrics = Mapping[str, Mapping[str, float]]


def random_boxes(count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Boxes in the image, (N, 4) x0, y0, x1, y1."""
    height, width = SIZE
    sides = np.exp(rng.uniform(*np.log(SIDES), (count, 2)))
    centres = rng.uniform(0, 1, (count, 2)) * (width, height)
    corners = np.concatenate([centres - sides / 2, centres + sides / 2], 1)
    corners[:, :2] = corners[:, :2].clip(0, (width - 5, height - 5))
    corners[:, 2:] = corners[:, 2:].clip(corners[:, :2] + 4, (width, height))
    return corners.astype(np.float32)


def random_masks(count: int, generator: torch.Generator) -> torch.Tensor:
    """Probabilities of uneven discs, (N, 1, 28, 28)."""
    place = torch.linspace(-1, 1, CELLS) ** 2
    noise = torch.randn(count, 1, 7, 7, generator=generator)
    bumps = torch.nn.functional.interpolate(noise, (CELLS, CELLS), mode="bicubic")
    return torch.sigmoid(3 - 4 * (place[:, None] + place) + bumps)


def annotations(images: int, rng: np.random.Generator) -> dict[str, Any]:
    """The content of a COCO file whose objects are octagons."""
    coco: dict[str, Any] = {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "height": SIZE[0], "width": SIZE[1]} for i in range(images)
        ],
        "categories": [{"id": i + 1, "name": f"class {i}"} for i in range(CLASSES)],
        "annotations": [],
    }
    angles = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    for image in range(images):
        for x0, y0, x1, y1 in random_boxes(OBJECTS, rng).astype(float):
            outline = np.stack([np.cos(angles), np.sin(angles)], 1) * (x1 - x0, y1 - y0) / 2
            outline += (x0 + x1) / 2, (y0 + y1) / 2
            annotation = {
                "id": len(coco["annotations"]) + 1,
                "image_id": image,
                "category_id": int(rng.integers(CLASSES)) + 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": 0.7 * (x1 - x0) * (y1 - y0),
                "segmentation": [outline.ravel().tolist()],
                "iscrowd": int(rng.random() < 0.02),
            }
            coco["annotations"].append(annotation)
    return coco


def detections(coco: dict[str, Any], image: int, count: int) -> Instances:
    """What a detector finds in an image before its masks are pasted: objects, and other boxes."""
    rng = np.random.default_rng(image)
    objects = coco["annotations"][image * OBJECTS : (image + 1) * OBJECTS]
    boxes, classes = random_boxes(count, rng), rng.integers(0, CLASSES, count)
    scores = rng.beta(0.5, 3, count)
    for index, annotation in enumerate(objects[:count]):
        x, y, w, h = annotation["bbox"]
        boxes[index] = np.array([x, y, x + w, y + h]) + rng.normal(0, 2, 4)
        classes[index], scores[index] = annotation["category_id"] - 1, rng.beta(3, 1)
    return Instances(
        SIZE,
        pred_boxes=Boxes(torch.from_numpy(boxes)),
        scores=torch.from_numpy(scores.astype(np.float32)),
        pred_classes=torch.from_numpy(classes),
        pred_masks=random_masks(count, torch.Generator().manual_seed(image)),
    )


def detectron2s(instances: Instances) -> Instances:
    """Paste the masks."""
    return detector_postprocess(instances, *SIZE)


def ours(instances: Instances) -> Instances:
    """Keep the masks as they are."""
    set_masks_aside(instances)
    return detector_postprocess(instances, *SIZE)


def measure(
    evaluator: COCOEvaluator, postprocess: Callable[[Instances], Instances], found: list[Instances]
) -> tuple[float, float, Metrics]:
    """CPU and wall-clock seconds of an evaluation, and its metrics."""
    found = copy.deepcopy(found)  # postprocessing changes boxes
    cpu, wall = time.process_time(), time.perf_counter()
    evaluator.reset()
    for image, instances in enumerate(found):
        evaluator.process([{"image_id": image}], [{"instances": postprocess(instances)}])
    with contextlib.redirect_stdout(io.StringIO()):
        metrics = evaluator.evaluate()
    return time.process_time() - cpu, time.perf_counter() - wall, metrics


def difference(one: Metrics, other: Metrics) -> float:
    """The largest difference of the metrics that both have; NaN equals NaN."""
    pairs = [
        (value, other[task][name])
        for task, values in one.items()
        for name, value in values.items()
        if name in other[task]
    ]
    return max(0.0 if np.isnan([a, b]).all() else abs(a - b) for a, b in pairs)


def summary(seconds: list[float]) -> dict[str, float]:
    return {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=300, help="COCO's validation set has 5000 (300)")
    parser.add_argument("--detections", type=int, default=100, help="in an image (100)")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    silence()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(compare(options, Path(folder)), indent=2))


def compare(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    coco = annotations(options.images, np.random.default_rng(0))
    file = folder / "annotations.json"
    file.write_text(json.dumps(coco))
    MetadataCatalog.get(str(file)).set(
        json_file=str(file),
        thing_classes=[category["name"] for category in coco["categories"]],
        thing_dataset_id_to_contiguous_id={i + 1: i for i in range(CLASSES)},
    )
    found = [detections(coco, image, options.detections) for image in range(options.images)]
    tasks = ["bbox", "segm"]
    sides = {
        "detectron2": (COCOEvaluator(str(file), tasks, output_dir=str(folder / "detectron2")), detectron2s),
        "d2timm": (CocoEvaluator(str(file), tasks, str(folder / "d2timm")), ours),
    }
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    wall: dict[str, list[float]] = {name: [] for name in sides}
    metrics: dict[str, Metrics] = {}
    for _ in range(options.repeats):
        for name, (evaluator, postprocess) in sides.items():
            cpu_seconds, wall_seconds, metrics[name] = measure(evaluator, postprocess, found)
            cpu[name].append(cpu_seconds)
            wall[name].append(wall_seconds)
    files = [(folder / name / "coco_instances_results.json").read_bytes() for name in sides]
    return {
        "images": options.images,
        "detections": options.detections,
        "cpu_seconds": {name: summary(seconds) for name, seconds in cpu.items()},
        "wall_seconds": {name: summary(seconds) for name, seconds in wall.items()},
        "cpu_ratio": statistics.median(cpu["d2timm"]) / statistics.median(cpu["detectron2"]),
        "wall_ratio": statistics.median(wall["d2timm"]) / statistics.median(wall["detectron2"]),
        "AP": {task: values["AP"] for task, values in metrics["d2timm"].items()},
        "largest_difference": difference(metrics["detectron2"], metrics["d2timm"]),
        "same_results_file": files[0] == files[1],
    }


if __name__ == "__main__":
    main()
