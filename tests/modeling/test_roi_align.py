"""The fast backward pass of ROIAlign gives torchvision's gradients."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import ROIAlign
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from d2timm.modeling import roi_align
from d2timm.modeling.roi_align import FastROIAlign, use_fast_roi_align

BOXES = [
    [10.0, 12.0, 50.0, 44.0],
    [0.0, 0.0, 127.0, 95.0],
    [30.0, 30.0, 30.0, 30.0],  # empty
    [-40.0, -30.0, 20.0, 10.0],  # partly outside
    [500.0, 500.0, 600.0, 600.0],  # outside
    [3.0, 1.0, 4.0, 90.0],  # narrow
]


def fast(pool: ROIAlign) -> FastROIAlign:
    holder = nn.ModuleList([pool])
    use_fast_roi_align(holder)
    (found,) = holder
    assert isinstance(found, FastROIAlign)
    return found


def gradients(pool: ROIAlign, features: Tensor, rois: Tensor) -> tuple[Tensor, Tensor]:
    features = features.clone().requires_grad_()
    pooled = pool(features, rois)
    weights = torch.rand(pooled.shape, generator=torch.Generator().manual_seed(2))
    (pooled * weights).sum().backward()
    return pooled.detach(), torch.zeros_like(features) if features.grad is None else features.grad


def rois_of(boxes: list[list[float]], batch: int = 2) -> Tensor:
    return torch.tensor([[i % batch, *box] for i, box in enumerate(boxes)]).reshape(-1, 5)


def check(pool: ROIAlign, boxes: list[list[float]], features: Tensor) -> None:
    rois = rois_of(boxes, len(features))
    expected, gradient = gradients(pool, features, rois)
    pooled, of_map = gradients(fast(pool), features, rois)
    torch.testing.assert_close(pooled, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(of_map, gradient, rtol=1e-4, atol=1e-4)
    layout = torch.contiguous_format if features.is_contiguous() else torch.channels_last
    assert of_map.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_those_of_torchvision(
    sampling_ratio: int, aligned: bool, layout: torch.memory_format
) -> None:
    features = torch.rand(2, 5, 24, 32, generator=torch.Generator().manual_seed(0)).to(memory_format=layout)
    check(ROIAlign((7, 5), 0.25, sampling_ratio, aligned), BOXES, features)


@pytest.mark.parametrize("chunk", [1, 2**22])
def test_all_regions_count_whatever_is_computed_together(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roi_align, "CHUNK", chunk)
    check(ROIAlign((7, 7), 0.25, 0, True), BOXES * 5, torch.rand(2, 3, 24, 32))


def test_no_region_has_no_gradient() -> None:
    features = torch.rand(2, 3, 8, 8)
    _, gradient = gradients(fast(ROIAlign((7, 7), 0.25, 0, True)), features, torch.zeros(0, 5))
    assert not gradient.any()


side = st.floats(-64, 192, width=32)


@given(
    boxes=st.lists(st.tuples(side, side, side, side), max_size=8),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    sampling_ratio=st.integers(0, 3),
    aligned=st.booleans(),
)
def test_gradients_of_any_boxes(
    boxes: list[tuple[float, float, float, float]], size: tuple[int, int], sampling_ratio: int, aligned: bool
) -> None:
    ordered = [[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in boxes]
    generator = torch.Generator().manual_seed(0)
    check(
        ROIAlign((3, 3), 0.125, sampling_ratio, aligned),
        ordered,
        torch.rand(2, 2, *size, generator=generator),
    )


def test_values_are_the_same_where_nothing_is_differentiated() -> None:
    pool, features, rois = ROIAlign((7, 7), 0.25, 0, True), torch.rand(2, 3, 24, 32), rois_of(BOXES)
    expected = pool(features, rois)
    with torch.inference_mode():
        torch.testing.assert_close(fast(pool)(features, rois), expected)


def test_other_types_of_numbers_take_the_usual_way() -> None:
    pool, features = ROIAlign((7, 7), 0.25, 0, True), torch.rand(2, 3, 24, 32, dtype=torch.float64)
    rois = rois_of(BOXES).double()
    for usual, ours in zip(
        gradients(pool, features, rois), gradients(fast(pool), features, rois), strict=True
    ):
        torch.testing.assert_close(ours, usual)
