"""Cityscapes' own evaluation of masks and of pixels, by the package cityscapesscripts."""

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


class CityscapesSemanticEvaluator(CityscapesSemSegEvaluator):
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
