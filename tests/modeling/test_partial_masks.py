"""Mask heads learn from the objects that have masks, box heads from all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.config import instantiate
from detectron2.modeling import roi_heads as detectron2_heads
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from helpers.choices import compose, options
from torch import Tensor, nn

from d2timm.modeling import CascadeROIHeads, StandardROIHeads, takes_partial_masks
from d2timm.modeling.partial_masks import with_masks

SIZE = (64, 96)
BOXES = [[4.0, 8.0, 44.0, 48.0], [50.0, 2.0, 90.0, 30.0]]
MASK_HEADS = [option for option in options("roi_heads") if "mask" in option or option == "point_rend"]


def build(option: str) -> nn.Module:
    torch.manual_seed(0)
    heads: nn.Module = instantiate(compose("rcnn", "fpn", option).model.roi_heads)
    return heads.train()


def targets(bitmaps: bool, has_mask: list[bool] | None, placeholder: int = 0) -> list[Instances]:
    """Two images with two objects, and one without.

    Args:
        bitmaps: whether masks are bitmaps instead of polygons.
        has_mask: of each object; None: the field is missing.
        placeholder: the pixels of objects without a mask.
    """
    kept = has_mask or [True, True]
    if bitmaps:
        tensor = torch.zeros(2, *SIZE, dtype=torch.bool)
        tensor[0, 8:48, 4:30] = tensor[1, 2:30, 60:90] = True
        for index, has in enumerate(kept):
            if not has:
                tensor[index] = bool(placeholder)
        masks: Any = BitMasks(tensor)
    else:
        whole = [[0.0, 0, SIZE[1], 0, SIZE[1], SIZE[0]]] if placeholder else []
        polygons = [[[x0, y0, x1, y0, x1, y1, x0, y1]] for x0, y0, x1, y1 in BOXES]
        masks = PolygonMasks([p if has else whole for p, has in zip(polygons, kept, strict=True)])
    image = Instances(SIZE, gt_boxes=Boxes(torch.tensor(BOXES)), gt_classes=torch.tensor([1, 2]))
    image.gt_masks = masks
    if has_mask is not None:
        image.gt_has_mask = torch.tensor(has_mask)
    empty = Instances(SIZE, gt_boxes=Boxes(torch.zeros(0, 4)), gt_classes=torch.zeros(0, dtype=torch.long))
    return [image, image, empty]


def losses(heads: nn.Module, ground_truth: list[Instances]) -> dict[str, Tensor]:
    torch.manual_seed(1)
    features = {f"p{level}": torch.randn(3, 32, SIZE[0] >> level, SIZE[1] >> level) for level in (2, 3, 4, 5)}
    boxes = (torch.tensor(BOXES).repeat(20, 1) + 6 * torch.randn(40, 4)).clamp(0, 64)
    proposals = [
        Instances(SIZE, proposal_boxes=Boxes(boxes), objectness_logits=torch.zeros(40)) for _ in ground_truth
    ]
    with EventStorage():
        by_name: dict[str, Tensor] = heads(None, features, proposals, ground_truth)[1]
    return by_name


def masks_are_bitmaps(option: str) -> bool:
    return option == "point_rend"  # which samples points from bitmaps


@pytest.mark.parametrize("option", MASK_HEADS)
def test_losses_with_all_masks_are_those_of_detectron2(option: str) -> None:
    heads, bitmaps = build(option), masks_are_bitmaps(option)
    expected = losses(heads, targets(bitmaps, None))
    for name, loss in losses(heads, targets(bitmaps, [True, True])).items():
        assert torch.equal(loss, expected[name]), name


@pytest.mark.parametrize("option", MASK_HEADS)
def test_objects_without_masks_train_the_box_head_only(option: str) -> None:
    heads, bitmaps = build(option), masks_are_bitmaps(option)
    complete = losses(heads, targets(bitmaps, [True, True]))
    partial, other = (losses(heads, targets(bitmaps, [False, True], pixels)) for pixels in (0, 1))
    for name, loss in partial.items():
        if "mask" in name:
            assert loss > 0
            assert not torch.equal(loss, complete[name]), name
            assert torch.equal(loss, other[name]), "the empty masks are not used"
        elif name.endswith(("stage1", "stage2")) and option == "cascade_mask_mmdet":
            continue  # its stages sample at random after the mask head of the previous stage
        else:
            assert torch.equal(loss, complete[name]), name


@pytest.mark.parametrize("option", MASK_HEADS)
def test_batch_without_masks_gives_every_parameter_a_gradient(option: str) -> None:
    heads = build(option)
    by_name = losses(heads, targets(masks_are_bitmaps(option), [False, False]))
    assert {name: float(loss) for name, loss in by_name.items() if "mask" in name} == dict.fromkeys(
        (name for name in by_name if "mask" in name), 0.0
    )
    sum(by_name.values(), torch.zeros(())).backward()
    assert [name for name, p in heads.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in heads.parameters() if p.grad is not None)


def test_proposals_of_objects_with_masks_are_kept() -> None:
    boxes, flags = Boxes(torch.arange(12.0).reshape(3, 4)), torch.tensor([True, False, True])
    marked = Instances(SIZE, proposal_boxes=boxes, gt_has_mask=flags)
    unmarked = Instances(SIZE, proposal_boxes=boxes)
    kept, same = with_masks([marked, unmarked])
    assert torch.equal(kept.proposal_boxes.tensor, boxes.tensor[[0, 2]])
    assert same is unmarked


def test_classes_declare_that_they_take_partial_masks() -> None:
    assert takes_partial_masks("d2timm.modeling.CascadeMaskROIHeads")
    assert takes_partial_masks(StandardROIHeads)
    assert takes_partial_masks(CascadeROIHeads)
    assert not takes_partial_masks(detectron2_heads.StandardROIHeads)
    assert not takes_partial_masks("detectron2.modeling.roi_heads.roi_heads.StandardROIHeads")
    assert not takes_partial_masks(None)
    for option in options("roi_heads"):
        if option != "none":
            assert takes_partial_masks(compose("rcnn", "fpn", option).model.roi_heads._target_), option
