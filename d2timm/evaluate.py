"""COCO evaluation: all twelve numbers for boxes and masks, and AP for each class."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.evaluation import COCOEvaluator
from detectron2.evaluation.coco_evaluation import _evaluate_predictions_on_coco
from detectron2.utils.logger import create_small_table
from faster_coco_eval import COCOeval_faster

__all__ = ["CocoEvaluator", "coco_tasks"]

RECALLS = ("AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
PRECISIONS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def coco_tasks(masks: Any) -> list[str]:
    """What to evaluate: boxes, and masks where the detector has them (is not None)."""
    return ["bbox"] if masks is None else ["bbox", "segm"]


class CocoEvaluator(COCOEvaluator):
    """detectron2's COCO evaluator with the recalls, by faster-coco-eval's compiled implementation.

    A detector that finds nothing scores 0, where detectron2 tells nan. Numbers are percentages; nan
    where the set has no object of that size or class.
    """

    def _eval_predictions(
        self, predictions: list[dict[str, Any]], img_ids: Sequence[int] | None = None
    ) -> None:
        detections = list(itertools.chain(*(x["instances"] for x in predictions)))
        ids = {new: old for old, new in self._metadata.thing_dataset_id_to_contiguous_id.items()}
        for detection in detections:
            detection["category_id"] = ids[detection["category_id"]]
        if self._output_dir:
            file = Path(self._output_dir) / "coco_instances_results.json"
            file.write_text(json.dumps(detections))
        for task in self._tasks or sorted(self._tasks_from_predictions(detections)):
            result = None
            if detections:
                with contextlib.redirect_stdout(io.StringIO()):  # the tables below say it all
                    result = _evaluate_predictions_on_coco(
                        self._coco_api,
                        detections,
                        task,
                        cocoeval_fn=COCOeval_faster,
                        img_ids=img_ids,
                        max_dets_per_image=self._max_dets_per_image,
                    )
            names = self._metadata.thing_classes
            self._results[task] = self._derive_coco_results(result, task, names)

    def _derive_coco_results(
        self, coco_eval: Any, iou_type: str, class_names: Sequence[str] | None = None
    ) -> dict[str, float]:
        if coco_eval is None:
            self._logger.warning("The model detected nothing.")
            keys = [*PRECISIONS, *RECALLS, *(f"AP-{name}" for name in class_names or ())]
            return dict.fromkeys(keys, 0.0)
        results = super()._derive_coco_results(coco_eval, iou_type, class_names)
        recalls = {
            name: float(value * 100 if value >= 0 else "nan")
            for name, value in zip(RECALLS, coco_eval.stats[6:12], strict=True)
        }
        self._logger.info(f"Average recall for {iou_type}:\n{create_small_table(recalls)}")
        return {**results, **recalls}
