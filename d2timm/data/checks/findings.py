"""Findings: what is wrong or noteworthy in a dataset, by kind, with the file and id of every sample."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...utils.text import printable

__all__ = ["EXAMPLES", "KINDS", "NOTE", "REPAIRED", "SKIPPED", "STOP", "Findings", "Kind"]

#: Severities, from the gravest. The dataset cannot be used:
STOP = "stop"
#: the sample cannot be used; ``data.on_error`` decides whether it is left out or stops the run:
SKIPPED = "skipped"
#: the sample is used after an unambiguous correction:
REPAIRED = "repaired"
#: the sample is used as it is, but may not be what the user wants:
NOTE = "note"

SHOWN = 3  # samples of a kind in a line of text
EXAMPLES = 100  # samples of a kind that are listed if they are not left out


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Attributes:
        severity: ``STOP``, ``SKIPPED``, ``REPAIRED`` or ``NOTE``.
        text: what was found, in the plural.
        consequence: what is done about it, or what the user can do.
        task: the only task that it matters for; "": every task.
    """

    severity: str
    text: str
    consequence: str
    task: str = ""


KINDS: Mapping[str, Kind] = {
    # the dataset cannot be used, causes first
    "ambiguous_category": Kind(STOP, "category ids with several names", "give each category its own id"),
    "other_classes": Kind(STOP, "no class in common with the training split", "check the class names"),
    "other_keypoints": Kind(
        STOP,
        "classes with other keypoints than in the training split",
        "name the same keypoints in the same order",
        "keypoints",
    ),
    "corner_boxes": Kind(
        STOP, "boxes that are probably corners [x0, y0, x1, y1]", "COCO boxes are [x, y, width, height]"
    ),
    "fraction_boxes": Kind(
        STOP, "boxes that are probably fractions of the image", "COCO boxes are in pixels"
    ),
    "no_images": Kind(STOP, "no usable images", "check the image folder and the annotation file"),
    "mostly_bad_images": Kind(
        STOP, "more than half of the images cannot be used", "the image folder is probably another one"
    ),
    "no_objects": Kind(STOP, "no usable objects", "check the annotation file"),
    # images that cannot be used
    "missing_image": Kind(SKIPPED, "images that do not exist", "left out"),
    "outside_image": Kind(
        SKIPPED, "images outside of their folder", "left out; data.images_outside=True reads them"
    ),
    "unreadable_image": Kind(SKIPPED, "images that cannot be read", "left out"),
    "truncated_image": Kind(SKIPPED, "truncated images", "left out"),
    "too_large_image": Kind(SKIPPED, "images above data.max_pixels", "left out"),
    "other_size": Kind(SKIPPED, "images of another size than the annotations say", "left out"),
    "ambiguous_image": Kind(SKIPPED, "image ids that several files share", "left out"),
    "invalid_image": Kind(SKIPPED, "entries of images without an id or a file name", "left out"),
    "broken_image": Kind(SKIPPED, "images that could not be read during the run", "left out"),
    "invalid_category": Kind(SKIPPED, "classes without an id", "left out"),
    # objects that cannot be used
    "invalid_annotation": Kind(SKIPPED, "annotations that cannot be read", "left out"),
    "unknown_image": Kind(SKIPPED, "annotations of images that are not listed", "left out"),
    "unknown_category": Kind(SKIPPED, "annotations of categories that are not listed", "left out"),
    "untrained_class": Kind(SKIPPED, "objects of classes that the training split lacks", "left out"),
    "empty_box": Kind(SKIPPED, "boxes without an area", "left out"),
    "outside_box": Kind(SKIPPED, "boxes outside their image", "left out"),
    "invalid_keypoints": Kind(
        SKIPPED, "objects with another number of keypoints", "their keypoints are left out", "keypoints"
    ),
    # masks that cannot be used; the box of the object is
    "degenerate_polygon": Kind(
        SKIPPED, "masks that cover no pixel of the image", "only the boxes are used", "segm"
    ),
    "invalid_mask": Kind(
        SKIPPED, "masks that are not polygons or run lengths", "only the boxes are used", "segm"
    ),
    "other_rle_size": Kind(
        SKIPPED, "run lengths of another size than the image", "only the boxes are used", "segm"
    ),
    "no_mask": Kind(NOTE, "objects without a mask", "a mask head does not learn from them", "segm"),
    # corrections
    "moved_image": Kind(REPAIRED, "images at another path than the annotations say", "found by their names"),
    "odd_ids": Kind(REPAIRED, "ids that are not integers", "numbered anew"),
    "duplicate_ids": Kind(REPAIRED, "annotation ids that occur several times", "numbered anew"),
    "odd_numbers": Kind(REPAIRED, "numbers that are written as text", "read as numbers"),
    "size_from_file": Kind(
        REPAIRED, "images without a size in the annotations", "sizes of the files are used"
    ),
    "box_from_mask": Kind(REPAIRED, "masks without a box", "boxes are fitted to the masks"),
    "part_of_mask": Kind(REPAIRED, "masks with degenerate polygons", "the other polygons are used", "segm"),
    "flat_polygon": Kind(REPAIRED, "polygons that are not in a list of polygons", "read as one polygon"),
    "stored_size": Kind(
        REPAIRED,
        "photographs whose size is given without their EXIF rotation, but not their objects",
        "read as they are shown",
    ),
    "stored_orientation": Kind(
        REPAIRED, "annotations of the stored, not the shown, orientation of a photograph", "turned upright"
    ),
    "oriented_box": Kind(REPAIRED, "oriented boxes", "read as four-cornered masks and upright boxes"),
    "converted_shape": Kind(REPAIRED, "circles, ellipses and lines", "read as polygons or boxes"),
    "repeated_line": Kind(REPAIRED, "labels that occur several times", "used once"),
    "same_name": Kind(REPAIRED, "classes of the same name", "kept apart by their ids"),
    # notes
    "unlabelled_file": Kind(NOTE, "images in the folders that no annotations list", "not used"),
    "empty_image": Kind(NOTE, "images without objects", "not used in training, used in evaluation"),
    "ambiguous_orientation": Kind(
        NOTE,
        "rotated photographs whose annotations fit both orientations",
        "read like most others, or as they are shown",
    ),
    "repeated_file": Kind(NOTE, "files that are listed several times", "used as separate images"),
    "near_duplicate": Kind(NOTE, "nearly equal images in both splits", "scores may be too high"),
    "crossing_polygon": Kind(NOTE, "polygons that cross themselves", "used as they are drawn"),
    "outside_keypoint": Kind(
        NOTE, "objects with keypoints outside their image", "these are not learnt", "keypoints"
    ),
    "beyond_image": Kind(NOTE, "boxes that reach beyond their image", "cut off in training"),
    "crowd_object": Kind(NOTE, "objects marked as crowds", "not learnt and not scored, as in COCO"),
    "difficult_object": Kind(NOTE, "objects marked as difficult", "not learnt and not scored, as in VOC"),
    "unused_category": Kind(NOTE, "classes without objects", "nothing is learnt for them"),
    "rare_category": Kind(NOTE, "classes with fewer than 10 objects", "hardly anything is learnt for them"),
    "tiny_object": Kind(NOTE, "objects smaller than half of the smallest anchor", "hard to detect"),
    "crowded_image": Kind(
        NOTE, "images with more objects than detections are kept", "raise detections_per_image"
    ),
    "other_annotator": Kind(
        NOTE, "further annotations of an image, by other people or of an earlier time", "the latest are used"
    ),
    "several_files": Kind(
        NOTE, "images that several annotation files describe", "all their objects are used"
    ),
    "further_class": Kind(NOTE, "further classes of one object", "its first class is used"),
    "no_classes": Kind(NOTE, "annotation files without classes", "all objects are of one class, object"),
    "animation": Kind(NOTE, "files with several images", "the first one is used"),
    "high_depth": Kind(NOTE, "images of more than 8 bits", "scaled to 8 bits"),
    "ignored_shape": Kind(NOTE, "annotations that are not objects, such as points and tags", "not used"),
    "other_file": Kind(NOTE, "files that are not images", "not used"),
}


@dataclass
class Findings:
    """What was found in a split.

    Attributes:
        counts: kind, a key of ``KINDS`` -> number of samples.
        samples: kind -> file, id and reason of each sample; complete for samples that are left out, the
            first ``EXAMPLES`` of all others.
    """

    counts: dict[str, int] = field(default_factory=dict)
    samples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, *samples: object) -> None:
        """Add samples, each described by its file and id and, where it helps, the reason."""
        if not samples:
            return
        listed = self.samples.setdefault(kind, [])
        room = len(samples) if KINDS[kind].severity == SKIPPED else EXAMPLES - len(listed)
        listed.extend(printable(str(sample)) for sample in samples[: max(room, 0)])
        self.counts[kind] = self.counts.get(kind, 0) + len(samples)

    def add_first(self, kind: str, count: int, samples: Iterable[str]) -> None:
        """Add ``count`` samples of a kind that is not left out; only those that are listed are described."""
        self.add(kind, *itertools.islice(samples, EXAMPLES))
        if count:
            self.counts[kind] += max(count - EXAMPLES, 0)

    def of(self, *severities: str, tasks: Iterable[str] | None = None) -> list[str]:
        """The kinds of these severities that were found, in the order of ``KINDS``.

        Args:
            severities: of the kinds.
            tasks: the tasks of the detector, which make some kinds irrelevant; None: any.
        """
        return [
            name
            for name, kind in KINDS.items()
            if name in self.counts
            and kind.severity in severities
            and (tasks is None or not kind.task or kind.task in tasks)
        ]

    def lines(
        self, *severities: str, tasks: Iterable[str] | None = None, task: str | None = None
    ) -> list[str]:
        """Describe the kinds of these severities, one line each, with a few of the samples.

        Args:
            severities: of the kinds.
            tasks: the tasks of the detector, as in ``of``.
            task: the task that the kinds matter for; None: any.
        """
        return [
            self._line(name)
            for name in self.of(*severities, tasks=tasks)
            if task is None or KINDS[name].task == task
        ]

    def _line(self, name: str) -> str:
        kind, count, shown = KINDS[name], self.counts[name], self.samples[name][:SHOWN]
        more = ", …" if count > len(shown) else ""
        number = "" if count == 1 else f"{count}, "
        return f"{kind.text} ({kind.consequence}): {number}{'; '.join(shown)}{more}"

    def as_dict(self) -> dict[str, Any]:
        """The findings as JSON: kind -> severity, count, text, consequence and samples."""
        return {
            name: {
                "severity": KINDS[name].severity,
                "count": self.counts[name],
                "text": KINDS[name].text,
                "consequence": KINDS[name].consequence,
                "samples": self.samples[name],
            }
            for name in self.of(STOP, SKIPPED, REPAIRED, NOTE)
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Findings:
        """Restore the findings that ``as_dict`` made; kinds of another version are left out."""
        known = {name: entry for name, entry in content.items() if name in KINDS}
        return cls(
            {name: entry["count"] for name, entry in known.items()},
            {name: list(entry["samples"]) for name, entry in known.items()},
        )
