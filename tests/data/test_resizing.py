"""Images are resized as Pillow does, but for rounding, whatever view of memory they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from d2timm.data.resizing import AugInput, to_tensor

SIDES = st.integers(1, 150)
Pixels = np.ndarray[Any, Any]

VIEWS: dict[str, Callable[[Pixels], Pixels]] = {
    "plain": lambda x: x,
    "BGR": lambda x: x[..., ::-1],
    "mirrored": lambda x: x[:, ::-1],
    "upside down, BGR": lambda x: x[::-1, :, ::-1],
    "crop": lambda x: x[3:-2, 5:-1],
    "every second": lambda x: x[::2, ::2],
    "planar": lambda x: np.ascontiguousarray(x.transpose(2, 0, 1)).transpose(1, 2, 0),
    "turned": lambda x: x.transpose(1, 0, 2),
    "grey": lambda x: x[..., :1],
}


def noise(*shape: int) -> Pixels:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, np.uint8)


def photograph(height: int, width: int) -> Pixels:
    small = Image.fromarray(noise(height // 8 + 2, width // 8 + 2, 3))
    return np.array(small.resize((width, height), Image.Resampling.BICUBIC))


def resized(pixels: Pixels, size: tuple[int, int], kind: type[T.AugInput] = AugInput) -> Pixels:
    step = kind(pixels)
    T.AugmentationList([T.ResizeTransform(*pixels.shape[:2], *size)])(step)
    return step.image


@given(SIDES, SIDES, SIDES, SIDES)
def test_pixels_differ_from_those_of_pillow_by_rounding(h: int, w: int, new_h: int, new_w: int) -> None:
    pixels = noise(h, w, 3)
    expected = resized(pixels, (new_h, new_w), T.AugInput)
    assert resized(pixels, (new_h, new_w)).shape == expected.shape
    assert np.abs(resized(pixels, (new_h, new_w)).astype(int) - expected).max() <= 1


@pytest.mark.parametrize(("size", "new"), [((480, 640), (736, 981)), ((1080, 1920), (736, 1308))])
def test_few_pixels_differ_from_those_of_pillow(size: tuple[int, int], new: tuple[int, int]) -> None:
    pixels = photograph(*size)
    difference = np.abs(resized(pixels, new).astype(int) - resized(pixels, new, T.AugInput))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.005


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("writeable", [True, False])
def test_views_of_memory_do_not_matter(view: str, writeable: bool) -> None:
    pixels = noise(40, 60, 3)
    pixels.flags.writeable = writeable
    seen = VIEWS[view](pixels)
    result = resized(seen, (33, 77))
    assert np.array_equal(result, resized(np.ascontiguousarray(seen), (33, 77)))
    for image in (seen, result, result[:, ::-1]):
        tensor = to_tensor(image)
        assert tensor.is_contiguous()
        assert np.array_equal(tensor.numpy(), image.transpose(2, 0, 1))
    assert np.array_equal(pixels, noise(40, 60, 3)), "the image itself is unchanged"


@pytest.mark.parametrize(
    "pixels",
    [
        pytest.param(noise(20, 30), id="no channels"),
        pytest.param(noise(20, 30, 4), id="transparency"),
        pytest.param(noise(20, 30, 3).astype(np.float32), id="floats"),
    ],
)
def test_other_images_are_resized_by_detectron2(pixels: Pixels) -> None:
    assert np.array_equal(resized(pixels, (9, 44)), resized(pixels, (9, 44), T.AugInput))


def test_other_filters_and_classes_are_those_of_detectron2() -> None:
    pixels, classes = noise(20, 30, 3), noise(20, 30)
    nearest, expected = (kind(pixels, sem_seg=classes) for kind in (AugInput, T.AugInput))
    for step in (nearest, expected):
        step.transform(T.ResizeTransform(20, 30, 11, 50, Image.Resampling.NEAREST))
    assert np.array_equal(nearest.image, expected.image)
    assert np.array_equal(nearest.sem_seg, expected.sem_seg)


def test_errors_are_those_of_detectron2() -> None:
    for size in ((0, 5), (5, 0)):
        with pytest.raises(ValueError, match="height and width must be > 0"):
            resized(noise(20, 30, 3), size)
    with pytest.raises(AssertionError):
        AugInput(noise(20, 30, 3)).transform(T.ResizeTransform(21, 30, 5, 5))


def test_transforms_are_those_of_detectron2() -> None:
    step = AugInput(noise(20, 30, 3))
    transforms = T.AugmentationList([T.ResizeShortestEdge(10, 60), T.RandomApply(T.ResizeScale(1, 1, 8, 8))])(
        step
    )
    assert {type(transform) for transform in transforms.transforms} <= {T.ResizeTransform, T.NoOpTransform}
    assert torch.is_tensor(to_tensor(step.image))
