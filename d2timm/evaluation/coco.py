"""Evaluation of detections by the rules of COCO and LVIS, and of semantic segmentation."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
from collections.abc import Callable, Sequence
from math import nan
from pathlib import Path
from typing import Any

from detectron2.evaluation import COCOEvaluator, SemSegEvaluator
from detectron2.evaluation.coco_evaluation import _evaluate_predictions_on_coco
from detectron2.utils.logger import create_small_table
from faster_coco_eval import COCO, COCOeval_faster
from pycocotools.cocoeval import COCOeval

__all__ = ["CocoEvaluator", "LvisEvaluator", "SemanticEvaluator", "keypoint_sigmas"]

#: Metrics of COCO's summary, in its order
OBJECTS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
KEYPOINTS = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")
LVIS_DETECTIONS = 300  # evaluated per image
COCO_KEYPOINTS = 17  # keypoints of a person, for which COCO has measured the variance of annotations


def keypoint_sigmas(names: Sequence[str]) -> list[float]:
    """Sigmas of object keypoint similarity, relative to the object's size; [] for COCO's sigmas of a person.

    Nobody has measured sigmas of other keypoints: they are equal and add up to 1, as in Ultralytics' pose
    evaluation.

    Args:
        names: names of the keypoints.
    """
    return [] if len(names) == COCO_KEYPOINTS else [1 / len(names)] * len(names)


class CocoEvaluator(COCOEvaluator):
    """detectron2's COCO evaluator with average recalls, computed by the compiled faster-coco-eval.

    Metrics are in percent, and NaN if the dataset has no object of a size or class. Without any detections,
    they are 0; detectron2 returns NaN.

    Args:
        dataset_name: name in detectron2's catalogs.
        tasks: a selection of ``bbox``, ``segm`` and ``keypoints``.
        output_dir: folder for ``coco_instances_results.json``; None to write no file.
        kpt_oks_sigmas: sigmas from ``keypoint_sigmas``.
    """

    def __init__(
        self,
        dataset_name: str,
        tasks: Sequence[str],
        output_dir: str | None = None,
        kpt_oks_sigmas: Sequence[float] = (),
    ) -> None:
        super().__init__(dataset_name, tasks, output_dir=output_dir, kpt_oks_sigmas=kpt_oks_sigmas)
        _complete_annotations(self._coco_api)

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
                with contextlib.redirect_stdout(io.StringIO()):  # tables are logged below
                    result = self._evaluate(detections, task, img_ids)
            names = self._metadata.thing_classes
            self._results[task] = self._derive_coco_results(result, task, names)

    def _evaluate(self, detections: list[dict[str, Any]], task: str, img_ids: Sequence[int] | None) -> Any:
        """Match detections with annotations; returns the evaluation with its summary."""
        return _evaluate_predictions_on_coco(
            self._coco_api,
            detections,
            task,
            # for keypoints, the faster one would need a COCO class of its own
            cocoeval_fn=COCOeval if task == "keypoints" else COCOeval_faster,
            img_ids=img_ids,
            kpt_oks_sigmas=self._kpt_oks_sigmas,
            max_dets_per_image=self._max_dets_per_image,
        )

    def _derive_coco_results(
        self, coco_eval: Any, iou_type: str, class_names: Sequence[str] | None = None
    ) -> dict[str, float]:
        metrics = KEYPOINTS if iou_type == "keypoints" else OBJECTS
        if coco_eval is None:
            self._logger.warning("The model detected nothing.")
            by_class = [] if iou_type == "keypoints" else [f"AP-{name}" for name in class_names or ()]
            return dict.fromkeys([*metrics, *by_class], 0.0)
        results = super()._derive_coco_results(coco_eval, iou_type, class_names)
        recalls = {
            name: float(value * 100 if value >= 0 else "nan")
            for name, value in zip(metrics, coco_eval.stats, strict=True)
            if name.startswith("AR")
        }
        self._logger.info(f"Average recall for {iou_type}:\n{create_small_table(recalls)}")
        return {**results, **recalls}


class LvisEvaluator(CocoEvaluator):
    """Evaluator by the rules of LVIS (Gupta et al., CVPR 2019, https://arxiv.org/abs/1908.03195).

    Each image is annotated for some of the classes, and its detections of other classes are ignored. Rare,
    common and frequent classes have metrics of their own. faster-coco-eval implements these rules, and the
    package of LVIS's authors does not run with NumPy 2.
    """

    def _evaluate(self, detections: list[dict[str, Any]], task: str, img_ids: Sequence[int] | None) -> Any:
        # the limit applies to an image; faster-coco-eval applies it to each class of an image
        ranked = sorted(detections, key=lambda d: (d["image_id"], -d["score"]))
        images = itertools.groupby(ranked, key=lambda d: d["image_id"])
        best = itertools.chain.from_iterable(itertools.islice(group, LVIS_DETECTIONS) for _, group in images)
        # with boxes, the areas of masks would be computed from them
        results = [{k: v for k, v in d.items() if k != "bbox"} if task == "segm" else dict(d) for d in best]
        annotations = COCO(self._metadata.json_file)
        evaluation = COCOeval_faster(annotations, annotations.loadRes(results), task, lvis_style=True)
        evaluation.params.maxDets = [LVIS_DETECTIONS]
        evaluation.run()
        return evaluation

    def _derive_coco_results(
        self, coco_eval: Any, iou_type: str, class_names: Sequence[str] | None = None
    ) -> dict[str, float]:
        names = {"AP_all": "AP", "AP_50": "AP50", "AP_75": "AP75"}
        names |= {"AP_small": "APs", "AP_medium": "APm", "AP_large": "APl", "AR_all": f"AR{LVIS_DETECTIONS}"}
        names |= {name: name for name in ("APr", "APc", "APf")}
        if coco_eval is None:
            self._logger.warning("The model detected nothing.")
            return dict.fromkeys(names.values(), 0.0)
        stats = coco_eval.stats_as_dict
        results = {name: 100 * n if (n := float(stats[key])) >= 0 else nan for key, name in names.items()}
        self._logger.info(f"Evaluation results for {iou_type}:\n{create_small_table(results)}")
        return results


class SemanticEvaluator(SemSegEvaluator):
    """detectron2's evaluator of semantic segmentation, for ground truth in any file format.

    Args:
        dataset_name: name in detectron2's catalogs.
        read: returns the (H, W) classes of the pixels, from the file that the dataset has for an image.
        output_dir: folder for the results.
    """

    def __init__(self, dataset_name: str, read: Callable[..., Any], output_dir: str) -> None:
        super().__init__(dataset_name, output_dir=output_dir, sem_seg_loading_fn=read)
        # pixels of the ground truth hold class indices, not the dataset's category ids
        self._contiguous_id_to_dataset_id = None


def _complete_annotations(coco: Any) -> None:
    """Add the fields that the evaluation reads and that users' files may lack, in place.

    Ids of annotations then count from 1, because pycocotools treats a match with id 0 as no match.
    """
    annotations = [a for a in coco.dataset["annotations"] if a["image_id"] in coco.imgs]
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
        annotation.setdefault("iscrowd", 0)
        annotation.setdefault("area", annotation["bbox"][2] * annotation["bbox"][3])
        labelled = sum(visibility > 0 for visibility in annotation.get("keypoints", [])[2::3])
        annotation.setdefault("num_keypoints", labelled)
    coco.dataset["annotations"] = annotations
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
