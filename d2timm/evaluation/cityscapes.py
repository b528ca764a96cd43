"""Cityscapes' official evaluation of instance masks and of semantic segmentation, by cityscapesscripts."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.evaluation import CityscapesInstanceEvaluator, CityscapesSemSegEvaluator
from detectron2.utils import comm
from detectron2.utils.logger import create_small_table

__all__ = ["CityscapesMaskEvaluator", "CityscapesSemanticEvaluator"]


class CityscapesMaskEvaluator(CityscapesInstanceEvaluator):
    """Cityscapes' evaluation of instance masks, with the AP of each class.

    It calls the steps of the official evaluation one by one. The function that detectron2 calls writes a file
    into the working directory, and fails with NumPy 2.4.
    """

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Return metrics in percent, NaN for classes without objects; None except in the main process."""
        comm.synchronize()
        if not comm.is_main_process():
            return None
        official, args = _official("evalInstanceLevelSemanticLabeling", self._temp_dir)
        files = _processed(self._metadata.gt_dir, "instanceIds", self._temp_dir)
        predictions = [official.getPrediction(file, args) for file in files]
        official.setInstanceLabels(args)
        with _restored_in1d():
            instances = official.instances2dict(files, False)
            matches = official.matchGtWithPreds(predictions, files, instances, args)
        averages = official.computeAverages(official.evaluateMatches(matches, args), args)
        self._working_dir.cleanup()
        scores = {"AP": averages["allAp"], "AP50": averages["allAp50%"]}
        scores |= {f"AP-{name}": ap["ap"] for name, ap in averages["classes"].items()}
        return {"segm": _log_percentages("segm", scores)}


class CityscapesSemanticEvaluator(CityscapesSemSegEvaluator):
    """Cityscapes' evaluation of semantic segmentation, with the IoU of each class.

    The mean over classes is both ``IoU``, its name in Cityscapes, and ``mIoU``, its name elsewhere.
    """

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Return metrics in percent, NaN for classes without pixels; None except in the main process."""
        comm.synchronize()
        if not comm.is_main_process():
            return None
        official, args = _official("evalPixelLevelSemanticLabeling", self._temp_dir)
        files = _processed(self._metadata.gt_dir, "labelIds", self._temp_dir)
        predictions = [official.getPrediction(args, file) for file in files]
        with _restored_in1d():
            averages = official.evaluateImgLists(predictions, files, args)
        self._working_dir.cleanup()
        scores = {
            "mIoU": averages["averageScoreClasses"],
            "IoU": averages["averageScoreClasses"],
            "iIoU": averages["averageScoreInstClasses"],
            "IoU_sup": averages["averageScoreCategories"],
            "iIoU_sup": averages["averageScoreInstCategories"],
        }
        scores |= {f"IoU-{name}": averages["classScores"][name] for name in self._metadata.stuff_classes}
        return {"sem_seg": _log_percentages("sem_seg", scores)}


def _official(name: str, folder: str) -> tuple[Any, Any]:
    """Import an evaluation script of Cityscapes, and set its global options for predictions in a folder."""
    official = importlib.import_module(f"cityscapesscripts.evaluation.{name}")
    args = official.args
    args.predictionPath, args.predictionWalk = str(Path(folder).resolve()), None
    args.quiet, args.JSONOutput = True, False
    return official, args


def _processed(gt_dir: str, kind: str, folder: str) -> list[str]:
    """The ground truth of the images with predictions in a folder, which unreadable images lack."""
    images = {_image(file) for file in Path(folder).iterdir()}
    return sorted(str(f) for f in Path(gt_dir).glob(f"*/*_{kind}.png") if _image(f) in images)


def _image(file: Path) -> tuple[str, ...]:
    """City, sequence and frame, with which the names of all files of an image begin."""
    return tuple(file.name.split("_")[:3])


def _log_percentages(task: str, scores: Mapping[str, Any]) -> dict[str, float]:
    """Convert scores of 0 to 1 to percentages, and log them."""
    results = {name: 100 * float(score) for name, score in scores.items()}
    logging.getLogger(__name__).info(f"Evaluation results for {task}:\n{create_small_table(results)}")
    return results


@contextmanager
def _restored_in1d() -> Iterator[None]:
    """Restore ``np.in1d``, which cityscapesscripts 2.3 calls and NumPy 2.4 has removed."""
    if hasattr(np, "in1d"):
        yield
        return
    vars(np)["in1d"] = np.isin
    try:
        yield
    finally:
        del vars(np)["in1d"]
