"""PointRend's mask head: arguments arrive in detectron2's class, and it trains and predicts."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.projects.point_rend import PointRendMaskHead
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

from d2timm import ConfigError
from d2timm.modeling.roi_heads import point_rend_mask_head

SHAPES = {"p2": ShapeSpec(channels=8, stride=4)}


def make_head(**kwargs: int) -> PointRendMaskHead:
    torch.manual_seed(0)
    return point_rend_mask_head(
        SHAPES, **{"num_classes": 3, "conv_dim": 8, "fc_dim": 16, "point_fc_dim": 12, **kwargs}
    )


def test_arguments_arrive() -> None:
    head = make_head(num_fc=1, point_num_fc=2, pooler_resolution=6, coarse_resolution=5, train_num_points=9)
    assert head.roi_pooler_size == 6
    assert head.mask_point_train_num_points == 9
    assert head.coarse_head.prediction.out_features == 3 * 5 * 5
    assert [fc.out_features for fc in head.coarse_head.fcs] == [16]
    assert [fc.out_channels for fc in head.point_head.fc_layers] == [12, 12]
    assert head.point_head.predictor.out_channels == 3


def test_defaults_are_as_in_the_paper() -> None:
    head = point_rend_mask_head({"p2": ShapeSpec(channels=256, stride=4)}, num_classes=80)
    assert head.coarse_head.output_shape == (80, 7, 7)
    assert [fc.out_features for fc in head.coarse_head.fcs] == [1024, 1024]
    assert [fc.out_channels for fc in head.point_head.fc_layers] == [256, 256, 256]
    assert head.point_head.coarse_pred_each_layer
    assert head.mask_point_train_num_points == 14**2
    # 7 x 7 is enlarged to 28 x 28 at once, and all of its points are predicted
    assert (head.mask_point_subdivision_init_resolution, head.mask_point_subdivision_steps) == (28, 3)


def test_training_and_inference() -> None:
    head, features = make_head(), {"p2": torch.randn(1, 8, 16, 24)}
    boxes = Boxes(torch.tensor([[4.0, 8.0, 60.0, 60.0], [50.0, 2.0, 90.0, 30.0]]))
    masks = torch.zeros(2, 64, 96, dtype=torch.bool)
    masks[0, 8:60, 4:30] = masks[1, 2:30, 60:90] = True
    classes = torch.tensor([0, 2])
    targets = Instances((64, 96), proposal_boxes=boxes, gt_classes=classes, gt_masks=BitMasks(masks))
    with EventStorage():
        losses = head(features, [targets])
    assert set(losses) == {"loss_mask", "loss_mask_point"}
    sum(losses.values()).backward()
    assert [name for name, p in head.named_parameters() if p.grad is None] == []
    detections = Instances((64, 96), pred_boxes=boxes, pred_classes=classes)
    head.eval()(features, [detections])
    assert tuple(detections.pred_masks.shape) == (2, 1, 224, 224)


def test_convolution_wider_than_its_input_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"conv_dim=9 .*at most 8, .*p2"):
        make_head(conv_dim=9)
