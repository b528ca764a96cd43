"""Operations on boxes and masks equal those of detectron2 and torchvision."""

from __future__ import annotations

import torch
from detectron2.layers import paste_masks_in_image

from d2timm.export.ops import paste_masks


def test_pasted_masks_equal_detectron2() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(20, 4, generator=generator) * torch.tensor([60.0, 40, 60, 40])
    boxes = torch.cat([corners[:, :2], corners[:, :2] + corners[:, 2:] + 0.5], dim=1)
    masks = torch.rand(20, 28, 28, generator=generator)
    expected = paste_masks_in_image(masks, boxes, (80, 110))
    pasted = paste_masks(masks, boxes, 80, 110)
    assert pasted.shape == (20, 80, 110)
    assert expected.any()
    assert (pasted != expected).sum() <= 1  # the order of sums differs


def test_no_masks() -> None:
    assert paste_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), 30, 40).shape == (0, 30, 40)
