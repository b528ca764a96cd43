"""Which orientation of rotated photographs annotations refer to: the image as stored, or as shown (EXIF).

The size of an image in the annotations says it, unless it is the same either way or missing. Some tools write
the size as stored although their users draw on the image as shown, or the other way round: objects that reach
far beyond the image in one orientation, but not in the other one, show which one it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .masks import box_of, read_mask
from .values import as_numbers

__all__ = ["Photo", "choose_frames", "is_near"]

TOLERANCE = 0.02  # of a side, by which carelessly drawn boxes may leave their image
MANY = 0.25  # of the photographs, whose objects overrule the sizes of all
FEW = 0.1  # of them, whose objects are distrusted if those of the others show the contrary

Size = tuple[int, int]  # (width, height)


@dataclass(frozen=True)
class Photo:
    """A photograph with an EXIF orientation other than 1.

    Attributes:
        stored: its size as stored.
        shown: its size as shown.
        size: its size in the annotations; None if they do not say it.
        annotations: its objects.
    """

    stored: Size
    shown: Size
    size: tuple[float, float] | None
    annotations: Sequence[Mapping[str, Any]]

    def by_size(self) -> bool | None:
        """Whether the size is that of the image as stored; None if it does not say."""
        return (
            None
            if self.size is None
            else _only_first(is_near(self.size, s) for s in (self.stored, self.shown))
        )

    def by_objects(self) -> bool | None:
        """Whether the objects fit only into the image as stored; None if they fit into both or neither."""
        extents = list(_extents(self.annotations, max(self.stored)))
        return _only_first(all(_fits(box, size) for box in extents) for size in (self.stored, self.shown))


def choose_frames(photos: Mapping[int, Photo]) -> tuple[set[int], set[int]]:
    """Choose the orientation of each photograph: by its objects, those of similar ones, its size, all others.

    Args:
        photos: by any key.

    Returns:
        The photographs that are annotated as stored, and those of which that is not sure.
    """
    groups: dict[bool | None, dict[int, bool | None]] = {}
    for key, photo in photos.items():
        groups.setdefault(photo.by_size(), {})[key] = photo.by_objects()
    chosen: dict[int, bool | None] = {}
    unsure: set[int] = set()
    for said, members in groups.items():
        votes = Counter(own for own in members.values() if own is not None)
        less, most = sorted((votes[True], votes[False]))
        usual = votes[True] > votes[False] if most > less and most > MANY * len(members) else said
        for key, own in members.items():
            distrusted = own is not None and usual is not None and own != usual and less <= FEW * most
            chosen[key] = usual if own is None or distrusted else own
            if distrusted or (own is None and less):
                unsure.add(key)
    decided = {stored for stored in chosen.values() if stored is not None}
    if len(decided) != 1:
        unsure |= {key for key, stored in chosen.items() if stored is None}
    others = decided == {True}
    return {key for key, stored in chosen.items() if (others if stored is None else stored)}, unsure


def is_near(size: tuple[float, float], other: Size) -> bool:
    """Whether two sizes are the same up to rounding."""
    return all(abs(a - b) < 1 for a, b in zip(size, other, strict=True))


def _only_first(facts: Iterable[bool]) -> bool | None:
    first, second = facts
    return None if first == second else first


def _extents(annotations: Sequence[Mapping[str, Any]], side: int) -> Iterator[Sequence[float]]:
    """Boxes (left, top, width, height) of what an image must contain."""
    for annotation in annotations:
        box, mask = as_numbers(annotation.get("bbox")), annotation.get("segmentation")
        if box is not None and len(box) == 4:
            yield box
        elif isinstance(mask, list) and (polygons := read_mask(mask, (side, side))[0]):
            yield box_of(polygons)
        size = as_numbers(mask.get("size")) if isinstance(mask, dict) else None
        if size is not None and len(size) == 2:  # of run lengths
            yield 0, 0, size[1], size[0]


def _fits(box: Sequence[float], size: Size) -> bool:
    return all(box[i] + box[i + 2] <= size[i] * (1 + TOLERANCE) + 1 for i in (0, 1))
