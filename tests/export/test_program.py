"""A detector as one function of tensors equals detectron2's inference."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels
from detectron2.structures import Boxes, ImageList
from helpers.exports import picture, untrained

from d2timm import ConfigError
from d2timm.export.program import Detector
from d2timm.export.rcnn import level_of_boxes, pool, propose
from d2timm.export.verify import compare, reference_result

SIZES = [(64, 96), (120, 80), (50, 130)]


@pytest.mark.parametrize(
    ("model", "neck", "roi_heads"),
    [
        ("rcnn", "fpn", "mask"),
        ("rcnn", "pafpn", "mask_agnostic"),
        ("rcnn", "bifpn", "box"),
        ("rcnn", "none", "mask_4conv1fc"),
        ("rcnn", "simple_feature_pyramid", "cascade_mask"),
        ("rcnn", "fpn_gn", "cascade_mask_mmdet"),
        ("retinanet", "fpn_p6p7", "none"),
        ("fcos", "fpn_p6p7", "none"),
    ],
)
def test_program_detects_the_same_objects(model: str, neck: str, roi_heads: str) -> None:
    no_norm = ["model.head.norm=''"] if model == "fcos" else []  # it fails on the single cell of tiny levels
    trained = untrained(model, neck, roi_heads, *no_norm)
    program = Detector(trained, 0.1 if model == "rcnn" else 0.01)  # dense detectors start with low scores
    objects = 0
    for size in SIZES:
        image = picture(*size)
        with torch.no_grad():
            outputs = program(torch.from_numpy(image))
        result = {name: x.numpy() for name, x in zip(program.output_names, outputs, strict=True)}
        difference = compare(reference_result(trained, image, program.score_threshold), result)
        objects += difference.objects
        assert difference.unmatched == 0
        assert difference.boxes <= 1e-4
        assert difference.scores <= 1e-6
        assert difference.pixels <= 2  # the order of sums differs
    assert objects > 3


def test_default_threshold_is_that_of_the_config() -> None:
    trained = untrained("rcnn", "fpn", "box")
    assert Detector(trained).score_threshold == 0.05
    reference_result(trained, picture(64, 64), 0.9)
    assert trained.model.roi_heads.box_predictor.test_score_thresh == 0.05


def test_image_without_objects() -> None:
    program = Detector(untrained("rcnn", "fpn", "mask"), 0.9999)
    with torch.no_grad():
        boxes, classes, scores, masks = program(torch.from_numpy(picture(64, 80)))
    assert (boxes.shape, classes.shape, scores.shape, masks.shape) == ((0, 4), (0,), (0,), (0, 64, 80))


def test_proposals_equal_those_of_the_rpn() -> None:
    model = untrained("rcnn", "fpn", "box").model
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        features = model.backbone(images)
        expected, _ = model.proposal_generator(ImageList(images, [(60, 90)]), features)
        proposals = propose(model.proposal_generator, features, (torch.tensor(60.0), torch.tensor(90.0)))
    assert len(expected[0]) > 5
    assert torch.equal(proposals, expected[0].proposal_boxes.tensor)


def test_pooling_equals_that_of_detectron2() -> None:
    scales = [1 / 4, 1 / 8, 1 / 16, 1 / 32]
    pooler = ROIPooler(output_size=7, scales=scales, sampling_ratio=0, pooler_type="ROIAlignV2")
    sides = torch.tensor([1.0, 40, 111, 112, 113, 223, 224, 448, 900])
    boxes = torch.cat([torch.zeros(9, 2), sides[:, None].repeat(1, 2)], dim=1)
    levels = level_of_boxes(pooler, boxes)
    assert levels.tolist() == assign_boxes_to_levels([Boxes(boxes)], 2, 5, 224, 4).tolist()
    assert set(levels.tolist()) == {0, 1, 2, 3}
    maps = [torch.randn(1, 3, int(1024 * scale), int(1024 * scale)) for scale in scales]
    assert torch.equal(pool(pooler, maps, boxes), pooler(maps, [Boxes(boxes)]))


@pytest.mark.parametrize(
    ("model", "roi_heads", "reason"),
    [
        ("rcnn", "keypoint", "keypoint detector cannot be exported"),
        ("rcnn", "point_rend", "PointRendMaskHead cannot be exported"),
        ("panoptic_fpn", "mask", "PanopticFPN cannot be exported"),
        ("semantic_fpn", "none", "SemanticSegmentor cannot be exported"),
    ],
)
def test_unsupported_detectors_are_refused(model: str, roi_heads: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        Detector(untrained(model, "fpn", roi_heads))


def test_unsupported_images_are_refused() -> None:
    flips = "dataloader.test.mapper.augmentations=[{_target_: detectron2.data.transforms.RandomFlip}]"
    with pytest.raises(ConfigError, match=r"dataloader\.test\.mapper\.augmentations: .*ResizeShortestEdge"):
        Detector(untrained("rcnn", "fpn", "box", flips))
    with pytest.raises(ConfigError, match=r"model\.input_format=L"):
        Detector(untrained("rcnn", "fpn", "box", "model.backbone.bottom_up.in_chans=1"))
