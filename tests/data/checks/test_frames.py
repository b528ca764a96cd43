"""Which orientation of rotated photographs annotations refer to."""

from __future__ import annotations

from typing import Any

import pytest

from d2timm.data.checks.frames import Photo, choose_frames, is_near

STORED, SHOWN = (60, 40), (40, 60)
EITHER, ONLY_STORED, ONLY_SHOWN, NEITHER = [5, 5, 10, 10], [50, 5, 10, 10], [5, 50, 10, 10], [50, 50, 10, 10]


def photo(size: tuple[float, float] | None, *boxes: Any, stored: Any = STORED, shown: Any = SHOWN) -> Photo:
    return Photo(stored, shown, size, [{"bbox": box} for box in boxes])


def choose(*photos: Photo) -> tuple[set[int], set[int]]:
    return choose_frames(dict(enumerate(photos)))


@pytest.mark.parametrize(
    ("size", "boxes", "stored", "unsure"),
    [
        (STORED, [EITHER], True, False),
        (SHOWN, [EITHER], False, False),
        (STORED, [EITHER, ONLY_SHOWN], False, False),
        (SHOWN, [EITHER, ONLY_STORED], True, False),
        (STORED, [NEITHER], True, False),
        (SHOWN, [ONLY_SHOWN, ONLY_STORED], False, False),
        (None, [ONLY_STORED], True, False),
        (None, [ONLY_SHOWN], False, False),
        (None, [EITHER], False, True),
        (None, [], False, True),
        (STORED, [[20, 20, 20.5, 20.5]], True, False),  # half a pixel beyond the image, as shown
    ],
)
def test_size_and_objects_of_a_single_photograph(
    size: Any, boxes: list[Any], stored: bool, unsure: bool
) -> None:
    assert choose(photo(size, *boxes)) == ({0} if stored else set(), {0} if unsure else set())


def test_photographs_of_one_convention_follow_each_other() -> None:
    """A tool writes sizes as stored, but the user sees the image as shown."""
    photos = [photo(STORED, EITHER), photo(STORED, ONLY_SHOWN), photo(STORED, ONLY_SHOWN)]
    assert choose(*photos) == (set(), set())


def test_photographs_of_two_conventions_are_told_apart_by_their_sizes() -> None:
    photos = [
        photo(STORED, EITHER),
        photo(STORED, ONLY_STORED),
        photo(SHOWN, EITHER),
        photo(SHOWN, ONLY_SHOWN),
    ]
    assert choose(*photos) == ({0, 1}, set())


def test_contrary_objects_of_one_size() -> None:
    stored, unsure = choose(photo(STORED, EITHER), photo(STORED, ONLY_SHOWN), photo(STORED, ONLY_STORED))
    assert (stored, unsure) == ({0, 2}, {0})


def test_few_photographs_do_not_overrule_many() -> None:
    """A carelessly drawn box leaves its image."""
    many = [photo(SHOWN, ONLY_SHOWN)] * 20
    assert choose(photo(SHOWN, ONLY_STORED), *many) == (set(), {0})
    silent = [photo(SHOWN, EITHER)] * 20
    assert choose(photo(SHOWN, ONLY_STORED), *silent) == (set(), {0})


@pytest.mark.parametrize("sides", [STORED, (50, 50)])
def test_photographs_whose_size_says_nothing_follow_the_others(sides: tuple[int, int]) -> None:
    """Upside down, or square."""
    silent = photo(sides, EITHER, stored=sides, shown=sides)
    assert choose(silent) == (set(), {0})
    assert choose(silent, photo(STORED, ONLY_STORED)) == ({0, 1}, set())
    assert choose(silent, photo(SHOWN, ONLY_SHOWN)) == (set(), set())
    assert choose(silent, photo(STORED, ONLY_STORED), photo(SHOWN, ONLY_SHOWN)) == ({1}, {0})


@pytest.mark.parametrize(
    "annotation",
    [
        {"segmentation": {"size": [40, 60], "counts": "x"}},
        {"bbox": EITHER, "segmentation": {"size": [40, 60], "counts": "x"}},
        {"segmentation": [[50, 5, 60, 5, 60, 15]]},
        {"segmentation": [50, 5, 60, 5, 60, 15]},
        {"bbox": ["50", "5", "10", "10"]},
    ],
)
def test_masks_and_text_show_the_orientation_too(annotation: dict[str, Any]) -> None:
    assert choose_frames({7: Photo(STORED, SHOWN, None, [annotation])}) == ({7}, set())


@pytest.mark.parametrize("value", [None, "x", [], {}, [1, 2], [None] * 4, {"size": 5}, [[]]])
def test_invalid_annotations_show_nothing(value: Any) -> None:
    annotations = [{"bbox": value}, {"segmentation": value}]
    assert choose_frames({7: Photo(STORED, SHOWN, STORED, annotations)}) == ({7}, set())


def test_sizes_are_equal_up_to_rounding() -> None:
    assert is_near((60.4, 39.6), (60, 40))
    assert not is_near((61, 40), (60, 40))
