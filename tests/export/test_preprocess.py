"""Preprocessing equals that of the mapper and of detectron2."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.structures import ImageList
from hypothesis import given
from hypothesis import strategies as st

from d2timm.data.resizing import AugInput, resize
from d2timm.export.preprocess import prepare, resample, resized_shape, scalar

SIDES = st.integers(1, 150)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, np.uint8)


@given(SIDES, SIDES, SIDES)
def test_resampling_equals_that_of_the_mapper(length: int, other: int, size: int) -> None:
    pixels = torch.from_numpy(noise(length, other, 3))
    expected = resize(pixels.permute(2, 0, 1), (size, other)).permute(1, 2, 0)
    assert torch.equal(resample(pixels, size), expected)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 1500), st.integers(1, 2500))
def test_resized_shape_equals_detectron2(height: int, width: int, short: int, longest: int) -> None:
    shape = resized_shape(scalar(height), scalar(width), short, longest)
    expected = T.ResizeShortestEdge.get_output_shape(height, width, short, longest)
    assert tuple(int(side) for side in shape) == expected


@pytest.mark.parametrize("shape", [(50, 70), (120, 90), (33, 150), (64, 64)])
@pytest.mark.parametrize("square", [0, 96])
def test_prepared_images_equal_those_of_loader_and_detector(shape: tuple[int, int], square: int) -> None:
    pixels = noise(*shape, 3)
    mean, std = torch.tensor([120.0, 110, 100])[:, None, None], torch.tensor([50.0, 60, 70])[:, None, None]
    prepared = prepare(torch.from_numpy(pixels), 64, 90, mean, std, 32, square)
    step = AugInput(pixels)
    T.AugmentationList([T.ResizeShortestEdge(64, 90)])(step)
    resized = torch.from_numpy(step.image.transpose(2, 0, 1).copy())
    constraints = {"size_divisibility": 32, "square_size": square}
    expected = ImageList.from_tensors([(resized - mean) / std], padding_constraints=constraints)
    assert torch.equal(prepared.images, expected.tensor)
    assert [int(side) for side in prepared.size] == list(resized.shape[1:])
    assert [float(side) for side in prepared.scale] == pytest.approx(
        [shape[1] / resized.shape[2], shape[0] / resized.shape[1]]
    )
