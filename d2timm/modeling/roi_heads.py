"""Cascade Mask R-CNN as mmdetection has it, which the detectors of Swin and ConvNeXt are made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import CascadeROIHeads, select_foreground_proposals
from detectron2.projects.point_rend import PointRendMaskHead, add_pointrend_config
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from ..errors import ConfigError

__all__ = ["CascadeMaskROIHeads", "point_rend_mask_head"]


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


def point_rend_mask_head(
    input_shape: Mapping[str, ShapeSpec],
    num_classes: int,
    *,
    pooler_resolution: int = 14,
    conv_dim: int = 256,
    fc_dim: int = 1024,
    num_fc: int = 2,
    coarse_resolution: int = 7,
    point_fc_dim: int = 256,
    point_num_fc: int = 3,
    coarse_pred_each_layer: bool = True,
    train_num_points: int = 196,
    oversample_ratio: float = 3,
    importance_sample_ratio: float = 0.75,
    subdivision_steps: int = 5,
    subdivision_num_points: int = 784,
) -> PointRendMaskHead:
    """PointRend's mask head (Kirillov et al., CVPR 2020, https://arxiv.org/abs/1912.08193).

    A coarse mask, and then points of it, those that are the least certain first, from the features of
    finer levels. It pools for itself: ``mask_pooler`` of the ROI heads is None. In training it takes true
    masks as bitmaps (``instance_mask_format="bitmask"`` of detectron2's mapper).

    Args:
        input_shape: name -> channels and stride of the levels that both parts use, usually the finest alone.
        num_classes: of objects.
        pooler_resolution: side of the grid that is pooled for the coarse mask, in cells.
        conv_dim: width of the convolution of the coarse head, <= channels of all levels together.
        fc_dim: width of the fully connected layers of the coarse head.
        num_fc: how many those are, >= 1.
        coarse_resolution: side of the coarse mask, in cells.
        point_fc_dim: width of the layers of the point head.
        point_num_fc: how many those are.
        coarse_pred_each_layer: give the coarse mask to each layer of the point head, not to the first alone.
        train_num_points: points of an object in training.
        oversample_ratio: how many times that are drawn to choose from, >= 1 (the paper's k).
        importance_sample_ratio: share of points chosen for being uncertain, 0 to 1 (the paper's beta).
        subdivision_steps: how often a mask is doubled at inference.
        subdivision_num_points: points of an object that are computed anew at each step.

    Raises:
        ConfigError: a convolution that is wider than what it is given.
    """
    channels = sum(shape.channels for shape in input_shape.values())
    if conv_dim > channels:
        raise ConfigError(
            f"model.roi_heads.mask_head.conv_dim={conv_dim}: at most {channels}, the channels of "
            f"{', '.join(input_shape)}"
        )
    cfg = get_cfg()
    add_pointrend_config(cfg)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = num_classes

    coarse = cfg.MODEL.ROI_MASK_HEAD
    coarse.IN_FEATURES = tuple(input_shape)
    coarse.POOLER_RESOLUTION = pooler_resolution
    coarse.CONV_DIM = conv_dim
    coarse.FC_DIM, coarse.NUM_FC = fc_dim, num_fc
    coarse.OUTPUT_SIDE_RESOLUTION = coarse_resolution
    coarse.POINT_HEAD_ON = True

    point = cfg.MODEL.POINT_HEAD
    point.NUM_CLASSES = num_classes
    point.IN_FEATURES = tuple(input_shape)
    point.FC_DIM, point.NUM_FC = point_fc_dim, point_num_fc
    point.COARSE_PRED_EACH_LAYER = coarse_pred_each_layer
    point.TRAIN_NUM_POINTS = train_num_points
    point.OVERSAMPLE_RATIO = oversample_ratio
    point.IMPORTANCE_SAMPLE_RATIO = importance_sample_ratio
    point.SUBDIVISION_STEPS = subdivision_steps
    point.SUBDIVISION_NUM_POINTS = subdivision_num_points
    return PointRendMaskHead(cfg, input_shape)
