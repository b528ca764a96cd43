"""Cascade Mask R-CNN as mmdetection has it, which the detectors of Swin and ConvNeXt are made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.modeling.roi_heads import CascadeROIHeads, select_foreground_proposals
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from .errors import ConfigError

__all__ = ["CascadeMaskROIHeads"]


class CascadeMaskROIHeads(CascadeROIHeads):
    """ROI heads of Cascade Mask R-CNN as in mmdetection (Cai and Vasconcelos, https://arxiv.org/abs/1906.09756).

    What differs from detectron2's cascade, by mmdetection's ``CascadeRoIHead``:

    - each stage has a mask head; in training it learns of the stage's own boxes, at test the masks of all
      stages are averaged;
    - boxes of the stage before are matched, and then sampled as proposals are, true boxes among them;
    - losses of later stages count less, instead of gradients scaled by one over the number of stages;
    - boxes may depend on the class: a box goes on as that of its true class, or of the likeliest;
    - scores of the stages are averaged before the softmax.

    Args:
        mask_heads: one for each stage.
        stage_weights: of the losses, one for each stage.
        arguments: those of detectron2's class, ``mask_pooler`` among them, without keypoints.

    Raises:
        ConfigError: another number of heads or weights than of stages.
    """

    def __init__(
        self, *, mask_heads: Sequence[nn.Module], stage_weights: Sequence[float], **arguments: Any
    ) -> None:
        super().__init__(mask_head=nn.ModuleList(mask_heads), proposal_append_gt=False, **arguments)
        stages = len(self.box_head)
        for key, given in {"mask_heads": mask_heads, "stage_weights": stage_weights}.items():
            if len(given) != stages:
                raise ConfigError(f"model.roi_heads.{key} has {len(given)} entries, and box_heads {stages}")
        self.stage_weights = tuple(stage_weights)

    def forward(
        self,
        images: ImageList,
        features: Mapping[str, Tensor],
        proposals: Sequence[Instances],
        targets: Sequence[Instances] | None = None,
    ) -> tuple[Any, dict[str, Tensor]]:
        """The losses of all stages in training, otherwise detections; as detectron2's ROI heads.

        Args:
            images: not used.
            features: name -> (N, C, H_i, W_i) of the levels.
            proposals: N times ``proposal_boxes``.
            targets: N times the truth, in training.

        Returns:
            (boxes of the last stage, losses by name) in training, otherwise (detections, nothing).
        """
        if not self.training:
            return super().forward(images, features, proposals)  # type: ignore[no-any-return]
        assert targets is not None
        losses: dict[str, Tensor] = {}
        levels = [features[name] for name in self.box_in_features]
        for stage, weight in enumerate(self.stage_weights):
            with get_event_storage().name_scope(f"stage{stage}"):
                sampled = self._sample(proposals, targets, stage)
                predictions = self._run_stage(levels, sampled, stage)
                found = self.box_predictor[stage].losses(predictions, sampled)
                found.update(self._mask_losses(features, sampled, stage))
            losses.update({f"{name}_stage{stage}": loss * weight for name, loss in found.items()})
            if stage + 1 < self.num_cascade_stages:
                proposals = self._refine(predictions, sampled, stage)
        return sampled, losses

    def _sample(
        self, proposals: Sequence[Instances], targets: Sequence[Instances], stage: int
    ) -> list[Instances]:
        """Match boxes, those of the truth among them, by the rule of a stage, and draw some."""
        pools = []
        for proposed, truth in zip(proposals, targets, strict=True):
            boxes = Boxes.cat([proposed.proposal_boxes, truth.gt_boxes])
            true = torch.arange(len(boxes), device=boxes.device) >= len(proposed)
            pools.append(Instances(proposed.image_size, proposal_boxes=boxes, is_true=true))
        self.proposal_matcher = self.proposal_matchers[stage]
        sampled: list[Instances] = self.label_and_sample_proposals(pools, targets)
        return sampled

    def _run_stage(
        self, features: Sequence[Tensor], proposals: Sequence[Instances], stage: int
    ) -> tuple[Tensor, Tensor]:
        """Scores (R, K + 1) and deltas (R, 4 K), or (R, 4), of all boxes."""
        pooled = self.box_pooler(features, [boxes.proposal_boxes for boxes in proposals])
        predictions: tuple[Tensor, Tensor] = self.box_predictor[stage](self.box_head[stage](pooled))
        return predictions

    @torch.no_grad()
    def _refine(
        self, predictions: tuple[Tensor, Tensor], proposals: Sequence[Instances], stage: int
    ) -> list[Instances]:
        """Boxes as a stage predicts them, for the next; in training without those of the truth."""
        boxes = self.box_predictor[stage].predict_boxes(predictions, proposals)
        likeliest = predictions[0][:, :-1].argmax(1).split([len(image) for image in proposals])
        refined = []
        for image, deltas, labels in zip(proposals, boxes, likeliest, strict=True):
            of_classes = deltas.unflatten(1, (-1, 4))  # (R, K, 4), or (R, 1, 4)
            if self.training:
                labels = torch.where(image.gt_classes == self.num_classes, labels, image.gt_classes)
            rows = torch.arange(len(labels), device=labels.device)
            chosen = of_classes[rows, labels if of_classes.shape[1] > 1 else 0]
            refined.append(chosen[~image.is_true] if self.training else chosen)
        made: list[Instances] = self._create_proposals_from_boxes(
            refined, [image.image_size for image in proposals]
        )
        return made

    def _mask_losses(
        self, features: Mapping[str, Tensor], sampled: Sequence[Instances], stage: int
    ) -> dict[str, Tensor]:
        objects, _ = select_foreground_proposals(sampled, self.num_classes)
        pooled = self._pool_for_masks(features, [image.proposal_boxes for image in objects])
        losses: dict[str, Tensor] = self.mask_head[stage](pooled, objects)
        return losses

    def _pool_for_masks(self, features: Mapping[str, Tensor], boxes: Sequence[Boxes]) -> Tensor:
        pooled: Tensor = self.mask_pooler([features[name] for name in self.mask_in_features], boxes)
        return pooled

    def _forward_box(
        self, features: Mapping[str, Tensor], proposals: Sequence[Instances], targets: Any = None
    ) -> list[Instances]:
        """Detections without masks."""
        levels = [features[name] for name in self.box_in_features]
        scores = []
        for stage in range(self.num_cascade_stages):
            predictions = self._run_stage(levels, proposals, stage)
            scores.append(predictions[0])
            if stage + 1 < self.num_cascade_stages:
                proposals = self._refine(predictions, proposals, stage)
        averaged = torch.stack(scores).mean(0), predictions[1]
        detections: list[Instances] = self.box_predictor[-1].inference(averaged, proposals)[0]
        return detections

    def _forward_mask(
        self, features: Mapping[str, Tensor], instances: Sequence[Instances]
    ) -> Sequence[Instances]:
        """Put masks into detections: those of all stages, averaged."""
        pooled = self._pool_for_masks(features, [image.pred_boxes for image in instances])
        of_stages = []
        for head in self.mask_head:
            head(pooled, instances)
            of_stages.append([image.pred_masks for image in instances])
        for image, masks in zip(instances, zip(*of_stages, strict=True), strict=True):
            image.pred_masks = torch.stack(masks).mean(0)
        return instances
