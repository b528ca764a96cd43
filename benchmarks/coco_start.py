#!/usr/bin/env python3
"""Measure the start on annotations of COCO's size: seconds and memory to the first batch, as JSON.

    python benchmarks/coco_start.py [--images 118287] [--workers 0 2 4] [--data coco own] [--before CHECKOUT]

It writes annotations as large as those of COCO 2017 (118,287 images, 860,000 objects, about 490 MB; the same
at each call) with links to two small photographs. Each measurement is a process of its own: the first start
finds an empty cache, the second one its files. Seconds count from the imports on. Memory is what the process
(RSS) and the process with its workers (PSS) hold at the first batch beyond what they held after the imports;
the peak is that of the process. ``--before`` measures the same with another checkout of the project, in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

OBJECTS = 860_001 / 118_287  # per image
SIDES = ((640, 480), (480, 640))  # width and height of the two photographs
CORNERS = 23  # of an outline, on average
CROWDS = 0.01  # of the objects
OUTLINES = 4096  # different ones, which many objects share
ROOT = Path(__file__).resolve().parents[1]

CHILD = """
import gc, json, os, sys, time
from pathlib import Path
kind, workers = sys.argv[1], int(sys.argv[2])
from d2timm.utils.quiet import silence
silence()
import torch
from omegaconf import OmegaConf
from d2timm import get_config
from d2timm.data import Mapper, catalog
from d2timm.data.loader import build_train_loader
from detectron2.data import MetadataCatalog
torch.set_num_threads(1)
root = Path(os.environ["DETECTRON2_DATASETS"], "coco")
data = get_config("mask_rcnn_timm.py").data
data.name = "coco_2017" if kind == "coco" else "custom"
if kind == "own":
    data.train_json = str(root / "annotations/instances_train2017.json")
    data.train_images = str(root / "train2017")
mapper = Mapper(True, ["bbox", "segm"], [], "RGB")

def memory(pid, key="Rss"):
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(key + ":")) / 1e3

def family(key):
    own = os.getpid()
    children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
    return memory(own, key) + sum(memory(child, key) for child in children)

before = memory("self"), family("Pss")
start, cpu = time.perf_counter(), time.process_time()
with __import__("contextlib").redirect_stdout(sys.stderr):
    catalog.check_split(data, "train", ["bbox", "segm"])
    dataset = catalog.dataset_dicts(data, "train")
    loader = build_train_loader(dataset, mapper, 2, num_workers=workers, seed=1)
    batches = iter(loader)
    first = next(batches)
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
length = len(dataset)
del dataset
gc.collect()
peak = next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmHWM"))
print(json.dumps({
    "seconds": round(seconds, 2), "cpu seconds": round(cpu, 2), "images": length,
    "resident MB": round(memory("self") - before[0]),
    "with workers, PSS MB": round(family("Pss") - before[1]),
    "peak MB": round(int(peak.split()[1]) / 1e3), "imports MB": round(before[0]),
    "first": [image["image_id"] for image in first], "order": loader.state_dict()["dataset"],
}), flush=True)
os._exit(0)
"""


def write_dataset(root: Path, images: int) -> None:
    """Write COCO's files of the training split below ``root``."""
    import cv2

    folder = root / "coco" / "train2017"
    (root / "coco" / "annotations").mkdir(parents=True)
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number, (width, height) in enumerate(SIDES):
        pixels = rng.integers(0, 255, (height // 32, width // 32, 3), np.uint8)
        photograph = root / f"{number}.jpg"
        photograph.write_bytes(cv2.imencode(".jpg", cv2.resize(pixels, (width, height)))[1].tobytes())
    for number in range(1, images + 1):
        (folder / f"{number:012}.jpg").symlink_to(root / f"{number % 2}.jpg")
    with (root / "coco" / "annotations" / "instances_train2017.json").open("w") as file:
        file.write('{"info": {"year": 2017}, "licenses": [], "images": [')
        file.writelines(_separated(_image(number) for number in range(1, images + 1)))
        file.write('], "annotations": [')
        file.writelines(_separated(_annotations(rng, images)))
        categories = [{"supercategory": "thing", "id": i, "name": name} for i, name in _categories()]
        file.write(f'], "categories": {json.dumps(categories)}}}')


def _separated(entries: Iterator[str]) -> Iterator[str]:
    yield next(entries)
    for entry in entries:
        yield ", "
        yield entry


def _categories() -> list[tuple[int, str]]:
    from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

    return [(c["id"], c["name"]) for c in COCO_CATEGORIES if c["isthing"]]


def _image(number: int) -> str:
    width, height = SIDES[number % 2]
    name = f"{number:012}.jpg"
    url = f"http://images.cocodataset.org/train2017/{name}"
    return (
        f'{{"license": 3, "file_name": "{name}", "coco_url": "{url}", '
        f'"height": {height}, "width": {width}, "date_captured": "2013-11-14 17:02:52", '
        f'"flickr_url": "http://farm9.staticflickr.com/8186/8119368305_4e622c8349_z.jpg", "id": {number}}}'
    )


def _annotations(rng: np.random.Generator, images: int) -> Iterator[str]:
    """Annotations of the images in random order."""
    outlines = [_outline(rng) for _ in range(OUTLINES)]
    classes = [number for number, _ in _categories()]
    count = round(OBJECTS * images)
    places = rng.integers(1, images + 1, count)
    numbers = rng.permutation(10 * count)[:count] + 1
    shapes = rng.integers(0, OUTLINES, count)
    kinds = rng.integers(0, len(classes), count)
    crowds = rng.random(count) < CROWDS
    for place, number, shape, kind, crowd in zip(places, numbers, shapes, kinds, crowds, strict=True):
        mask, box, area = outlines[shape]
        if crowd:
            width, height = SIDES[place % 2]
            counts = [1000, 500] * 40
            counts.append(width * height - sum(counts))
            mask = f'{{"counts": {counts}, "size": [{height}, {width}]}}'
        yield (
            f'{{"segmentation": {mask}, "area": {area}, "iscrowd": {int(crowd)}, "image_id": {place}, '
            f'"bbox": {box}, "category_id": {classes[kind]}, "id": {number}}}'
        )


def _outline(rng: np.random.Generator) -> tuple[str, str, float]:
    """An ellipse with a ragged edge, of one or two parts: its polygons, box and area."""
    parts = []
    for _ in range(1 + (rng.random() < 0.1)):
        corners = 3 + int(rng.gamma(1.2, (CORNERS - 3) / 1.2))
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
        radii = rng.uniform(8, 110, 2)[:, None] * rng.uniform(0.8, 1, corners)
        centre = rng.uniform(120, 360, 2)[:, None]
        points = centre + radii * np.stack([np.cos(angles), np.sin(angles)])
        parts.append(np.round(points.T, 2))
    every = np.concatenate(parts)
    (x0, y0), (x1, y1) = every.min(axis=0), every.max(axis=0)
    box = [round(float(value), 2) for value in (x0, y0, x1 - x0 + 1, y1 - y0 + 1)]
    polygons = [part.ravel().tolist() for part in parts]
    return json.dumps(polygons), json.dumps(box), round(box[2] * box[3] / 2, 4)


def measure(checkout: Path, root: Path, cache: Path, kind: str, workers: int) -> dict[str, Any]:
    """One start in a process of its own."""
    paths = {"PYTHONPATH": str(checkout), "DETECTRON2_DATASETS": str(root), "D2TIMM_CACHE": str(cache)}
    command = [sys.executable, "-c", CHILD, kind, str(workers)]
    done = subprocess.run(
        command, env={**os.environ, **paths}, cwd=root, stdout=subprocess.PIPE, text=True, check=True
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--images", type=int, default=118_287)
    add("--workers", type=int, nargs="+", default=[0, 2, 4])
    add("--data", nargs="+", choices=["coco", "own"], default=["coco", "own"])
    add("--before", type=Path, metavar="CHECKOUT", help="another checkout, which is measured as well")
    add("--folder", type=Path, help="where the dataset is kept for other calls (default: nowhere)")
    options = parser.parse_args()
    checkouts = {"now": ROOT} | ({"before": options.before.resolve()} if options.before else {})
    with tempfile.TemporaryDirectory() as temporary:
        root = (options.folder or Path(temporary)) / f"coco-{options.images}"
        if not root.is_dir():
            write_dataset(root, options.images)
        file = root / "coco" / "annotations" / "instances_train2017.json"
        results: list[dict[str, Any]] = []
        for kind in options.data:
            for workers in options.workers:
                for name, checkout in checkouts.items():
                    with tempfile.TemporaryDirectory(dir=temporary) as cache:
                        for start in ("first", "second"):
                            label = {"data": kind, "code": name, "workers": workers, "start": start}
                            figures = measure(checkout, root, Path(cache), kind, workers)
                            size = sum(f.stat().st_size for f in Path(cache).rglob("*") if f.is_file())
                            results.append({**label, **figures, "cache MB": round(size / 1e6)})
                            print(json.dumps(results[-1]), file=sys.stderr)
        print(json.dumps({"file MB": round(file.stat().st_size / 1e6), "starts": results}, indent=2))


if __name__ == "__main__":
    main()
