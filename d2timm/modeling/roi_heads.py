"""ROI heads: mmdetection's Cascade Mask R-CNN, which Swin and ConvNeXt use, and PointRend's mask head."""

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
from ..utils.targets import config_target
from .host_waits import SamplesWithFewerWaits
from .partial_masks import TRAITS, with_masks

__all__ = ["CascadeMaskROIHeads", "point_rend_mask_head"]


@config_target
class CascadeMaskROIHeads(SamplesWithFewerWaits, CascadeROIHeads):
    """ROI heads of Cascade Mask R-CNN as in mmdetection (Cai and Vasconcelos, https://arxiv.org/abs/1906.09756).

    They differ from detectron2's cascade as mmdetection's ``CascadeRoIHead`` does:

    - each stage has a mask head, trained on the boxes of its stage; at test time the masks of all stages are
      averaged;
    - each stage matches and samples the boxes of the previous stage together with the ground-truth boxes;
    - stages have loss weights, where detectron2 scales gradients by one over the number of stages;
    - boxes may be class-specific: the next stage gets the box of the ground-truth class, or of the likeliest;
    - the scores of all stages are averaged before the softmax.

    Args:
        mask_heads: one for each stage.
        stage_weights: weights of the losses, one for each stage.
        arguments: arguments of detectron2's class, with ``mask_pooler`` and without keypoints.

    Raises:
        ConfigError: the number of heads or weights is not the number of stages.
    """

    traits = TRAITS

    def __init__(
        self, *, mask_heads: Sequence[nn.Module], stage_weights: Sequence[float], **arguments: Any
    ) -> None:
        super().__init__(mask_head=nn.ModuleList(mask_heads), proposal_append_gt=False, **arguments)
        stages = len(self.box_head)
        for key, values in {"mask_heads": mask_heads, "stage_weights": stage_weights}.items():
            if len(values) != stages:
                raise ConfigError(f"model.roi_heads.{key} has {len(values)} entries, and box_heads {stages}")
        self.stage_weights = tuple(stage_weights)

    def forward(
        self,
        images: ImageList,
        features: Mapping[str, Tensor],
        proposals: Sequence[Instances],
        targets: Sequence[Instances] | None = None,
    ) -> tuple[Any, dict[str, Tensor]]:
        """Compute losses in training and detections otherwise, with detectron2's interface of ROI heads.

        Args:
            images: not used.
            features: name -> (N, C, H_i, W_i) of the levels.
            proposals: ``proposal_boxes`` of each of the N images.
            targets: ground truth of each of the N images; required in training.

        Returns:
            In training (sampled boxes of the last stage, name -> loss), otherwise (detections, {}).
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
                of_stage = self.box_predictor[stage].losses(predictions, sampled)
                of_stage.update(self._mask_losses(features, sampled, stage))
            losses.update({f"{name}_stage{stage}": loss * weight for name, loss in of_stage.items()})
            if stage + 1 < self.num_cascade_stages:
                proposals = self._refine(predictions, sampled, stage)
        return sampled, losses

    def _sample(
        self, proposals: Sequence[Instances], targets: Sequence[Instances], stage: int
    ) -> list[Instances]:
        """Match proposals and ground-truth boxes by the matcher of a stage, and sample from them."""
        candidates = []
        for proposed, target in zip(proposals, targets, strict=True):
            boxes = Boxes.cat([proposed.proposal_boxes, target.gt_boxes])
            is_target = torch.arange(len(boxes), device=boxes.device) >= len(proposed)
            candidates.append(Instances(proposed.image_size, proposal_boxes=boxes, is_target=is_target))
        self.proposal_matcher = self.proposal_matchers[stage]
        sampled: list[Instances] = self.label_and_sample_proposals(candidates, targets)
        return sampled

    def _run_stage(
        self, features: Sequence[Tensor], proposals: Sequence[Instances], stage: int
    ) -> tuple[Tensor, Tensor]:
        """Predict scores (R, K + 1) and deltas (R, 4 K), or (R, 4) if class-agnostic, for all R boxes."""
        pooled = self.box_pooler(features, [boxes.proposal_boxes for boxes in proposals])
        predictions: tuple[Tensor, Tensor] = self.box_predictor[stage](self.box_head[stage](pooled))
        return predictions

    @torch.no_grad()
    def _refine(
        self, predictions: tuple[Tensor, Tensor], proposals: Sequence[Instances], stage: int
    ) -> list[Instances]:
        """Return the boxes that a stage predicts, for the next; in training without ground-truth boxes."""
        boxes = self.box_predictor[stage].predict_boxes(predictions, proposals)
        likeliest = predictions[0][:, :-1].argmax(1).split([len(image) for image in proposals])
        refined = []
        for image, deltas, labels in zip(proposals, boxes, likeliest, strict=True):
            by_class = deltas.unflatten(1, (-1, 4))  # (R, K, 4), or (R, 1, 4) if class-agnostic
            if self.training:
                labels = torch.where(image.gt_classes == self.num_classes, labels, image.gt_classes)
            rows = torch.arange(len(labels), device=labels.device)
            chosen = by_class[rows, labels if by_class.shape[1] > 1 else 0]
            refined.append(chosen[~image.is_target] if self.training else chosen)
        results: list[Instances] = self._create_proposals_from_boxes(
            refined, [image.image_size for image in proposals]
        )
        return results

    def _mask_losses(
        self, features: Mapping[str, Tensor], sampled: Sequence[Instances], stage: int
    ) -> dict[str, Tensor]:
        objects, _ = select_foreground_proposals(with_masks(sampled), self.num_classes)
        pooled = self._pool_for_masks(features, [image.proposal_boxes for image in objects])
        losses: dict[str, Tensor] = self.mask_head[stage](pooled, objects)
        return losses

    def _pool_for_masks(self, features: Mapping[str, Tensor], boxes: Sequence[Boxes]) -> Tensor:
        pooled: Tensor = self.mask_pooler([features[name] for name in self.mask_in_features], boxes)
        return pooled

    def _forward_box(
        self, features: Mapping[str, Tensor], proposals: Sequence[Instances], targets: Any = None
    ) -> list[Instances]:
        """Predict boxes, classes and scores."""
        levels = [features[name] for name in self.box_in_features]
        scores = []
        for stage in range(self.num_cascade_stages):
            predictions = self._run_stage(levels, proposals, stage)
            scores.append(predictions[0])
            if stage + 1 < self.num_cascade_stages:
                proposals = self._refine(predictions, proposals, stage)
        averaged = (torch.stack(scores).mean(0), predictions[1])
        detections: list[Instances] = self.box_predictor[-1].inference(averaged, proposals)[0]
        return detections

    def _forward_mask(
        self, features: Mapping[str, Tensor], instances: Sequence[Instances]
    ) -> Sequence[Instances]:
        """Add the mean of the masks of all stages to the detections."""
        pooled = self._pool_for_masks(features, [image.pred_boxes for image in instances])
        by_stage = []
        for head in self.mask_head:
            head(pooled, instances)
            by_stage.append([image.pred_masks for image in instances])
        for image, masks in zip(instances, zip(*by_stage, strict=True), strict=True):
            image.pred_masks = torch.stack(masks).mean(0)
        return instances


class _PointRendMaskHead(PointRendMaskHead):
    """detectron2's head, which also takes batches in which no object has a mask."""

    def _sample_train_points(
        self, coarse_mask: Tensor, instances: Sequence[Instances]
    ) -> tuple[Tensor, Tensor]:
        if len(coarse_mask):
            return super()._sample_train_points(coarse_mask, instances)  # type: ignore[no-any-return]
        points = self.mask_point_train_num_points
        return coarse_mask.new_zeros(0, points, 2), coarse_mask.new_zeros(0, points)


@config_target
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
    """Build PointRend's mask head (Kirillov et al., CVPR 2020, https://arxiv.org/abs/1912.08193).

    It predicts a coarse mask and refines its least certain points from the features of finer levels. It pools
    features itself, so ``mask_pooler`` of the ROI heads is None. In training it needs ground-truth masks as
    bitmaps (``instance_mask_format="bitmask"`` of detectron2's mapper).

    Args:
        input_shape: name -> channels and stride of the levels that both parts use, usually the finest only.
        num_classes: number of classes of objects.
        pooler_resolution: side of the grid that is pooled for the coarse mask, in cells.
        conv_dim: width of the convolution of the coarse head, at most the total channels of the levels.
        fc_dim: width of the fully connected layers of the coarse head.
        num_fc: number of these layers, >= 1.
        coarse_resolution: side of the coarse mask, in cells.
        point_fc_dim: width of the layers of the point head.
        point_num_fc: number of these layers.
        coarse_pred_each_layer: whether each layer of the point head gets the coarse mask, or only the first.
        train_num_points: points of an object in training.
        oversample_ratio: factor by which more points are drawn than used in training, >= 1 (the paper's k).
        importance_sample_ratio: share of points chosen for their uncertainty, 0 to 1 (the paper's beta).
        subdivision_steps: how often the resolution of a mask is doubled at inference.
        subdivision_num_points: points of an object that each step predicts again.

    Raises:
        ConfigError: the convolution is wider than its input.
    """
    channels = sum(shape.channels for shape in input_shape.values())
    if conv_dim > channels:
        raise ConfigError(
            f"model.roi_heads.mask_head.conv_dim={conv_dim} must be at most {channels}, the channels of "
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
    return _PointRendMaskHead(cfg, input_shape)
