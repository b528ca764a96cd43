"""A trained detector to be called with images: ``d2timm.load``.

image in any form -> pixels -> the run's test augmentations -> detector -> at the image's own size
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.structures import Instances
from PIL import Image
from torch import Tensor, nn

from ..config.build import instantiate
from ..errors import ConfigError
from ..utils.images import ImageLike, pixels_of
from .trained import Trained, open_run

__all__ = ["Predictor", "load", "on_cpu"]

#: What detectron2 calls the score below which a detection is dropped, or left out of a panoptic map
THRESHOLDS = ("test_score_thresh", "combine_instances_score_thresh")


def load(
    path: str | Path,
    weights: str | Path | None = None,
    device: str | None = None,
    score_threshold: float | None = None,
    batch_size: int = 1,
) -> Predictor:
    """Open a trained detector.

    Args:
        path: the folder of a run, or a file of merged weights (.safetensors) that was exported from one.
        weights: another checkpoint of the run, such as ``model_best.pth``: a path, or a name in the folder;
            None: the last one.
        device: such as ``cuda`` or ``cpu``; None: a GPU where there is one.
        score_threshold: as in ``Predictor``.
        batch_size: as in ``Predictor``.

    Raises:
        ConfigError: it is no run, it has no weights yet, or a value that cannot be.
    """
    check_options(score_threshold, batch_size)  # before a model is built
    return Predictor(open_run(path, weights, device), score_threshold, batch_size)


def check_options(score_threshold: float | None, batch_size: int) -> None:
    """Raise ConfigError if these cannot be."""
    if score_threshold is not None and not 0 <= score_threshold <= 1:
        raise ConfigError(f"score_threshold={score_threshold}: a score is 0 to 1")
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size}: at least one image at a time is needed")


class Predictor:
    """A trained detector that takes images in any form.

    An image is a path; a PIL image; a NumPy array of bytes, (H, W, 3) RGB, (H, W, 4) RGBA or (H, W) grey; or
    a tensor of bytes, (3, H, W) RGB. Each is resized as the run's validation images are, and what is found is
    given at the image's own size.

    Args:
        trained: the detector and its tree.
        score_threshold: 0 to 1, in place of the detector's own, whether higher or lower; None: its own.
        batch_size: images that the detector sees at a time, >= 1. They may be of different sizes: smaller
            ones are padded, which changes scores slightly; 1 is what evaluation does.

    Attributes:
        model: the detector, in eval mode.
        cfg: its tree.
        tasks: what it finds, of ``bbox``, ``segm``, ``keypoints``, ``sem_seg`` and ``panoptic_seg``.
        class_names: of objects; ``class_names[i]`` is that of ``pred_classes == i``.
        labels: all names: of ``classes``, ``stuff`` and ``keypoints``.
    """

    def __init__(self, trained: Trained, score_threshold: float | None = None, batch_size: int = 1) -> None:
        check_options(score_threshold, batch_size)
        self.trained, self.model, self.cfg = trained, trained.model, trained.cfg
        self.tasks, self.labels = trained.tasks, trained.labels
        self.class_names = self.labels["classes"]
        self.score_threshold, self.batch_size = score_threshold, batch_size
        mapper = instantiate(self.cfg.dataloader.test.mapper)
        self.image_format: str = mapper.image_format
        self._augmentations: T.AugmentationList = mapper.augmentations

    def __call__(self, images: ImageLike | Iterable[ImageLike]) -> Instances | list[Instances]:
        """Detect objects.

        Args:
            images: one, or several, such as a list or what ``Path.glob`` gives.

        Returns:
            For one image detectron2's ``Instances``, for several a list of them; on the CPU, best first, with
            ``pred_boxes`` (N, 4) in pixels ``0 <= x0 < x1 <= W``, ``scores`` (N,), ``pred_classes`` (N,) and
            where the detector finds them ``pred_masks`` (N, H, W) and ``pred_keypoints`` (N, K, 3).

        Raises:
            ConfigError: no image, or the detector finds no objects: ``outputs`` gives what it does.
        """
        if "bbox" not in self.tasks:
            raise ConfigError(
                f"{type(self.model).__name__} finds classes of pixels and no objects: use "
                "predictor.outputs(images)"
            )
        if isinstance(images, str | os.PathLike | Image.Image | np.ndarray | Tensor):
            return next(self.outputs([images]))["instances"]
        return [output["instances"] for output in self.outputs(images)]

    def outputs(self, images: Iterable[ImageLike]) -> Iterator[dict[str, Any]]:
        """All that the detector gives, image after image; ``batch_size`` of them are read ahead.

        Yields:
            detectron2's output on the CPU: ``instances``; of Panoptic FPN also ``panoptic_seg``, a map
            (H, W) of the ids of its segments and a list of what they are; of it and Semantic FPN ``sem_seg``,
            logits (K, H, W).
        """
        entries = map(self.prepare, images)
        while batch := list(itertools.islice(entries, self.batch_size)):
            yield from self.run(batch)

    def prepare(self, image: ImageLike) -> dict[str, Any]:
        """Read and resize an image.

        Returns:
            What detectors take: ``image`` (C, h, w) as the detector sees it, ``height`` and ``width`` of
            the image.
        """
        pixels = pixels_of(image, self.image_format)
        given = T.AugInput(pixels)
        try:
            self._augmentations(given)
        except ValueError:  # a side of less than a pixel
            size = f"{pixels.shape[1]}x{pixels.shape[0]}"
            raise ConfigError(f"an image of {size} pixels is too narrow to be resized") from None
        resized = torch.from_numpy(np.array(given.image.transpose(2, 0, 1), order="C"))
        return {"image": resized, "height": pixels.shape[0], "width": pixels.shape[1]}

    def run(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Run the detector on what ``prepare`` has given; see ``outputs``."""
        with torch.no_grad(), _threshold(self.model, self.score_threshold):
            return [on_cpu(output) for output in self.model(batch)]


@contextmanager
def _threshold(model: nn.Module, score: float | None) -> Iterator[None]:
    """Let a detector, which others may use as well, drop what scores less for a while."""
    own = {
        (module, name): getattr(module, name)
        for module in (model.modules() if score is not None else ())
        for name in THRESHOLDS
        if hasattr(module, name)
    }
    try:
        for module, name in own:
            setattr(module, name, score)
        yield
    finally:
        for (module, name), value in own.items():
            setattr(module, name, value)


def on_cpu(output: Mapping[str, Any]) -> dict[str, Any]:
    """What a detector of detectron2 gives for an image, moved to the CPU."""
    parts = dict(output)
    if "panoptic_seg" in parts:
        segments, told = parts["panoptic_seg"]
        parts["panoptic_seg"] = (segments.cpu(), told)
    return {key: part if isinstance(part, tuple) else part.to("cpu") for key, part in parts.items()}
