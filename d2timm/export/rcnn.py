"""Detect objects in one image with an R-CNN, as tensor operations that can be exported.

Modules and order of operations are detectron2's; its code for ``Instances`` and Python numbers in between is
replaced by tensor operations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..modeling.roi_heads import CascadeMaskROIHeads
from .ops import clip_boxes, is_valid, suppress, suppress_by_class, top_scores

__all__ = ["detect", "level_of_boxes", "mask_scores", "pool", "propose"]


def propose(rpn: Any, features: Mapping[str, Tensor], size: tuple[Tensor, Tensor]) -> Tensor:
    """Proposals of an RPN for an image.

    Args:
        rpn: detectron2's RPN.
        features: level name -> (1, C, h, w).
        size: (height, width) of the image without padding, in pixels.

    Returns:
        (N, 4) boxes in pixels, highest score first.
    """
    maps = [features[name] for name in rpn.in_features]
    logits, deltas = rpn.rpn_head(maps)
    anchors = rpn.anchor_generator._grid_anchors([x.shape[-2:] for x in maps])
    kept_boxes, kept_scores = [], []
    for level_logits, level_deltas, level_anchors in zip(logits, deltas, anchors, strict=True):
        # (1, A, h, w) -> (h w A,) and (1, 4 A, h, w) -> (h w A, 4)
        scores, top = top_scores(level_logits[0].permute(1, 2, 0).flatten(), rpn.pre_nms_topk[False])
        flat_deltas = level_deltas[0].unflatten(0, (-1, 4)).permute(2, 3, 0, 1).flatten(0, 2)
        boxes = clip_boxes(rpn.box2box_transform.apply_deltas(flat_deltas[top], level_anchors[top]), size)
        valid = (is_valid(boxes) & torch.isfinite(scores)).nonzero()[:, 0]
        boxes, scores = boxes[valid], scores[valid]
        keep = suppress(boxes, scores, rpn.nms_thresh)
        kept_boxes.append(boxes[keep])
        kept_scores.append(scores[keep])
    order = torch.cat(kept_scores).argsort(descending=True)
    limit: int = rpn.post_nms_topk[False]
    return torch.cat(kept_boxes)[order[:limit]]


def level_of_boxes(pooler: Any, boxes: Tensor) -> Tensor:
    """The level that each of boxes (N, 4) is pooled from, by equation 1 of FPN: (N,), 0 is the finest."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    octaves = torch.log2(torch.sqrt(area) / pooler.canonical_box_size + 1e-8)
    levels = torch.floor(pooler.canonical_level + octaves).clamp(pooler.min_level, pooler.max_level)
    min_level: int = pooler.min_level
    return levels.long() - min_level


def pool(pooler: Any, maps: Sequence[Tensor], boxes: Tensor) -> Tensor:
    """Pool the features of each box from the level that fits its size.

    Args:
        pooler: detectron2's ``ROIPooler``.
        maps: (1, C, h, w) each, finest first.
        boxes: (N, 4) in pixels of the image.

    Returns:
        (N, C, H, W), where (H, W) is the pooler's output size.
    """
    rois = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], dim=1)
    if len(maps) == 1:
        single: Tensor = pooler.level_poolers[0](maps[0], rois)
        return single
    levels = level_of_boxes(pooler, boxes)
    pooled = maps[0].new_zeros(rois.shape[0], maps[0].shape[1], *pooler.output_size)
    for level, (pool_level, x) in enumerate(zip(pooler.level_poolers, maps, strict=True)):
        indices = (levels == level).nonzero()[:, 0]
        pooled = pooled.index_put((indices,), pool_level(x, rois[indices]))
    return pooled


def detect(
    heads: Any,
    features: Mapping[str, Tensor],
    proposals: Tensor,
    size: tuple[Tensor, Tensor],
    score_threshold: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (N, 4), scores (N,) and classes (N,) of an image, from proposals (P, 4).

    Args:
        heads: detectron2's ROI heads, of one stage or a cascade.
        features: level name -> (1, C, h, w).
        proposals: in pixels.
        size: (height, width) of the image without padding, in pixels.
        score_threshold: 0 to 1; detections that do not exceed it are dropped.
    """
    maps = [features[name] for name in heads.box_in_features]
    boxes = proposals
    stage_logits: list[Tensor] = []
    for stage, (head, predictor) in enumerate(_stages(heads)):
        if stage:
            boxes = clip_boxes(_boxes_of_top_class(boxes, stage_logits[-1]), size)
        logits, deltas = predictor(head(pool(heads.box_pooler, maps, boxes)))
        boxes = predictor.box2box_transform.apply_deltas(deltas, boxes)  # (P, 4) or (P, 4 K)
        stage_logits.append(logits)
    if isinstance(heads, CascadeMaskROIHeads):  # averages before the softmax
        scores = _probabilities(predictor, torch.stack(stage_logits).mean(0))
    else:
        scores = torch.stack([_probabilities(predictor, logits) for logits in stage_logits]).mean(0)

    finite = (torch.isfinite(boxes).all(dim=1) & torch.isfinite(scores).all(dim=1))[:, None]
    boxes = clip_boxes(boxes.unflatten(1, (-1, 4)), size)  # (P, 1 or K, 4)
    scores = scores[:, :-1]
    rows, classes = ((scores > score_threshold) & finite).nonzero().unbind(dim=1)
    boxes = boxes[rows, classes] if boxes.shape[1] > 1 else boxes[rows, 0]
    scores = scores[rows, classes]
    keep = suppress_by_class(boxes, scores, classes, predictor.test_nms_thresh, predictor.test_topk_per_image)
    return boxes[keep], scores[keep], classes[keep]


def mask_scores(heads: Any, features: Mapping[str, Tensor], boxes: Tensor, classes: Tensor) -> Tensor:
    """Mask probabilities (N, M, M) of boxes (N, 4) with classes (N,); a cascade averages its stages."""
    pooled = pool(heads.mask_pooler, [features[name] for name in heads.mask_in_features], boxes)
    stage_scores = []
    mask_heads: Any = heads.mask_head if isinstance(heads.mask_head, nn.ModuleList) else [heads.mask_head]
    for head in mask_heads:
        logits = head.layers(pooled)  # (N, 1 or K, M, M)
        own = logits[torch.arange(logits.shape[0]), classes] if logits.shape[1] > 1 else logits[:, 0]
        stage_scores.append(own.sigmoid())
    return torch.stack(stage_scores).mean(0)


def _stages(heads: Any) -> list[tuple[nn.Module, Any]]:
    """The box head and the predictor of each stage."""
    if isinstance(heads.box_head, nn.ModuleList):
        return list(zip(heads.box_head, heads.box_predictor, strict=True))
    return [(heads.box_head, heads.box_predictor)]


def _boxes_of_top_class(boxes: Tensor, logits: Tensor) -> Tensor:
    """Select the box of the most likely class from boxes (P, 4 K); boxes (P, 4) are returned unchanged."""
    if boxes.shape[1] == 4:
        return boxes
    by_class: Tensor = boxes.unflatten(1, (-1, 4))
    return by_class[torch.arange(boxes.shape[0]), logits[:, :-1].argmax(dim=1)]


def _probabilities(predictor: Any, logits: Tensor) -> Tensor:
    """Probabilities (P, K + 1) of the classes, the background last."""
    return torch.sigmoid(logits) if predictor.use_sigmoid_ce else torch.softmax(logits, dim=-1)
