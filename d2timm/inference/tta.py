"""Test-time augmentation: a detector sees each image at several scales, mirrored and not.

detectron2 has it for R-CNNs, by a yacs config that is made here from the detector itself. Dense detectors
and semantic segmentation follow the same plan:

    image file -> views, each resized once -> detector -> mirror undone, at the image's size -> merged
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from itertools import chain
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import detection_utils
from detectron2.layers import batched_nms
from detectron2.modeling import DatasetMapperTTA, GeneralizedRCNN, GeneralizedRCNNWithTTA
from detectron2.modeling.meta_arch import PanopticFPN, SemanticSegmentor
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.structures import Instances
from fvcore.transforms import HFlipTransform
from omegaconf import DictConfig
from torch import nn

from ..config.build import instantiate
from ..data.mapper import test_size
from ..errors import ConfigError
from ..utils.images import read_image

__all__ = [
    "DenseDetectorWithTTA",
    "SemanticSegmentorWithTTA",
    "Views",
    "tta_of",
    "with_tta",
    "with_tta_results",
]


def tta_of(tta: DictConfig, mapper: DictConfig, model: nn.Module) -> nn.Module:
    """Wrap a detector as a config describes it; see ``with_tta``.

    Args:
        tta: the node ``train.tta``.
        mapper: the node ``dataloader.test.mapper``.
        model: the detector.
    """
    options = {str(key): value for key, value in tta.items() if key != "enabled"}
    return with_tta(model, *test_size(mapper), instantiate(mapper.image_format), **options)


def with_tta(
    model: nn.Module,
    short_edge: int,
    max_size: int,
    image_format: str,
    scales: Sequence[float] = (0.75, 1.0, 1.25),
    flip: bool = True,
    batch_size: int = 3,
) -> nn.Module:
    """Wrap a detector so that it looks at several views of each image.

    The result has the detector's interface and shares its parameters: dataset dicts with ``file_name`` or
    ``image``, and ``height`` and ``width``, to outputs. To be called under ``torch.no_grad()``, as
    detectron2's evaluation does. Time grows with the sum of the squares of ``scales``, twice with ``flip``.

    Args:
        model: an R-CNN with boxes and masks, a dense detector (RetinaNet, FCOS), or a semantic segmentor.
        short_edge: of a view at scale 1, in pixels.
        max_size: the long side of a view at scale 1 is at most this, in pixels.
        image_format: how the detector's images are read, such as ``RGB``.
        scales: factors > 0 of both; a view each.
        flip: a mirrored view of each as well.
        batch_size: views that the detector sees at a time, >= 1.

    Raises:
        ConfigError: scales that are none, or a detector that is not supported.
    """
    if not (isinstance(scales, Sequence) and scales) or not all(
        isinstance(scale, (int, float)) and scale > 0 for scale in scales
    ):
        raise ConfigError(f"train.tta.scales={scales}: factors > 0 are needed, such as [0.75, 1.0, 1.25]")
    views = Views([(round(short_edge * s), round(max_size * s)) for s in scales], flip, image_format)
    wrapped: nn.Module
    if isinstance(model, GeneralizedRCNN) and not isinstance(model, PanopticFPN):
        wrapped = GeneralizedRCNNWithTTA(_yacs(model), model, views, batch_size)
    elif isinstance(model, DenseDetector):
        wrapped = DenseDetectorWithTTA(model, views, batch_size)
    elif isinstance(model, SemanticSegmentor):
        wrapped = SemanticSegmentorWithTTA(model, views, batch_size)
    else:
        raise ConfigError(
            f"train.tta.enabled=True: test-time augmentation of {type(model).__name__} is not supported, "
            "but of GeneralizedRCNN, RetinaNet, FCOS and SemanticSegmentor; use train.tta.enabled=False"
        )
    return wrapped.train(model.training)  # so that evaluation leaves the detector's mode as it was


def with_tta_results(
    metrics: Mapping[str, Mapping[str, float | None]], augmented: Mapping[str, Mapping[str, float | None]]
) -> dict[str, Mapping[str, float | None]]:
    """Results without augmentation, and those with it as ``bbox_TTA``, ``segm_TTA``: detectron2's names."""
    return {**metrics, **{f"{task}_TTA": values for task, values in augmented.items()}}


class Views:
    """Makes the views of an image: a mapper, as detectron2's ``DatasetMapperTTA`` is.

    Args:
        sizes: (short edge, max size) in pixels of each view.
        flip: a mirrored view of each as well.
        image_format: how files are read.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], flip: bool, image_format: str) -> None:
        self.mappers = [
            DatasetMapperTTA(min_sizes=[short], max_size=long, flip=flip) for short, long in sizes
        ]
        self.image_format = image_format

    def __call__(self, entry: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Make the views.

        Args:
            entry: a dataset dict with ``height`` and ``width`` of the original image, and that image's
                ``file_name``, or else ``image``: (C, H, W) of any size.

        Returns:
            A dataset dict a view, with ``image``, and ``transforms`` that lead to it from the original.
        """
        image = entry.get("image")
        if "file_name" in entry:  # the image of a test mapper is resized already, and would lose detail twice
            pixels = read_image(entry["file_name"], self.image_format)
            detection_utils.check_image_size(dict(entry), pixels)
            image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        plain = {"image": image, "height": entry["height"], "width": entry["width"]}
        return list(chain.from_iterable(mapper(plain) for mapper in self.mappers))


def _yacs(model: GeneralizedRCNN) -> CfgNode:
    """What ``GeneralizedRCNNWithTTA`` reads of a config, read off the detector."""
    heads = model.roi_heads
    if getattr(heads, "keypoint_on", False):
        raise ConfigError(
            "train.tta.enabled=True: detectron2's test-time augmentation has no keypoints; "
            "use train.tta.enabled=False"
        )
    predictor = heads.box_predictor
    if isinstance(predictor, nn.ModuleList):  # a cascade, whose last stage decides
        predictor = predictor[-1]
    return CfgNode(
        {
            "MODEL": {
                "KEYPOINT_ON": False,
                "LOAD_PROPOSALS": model.proposal_generator is None,
                "MASK_ON": heads.mask_on,
                "ROI_HEADS": {"NUM_CLASSES": heads.num_classes, "NMS_THRESH_TEST": predictor.test_nms_thresh},
            },
            "TEST": {"DETECTIONS_PER_IMAGE": predictor.test_topk_per_image},
        }
    )


class _WithTTA(nn.Module):
    """Lets a detector look at views of each image, and leaves it to a subclass to make them one output.

    Args:
        model: brings its output to the image's ``height`` and ``width`` itself, whatever the view's size.
        views: makes them of a dataset dict.
        batch_size: views that the detector sees at a time.
    """

    def __init__(self, model: nn.Module, views: Views, batch_size: int = 3) -> None:
        super().__init__()
        self.model, self.views, self.batch_size = model, views, batch_size

    def forward(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Dataset dicts to outputs, as the detector itself."""
        return [self._merge(self._outputs(entry)) for entry in batched_inputs]

    def _outputs(self, entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The output for each view, at the original image's size and not mirrored."""
        views = self.views(entry)
        for start in range(0, len(views), self.batch_size):
            batch = views[start : start + self.batch_size]
            for view, output in zip(batch, self.model(batch), strict=True):
                mirrored = any(isinstance(t, HFlipTransform) for t in view["transforms"].transforms)
                yield self._mirror(output) if mirrored else output

    def _mirror(self, output: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    def _merge(self, outputs: Iterator[dict[str, Any]]) -> dict[str, Any]:
        raise NotImplementedError


class DenseDetectorWithTTA(_WithTTA):
    """RetinaNet, FCOS: boxes of all views together, by the detector's own non-maximum suppression."""

    def _mirror(self, output: dict[str, Any]) -> dict[str, Any]:
        instances = output["instances"]
        boxes, width = instances.pred_boxes.tensor, instances.image_size[1]
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
        return output

    def _merge(self, outputs: Iterator[dict[str, Any]]) -> dict[str, Any]:
        found = [output["instances"] for output in outputs]
        together = Instances.cat(found)
        if len(found) > 1:  # boxes of one view have been suppressed, and clipped only then
            keep = batched_nms(
                together.pred_boxes.tensor,
                together.scores,
                together.pred_classes,
                self.model.test_nms_thresh,
            )
            together = together[keep[: self.model.max_detections_per_image]]
        return {"instances": together}


class SemanticSegmentorWithTTA(_WithTTA):
    """Semantic segmentation: logits (K, height, width) whose softmax is the mean of that of all views."""

    def _mirror(self, output: dict[str, Any]) -> dict[str, Any]:
        return {"sem_seg": output["sem_seg"].flip(-1)}

    def _merge(self, outputs: Iterator[dict[str, Any]]) -> dict[str, Any]:
        # one after the other, because they are large; and logits are told up to a constant a pixel
        total = reduce(torch.add, (output["sem_seg"].softmax(dim=0) for output in outputs))
        return {"sem_seg": total.log()}
