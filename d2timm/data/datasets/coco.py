"""Datasets in COCO's formats: object annotations, keypoints and panoptic maps, as they are published."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.data import MetadataCatalog

from ...errors import ConfigError
from ..checks.clean_split import CleanSplit
from ..checks.findings import SKIPPED, STOP, Findings
from ..checks.structure import summary_of
from ..coco_columns import open_columns
from ..columns import Columns
from ..entries import ColumnEntries, Entries
from ..formats import coco_file
from ..paths import COCO, PUBLISHED_HINT, Split, coco_2017
from . import panoptic
from .base import IGNORED, Dataset, register

__all__ = ["CocoDataset", "CocoKeypointsDataset", "CocoPanopticDataset", "CustomDataset"]

#: Split -> how the user gets one
MISSING = {
    "train": "set data.train_json and data.train_images, or data.root",
    "val": "set data.val_json and data.val_images, or data.val_share=0.2, which holds out some of the images",
}


class CocoDataset(Dataset):
    """COCO 2017, and the base class of datasets with files in the same formats.

    ``check`` does not read the files, because published files are large and correct.

    Attributes:
        hint: the end of the error message for a missing file.
    """

    name = COCO
    annotated_tasks: tuple[str, ...] = ("bbox", "segm")
    hint = PUBLISHED_HINT

    def files(self, split: str) -> Split:
        """The files of a split."""
        return coco_2017(split)

    def label(self, split: str, kind: str) -> str:
        """The name of a file (``json``, ``images``) in error messages: the setting that selects it."""
        return f"data.name={self.name}: {split} {kind}"

    def classes(self) -> list[str]:
        """Names of the object classes; does not read the annotations."""
        return list(MetadataCatalog.get("coco_2017_val").thing_classes)

    def check(self, split: str, tasks: Sequence[str]) -> str:
        """Check that the files exist, and describe the split in one line."""
        files = self.files(split)
        kinds = ["json", "images", *(["panoptic_json", "panoptic"] if "sem_seg" in tasks else [])]
        for kind in kinds:
            path = getattr(files, kind)
            is_json = kind.endswith("json")
            if not (path.is_file() if is_json else path.is_dir()):
                missing = "no such file" if is_json else "no such folder"
                raise ConfigError(f"{self.label(split, kind)}={path}: {missing}{self.hint}")
        return f"{self.name} {split}: {files.json}"

    def register(self, split: str, tasks: Sequence[str]) -> str:
        """Register a split with detectron2, unless it is registered, and return its name in the catalogs."""
        files = self.files(split)
        # the name contains the paths, because runs in one process may use different files
        name = f"{self.name}_{split}:{files.json}:{files.images}"
        metadata: dict[str, Any] = {"json_file": str(files.json), "image_root": str(files.images)}
        if "sem_seg" in tasks:
            stuff = self.semantic_classes(tasks)
            name += f":{len(stuff)}"  # the pixel classes depend on the detector
            metadata |= {"stuff_classes": stuff, "ignore_label": IGNORED}
        if "keypoints" in tasks:
            metadata |= {"keypoint_names": self.keypoints()}
        return register(
            name, partial(self.load, split, name, tasks), thing_classes=self.classes(), **metadata
        )

    def load(self, split: str, name: str, tasks: Sequence[str]) -> Entries:
        """Read a split into detectron2's format.

        Args:
            split: ``train`` or ``val``.
            name: the split's name in detectron2's catalogs.
            tasks: the tasks of the detector.
        """
        files = self.files(split)
        columns = self.columns(files)
        ids = {category["id"]: index for index, category in enumerate(columns.categories)}
        MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id = ids
        segments = None
        if "sem_seg" in tasks:
            segments = panoptic.PanopticSegments(files, self.classes(), self.semantic_classes(tasks))
            segments.check(columns.image_ids)
        # without objects, no image is left out for a lack of them
        return ColumnEntries(columns, str(files.images), "bbox" in tasks, segments)

    def columns(self, files: Split) -> Columns:
        """The annotations of a split."""
        columns, classes = open_columns(files.json), self.classes()
        if (names := [category["name"] for category in columns.categories]) != classes:
            raise ConfigError(f"{files.json}: its classes are {summary_of(names)}, not {summary_of(classes)}")
        return columns

    def evaluators(
        self, name: str, tasks: Sequence[str], folder: str, detections_per_image: int = 0
    ) -> list[Any]:
        """COCO's metrics of objects, and of pixels and segments where the tasks include them."""
        # reading a dataset needs no evaluators
        from ...evaluation.coco import CocoEvaluator, SemanticEvaluator, keypoint_sigmas
        from ...evaluation.panoptic import PanopticEvaluator

        object_tasks = [task for task in tasks if task in ("bbox", "segm", "keypoints")]
        evaluators: list[Any] = []
        if object_tasks:
            sigmas = keypoint_sigmas(self.keypoints()) if "keypoints" in tasks else ()
            evaluators.append(CocoEvaluator(name, object_tasks, folder, sigmas, detections_per_image))
        if "sem_seg" in tasks:
            evaluators.append(SemanticEvaluator(name, panoptic.semantic_reader(name), folder))
        if "panoptic_seg" in tasks:
            evaluators.append(PanopticEvaluator(name, panoptic.read_segments))
        return evaluators


class CocoKeypointsDataset(CocoDataset):
    """The people of COCO 2017 and their keypoints."""

    name = "coco_2017_keypoints"
    annotated_tasks = ("bbox", "segm", "keypoints")

    def files(self, split: str) -> Split:
        """The files of a split."""
        return coco_2017(split, "person_keypoints")

    def classes(self) -> list[str]:
        """Name of the only class with keypoints."""
        return list(MetadataCatalog.get("keypoints_coco_2017_val").thing_classes)

    def keypoints(self) -> list[str]:
        """Names of the 17 keypoints."""
        return list(MetadataCatalog.get("keypoints_coco_2017_val").keypoint_names)


class CocoPanopticDataset(CocoDataset):
    """COCO 2017 with its panoptic maps as published; they need no preparation."""

    name = "coco_2017_panoptic"
    annotated_tasks = ("bbox", "segm", "sem_seg", "panoptic_seg")

    def stuff(self) -> list[str]:
        """Names of the 53 pixel classes that are not objects."""
        return list(MetadataCatalog.get("coco_2017_val_panoptic").stuff_classes)[len(self.classes()) :]


class CustomDataset(CocoDataset):
    """A user's own annotations, checked and cleaned; classes and keypoints are read from them.

    Args:
        name: ``data.name``.
        open_split: returns a split, or None if there is no such split.
        annotated_tasks: the tasks that the format may have annotations for.
        on_error: what happens to samples that cannot be used: ``skip`` or ``stop``.
    """

    def __init__(
        self,
        name: str,
        open_split: Callable[[str], CleanSplit | None],
        annotated_tasks: tuple[str, ...] = ("bbox", "segm", "keypoints"),
        on_error: str = "skip",
    ) -> None:
        self.name, self.annotated_tasks = name, annotated_tasks
        self._open, self._on_error = open_split, on_error

    def splits(self) -> tuple[str, ...]:
        """The splits that the user has named, or that were found or made."""
        train = ("train",) if self._can_open("train") else ()
        return (*train, "val") if self.has("val") else train

    def has(self, split: str) -> bool:
        """Whether there is a split.

        Raises:
            ConfigError: the user has named it, and it cannot be read.
        """
        return self._open(split) is not None

    def _can_open(self, split: str) -> bool:
        try:
            return self.has(split)
        except ConfigError:  # which the check of the split raises again
            return False

    def split(self, split: str) -> CleanSplit:
        """A split.

        Raises:
            ConfigError: there is no such split.
        """
        opened = self._open(split)
        if opened is None:
            raise ConfigError(f"data.name={self.name} has no {split} split: {MISSING[split]}")
        return opened

    def files(self, split: str) -> Split:
        """The clean COCO file of a split in the cache, in which file names are absolute."""
        return Split(self.split(split).file, Path("/"))

    def findings(self, split: str) -> Findings:
        """What was found while a split was read."""
        return self.split(split).findings

    def checked(self, split: str) -> CleanSplit:
        """A split, whose annotations are checked."""
        return self.split(split)

    def note(self, split: str) -> str:
        """How a split was found or made; "" if the user has named it."""
        return self.split(split).note

    def classes(self) -> list[str]:
        """Names of the classes in the training split, or in the validation split if there is no other."""
        return coco_file.categories(self._reference().about)

    def keypoints(self) -> list[str]:
        """Names of the keypoints of every object."""
        reference = self._reference()
        return coco_file.keypoint_names(reference.about, reference.label)

    def check(self, split: str, tasks: Sequence[str]) -> str:
        """Check that a split can be used for these tasks, and describe it in one line."""
        opened = self.split(split)
        columns, findings = opened.columns, opened.findings
        label = f"{opened.label} ({opened.note})" if opened.note else opened.label
        left_out = findings.lines(SKIPPED, tasks=tasks)
        if stops := findings.lines(STOP, tasks=tasks):
            raise ConfigError(f"{label}: {'; '.join([*stops, *left_out])}")
        if left_out and self._on_error == "stop":
            raise ConfigError(f"{label}: {'; '.join(left_out)}; data.on_error=skip leaves them out")
        objects = ~columns.crowds
        if "segm" in tasks and not columns.has_mask[objects].any():
            reasons = "".join(f"; {line}" for line in findings.lines(SKIPPED, task="segm"))
            raise ConfigError(f"{label} has boxes but no usable segmentation: {coco_file.BOX_HEADS}{reasons}")
        if "keypoints" in tasks:
            coco_file.keypoint_names(opened.about, label)
            if not columns.visible[objects].any():
                raise ConfigError(f"{label} has no object with keypoints: {coco_file.BOX_HEADS}")
        return (
            f"{self.name} {split}: {len(columns)} images, {objects.sum()} objects, "
            f"{len(columns.categories)} classes"
        )

    def _reference(self) -> CleanSplit:
        """The split that defines the classes and keypoints."""
        opened = self._open("train") if self._can_open("train") else self._open("val")
        if opened is None:
            raise ConfigError(f"data.name={self.name} has no train split: {MISSING['train']}")
        return opened
