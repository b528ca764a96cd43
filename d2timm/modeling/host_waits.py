"""Parts of detectron2's R-CNNs that read fewer numbers from the GPU in training, with equal results.

To read a number, or the indices of a mask, a process waits until the GPU has computed it, and meanwhile the
GPU gets no new work. detectron2 does so for each image, for each level, and to log statistics.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import batched_nms, cat, cross_entropy
from detectron2.modeling.box_regression import Box2BoxTransform, _dense_box_regression_loss
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.proposal_generator.proposal_utils import add_ground_truth_to_proposals
from detectron2.modeling.roi_heads import FastRCNNOutputLayers, MaskRCNNConvUpsampleHead
from detectron2.structures import Boxes, Instances, pairwise_iou
from torch import Tensor, nn

__all__ = ["SamplesWithFewerWaits", "avoid_host_waits", "without_statistics"]

_statistics: ContextVar[bool] = ContextVar("statistics", default=True)


@contextmanager
def without_statistics() -> Iterator[None]:
    """Let heads compute no statistics for the log, such as the accuracy of classes."""
    token = _statistics.set(False)
    try:
        yield
    finally:
        _statistics.reset(token)


def avoid_host_waits(model: nn.Module) -> None:
    """Let the parts of a detector that are detectron2's own wait less; results and names stay the same."""
    for module in model.modules():
        parts = [module]
        for value in vars(module).values():
            parts += value if isinstance(value, list) else [value]
        for part in parts:
            if type(part) in FASTER:
                part.__class__ = FASTER[type(part)]


class _Matcher(Matcher):
    def __call__(self, match_quality_matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Match N predictions to M objects by a quality (M, N): object of each, and its label."""
        quality = match_quality_matrix
        if not quality.numel():
            return super().__call__(quality)  # type: ignore[no-any-return]
        best, matches = quality.max(dim=0)
        labels = torch.ones_like(matches, dtype=torch.int8)
        for label, low, high in zip(self.labels, self.thresholds[:-1], self.thresholds[1:], strict=True):
            labels.masked_fill_((best >= low) & (best < high), label)
        if self.allow_low_quality_matches:
            labels.masked_fill_((quality == quality.amax(dim=1, keepdim=True)).any(0), 1)
        return matches, labels


class _Box2BoxTransform(Box2BoxTransform):
    def get_deltas(self, src_boxes: Tensor, target_boxes: Tensor) -> Tensor:
        """Deltas (N, 4) from boxes (N, 4) to others; those of an empty box are not finite numbers."""
        sizes, target_sizes = (boxes[:, 2:] - boxes[:, :2] for boxes in (src_boxes, target_boxes))
        centers = src_boxes[:, :2] + 0.5 * sizes
        target_centers = target_boxes[:, :2] + 0.5 * target_sizes
        wx, wy, ww, wh = self.weights
        x, y = (target_centers - centers).unbind(1)
        width, height = sizes.unbind(1)
        log_width, log_height = torch.log(target_sizes / sizes).unbind(1)
        return torch.stack([wx * x / width, wy * y / height, ww * log_width, wh * log_height], dim=1)


class _ROIPooler(ROIPooler):
    def forward(self, x: list[Tensor], box_lists: list[Boxes]) -> Tensor:
        """Pool R boxes of N images from levels (N, C, H_i, W_i): (R, C, P, Q)."""
        traced = torch.compiler.is_compiling() or torch._C._get_tracing_state()
        if traced or len(self.level_poolers) == 1 or not box_lists:
            return super().forward(x, box_lists)  # type: ignore[no-any-return]
        levels = assign_boxes_to_levels(
            box_lists, self.min_level, self.max_level, self.canonical_box_size, self.canonical_level
        )
        numbers = torch.arange(len(self.level_poolers), device=levels.device)
        counts = (levels[:, None] == numbers).sum(0).tolist()
        images = torch.cat([b.tensor.new_full((len(b), 1), i) for i, b in enumerate(box_lists)])
        boxes = torch.cat([images, torch.cat([b.tensor for b in box_lists])], dim=1)
        output = x[0].new_zeros(len(boxes), x[0].shape[1], *self.output_size)
        chosen = levels.argsort(stable=True).split(counts)
        for level, pooler, index in zip(x, self.level_poolers, chosen, strict=True):
            output.index_put_((index,), pooler(level, boxes[index]))
        return output


class _RPN(RPN):
    def losses(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        gt_labels: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        gt_boxes: list[Tensor],
    ) -> dict[str, Tensor]:
        """Losses of N images with A anchors on all levels.

        Args:
            anchors: of each level, (A_i, 4).
            pred_objectness_logits: of each level, (N, A_i).
            gt_labels: of each image, (A,): 1, 0, or -1 if an anchor is not sampled.
            pred_anchor_deltas: of each level, (N, A_i, 4).
            gt_boxes: of each image, (A, 4).
        """
        if _statistics.get():
            return super().losses(  # type: ignore[no-any-return]
                anchors, pred_objectness_logits, gt_labels, pred_anchor_deltas, gt_boxes
            )
        labels = torch.stack(gt_labels)
        localization = _dense_box_regression_loss(
            anchors,
            self.box2box_transform,
            pred_anchor_deltas,
            gt_boxes,
            (labels == 1).nonzero(as_tuple=True),
            box_reg_loss_type=self.box_reg_loss_type,
            smooth_l1_beta=self.smooth_l1_beta,
        )
        sampled = (labels >= 0).nonzero(as_tuple=True)
        logits = cat(pred_objectness_logits, dim=1)[sampled]
        objectness = F.binary_cross_entropy_with_logits(logits, labels[sampled].float(), reduction="sum")
        losses = {"loss_rpn_cls": objectness, "loss_rpn_loc": localization}
        normalizer = self.batch_size_per_image * len(gt_labels)
        return {name: loss / normalizer * self.loss_weight.get(name, 1.0) for name, loss in losses.items()}

    @torch.no_grad()
    def predict_proposals(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """Proposals of N images, the likeliest first.

        Args:
            anchors: of each level, (A_i, 4).
            pred_objectness_logits: of each level, (N, A_i).
            pred_anchor_deltas: of each level, (N, A_i, 4).
            image_sizes: (height, width) of each image, in pixels.

        Raises:
            FloatingPointError: boxes or scores are not finite numbers.
        """
        if not self.training:
            return super().predict_proposals(  # type: ignore[no-any-return]
                anchors, pred_objectness_logits, pred_anchor_deltas, image_sizes
            )
        decoded = self._decode_proposals(anchors, pred_anchor_deltas)
        scores, boxes, levels = _likeliest(decoded, pred_objectness_logits, self.pre_nms_topk[True])
        if not (torch.isfinite(boxes).all() & torch.isfinite(scores).all()):
            raise FloatingPointError("predicted boxes or scores contain Inf/NaN: training has diverged")
        clipped = torch.stack([_clip(each, *size) for each, size in zip(boxes, image_sizes, strict=True)])
        kept = (clipped[..., 2:] - clipped[..., :2] > self.min_box_size).all(-1)
        results = []
        for image, number in enumerate(kept.sum(1).tolist()):
            of_image = (clipped[image], scores[image], levels)
            if number < len(levels):
                index = kept[image].nonzero()[:, 0]
                of_image = (clipped[image, index], scores[image, index], levels[index])
            chosen = batched_nms(*of_image, self.nms_thresh)[: self.post_nms_topk[True]]
            results.append(
                Instances(
                    image_sizes[image],
                    proposal_boxes=Boxes(of_image[0][chosen]),
                    objectness_logits=of_image[1][chosen],
                )
            )
        return results


def _likeliest(
    boxes: Sequence[Tensor], logits: Sequence[Tensor], number: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores (N, K), boxes (N, K, 4) and levels (K,) of the likeliest boxes of each level.

    Args:
        boxes: of each level, (N, A_i, 4).
        logits: of each level, (N, A_i).
        number: of boxes that a level may have.
    """
    scores, chosen, levels = [], [], []
    for level, (of_level, scores_of_level) in enumerate(zip(boxes, logits, strict=True)):
        best, index = scores_of_level.topk(min(scores_of_level.shape[1], number), dim=1)
        scores.append(best)
        chosen.append(of_level.gather(1, index[..., None].expand(-1, -1, of_level.shape[2])))
        levels.append(torch.full(index.shape[1:], level, device=index.device))
    return torch.cat(scores, 1), torch.cat(chosen, 1), torch.cat(levels)


def _clip(boxes: Tensor, height: int, width: int) -> Tensor:
    """Clip boxes (R, 4) to an image."""
    x, y = boxes[:, 0::2].clamp(min=0, max=width), boxes[:, 1::2].clamp(min=0, max=height)
    return torch.stack([x, y], dim=2).flatten(1)


class SamplesWithFewerWaits:
    """Samples proposals in the training of ROI heads."""

    @torch.no_grad()
    def label_and_sample_proposals(
        self: Any, proposals: Sequence[Instances], targets: Sequence[Instances]
    ) -> list[Instances]:
        """Match the proposals of each image to its objects, and sample from them.

        Returns:
            Sampled proposals of each image with ``gt_classes``, and if it has objects, all ``gt_*`` of them.
        """
        if _statistics.get():
            sampled: list[Instances] = super().label_and_sample_proposals(proposals, targets)  # type: ignore[misc]
            return sampled
        if self.proposal_append_gt:
            proposals = add_ground_truth_to_proposals(targets, proposals)
        return [self._label_and_sample(*image) for image in zip(proposals, targets, strict=True)]

    def _label_and_sample(self: Any, proposals: Instances, targets: Instances) -> Instances:
        quality = pairwise_iou(targets.gt_boxes, proposals.proposal_boxes)
        matches, labels = self.proposal_matcher(quality)
        index, classes = self._sample_proposals(matches, labels, targets.gt_classes)
        sampled = proposals[index]
        sampled.gt_classes = classes
        if len(targets):
            of_object = matches[index]
            for name, value in targets.get_fields().items():
                if name.startswith("gt_") and not sampled.has(name):
                    sampled.set(name, value[of_object])
        return sampled


class _FastRCNNOutputLayers(FastRCNNOutputLayers):
    def losses(self, predictions: tuple[Tensor, Tensor], proposals: list[Instances]) -> dict[str, Tensor]:
        """Losses of scores (R, K + 1) and deltas (R, 4 K or 4) of all R sampled proposals."""
        if _statistics.get() or not proposals:
            return super().losses(predictions, proposals)  # type: ignore[no-any-return]
        scores, deltas = predictions
        classes = torch.cat([image.gt_classes for image in proposals])
        boxes = torch.cat([image.proposal_boxes.tensor for image in proposals])
        # An image without objects has only background, whose boxes count for nothing
        of_objects = [
            image.gt_boxes if image.has("gt_boxes") else image.proposal_boxes for image in proposals
        ]
        gt_boxes = torch.cat([each.tensor for each in of_objects])
        if self.use_sigmoid_ce:
            loss_cls = self.sigmoid_cross_entropy_loss(scores, classes)
        else:
            loss_cls = cross_entropy(scores, classes, reduction="mean")
        losses = {"loss_cls": loss_cls, "loss_box_reg": self.box_reg_loss(boxes, gt_boxes, deltas, classes)}
        return {name: loss * self.loss_weight.get(name, 1.0) for name, loss in losses.items()}


class _MaskRCNNConvUpsampleHead(MaskRCNNConvUpsampleHead):
    def forward(self, x: Tensor, instances: list[Instances]) -> Any:
        """Loss of masks in training; otherwise the instances with their masks."""
        if _statistics.get() or self.vis_period > 0 or not self.training:
            return super().forward(x, instances)
        logits: Tensor = self.layers(x)
        targets = [
            image.gt_masks.crop_and_resize(image.proposal_boxes.tensor, logits.shape[2]).to(logits.device)
            for image in instances
            if len(image)
        ]
        if not targets:
            return {"loss_mask": logits.sum() * 0 * self.loss_weight}
        if logits.shape[1] > 1:
            classes = torch.cat([image.gt_classes for image in instances if len(image)])
            logits = logits[torch.arange(len(logits), device=logits.device), classes]
        else:
            logits = logits[:, 0]
        loss = F.binary_cross_entropy_with_logits(logits, torch.cat(targets).float())
        return {"loss_mask": loss * self.loss_weight}


#: Class of detectron2 -> class that takes its place
FASTER: Mapping[type, type] = {
    base: kind
    for kind in (
        _Box2BoxTransform,
        _FastRCNNOutputLayers,
        _MaskRCNNConvUpsampleHead,
        _Matcher,
        _ROIPooler,
        _RPN,
    )
    for base in kind.__bases__
}
