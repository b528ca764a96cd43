"""Label files of YOLO: one line for each object, a class number and fractions of the image's sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..checks.findings import Findings
from ..checks.masks import box_of
from ..checks.values import as_number
from .building import Annotation, to_annotation
from .layout import text_lines

__all__ = ["Keypoints", "Label", "read_labels", "to_annotations"]

TOLERANCE = 0.01  # by which centres, sides and keypoints may leave 0 to 1, as in Ultralytics


@dataclass(frozen=True)
class Keypoints:
    """The keypoints of every object.

    Attributes:
        names: their names.
        dimensions: numbers for each in a label: 2 (x, y) or 3 (with visibility).
    """

    names: tuple[str, ...]
    dimensions: int


@dataclass(frozen=True)
class Label:
    """An object, as its line describes it.

    Attributes:
        source: file and line.
        category: index of its class.
        fractions: centre, width and height of its box; or the corners x0, y0, x1, y1, … of its mask.
        keypoints: x, y, visibility, … in COCO's values, with x and y as fractions; [] if the line has none.
    """

    source: str
    category: int
    fractions: tuple[float, ...]
    keypoints: tuple[float, ...] = ()

    @property
    def has_mask(self) -> bool:
        """Whether the fractions are corners."""
        return len(self.fractions) > 4


def read_labels(
    file: Path, name: str, classes: Mapping[int, int], keypoints: Keypoints | None, findings: Findings
) -> list[Label] | None:
    """Read a label file.

    Args:
        file: the file, which may be missing: the image has no objects then.
        name: its name in findings.
        classes: class number in the labels -> index of the class.
        keypoints: the keypoints of every object; None: objects have boxes or masks.
        findings: receives the lines that cannot be read, and repeated ones.

    Returns:
        The objects; None if the file has lines but none that can be read, so that nothing is known of the
        image.
    """
    try:
        lines = text_lines(file)
    except (FileNotFoundError, ValueError):  # ValueError: a path with a NUL
        return []
    except OSError as error:
        findings.add("invalid_annotation", f"{name}: {error.strerror}")
        return None
    labels: dict[tuple[object, ...], Label] = {}
    for number, line in lines:
        try:
            label = _label(line, f"{name}:{number}", classes, keypoints)
        except ValueError as error:
            findings.add("invalid_annotation", f"{name}:{number}: {error}")
            continue
        values = (label.category, label.fractions, label.keypoints)
        if values in labels:
            findings.add("repeated_line", f"{label.source}: as {labels[values].source}")
        labels.setdefault(values, label)
    return list(labels.values()) if labels or not lines else None


def to_annotations(
    labels: Sequence[Label], size: tuple[int, int], keypoints: Keypoints | None
) -> list[Annotation]:
    """Annotations in pixels.

    Args:
        labels: the objects of an image.
        size: (width, height) of the image as shown, which the fractions refer to.
        keypoints: the keypoints of every object.
    """
    return [_annotation(label, size, keypoints) for label in labels]


def _label(line: str, source: str, classes: Mapping[int, int], keypoints: Keypoints | None) -> Label:
    """An object.

    Raises:
        ValueError: the line is not one; the message says why.
    """
    number, *values = (as_number(text) for text in line.split())
    if number is None or None in values:
        raise ValueError(f"{_short(line)} is not a class number and fractions, separated by blanks")
    if number not in classes:
        known = f"{min(classes)} to {max(classes)}"
        raise ValueError(f"class {number:g} is not one of the dataset's, which are {known}")
    fractions = tuple(value for value in values if value is not None)
    points: tuple[float, ...] = ()
    if keypoints is not None:
        fractions, points = _split_pose(fractions, keypoints)
    elif len(fractions) != 4 and (len(fractions) < 6 or len(fractions) % 2):
        hint = ", or a confidence at its end, which labels do not have" if len(fractions) % 2 else ""
        raise ValueError(
            f"{len(fractions)} numbers after the class; a box has 4, a polygon an even number >= 6{hint}"
        )
    _check_range(fractions, points)
    return Label(source, classes[int(number)], fractions, points)


def _split_pose(
    values: tuple[float, ...], keypoints: Keypoints
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The box and the keypoints of a line, which may have a box only."""
    count, d = len(keypoints.names), keypoints.dimensions
    if len(values) not in (4, 4 + count * d):
        raise ValueError(
            f"{len(values)} numbers after the class; a box with keypoints (kpt_shape: [{count}, {d}]) "
            f"has {4 + count * d}"
        )
    points: list[float] = []
    for start in range(4, len(values), d):
        x, y = values[start : start + 2]
        # with two numbers, 0 0 and negative ones mean that the keypoint is not labelled
        seen = values[start + 2] if d == 3 else 2.0 * (min(x, y) >= 0 and max(x, y) > 0)
        if seen < 0:
            raise ValueError(f"a keypoint has the visibility {seen:g}, which is 0, 1 or 2")
        # models write a confidence instead: a fraction
        points += [x, y, 1.0 if seen == 1 else 2.0] if seen else [0.0, 0.0, 0.0]
    return values[:4], tuple(points)


def _check_range(fractions: Sequence[float], keypoints: Sequence[float]) -> None:
    """Check that values are fractions of the image's sides; of a polygon, its box is checked."""
    box = fractions
    if len(fractions) > 4:
        left, top, width, height = box_of([list(fractions)])
        box = (left + width / 2, top + height / 2, width, height)
    coordinates = [*box, *keypoints[::3], *keypoints[1::3]]
    outside = [v for v in coordinates if not -TOLERANCE <= v <= 1 + TOLERANCE]
    if outside:
        place = " of the box around the polygon" if len(fractions) > 4 else ""
        raise ValueError(f"{outside[0]:g}{place} is not a fraction of the image's side, 0 to 1")
    if min(box[2:]) < 0:
        raise ValueError(f"{min(box[2:]):g} is not the width or height of a box")


def _annotation(label: Label, size: tuple[int, int], keypoints: Keypoints | None) -> Annotation:
    width, height = size
    pixels = [fraction * size[i % 2] for i, fraction in enumerate(label.fractions)]
    more: dict[str, object] = {"source": label.source}
    if keypoints is not None:
        points = label.keypoints or (0.0,) * (3 * len(keypoints.names))
        scales = (width, height, 1)
        more["keypoints"] = [value * scales[i % 3] for i, value in enumerate(points)]
        more["num_keypoints"] = sum(seen > 0 for seen in points[2::3])
    if label.has_mask:
        return to_annotation(label.category, box_of([pixels]), segmentation=[pixels], **more)
    x, y, w, h = pixels
    return to_annotation(label.category, [x - w / 2, y - h / 2, w, h], **more)


def _short(line: str) -> str:
    return repr(line if len(line) <= 60 else f"{line[:57]}...")
