"""Cityscapes (https://www.cityscapes-dataset.com): objects of 8 classes, or pixels of 19.

Its own evaluation, which this needs, is the package cityscapesscripts.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.data.datasets.cityscapes import _get_cityscapes_files, load_cityscapes_instances
from detectron2.evaluation import CityscapesInstanceEvaluator, CityscapesSemSegEvaluator
from detectron2.utils import comm
from detectron2.utils.logger import create_small_table

from ..errors import ConfigError
from .coco import BELOW
from .dataset import IGNORED, DataSet, register
from .places import published

__all__ = ["CityscapesSet"]


class CityscapesSet(DataSet):
    """Cityscapes' fine annotations in their published layout: ``cityscapes/leftImg8bit`` and ``gtFine``."""

    name = "cityscapes"
    truth = ("bbox", "segm", "sem_seg")

    def classes(self) -> list[str]:
        """Names of the 8 classes of objects."""
        return list(MetadataCatalog.get("cityscapes_fine_instance_seg_val").thing_classes)

    def semantic_classes(self, tasks: Sequence[str]) -> list[str]:
        """Names of the 19 classes of pixels."""
        return list(MetadataCatalog.get("cityscapes_fine_sem_seg_val").stuff_classes)

    def check(self, split: str, tasks: Sequence[str]) -> str:
        """Make sure that the folders are there, and what reads and evaluates them."""
        for package in ("cityscapesscripts", "shapely"):
            if importlib.util.find_spec(package) is None:
                raise ConfigError(
                    f"data.name={self.name} needs {package}: python -m pip install 'd2timm[cityscapes]'"
                )
        images, truth = _folders(split)
        for folder in (images, truth):
            if not folder.is_dir():
                raise ConfigError(f"data.name={self.name}: {folder}: no such folder{BELOW}")
        pictures = _stems(images, "_leftImg8bit.png")
        if not pictures:
            raise ConfigError(f"data.name={self.name}: {images} has no CITY/*_leftImg8bit.png")
        for kind in ("instanceIds.png", "labelIds.png", "polygons.json"):
            if unpaired := pictures ^ _stems(truth, f"_gtFine_{kind}"):
                raise ConfigError(
                    f"data.name={self.name}: {len(unpaired)} images, such as {min(unpaired)}, are in one of "
                    f"{images} and {truth}/CITY/*_gtFine_{kind} and not in the other"
                )
        return f"{self.name} {split}: {images}"

    def register(self, split: str, tasks: Sequence[str]) -> str:
        """The split's name in detectron2's catalogues."""
        folders = images, truth = _folders(split)
        semantic = "sem_seg" in tasks
        # detectron2 makes a file name of it
        where = hashlib.sha1(str(images.resolve()).encode()).hexdigest()[:8]
        name = f"{self.name}_{'semantic' if semantic else 'objects'}_{split}_{where}"
        return register(
            name,
            partial(_load_semantic if semantic else _load_objects, *folders),
            thing_classes=self.classes(),
            thing_dataset_id_to_contiguous_id={i: i for i in range(len(self.classes()))},
            stuff_classes=self.semantic_classes(tasks),
            ignore_label=IGNORED,
            gt_dir=str(truth),
            image_dir=str(images),
        )

    def evaluators(self, name: str, tasks: Sequence[str], folder: str) -> list[Any]:
        """Cityscapes' own numbers of masks or pixels, and COCO's of boxes, for which it has none."""
        if "sem_seg" in tasks:
            return [PixelEvaluator(name)]
        from ..evaluate import CocoEvaluator

        chosen: list[Any] = [CocoEvaluator(name, ["bbox"], output_dir=folder)]
        return [*chosen, MaskEvaluator(name)] if "segm" in tasks else chosen


class MaskEvaluator(CityscapesInstanceEvaluator):
    """Cityscapes' evaluation of masks, step by step, with the AP of each class.

    As a whole, as detectron2 calls it, it leaves a file in the working directory and fails with NumPy 2.4.
    """

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Percentages; nan for a class without objects; None in all but the first process."""
        comm.synchronize()
        if not comm.is_main_process():
            return None
        official, args = _official("evalInstanceLevelSemanticLabeling", self._temp_dir)
        truth = sorted(str(file) for file in Path(self._metadata.gt_dir).glob("*/*_instanceIds.png"))
        found = [official.getPrediction(file, args) for file in truth]
        official.setInstanceLabels(args)
        with _dropped_by_numpy():
            matches = official.matchGtWithPreds(found, truth, official.instances2dict(truth, False), args)
        averages = official.computeAverages(official.evaluateMatches(matches, args), args)
        self._working_dir.cleanup()
        scores = {"AP": averages["allAp"], "AP50": averages["allAp50%"]}
        scores |= {f"AP-{name}": ap["ap"] for name, ap in averages["classes"].items()}
        return {"segm": _told("segm", scores)}


class PixelEvaluator(CityscapesSemSegEvaluator):
    """Cityscapes' evaluation of pixels, with the IoU of each class.

    Its mean over classes has also the name that others give it, mIoU.
    """

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Percentages; nan for a class without pixels; None in all but the first process."""
        comm.synchronize()
        if not comm.is_main_process():
            return None
        official, args = _official("evalPixelLevelSemanticLabeling", self._temp_dir)
        truth = sorted(str(file) for file in Path(self._metadata.gt_dir).glob("*/*_labelIds.png"))
        found = [official.getPrediction(args, file) for file in truth]
        with _dropped_by_numpy():
            numbers = official.evaluateImgLists(found, truth, args)
        self._working_dir.cleanup()
        scores = {
            "mIoU": numbers["averageScoreClasses"],
            "IoU": numbers["averageScoreClasses"],
            "iIoU": numbers["averageScoreInstClasses"],
            "IoU_sup": numbers["averageScoreCategories"],
            "iIoU_sup": numbers["averageScoreInstCategories"],
        }
        scores |= {f"IoU-{name}": numbers["classScores"][name] for name in self._metadata.stuff_classes}
        return {"sem_seg": _told("sem_seg", scores)}


def _official(name: str, folder: str) -> tuple[Any, Any]:
    """One of Cityscapes' evaluations and its settings, which are global, for the predictions in a folder."""
    official = importlib.import_module(f"cityscapesscripts.evaluation.{name}")
    args = official.args
    args.predictionPath, args.predictionWalk = str(Path(folder).resolve()), None
    args.quiet, args.JSONOutput = True, False
    return official, args


def _told(task: str, scores: Mapping[str, Any]) -> dict[str, float]:
    """Shares as percentages, and in the log."""
    results = {name: 100 * float(score) for name, score in scores.items()}
    logging.getLogger(__name__).info(f"Evaluation results for {task}:\n{create_small_table(results)}")
    return results


@contextmanager
def _dropped_by_numpy() -> Iterator[None]:
    """Lend NumPy the name that cityscapesscripts 2.3 calls and NumPy 2.4 has no more."""
    if hasattr(np, "in1d"):
        yield
        return
    vars(np)["in1d"] = np.isin
    try:
        yield
    finally:
        del vars(np)["in1d"]


def _stems(folder: Path, end: str) -> set[str]:
    """``CITY/CITY_SEQUENCE_FRAME`` of the files of all cities with such an end of their names."""
    return {f"{file.parent.name}/{file.name.removesuffix(end)}" for file in folder.glob(f"*/*{end}")}


def _folders(split: str) -> tuple[Path, Path]:
    return published("cityscapes", "leftImg8bit", split), published("cityscapes", "gtFine", split)


def _load_objects(images: Path, truth: Path) -> list[dict[str, Any]]:
    dicts: list[dict[str, Any]] = load_cityscapes_instances(
        str(images), str(truth), from_json=True, to_polygons=True
    )
    dicts.sort(key=lambda entry: entry["file_name"])  # folders are listed in any order
    for number, entry in enumerate(dicts, start=1):
        entry["image_id"] = number  # COCO's evaluation wants numbers
    return dicts


def _load_semantic(images: Path, truth: Path) -> list[dict[str, Any]]:
    """Pixels of the published maps of labels, which detectron2 would want converted to others before."""
    from cityscapesscripts.helpers.labels import id2label

    classes = [id2label[i].trainId if i in id2label else IGNORED for i in range(256)]
    dicts = []
    for image_file, _, label_file, json_file in _get_cityscapes_files(str(images), str(truth)):
        size = json.loads(Path(json_file).read_bytes())
        dicts.append(
            {
                "file_name": image_file,
                "image_id": Path(image_file).stem,
                "sem_seg_file_name": label_file,
                "sem_seg_classes": [c if 0 <= c < IGNORED else IGNORED for c in classes],
                "height": size["imgHeight"],
                "width": size["imgWidth"],
            }
        )
    return dicts
