"""Datasets in COCO's formats: object annotations, keypoints and panoptic maps, as they are published."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.data.datasets import load_coco_json

from ...errors import ConfigError
from ..formats import coco_file
from ..paths import COCO, PUBLISHED_HINT, Split, coco_2017
from . import panoptic
from .base import IGNORED, Dataset, register

__all__ = ["CocoDataset", "CocoKeypointsDataset", "CocoPanopticDataset", "CustomCocoDataset"]


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

    def load(self, split: str, name: str, tasks: Sequence[str]) -> list[dict[str, Any]]:
        """Read a split into detectron2's format.

        Args:
            split: ``train`` or ``val``.
            name: the split's name in detectron2's catalogs.
            tasks: the tasks of the detector.
        """
        files = self.files(split)
        dicts: list[dict[str, Any]] = load_coco_json(str(files.json), str(files.images), name)
        if "sem_seg" in tasks:
            panoptic.add_segments(dicts, files, self.classes(), self.semantic_classes(tasks))
        if "bbox" not in tasks:
            for entry in dicts:  # otherwise detectron2 would leave out images without objects
                entry.pop("annotations")
        return dicts

    def evaluators(self, name: str, tasks: Sequence[str], folder: str) -> list[Any]:
        """COCO's metrics of objects, and of pixels and segments where the tasks include them."""
        # reading a dataset needs no evaluators
        from ...evaluation.coco import CocoEvaluator, SemanticEvaluator, keypoint_sigmas
        from ...evaluation.panoptic import PanopticEvaluator

        object_tasks = [task for task in tasks if task in ("bbox", "segm", "keypoints")]
        evaluators: list[Any] = []
        if object_tasks:
            sigmas = keypoint_sigmas(self.keypoints()) if "keypoints" in tasks else ()
            evaluators.append(CocoEvaluator(name, object_tasks, output_dir=folder, kpt_oks_sigmas=sigmas))
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


class CustomCocoDataset(CocoDataset):
    """A user's own files in COCO's formats; classes and keypoints are read from them.

    Args:
        name: ``data.name``.
        files: returns the files of a split.
        label: returns the setting that selects a file, for error messages; called with the split and the kind
            of file.
        annotated_tasks: the tasks that the files may have annotations for.
    """

    hint = ""

    def __init__(
        self,
        name: str,
        files: Callable[[str], Split],
        label: Callable[[str, str], str],
        annotated_tasks: tuple[str, ...] = ("bbox", "segm", "keypoints"),
    ) -> None:
        self.name, self.annotated_tasks, self._files, self._label = name, annotated_tasks, files, label

    def files(self, split: str) -> Split:
        """The files of a split."""
        return self._files(split)

    def label(self, split: str, kind: str) -> str:
        """The name of a file in error messages."""
        return self._label(split, kind)

    def classes(self) -> list[str]:
        """Names of the classes in the training split, or in the validation split if there is no other."""
        return coco_file.categories(self._coco(self._reference_split()))

    def keypoints(self) -> list[str]:
        """Names of the keypoints of every object."""
        split = self._reference_split()
        return coco_file.keypoint_names(self._coco(split), self.label(split, "json"))

    def check(self, split: str, tasks: Sequence[str]) -> str:
        """Check the files, the images and every object, and describe the split in one line."""
        super().check(split, tasks)
        files, coco = self.files(split), self._coco(split)
        label = f"{self.label(split, 'json')}={files.json}"
        usable = coco_file.check_objects(coco, tasks, label)
        coco_file.check_images(coco, files.images, files.json.name, self.label(split, "images"))
        names = coco_file.categories(coco)
        if names != self.classes():
            raise ConfigError(
                f"{label}: its categories {names} differ from {self.classes()} in the training split"
            )
        return f"{self.name} {split}: {len(coco['images'])} images, {usable} objects, {len(names)} classes"

    def _reference_split(self) -> str:
        """The split whose file defines the classes and keypoints."""
        try:
            return "train" if self.files("train").json.is_file() else "val"
        except ConfigError:
            return "val"  # no training split is configured

    def _coco(self, split: str) -> dict[str, Any]:
        file = self.files(split).json
        if not file.is_file():
            raise ConfigError(f"{self.label(split, 'json')}={file}: no such file")
        return coco_file.read_coco(file)
