"""Evaluation of detections by the rules of COCO and LVIS, and of semantic segmentation."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from math import nan
from pathlib import Path
from typing import Any

import hotcoco
import numpy as np
from detectron2.evaluation import COCOEvaluator, SemSegEvaluator
from detectron2.utils import comm
from detectron2.utils.logger import create_small_table
from tabulate import tabulate

from . import matches, matching
from .annotations import Annotations
from .detections import DetectionStream, ImageDetections, write_results

__all__ = ["CocoEvaluator", "LvisEvaluator", "SemanticEvaluator", "keypoint_sigmas", "metric_names"]

#: Metrics of COCO's summary, in its order
OBJECTS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
KEYPOINTS = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")
LVIS_DETECTIONS = 300  # evaluated per image
COCO_KEYPOINTS = 17  # keypoints of a person, for which COCO has measured the variance of annotations
#: hotcoco's names of LVIS's metrics -> ours
LVIS = {
    **{name: name for name in ("AP", "AP50", "AP75", "APs", "APm", "APl")},
    **{f"AR@{LVIS_DETECTIONS}": f"AR{LVIS_DETECTIONS}"},
    **{name: name for name in ("APr", "APc", "APf")},
}
COLUMNS = 3  # classes in a row of a table
NO_IMAGE = "no image was evaluated"


def keypoint_sigmas(names: Sequence[str]) -> list[float]:
    """Sigmas of object keypoint similarity, relative to the object's size; [] for COCO's sigmas of a person.

    Nobody has measured sigmas of other keypoints: they are equal and add up to 1, as in Ultralytics' pose
    evaluation.

    Args:
        names: names of the keypoints.
    """
    return [] if len(names) == COCO_KEYPOINTS else [1 / len(names)] * len(names)


def metric_names(task: str, limit: int = 100) -> list[str]:
    """COCO's metrics of a task.

    Args:
        task: ``bbox``, ``segm`` or ``keypoints``.
        limit: number of detections of an image that count, of which ``AR100`` has its name.
    """
    return [*KEYPOINTS] if task == "keypoints" else [f"AR{limit}" if m == "AR100" else m for m in OBJECTS]


class CocoEvaluator(COCOEvaluator):
    """COCO's metrics of the images that were processed, computed by hotcoco.

    Metrics are in percent, and NaN if these images have no object of a size or class. COCO evaluates 100
    detections of an image, or 20 with keypoints. If a detector keeps more than 100, or an image has more
    objects than that, all detections count: ``AR100`` is then called ``AR300``, for example.

    Objects without a mask are ignored in the evaluation of masks, with the detections in their boxes; objects
    without keypoints are ignored in the evaluation of keypoints.

    Args:
        dataset_name: name in detectron2's catalogs.
        tasks: a selection of ``bbox``, ``segm`` and ``keypoints``.
        output_dir: folder for ``coco_instances_results.json``, which has the ids of the annotation file; None
            to write no file.
        kpt_oks_sigmas: sigmas from ``keypoint_sigmas``.
        detections_per_image: that the detector keeps. If it keeps more, all of them count nevertheless, but
            the names of metrics then depend on the images.

    Attributes:
        notes: how the last evaluation differs from COCO's, for the record of the run.
    """

    def __init__(
        self,
        dataset_name: str,
        tasks: Sequence[str],
        output_dir: str | None = None,
        kpt_oks_sigmas: Sequence[float] = (),
        detections_per_image: int = 0,
    ) -> None:
        super().__init__(dataset_name, tasks, output_dir=output_dir, kpt_oks_sigmas=kpt_oks_sigmas)
        self._detections_per_image = detections_per_image
        self._stream = DetectionStream()
        self.notes: list[str] = []

    def reset(self) -> None:
        """Discard all detections."""
        self.close()
        self._stream = DetectionStream()

    def close(self) -> None:
        """End the thread that encodes masks, after an error; ``evaluate`` and ``reset`` do so as well."""
        self._stream.close()

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Keep the detections of a batch.

        Args:
            inputs: with the ``image_id`` of each image.
            outputs: with ``instances``, as of a detector or of ``without_pasting``.
        """
        for image, output in zip(inputs, outputs, strict=True):
            if "instances" in output:
                self._stream.add(image["image_id"], output["instances"])

    def evaluate(self, img_ids: Sequence[int] | None = None) -> dict[str, dict[str, float]]:
        """Evaluate all processed images.

        Args:
            img_ids: a selection of them; None: all.

        Returns:
            Task -> metric -> percent; empty except in the main process. NaN if no image was processed.
        """
        self.notes = []
        comm.synchronize()
        gathered = comm.gather(self._stream.finish(), dst=0)
        if not comm.is_main_process():
            return {}
        images: list[ImageDetections] = [*itertools.chain.from_iterable(gathered)]
        if not images:
            self._note(NO_IMAGE)
            return {task: dict.fromkeys(self._metric_names(task), nan) for task in self._tasks}
        if self._output_dir:
            self._write(images, Path(self._output_dir))
        if not any(len(image.scores) for image in images):
            self._logger.warning("The model detected nothing.")
        chosen = sorted({image.image_id for image in images} if img_ids is None else set(img_ids))
        return {task: self._evaluate(images, task, chosen) for task in self._tasks}

    def _metric_names(self, task: str) -> list[str]:
        limit = matching.detection_limit(task, self._detections_per_image, 0)
        classes = self._metadata.thing_classes
        return [*metric_names(task, limit), *(f"AP-{name}" for name in classes if len(classes) > 1)]

    @cached_property
    def _annotations(self) -> Annotations:
        # the metadata is complete once the dataset was loaded
        return Annotations(self._coco_api.dataset, self._metadata.thing_dataset_id_to_contiguous_id)

    def _write(self, images: Sequence[ImageDetections], folder: Path) -> None:
        """Write the detections with the ids of the user's file, which may have been numbered anew."""

        def original(entries: Mapping[int, Mapping[str, Any]], number: int) -> Any:
            return entries[number].get("original_id", number)

        folder.mkdir(parents=True, exist_ok=True)
        categories = [original(self._coco_api.cats, number) for number in self._category_ids]
        file = folder / "coco_instances_results.json"
        write_results(file, images, partial(original, self._coco_api.imgs), categories)

    @property
    def _category_ids(self) -> list[int]:
        """The dataset's ids of all classes."""
        ids = self._metadata.thing_dataset_id_to_contiguous_id
        return sorted(ids, key=ids.__getitem__)

    def _evaluate(
        self, images: Sequence[ImageDetections], task: str, image_ids: Sequence[int]
    ) -> dict[str, float]:
        """The metrics of a task."""
        keypoints = len(self._metadata.get("keypoint_names", ())) or COCO_KEYPOINTS
        annotations = self._annotations.prepared(task, keypoints)
        limit = self._limit(annotations, images, task, {self._annotations.images[i] for i in image_ids})
        evaluation = matching.match(
            self._annotations, annotations, images, task, image_ids, limit, self._kpt_oks_sigmas
        )
        if self._output_dir and (collected := matches.collect(evaluation)):
            matches.write(collected, Path(self._output_dir) / matches.file_name(task))
        results, names = matching.averages(evaluation), self._metadata.thing_classes
        recalls = {name: value for name, value in results.items() if name.startswith("AR")}
        precisions = {name: value for name, value in results.items() if name not in recalls}
        self._logger.info(f"Evaluation results for {task}:\n{create_small_table(precisions)}")
        self._logger.info(f"Average recall for {task}:\n{create_small_table(recalls)}")
        if len(names) > 1:
            classes = matching.by_class(evaluation, names)
            self._logger.info(f"AP of each class for {task}:\n{_table_of_classes(classes)}")
            results |= classes
        return results

    def _limit(
        self,
        annotations: Sequence[Mapping[str, Any]],
        images: Sequence[ImageDetections],
        task: str,
        chosen: set[int],
    ) -> int:
        """The number of detections of an image that count; a note tells if COCO or the objects differ."""
        objects = [
            a["image_id"]
            for a in annotations
            if a["image_id"] in chosen and not a["iscrowd"] and (task != "keypoints" or a["num_keypoints"])
        ]
        kept, most_objects = self._detections_per_image, matching.most_in_an_image(objects)
        if 0 < kept < most_objects:
            self._note(
                f"{task}: an image has {most_objects} objects, and the detector keeps {kept} detections; "
                "raise detections_per_image"
            )
        made = (i for image in images for i in itertools.repeat(image.image_id, len(image.scores)))
        most_detections = max(kept, matching.most_in_an_image(made))
        limit = matching.detection_limit(task, most_detections, most_objects)
        if limit != (usual := matching.COCO_LIMITS[task]):
            self._note(f"{task}: up to {limit} detections per image count, where COCO counts {usual}")
        return limit

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self._logger.warning(text)


class LvisEvaluator(CocoEvaluator):
    """Evaluator by the rules of LVIS (Gupta et al., CVPR 2019, https://arxiv.org/abs/1908.03195).

    Each image is annotated for some of the classes, and its detections of other classes are ignored. Rare,
    common and frequent classes have metrics of their own. hotcoco implements these rules, and the package of
    LVIS's authors does not run with NumPy 2.
    """

    def _metric_names(self, task: str) -> list[str]:
        return list(LVIS.values())

    def _evaluate(
        self, images: Sequence[ImageDetections], task: str, image_ids: Sequence[int]
    ) -> dict[str, float]:
        if not matching.has_threads():
            raise RuntimeError(
                "LVIS is evaluated by threads, which this process lacks: it was forked from one that has "
                "evaluated; start it by spawn"
            )
        annotations = hotcoco.COCO(self._metadata.json_file)
        same = {i: i for i in self._coco_api.imgs}
        found = matching.load(annotations, images, task, same, self._category_ids)
        best = found.cap_detections_per_image(LVIS_DETECTIONS)
        evaluation = hotcoco.COCOeval(annotations, best, task, lvis_style=True)
        evaluation.params.img_ids = [*image_ids]
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.run()
        stats = evaluation.get_results()
        results = {name: 100 * n if (n := float(stats[key])) >= 0 else nan for key, name in LVIS.items()}
        self._logger.info(f"Evaluation results for {task}:\n{create_small_table(results)}")
        return results


class SemanticEvaluator(SemSegEvaluator):
    """detectron2's evaluator of semantic segmentation, for ground truth in any file format.

    Args:
        dataset_name: name in detectron2's catalogs.
        read: returns the (H, W) classes of the pixels, from the file that the dataset has for an image.
        output_dir: folder for the results.

    Attributes:
        notes: what is special about the last evaluation, for the record of the run.
    """

    def __init__(self, dataset_name: str, read: Callable[..., Any], output_dir: str) -> None:
        super().__init__(dataset_name, output_dir=output_dir, sem_seg_loading_fn=read)
        # pixels of the ground truth hold class indices, not the dataset's category ids
        self._contiguous_id_to_dataset_id = None
        self.notes: list[str] = []

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Return metrics in percent, NaN for classes without pixels; None except in the main process."""
        with np.errstate(divide="ignore", invalid="ignore"):
            results: dict[str, dict[str, float]] | None = super().evaluate()
        if results is None:
            return None
        is_empty = not self._conf_matrix.any()
        self.notes = [NO_IMAGE] if is_empty else []
        return {
            task: {name: nan if is_empty else float(value) for name, value in metrics.items()}
            for task, metrics in results.items()
        }


def _table_of_classes(results: Mapping[str, float]) -> str:
    """A table of the AP of each class, several classes in a row."""
    cells = [cell for name, ap in results.items() for cell in (name.removeprefix("AP-"), ap)]
    rows = [cells[start : start + 2 * COLUMNS] for start in range(0, len(cells), 2 * COLUMNS)]
    headers = ["class", "AP"] * min(COLUMNS, len(results))
    return str(tabulate(rows, headers, tablefmt="pipe", floatfmt=".3f", numalign="left"))
