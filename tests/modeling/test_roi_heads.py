"""mmdetection's Cascade Mask R-CNN: its parts, sampling, refinement and averages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances, PolygonMasks, pairwise_iou
from detectron2.utils.events import EventStorage
from helpers.choices import compose
from torch import Tensor, nn

from d2timm import ConfigError
from d2timm.config.build import build_on_meta
from d2timm.modeling.roi_heads import CascadeMaskROIHeads

SIZE = (64, 96)
GT_BOXES = [[4.0, 8.0, 44.0, 48.0], [50.0, 2.0, 90.0, 30.0]]


@pytest.fixture
def heads() -> CascadeMaskROIHeads:
    torch.manual_seed(0)
    cfg = compose("rcnn", "fpn", "cascade_mask_mmdet")
    roi_heads = instantiate(cfg.model.roi_heads)
    assert isinstance(roi_heads, CascadeMaskROIHeads)
    return roi_heads


@pytest.fixture
def features() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {f"p{level}": torch.randn(2, 32, SIZE[0] >> level, SIZE[1] >> level) for level in (2, 3, 4, 5)}


def proposals() -> list[Instances]:
    """Proposals of two images, which overlap the ground-truth boxes to all degrees."""
    torch.manual_seed(2)
    boxes = torch.tensor(GT_BOXES).repeat(20, 1)
    return [
        Instances(SIZE, proposal_boxes=Boxes((boxes + 6 * torch.randn_like(boxes)).clamp(0, 64)))
        for _ in range(2)
    ]


def targets() -> list[Instances]:
    polygons = [[[x0, y0, x1, y0, x1, y1, x0, y1]] for x0, y0, x1, y1 in GT_BOXES]
    two = Instances(
        SIZE,
        gt_boxes=Boxes(torch.tensor(GT_BOXES)),
        gt_classes=torch.tensor([1, 2]),
        gt_masks=PolygonMasks(polygons),
    )
    empty = Instances(
        SIZE,
        gt_boxes=Boxes(torch.zeros(0, 4)),
        gt_classes=torch.zeros(0, dtype=torch.long),
        gt_masks=PolygonMasks([]),
    )
    return [two, empty]


def losses(heads: CascadeMaskROIHeads, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    torch.manual_seed(3)
    with EventStorage():
        by_name: dict[str, Tensor] = heads.train()(None, features, proposals(), targets())[1]
    return by_name


def fill(layer: Any, bias: list[float]) -> None:
    nn.init.zeros_(layer.weight)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor(bias))


def test_each_stage_has_a_head_of_each_kind(heads: CascadeMaskROIHeads) -> None:
    names = {".".join(name.split(".")[:2]) for name in heads.state_dict()}
    kinds = ("box_head", "box_predictor", "mask_head")
    assert names == {f"{kind}.{stage}" for kind in kinds for stage in range(3)}
    tensors = heads.state_dict(keep_vars=True).values()
    assert len({id(tensor) for tensor in tensors}) == len(tensors), "stages share no tensors"


def test_values_are_as_published() -> None:
    heads = build_on_meta(compose("rcnn", "fpn", "cascade_mask_mmdet")).roi_heads
    assert [matcher.thresholds[1:-1] for matcher in heads.proposal_matchers] == [[0.5], [0.6], [0.7]]
    assert heads.stage_weights == (1, 0.5, 0.25)
    deviations = [[1 / weight for weight in p.box2box_transform.weights] for p in heads.box_predictor]
    assert [row[::2] for row in deviations] == [
        pytest.approx(pair) for pair in ([0.1, 0.2], [0.05, 0.1], [0.033, 0.067])
    ]
    for predictor in heads.box_predictor:
        assert predictor.bbox_pred.out_features == 4 * heads.num_classes
        assert predictor.box_reg_loss_type == "giou"
        assert predictor.loss_weight["loss_box_reg"] == 10
    assert {type(conv.norm).__name__ for conv in heads.box_head[2].conv_norm_relus} == {"NaiveSyncBatchNorm"}
    assert not any(conv.norm for head in heads.mask_head for conv in head.conv_norm_relus)


def test_later_stages_have_smaller_loss_weights(
    heads: CascadeMaskROIHeads, features: dict[str, Tensor]
) -> None:
    weighted = losses(heads, features)
    heads.stage_weights = (1, 1, 1)
    plain = losses(heads, features)
    kinds = ("loss_cls", "loss_box_reg", "loss_mask")
    assert set(weighted) == {f"{kind}_stage{stage}" for kind in kinds for stage in range(3)}
    for name, loss in weighted.items():
        weight = (1, 0.5, 0.25)[int(name[-1])]
        assert loss.item() == pytest.approx(weight * plain[name].item(), rel=1e-5)
        assert loss > 0


def test_gradients_of_the_losses_add_up(heads: CascadeMaskROIHeads, features: dict[str, Tensor]) -> None:
    for x in features.values():
        x.requires_grad_()
    sum(losses(heads, features).values()).backward()
    assert all(p.grad is not None for p in heads.parameters())
    total = features["p2"].grad
    for x in features.values():
        x.grad = None
    parts = losses(heads, features)
    for loss in parts.values():
        loss.backward(retain_graph=True)
    torch.testing.assert_close(features["p2"].grad, total)


def test_each_stage_samples_by_its_own_matcher(
    heads: CascadeMaskROIHeads, features: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    run = CascadeMaskROIHeads._run_stage

    def spy(self: CascadeMaskROIHeads, levels: Any, sampled: Any, stage: int) -> Any:
        seen.append((stage, sampled[0], sampled[1]))
        return run(self, levels, sampled, stage)

    monkeypatch.setattr(CascadeMaskROIHeads, "_run_stage", spy)
    losses(heads, features)
    assert [stage for stage, *_ in seen] == [0, 1, 2]
    for stage, sampled, empty in seen:
        overlap = pairwise_iou(Boxes(torch.tensor(GT_BOXES)), sampled.proposal_boxes).amax(0)
        assert torch.equal(sampled.gt_classes != heads.num_classes, overlap >= (0.5, 0.6, 0.7)[stage])
        assert len(sampled) <= heads.batch_size_per_image
        assert 0 < (sampled.gt_classes != heads.num_classes).sum() <= heads.batch_size_per_image // 4
        assert (empty.gt_classes == heads.num_classes).all()
        assert not empty.is_target.any()


def test_next_stage_gets_boxes_of_their_class_and_no_ground_truth(heads: CascadeMaskROIHeads) -> None:
    boxes = torch.tensor([[10.0, 10.0, 30.0, 30.0]] * 3)
    image = Instances(
        SIZE,
        proposal_boxes=Boxes(boxes),
        gt_classes=torch.tensor([1, heads.num_classes, 1]),
        is_target=torch.tensor([False, False, True]),
    )
    scores = torch.zeros(3, heads.num_classes + 1)
    scores[:, 2] = 1  # the likeliest class
    scores[:, -1] = 9  # background is likelier
    deltas = torch.zeros(3, heads.num_classes, 4)
    deltas[:, 1, 0], deltas[:, 2, 0] = 1.0, 2.0  # tenths of the width
    refined = heads.train()._refine((scores, deltas.flatten(1)), [image], 0)[0].proposal_boxes.tensor
    assert refined[:, 0].tolist() == pytest.approx([12, 14])
    refined = heads.eval()._refine((scores, deltas.flatten(1)), [image], 0)[0].proposal_boxes.tensor
    assert refined[:, 0].tolist() == pytest.approx([14, 14, 14])


def test_class_agnostic_boxes(features: dict[str, Tensor]) -> None:
    agnostic = "model.roi_heads.box_predictors.0.cls_agnostic_bbox_reg=True"
    heads = instantiate(compose("rcnn", "fpn", "cascade_mask_mmdet", agnostic).model.roi_heads)
    assert [predictor.bbox_pred.out_features for predictor in heads.box_predictor] == [4, 4, 4]
    assert all(loss.isfinite() for loss in losses(heads, features).values())


def test_masks_and_scores_are_averaged(heads: CascadeMaskROIHeads, features: dict[str, Tensor]) -> None:
    heads.eval()
    classes = heads.num_classes
    for stage, score in enumerate((0.0, 3.0, 6.0)):
        fill(heads.box_predictor[stage].cls_score, [score] + [0.0] * classes)
        fill(heads.box_predictor[stage].bbox_pred, [0.0] * 4 * classes)
        fill(heads.mask_head[stage].predictor, [float(stage)] * classes)
    with torch.no_grad():
        detections = heads(None, features, proposals())[0][0]
    probability = math.exp(3) / (math.exp(3) + classes)  # of the mean of 0, 3 and 6
    assert detections.scores[0].item() == pytest.approx(probability, rel=1e-4)
    expected = sum(1 / (1 + math.exp(-stage)) for stage in range(3)) / 3
    assert detections.pred_masks.shape[1:] == (1, 28, 28)
    torch.testing.assert_close(detections.pred_masks, torch.full_like(detections.pred_masks, expected))


def test_no_proposals_give_no_detections(heads: CascadeMaskROIHeads, features: dict[str, Tensor]) -> None:
    none = [Instances(SIZE, proposal_boxes=Boxes(torch.zeros(0, 4))) for _ in range(2)]
    with torch.no_grad():
        detections = heads.eval()(None, features, none)[0]
    assert [len(image) for image in detections] == [0, 0]


@pytest.mark.parametrize("key", ["mask_heads", "stage_weights"])
def test_wrong_number_of_stages_is_refused(key: str) -> None:
    cfg = compose("rcnn", "fpn", "cascade_mask_mmdet")
    cfg.model.roi_heads[key] = cfg.model.roi_heads[key][:2]
    with pytest.raises(ConfigError, match=f"{key} has 2 .*box_heads 3"):
        build_on_meta(cfg)
