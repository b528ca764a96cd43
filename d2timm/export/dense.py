"""Detect objects in one image with RetinaNet or FCOS, as tensor operations that can be exported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from detectron2.modeling.meta_arch.dense_detector import permute_to_N_HWA_K
from torch import Tensor

from .ops import suppress_by_class, top_scores

__all__ = ["detect_densely"]


def detect_densely(
    model: Any, features: Mapping[str, Tensor], score_threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (N, 4) in pixels, scores (N,) and classes (N,) of an image.

    Args:
        model: detectron2's RetinaNet or FCOS.
        features: level name -> (1, C, h, w).
        score_threshold: 0 to 1; detections that do not exceed it are dropped.
    """
    maps = [features[name] for name in model.head_in_features]
    logits, deltas, *centerness = model.head(maps)
    anchors = model.anchor_generator._grid_anchors([x.shape[-2:] for x in maps])
    detections: list[tuple[Tensor, Tensor, Tensor]] = []
    for level, level_anchors in enumerate(anchors):
        scores = permute_to_N_HWA_K(logits[level], model.num_classes)[0].sigmoid()  # (h w A, K)
        if centerness:  # FCOS
            scores = torch.sqrt(scores * permute_to_N_HWA_K(centerness[0][level], 1)[0].sigmoid())
        level_deltas = permute_to_N_HWA_K(deltas[level], 4)[0]
        rows, classes = (scores > score_threshold).nonzero().unbind(dim=1)
        scores, top = top_scores(scores[rows, classes], model.test_topk_candidates)
        rows, classes = rows[top], classes[top]
        boxes = model.box2box_transform.apply_deltas(level_deltas[rows], level_anchors[rows])
        detections.append((boxes, scores, classes))
    boxes, scores, classes = (torch.cat(parts) for parts in zip(*detections, strict=True))
    keep = suppress_by_class(boxes, scores, classes, model.test_nms_thresh, model.max_detections_per_image)
    return boxes[keep], scores[keep], classes[keep]
