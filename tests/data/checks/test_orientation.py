"""The EXIF orientations, compared with Pillow's."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from d2timm.data.checks.orientation import Turn

STORED = (5, 3)  # width, height
ORIENTATIONS = range(1, 9)


def turn(orientation: int) -> Turn:
    return Turn(orientation, STORED if orientation < 5 else STORED[::-1])


def shown_by_pillow(pixels: np.ndarray, orientation: int) -> np.ndarray:  # type: ignore[type-arg]
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_pixels_are_turned_as_pillow_does(orientation: int) -> None:
    pixels = np.arange(15, dtype=np.uint8).reshape(3, 5)
    turned = turn(orientation).pixels(pixels)
    assert np.array_equal(turned, shown_by_pillow(pixels, orientation))
    assert turned.shape[::-1] == turn(orientation).shown


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("box", [(0, 0, 1, 1), (4, 0, 1, 2), (1, 2, 3, 1)])
def test_boxes_stay_on_their_pixels(orientation: int, box: tuple[int, int, int, int]) -> None:
    x, y, w, h = box
    pixels = np.zeros((3, 5), np.uint8)
    pixels[y : y + h, x : x + w] = 1
    x, y, w, h = map(int, turn(orientation).box(box))
    turned = shown_by_pillow(pixels, orientation)
    assert turned[y : y + h, x : x + w].all()
    assert turned.sum() == w * h


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_corners_turn_with_their_box(orientation: int) -> None:
    x, y, w, h = turn(orientation).box((1, 0, 3, 2))
    points = turn(orientation).points([1, 0, 4, 0, 4, 2, 1, 2])
    assert (min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2])) == (x, y, x + w, y + h)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_keypoints_stay_on_their_pixel(orientation: int) -> None:
    pixels = np.zeros((3, 5), np.uint8)
    pixels[2, 4] = 1
    x, y, visibility, *unlabelled = turn(orientation).keypoints([4, 2, 1, 0, 0, 0])
    assert shown_by_pillow(pixels, orientation)[int(y), int(x)] == 1
    assert (visibility, unlabelled) == (1, [0, 0, 0])
