"""An R-CNN without pasting gives the same detections, with the masks of its mask head."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.layers.mask_ops import paste_masks_in_image
from detectron2.modeling import GeneralizedRCNN, GeneralizedRCNNWithTTA, RetinaNet
from detectron2.structures import Boxes, Instances
from torch import nn

from d2timm.config.build import build_model
from d2timm.evaluation.roi_masks import ROI_MASKS, set_masks_aside, without_pasting


def detector(tiny: Callable[..., Any], recipe: str, folder: Path) -> nn.Module:
    """A detector with random weights that detects something."""
    torch.manual_seed(0)
    cfg = tiny(recipe, folder)
    if "roi_heads" in cfg.model:
        cfg.model.roi_heads.box_predictor.test_score_thresh = 0.0
    return build_model(cfg, weights=False).eval()


def images() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(1)
    return [
        {"image": torch.rand(3, 64, 96, generator=generator) * 255, "height": 100, "width": 150},
        {"image": torch.rand(3, 80, 64, generator=generator) * 255},
    ]


@pytest.mark.parametrize("recipe", ["mask_rcnn_timm.py", "faster_rcnn_timm.py"])
def test_detections_are_the_same(recipe: str, tiny: Callable[..., Any], tmp_path: Path) -> None:
    model = detector(tiny, recipe, tmp_path)
    with torch.no_grad():
        expected, found = model(images()), without_pasting(model)(images())
    for one, other in zip(expected, found, strict=True):
        pasted, unpasted = one["instances"], other["instances"]
        assert len(pasted) > 0
        assert pasted.image_size == unpasted.image_size
        assert torch.equal(pasted.pred_boxes.tensor, unpasted.pred_boxes.tensor)
        for field in ("scores", "pred_classes"):
            assert torch.equal(pasted.get(field), unpasted.get(field))
        assert pasted.has("pred_masks") == unpasted.has(ROI_MASKS) == ("mask" in recipe)
        assert not unpasted.has("pred_masks")
        if pasted.has("pred_masks"):
            masks = paste_masks_in_image(
                unpasted.get(ROI_MASKS)[:, 0], unpasted.pred_boxes, unpasted.image_size, threshold=0.5
            )
            assert torch.equal(masks, pasted.pred_masks)


def test_panoptic_fpn_is_left_as_it_is(tiny: Callable[..., Any], tmp_path: Path) -> None:
    model = detector(tiny, "panoptic_fpn_timm.py", tmp_path)
    assert without_pasting(model) is model


@pytest.mark.parametrize("kind", [RetinaNet, GeneralizedRCNNWithTTA, nn.Identity])
def test_other_detectors_are_left_as_they_are(kind: type[nn.Module]) -> None:
    model = kind.__new__(kind)
    assert without_pasting(model) is model


@pytest.mark.parametrize("method", ["forward", "inference"])
def test_rcnn_with_an_inference_of_its_own_is_left_as_it_is(method: str) -> None:
    own = type("Own", (GeneralizedRCNN,), {method: lambda self, batch: []})
    model = own.__new__(own)
    assert without_pasting(model) is model


@pytest.mark.parametrize(
    "masks", [torch.rand(2, 1, 14, 14, dtype=torch.float16), torch.rand(2, 3, 14, 14), torch.rand(2, 64, 64)]
)
def test_masks_of_another_form_stay(masks: torch.Tensor) -> None:
    found = Instances((64, 64), pred_boxes=Boxes(torch.rand(2, 4)), pred_masks=masks)
    set_masks_aside(found)
    assert found.pred_masks is masks
    assert not found.has(ROI_MASKS)
