"""Evaluation of objects by COCO's and LVIS's rules, and of pixels."""

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

#: The numbers of COCO's summary, in its order
OBJECTS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
KEYPOINTS = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")
LVIS_DETECTIONS = 300  # of an image, that count
COCO_KEYPOINTS = 17  # of a person, for which COCO measured how exact annotators are


def keypoint_sigmas(names: Sequence[str]) -> list[float]:
    """How exact each keypoint has to be, as a share of the object's size; []: COCO's own for a person.

    Where nobody has measured it, all are alike and add up to 1, as in Ultralytics' pose evaluation.
    """
    return [] if len(names) == COCO_KEYPOINTS else [1 / len(names)] * len(names)


class CocoEvaluator(COCOEvaluator):
    """detectron2's COCO evaluator with the recalls, by faster-coco-eval's compiled implementation.

    A detector that finds nothing scores 0, where detectron2 tells nan. Numbers are percentages; nan
    where the set has no object of that size or class.

    Args:
        dataset_name: in detectron2's catalogues.
        tasks: of ``bbox``, ``segm`` and ``keypoints``.
        output_dir: for the detections.
        kpt_oks_sigmas: those of ``keypoint_sigmas``.
    """

    def __init__(
        self,
        dataset_name: str,
        tasks: Sequence[str],
        output_dir: str | None = None,
        kpt_oks_sigmas: Sequence[float] = (),
    ) -> None:
        super().__init__(dataset_name, tasks, output_dir=output_dir, kpt_oks_sigmas=kpt_oks_sigmas)
        _complete(self._coco_api)

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
                    result = self._compare(detections, task, img_ids)
            names = self._metadata.thing_classes
            self._results[task] = self._derive_coco_results(result, task, names)

    def _compare(self, detections: list[dict[str, Any]], task: str, img_ids: Sequence[int] | None) -> Any:
        """Match detections with the truth, and give the evaluation with its summary."""
        return _evaluate_predictions_on_coco(
            self._coco_api,
            detections,
            task,
            # the faster one wants a COCO class of its own for keypoints
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
    """LVIS's rules (Gupta et al., CVPR 2019, https://arxiv.org/abs/1908.03195).

    Annotations of an image are of some classes only: a detection of one that they say nothing of does not
    count. There are numbers for rare, common and frequent classes. faster-coco-eval has these rules; the
    package of LVIS's authors does not run with NumPy 2.
    """

    def _compare(self, detections: list[dict[str, Any]], task: str, img_ids: Sequence[int] | None) -> Any:
        # the limit is of an image; faster-coco-eval has it for each class of an image
        ranked = sorted(detections, key=lambda d: (d["image_id"], -d["score"]))
        images = itertools.groupby(ranked, key=lambda d: d["image_id"])
        best = itertools.chain.from_iterable(itertools.islice(of, LVIS_DETECTIONS) for _, of in images)
        # boxes would be taken for the areas of masks
        kept = [{k: v for k, v in d.items() if k != "bbox"} if task == "segm" else dict(d) for d in best]
        truth = COCO(self._metadata.json_file)
        evaluation = COCOeval_faster(truth, truth.loadRes(kept), task, lvis_style=True)
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
        numbers = coco_eval.stats_as_dict
        results = {told: 100 * n if (n := float(numbers[key])) >= 0 else nan for key, told in names.items()}
        self._logger.info(f"Evaluation results for {iou_type}:\n{create_small_table(results)}")
        return results


class SemanticEvaluator(SemSegEvaluator):
    """detectron2's evaluator of pixels' classes, for truth that comes in any form.

    Args:
        dataset_name: in detectron2's catalogues.
        read: gives the (H, W) classes of an image, of the file that the set names.
        output_dir: for the results.
    """

    def __init__(self, dataset_name: str, read: Callable[..., Any], output_dir: str) -> None:
        super().__init__(dataset_name, output_dir=output_dir, sem_seg_loading_fn=read)
        # pixels have numbers of classes here, which are no category ids of the set
        self._contiguous_id_to_dataset_id = None


def _complete(truth: Any) -> None:
    """Give annotations what the evaluation asks and files of one's own may lack, in place.

    Their ids then count from 1: for pycocotools a detection that matches an annotation of id 0 matches none.
    """
    annotations = [a for a in truth.dataset["annotations"] if a["image_id"] in truth.imgs]
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
        annotation.setdefault("iscrowd", 0)
        annotation.setdefault("area", annotation["bbox"][2] * annotation["bbox"][3])
        seen = sum(visibility > 0 for visibility in annotation.get("keypoints", [])[2::3])
        annotation.setdefault("num_keypoints", seen)
    truth.dataset["annotations"] = annotations
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
