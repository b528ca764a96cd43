"""Sets in COCO's formats: objects, keypoints, and panoptic maps as they are published."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.data.datasets import load_coco_json

from ...errors import ConfigError
from ..formats import coco_file
from ..paths import COCO, Split, coco_2017
from . import panoptic
from .base import IGNORED, Dataset, register
from .shapes import BACKGROUND, CLASSES, KEYPOINTS
from .shapes_dataset import shapes_root

__all__ = ["BELOW", "CocoDataset", "CocoKeypoints", "CocoPanoptic", "CustomCocoDataset", "ShapesDataset"]

BELOW = "; published sets are looked for below $DETECTRON2_DATASETS, or else ./datasets"


class CocoDataset(Dataset):
    """COCO 2017, and what has files like it.

    Its files are not read to check them: a published set is large, and right.
    """

    name = COCO
    annotated_tasks: tuple[str, ...] = ("bbox", "segm")
    place = BELOW

    def files(self, split: str) -> Split:
        """The files of a split."""
        return coco_2017(split)

    def told(self, split: str, kind: str) -> str:
        """How a file (``json``, ``images``) is called in messages: what the user would change."""
        return f"data.name={self.name}: {split} {kind}"

    def classes(self) -> list[str]:
        """Names of the classes of objects; known without a large file."""
        return list(MetadataCatalog.get("coco_2017_val").thing_classes)

    def check(self, split: str, tasks: Sequence[str]) -> str:
        """Make sure that the files are there."""
        files = self.files(split)
        kinds = ["json", "images", *(["panoptic_json", "panoptic"] if "sem_seg" in tasks else [])]
        for kind in kinds:
            path = getattr(files, kind)
            if not (path.is_file() if kind.endswith("json") else path.is_dir()):
                what = "file" if kind.endswith("json") else "folder"
                raise ConfigError(f"{self.told(split, kind)}={path}: no such {what}{self.place}")
        return f"{self.name} {split}: {files.json}"

    def register(self, split: str, tasks: Sequence[str]) -> str:
        """The split's name in detectron2's catalogues."""
        files = self.files(split)
        # a name of its own for each pair of paths: runs in one process may have different files
        name = f"{self.name}_{split}:{files.json}:{files.images}"
        metadata: dict[str, Any] = {"json_file": str(files.json), "image_root": str(files.images)}
        if "sem_seg" in tasks:
            stuff = self.semantic_classes(tasks)
            name += f":{len(stuff)}"  # what a pixel's classes are depends on the detector
            metadata |= {"stuff_classes": stuff, "ignore_label": IGNORED}
        if "keypoints" in tasks:
            metadata |= {"keypoint_names": self.keypoints()}
        return register(
            name, partial(self.load, split, name, tasks), thing_classes=self.classes(), **metadata
        )

    def load(self, split: str, name: str, tasks: Sequence[str]) -> list[dict[str, Any]]:
        """A split in detectron2's format.

        Args:
            split: ``train`` or ``val``.
            name: under which it is registered.
            tasks: what the detector finds.
        """
        files = self.files(split)
        dicts: list[dict[str, Any]] = load_coco_json(str(files.json), str(files.images), name)
        if "sem_seg" in tasks:
            panoptic.add_segments(dicts, files, self.classes(), self.semantic_classes(tasks))
        if "bbox" not in tasks:
            for entry in dicts:  # an image without objects has pixels to learn from
                entry.pop("annotations")
        return dicts

    def evaluators(self, name: str, tasks: Sequence[str], folder: str) -> list[Any]:
        """COCO's numbers of objects, and those of pixels and segments where the detector finds them."""
        # evaluators are not needed to read a dataset
        from ...evaluation.coco import CocoEvaluator, SemanticEvaluator, keypoint_sigmas
        from ...evaluation.panoptic import PanopticEvaluator

        objects = [task for task in tasks if task in ("bbox", "segm", "keypoints")]
        chosen: list[Any] = []
        if objects:
            sigmas = keypoint_sigmas(self.keypoints()) if "keypoints" in tasks else ()
            chosen.append(CocoEvaluator(name, objects, output_dir=folder, kpt_oks_sigmas=sigmas))
        if "sem_seg" in tasks:
            chosen.append(SemanticEvaluator(name, panoptic.semantic_truth(name), folder))
        if "panoptic_seg" in tasks:
            chosen.append(PanopticEvaluator(name, panoptic.read_segments))
        return chosen


class CocoKeypoints(CocoDataset):
    """People and their keypoints in COCO 2017."""

    name = "coco_2017_keypoints"
    annotated_tasks = ("bbox", "segm", "keypoints")

    def files(self, split: str) -> Split:
        """The files of a split."""
        return coco_2017(split, "person_keypoints")

    def classes(self) -> list[str]:
        """The one class whose objects have keypoints."""
        return list(MetadataCatalog.get("keypoints_coco_2017_val").thing_classes)

    def keypoints(self) -> list[str]:
        """Names of the 17 keypoints."""
        return list(MetadataCatalog.get("keypoints_coco_2017_val").keypoint_names)


class CocoPanoptic(CocoDataset):
    """COCO 2017 with its panoptic maps, as published: nothing has to be prepared."""

    name = "coco_2017_panoptic"
    annotated_tasks = ("bbox", "segm", "sem_seg", "panoptic_seg")

    def stuff(self) -> list[str]:
        """Names of the 53 classes that are no objects."""
        return list(MetadataCatalog.get("coco_2017_val_panoptic").stuff_classes)[len(self.classes()) :]


class ShapesDataset(CocoDataset):
    """The embedded set."""

    name = "shapes"
    annotated_tasks = ("bbox", "segm", "keypoints", "sem_seg", "panoptic_seg")

    def files(self, split: str) -> Split:
        """The files of a split, drawn if they are not there yet."""
        root = shapes_root()
        annotations = root / "annotations"
        return Split(
            annotations / f"instances_{split}.json",
            root / split,
            annotations / f"panoptic_{split}.json",
            root / f"panoptic_{split}",
        )

    def classes(self) -> list[str]:
        """Names of the classes, known before the set is drawn."""
        return list(CLASSES)

    def stuff(self) -> list[str]:
        """What is not a shape."""
        return [BACKGROUND]

    def keypoints(self) -> list[str]:
        """The outermost points of a shape and its centre."""
        return list(KEYPOINTS)


class CustomCocoDataset(CocoDataset):
    """A user's own files, of which everything has to be found out.

    Args:
        name: ``data.name``.
        files: split -> its files.
        told: split, kind of file -> what the user would change to name another.
        annotated_tasks: what there may be annotations for.
    """

    place = ""

    def __init__(
        self,
        name: str,
        files: Callable[[str], Split],
        told: Callable[[str, str], str],
        annotated_tasks: tuple[str, ...] = ("bbox", "segm", "keypoints"),
    ) -> None:
        self.name, self.annotated_tasks, self._files, self._told = name, annotated_tasks, files, told

    def files(self, split: str) -> Split:
        """The files of a split."""
        return self._files(split)

    def told(self, split: str, kind: str) -> str:
        """How a file is called in messages."""
        return self._told(split, kind)

    def classes(self) -> list[str]:
        """Names of the classes: those of the training set, or of the validation set if only that is there."""
        return coco_file.categories(self._coco(self._main()))

    def keypoints(self) -> list[str]:
        """Names of the keypoints that each object has."""
        split = self._main()
        return coco_file.keypoint_names(self._coco(split), self.told(split, "json"))

    def check(self, split: str, tasks: Sequence[str]) -> str:
        """Make sure that files, images and every object will do."""
        super().check(split, tasks)
        files, coco = self.files(split), self._coco(split)
        told = f"{self.told(split, 'json')}={files.json}"
        usable = coco_file.check_objects(coco, tasks, told)
        coco_file.check_images(coco, files.images, files.json.name, self.told(split, "images"))
        names = coco_file.categories(coco)
        if names != self.classes():
            raise ConfigError(
                f"{told}: its categories {names} are not those of the training set {self.classes()}"
            )
        return f"{self.name} {split}: {len(coco['images'])} images, {usable} objects, {len(names)} classes"

    def _main(self) -> str:
        """The split that says what the classes are."""
        try:
            return "train" if self.files("train").json.is_file() else "val"
        except ConfigError:
            return "val"  # no training set is named

    def _coco(self, split: str) -> dict[str, Any]:
        file = self.files(split).json
        if not file.is_file():
            raise ConfigError(f"{self.told(split, 'json')}={file}: no such file")
        return coco_file.read_coco(file)
