"""Pre-processing against Pillow and detectron2."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.structures import ImageList
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from d2timm.export.preprocess import number, prepare, resample, resized_shape

SIDES = st.integers(1, 150)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, np.uint8)


@given(SIDES, SIDES, SIDES)
def test_resampled_as_pillow_does(given_size: int, other: int, size: int) -> None:
    pixels = noise(given_size, other, 3)
    expected = np.asarray(Image.fromarray(pixels).resize((other, size), Image.Resampling.BILINEAR))
    assert np.array_equal(resample(torch.from_numpy(pixels), size).numpy(), expected)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 1500), st.integers(1, 2500))
def test_resized_shape_is_that_of_detectron2(height: int, width: int, short: int, longest: int) -> None:
    found = resized_shape(number(height), number(width), short, longest)
    expected = T.ResizeShortestEdge.get_output_shape(height, width, short, longest)
    assert tuple(int(side) for side in found) == expected


@pytest.mark.parametrize("shape", [(50, 70), (120, 90), (33, 150), (64, 64)])
@pytest.mark.parametrize("square", [0, 96])
def test_prepared_as_by_loader_and_detector(shape: tuple[int, int], square: int) -> None:
    pixels = noise(*shape, 3)
    mean, std = torch.tensor([120.0, 110, 100])[:, None, None], torch.tensor([50.0, 60, 70])[:, None, None]
    found = prepare(torch.from_numpy(pixels), 64, 90, mean, std, 32, square)
    step = T.AugInput(pixels)
    T.AugmentationList([T.ResizeShortestEdge(64, 90)])(step)
    resized = torch.from_numpy(step.image.transpose(2, 0, 1).copy())
    needs = {"size_divisibility": 32, "square_size": square}
    expected = ImageList.from_tensors([(resized - mean) / std], padding_constraints=needs)
    assert torch.equal(found.images, expected.tensor)
    assert [int(side) for side in found.size] == list(resized.shape[1:])
    assert [float(side) for side in found.scale] == pytest.approx(
        [shape[1] / resized.shape[2], shape[0] / resized.shape[1]]
    )
