"""R-CNNs: proposals, boxes and masks of one image, by operations that exporters know.

The modules are detectron2's, and so is the order of what is done; only what they do in between with
``Instances`` and Python's numbers is done with tensors here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..modeling.roi_heads import CascadeMaskROIHeads
from .ops import best, clip, is_usable, suppress, suppress_by_class

__all__ = ["detect", "level_of_boxes", "mask_scores", "pool", "propose"]


def propose(rpn: Any, features: Mapping[str, Tensor], size: tuple[Tensor, Tensor]) -> Tensor:
    """Proposals of detectron2's RPN for one image.

    Args:
        rpn: the module.
        features: level -> (1, C, h, w).
        size: (height, width) of the image without its padding, in pixels.

    Returns:
        (N, 4) boxes in pixels, the best first.
    """
    maps = [features[name] for name in rpn.in_features]
    logits, deltas = rpn.rpn_head(maps)
    anchors = rpn.anchor_generator._grid_anchors([x.shape[-2:] for x in maps])
    kept_boxes, kept_scores = [], []
    for level_logits, level_deltas, level_anchors in zip(logits, deltas, anchors, strict=True):
        # (1, A, h, w) -> (h w A,) and (1, 4 A, h, w) -> (h w A, 4)
        scores, places = best(level_logits[0].permute(1, 2, 0).flatten(), rpn.pre_nms_topk[False])
        moves = level_deltas[0].unflatten(0, (-1, 4)).permute(2, 3, 0, 1).flatten(0, 2)
        boxes = clip(rpn.box2box_transform.apply_deltas(moves[places], level_anchors[places]), size)
        usable = (is_usable(boxes) & torch.isfinite(scores)).nonzero()[:, 0]
        boxes, scores = boxes[usable], scores[usable]
        keep = suppress(boxes, scores, rpn.nms_thresh)
        kept_boxes.append(boxes[keep])
        kept_scores.append(scores[keep])
    order = torch.cat(kept_scores).argsort(descending=True)
    most: int = rpn.post_nms_topk[False]
    return torch.cat(kept_boxes)[order[:most]]


def level_of_boxes(pooler: Any, boxes: Tensor) -> Tensor:
    """Which level of a pyramid each of boxes (N, 4) is pooled from, 0 the finest: equation 1 of FPN, (N,)."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    octaves = torch.log2(torch.sqrt(area) / pooler.canonical_box_size + 1e-8)
    levels = torch.floor(pooler.canonical_level + octaves).clamp(pooler.min_level, pooler.max_level)
    min_level: int = pooler.min_level
    return levels.long() - min_level


def pool(pooler: Any, maps: Sequence[Tensor], boxes: Tensor) -> Tensor:
    """Features of boxes, each from the level of its size.

    Args:
        pooler: detectron2's ``ROIPooler``.
        maps: (1, C, h, w) each, fine to coarse.
        boxes: (N, 4) in pixels of the image.

    Returns:
        (N, C, H, W) with H and W of the pooler.
    """
    rois = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], dim=1)
    if len(maps) == 1:
        of_one_level: Tensor = pooler.level_poolers[0](maps[0], rois)
        return of_one_level
    levels = level_of_boxes(pooler, boxes)
    pooled = maps[0].new_zeros(rois.shape[0], maps[0].shape[1], *pooler.output_size)
    for level, (pool_level, x) in enumerate(zip(pooler.level_poolers, maps, strict=True)):
        here = (levels == level).nonzero()[:, 0]
        pooled = pooled.index_put((here,), pool_level(x, rois[here]))
    return pooled


def detect(
    heads: Any,
    features: Mapping[str, Tensor],
    proposals: Tensor,
    size: tuple[Tensor, Tensor],
    score_threshold: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (N, 4), scores (N,) and classes (N,) of an image, from its proposals (P, 4).

    Args:
        heads: detectron2's ROI heads, of one stage or a cascade.
        features: level -> (1, C, h, w).
        proposals: in pixels.
        size: (height, width) of the image without its padding, in pixels.
        score_threshold: detections that are not above it are dropped, 0 to 1.
    """
    maps = [features[name] for name in heads.box_in_features]
    boxes = proposals
    of_stages: list[Tensor] = []
    for stage, (head, predictor) in enumerate(stages(heads)):
        if stage:
            boxes = clip(_of_likeliest(boxes, of_stages[-1]), size)
        logits, deltas = predictor(head(pool(heads.box_pooler, maps, boxes)))
        boxes = predictor.box2box_transform.apply_deltas(deltas, boxes)  # (P, 4) or (P, 4 K)
        of_stages.append(logits)
    if isinstance(heads, CascadeMaskROIHeads):  # averaged before the softmax
        scores = _probabilities(predictor, torch.stack(of_stages).mean(0))
    else:
        scores = torch.stack([_probabilities(predictor, logits) for logits in of_stages]).mean(0)

    finite = (torch.isfinite(boxes).all(dim=1) & torch.isfinite(scores).all(dim=1))[:, None]
    boxes = clip(boxes.unflatten(1, (-1, 4)), size)  # (P, 1 or K, 4)
    scores = scores[:, :-1]
    rows, classes = ((scores > score_threshold) & finite).nonzero().unbind(dim=1)
    boxes = boxes[rows, classes] if boxes.shape[1] > 1 else boxes[rows, 0]
    scores = scores[rows, classes]
    keep = suppress_by_class(boxes, scores, classes, predictor.test_nms_thresh, predictor.test_topk_per_image)
    return boxes[keep], scores[keep], classes[keep]


def mask_scores(heads: Any, features: Mapping[str, Tensor], boxes: Tensor, classes: Tensor) -> Tensor:
    """How sure a mask head is of each cell of boxes (N, 4) of classes (N,): (N, M, M), 0 to 1."""
    pooled = pool(heads.mask_pooler, [features[name] for name in heads.mask_in_features], boxes)
    of_stages = []
    mask_heads: Any = heads.mask_head if isinstance(heads.mask_head, nn.ModuleList) else [heads.mask_head]
    for head in mask_heads:
        logits = head.layers(pooled)  # (N, 1 or K, M, M)
        own = logits[torch.arange(logits.shape[0]), classes] if logits.shape[1] > 1 else logits[:, 0]
        of_stages.append(own.sigmoid())
    return torch.stack(of_stages).mean(0)


def stages(heads: Any) -> list[tuple[nn.Module, Any]]:
    """The box head and the predictor of each stage."""
    if isinstance(heads.box_head, nn.ModuleList):
        return list(zip(heads.box_head, heads.box_predictor, strict=True))
    return [(heads.box_head, heads.box_predictor)]


def _of_likeliest(boxes: Tensor, logits: Tensor) -> Tensor:
    """Of boxes (P, 4 K) those of the classes that logits (P, K + 1) prefer; (P, 4) as they are."""
    if boxes.shape[1] == 4:
        return boxes
    of_classes: Tensor = boxes.unflatten(1, (-1, 4))
    return of_classes[torch.arange(boxes.shape[0]), logits[:, :-1].argmax(dim=1)]


def _probabilities(predictor: Any, logits: Tensor) -> Tensor:
    """Of classes, and of the background as the last one: (P, K + 1)."""
    return torch.sigmoid(logits) if predictor.use_sigmoid_ce else torch.softmax(logits, dim=-1)
