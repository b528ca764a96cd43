#!/usr/bin/env python3
"""Measure the mapper of training against detectron2's, with the augmentation of the recipes.

    python benchmarks/mapper.py [--repeats 40] [--objects 7] [--images FOLDER]

Images are photographs of a folder, or a drawn one, saved as JPEG at 640x480 and 1920x1080, with polygons.
Both mappers take turns in one process, with one thread and the same random numbers. Prints JSON: for each
size and mapper the median milliseconds of CPU time per image, quartiles, and images per second of one core.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from PIL import Image

from d2timm.data import Mapper
from d2timm.utils.seeds import seeded

SIZES = [(640, 480), (1920, 1080)]
QUALITY = 92
#: As lazy_configs/common/augmentation/flip.py has it for COCO
SHORT_EDGES, MAX_SIZE = (640, 672, 704, 736, 768, 800), 1333


def augmentations() -> list[T.Augmentation]:
    return [T.ResizeShortestEdge(SHORT_EDGES, MAX_SIZE, "choice"), T.RandomFlip()]


def drawn() -> Image.Image:
    """An image that compresses about as well as a photograph: noise on several scales."""
    random = np.random.default_rng(0)
    layers = [random.normal(0, 40 / 2**i, (1080 >> (5 - i), 1920 >> (5 - i), 3)) for i in range(4)]
    total = sum(cv2.resize(layer.astype(np.float32), (1920, 1080)) for layer in layers)
    return Image.fromarray((128 + np.asarray(total)).clip(0, 255).astype(np.uint8))


def annotations(width: int, height: int, objects: int) -> list[dict[str, Any]]:
    """Objects with one polygon of 40 points each, about as in COCO."""
    random = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    found = []
    for _ in range(objects):
        radius = random.uniform(0.02, 0.2) * height
        x, y = (random.uniform(radius, side - radius) for side in (width, height))
        points = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], 1).ravel()
        found.append(
            {
                "bbox": [x - radius, y - radius, 2 * radius, 2 * radius],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": 0,
                "iscrowd": 0,
                "segmentation": [points.tolist()],
            }
        )
    return found


def entries(pictures: Iterable[Image.Image], size: tuple[int, int], objects: int, folder: Path) -> list[Any]:
    made = []
    for number, picture in enumerate(pictures):
        file = folder / f"{size[0]}_{number}.jpg"
        picture.convert("RGB").resize(size).save(file, quality=QUALITY)
        entry = {"file_name": str(file), "width": size[0], "height": size[1], "image_id": number}
        made.append({**entry, "annotations": annotations(*size, objects)})
    return made


def milliseconds(mapper: Callable[[Any], Any], entry: Any, seed: int) -> float:
    with seeded(seed):
        start = time.process_time()
        mapper(entry)
        return 1e3 * (time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=40, help="images per mapper and size")
    parser.add_argument("--objects", type=int, default=7, help="per image; 7 is COCO's mean")
    parser.add_argument("--images", type=Path, help="a folder with photographs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    found = sorted(options.images.rglob("*.jpg"))[:10] if options.images else []
    pictures = [Image.open(file) for file in found] or [drawn()]
    common: dict[str, Any] = {"is_train": True, "image_format": "RGB"}
    mappers = {
        "detectron2": DatasetMapper(**common, augmentations=augmentations(), use_instance_mask=True),
        "d2timm": Mapper(**common, augmentations=augmentations(), tasks=["bbox", "segm"]),
    }
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            images = entries(pictures, size, options.objects, Path(folder))
            times: dict[str, list[float]] = {name: [] for name in mappers}
            for repeat in range(options.repeats + 3):
                for name, mapper in mappers.items():
                    taken = milliseconds(mapper, images[repeat % len(images)], repeat)
                    times[name] += [taken] if repeat >= 3 else []  # the first fill caches
            row: dict[str, Any] = {}
            for name, values in times.items():
                low, middle, high = (round(value, 2) for value in statistics.quantiles(values, n=4))
                row[name] = {"ms": middle, "quartiles": [low, high], "images/s": round(1e3 / middle, 1)}
            row["ratio"] = round(row["detectron2"]["ms"] / row["d2timm"]["ms"], 2)
            results[f"{size[0]}x{size[1]}"] = row
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
