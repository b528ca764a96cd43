"""``d2timm.load``: call a trained detector with images.

image in any form -> pixels -> the run's test augmentations -> detector -> results at the size of the image
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

from ..config.build import instantiate, use_ways
from ..data.resizing import to_tensor
from ..errors import ConfigError
from ..utils.pillow import MAX_PIXELS
from ..utils.text import one_line
from .pixels import ImageLike, pixels_of
from .trained import Trained, damage_explained, open_run

__all__ = ["Predictor", "load", "on_cpu"]

#: detectron2's names for the score below which detections are dropped, or left out of a panoptic map
THRESHOLDS = ("test_score_thresh", "combine_instances_score_thresh")


def load(
    path: str | Path,
    weights: str | Path | None = None,
    device: str | None = None,
    score_threshold: float | None = None,
    batch_size: int = 1,
    max_pixels: int | None = None,
    channels_last: bool = False,
    compile: bool = False,
) -> Predictor:
    """Load a trained detector.

    Args:
        path: a run folder, or a ``.safetensors`` file that was exported from one.
        weights: a checkpoint of the run, such as ``model_best.pth``: a path, or a name in the run folder;
            None: the last checkpoint.
        device: such as ``cuda`` or ``cpu``; None: a GPU if there is one.
        score_threshold: see ``Predictor``.
        batch_size: see ``Predictor``.
        max_pixels: see ``Predictor``.
        channels_last: see ``Predictor``.
        compile: see ``Predictor``.

    Raises:
        ConfigError: the path is not a run folder, the run has no weights yet, or an argument is invalid.
    """
    _check_options(score_threshold, batch_size, max_pixels)  # before a model is built
    with damage_explained(Path(path)):
        trained = open_run(path, weights, device)
        return Predictor(trained, score_threshold, batch_size, max_pixels, channels_last, compile)


def _check_options(score_threshold: float | None, batch_size: int, max_pixels: int | None) -> None:
    if score_threshold is not None and not 0 <= score_threshold <= 1:
        raise ConfigError(f"score_threshold={score_threshold}: must be between 0 and 1")
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size}: must be at least 1")
    if max_pixels is not None and max_pixels < 1:
        raise ConfigError(f"max_pixels={max_pixels}: must be at least 1")


class Predictor:
    """A trained detector that takes images in any form.

    An image is a path; a PIL image; a NumPy array of bytes, (H, W, 3) RGB, (H, W, 4) RGBA or (H, W) grey; or
    a tensor of bytes, (3, H, W) RGB. Images are resized like the run's validation images, and results are
    returned at the image's own size.

    Args:
        trained: the detector and its config.
        score_threshold: 0 to 1, replaces the detector's own threshold; None: the detector's own.
        batch_size: number of images in a forward pass, >= 1. Images in a batch may differ in size: smaller
            ones are padded, which changes scores slightly. 1 reproduces evaluation exactly.
        max_pixels: files of larger images are not read; None: the run's ``data.max_pixels``.
        channels_last: whether maps have the memory format NHWC, which suits some models and machines.
        compile: whether ``torch.compile`` compiles backbone and neck, which pays for many images; the first
            of them wait for it.

    Attributes:
        model: the detector, in eval mode.
        cfg: its config.
        tasks: a subset of ``bbox``, ``segm``, ``keypoints``, ``sem_seg`` and ``panoptic_seg``.
        class_names: ``class_names[i]`` is the name of objects with ``pred_classes == i``.
        labels: all names: ``classes``, ``stuff`` and ``keypoints``.
    """

    def __init__(
        self,
        trained: Trained,
        score_threshold: float | None = None,
        batch_size: int = 1,
        max_pixels: int | None = None,
        channels_last: bool = False,
        compile: bool = False,
    ) -> None:
        _check_options(score_threshold, batch_size, max_pixels)
        self.trained, self.model, self.cfg = trained, trained.model, trained.cfg
        use_ways(self.cfg, self.model, "test", channels_last=channels_last, compile=compile)
        self.tasks, self.labels = trained.tasks, trained.labels
        self.class_names = self.labels["classes"]
        self.score_threshold, self.batch_size = score_threshold, batch_size
        # configs of earlier versions have no limit
        self.max_pixels: int = max_pixels or self.cfg.data.get("max_pixels") or MAX_PIXELS
        mapper = instantiate(self.cfg.dataloader.test.mapper)
        if lacking := [name for name in ("augmentations", "image_format") if not hasattr(mapper, name)]:
            raise ConfigError(
                f"dataloader.test.mapper: {type(mapper).__name__} has no {' and no '.join(lacking)}, as "
                "detectron2's DatasetMapper has, so its images cannot be prepared alone"
            )
        self.image_format: str = mapper.image_format
        self._augmentations: T.AugmentationList = mapper.augmentations
        # what resizes images in evaluation: the mapper's own, or detectron2's
        self._aug_input: type[T.AugInput] = getattr(mapper, "aug_input", T.AugInput)

    def __call__(self, images: ImageLike | Iterable[ImageLike]) -> Instances | list[Instances]:
        """Detect objects.

        Args:
            images: one image, or an iterable of images such as a list or ``Path.glob(...)``.

        Returns:
            detectron2's ``Instances`` for one image, a list of them for several; on the CPU, highest score
            first, with ``pred_boxes`` (N, 4) in pixels ``0 <= x0 < x1 <= W``, ``scores`` (N,),
            ``pred_classes`` (N,) and, if the detector predicts them, ``pred_masks`` (N, H, W) and
            ``pred_keypoints`` (N, K, 3).

        Raises:
            ConfigError: an input is not an image, or the model does not detect objects; use ``outputs`` then.
        """
        if "bbox" not in self.tasks:
            raise ConfigError(
                f"{type(self.model).__name__} segments pixels and does not detect objects: use "
                "predictor.outputs(images)"
            )
        if isinstance(images, str | os.PathLike | Image.Image | np.ndarray | Tensor):
            return next(self.outputs([images]))["instances"]
        return [output["instances"] for output in self.outputs(images)]

    def outputs(self, images: Iterable[ImageLike]) -> Iterator[dict[str, Any]]:
        """Run the model lazily: it reads ``batch_size`` images at a time.

        Yields:
            For each image detectron2's output on the CPU: ``instances``; from Panoptic FPN also
            ``panoptic_seg``, a map (H, W) of segment ids and a list that describes the segments; from
            Panoptic and Semantic FPN ``sem_seg``, logits (K, H, W).
        """
        entries = map(self.prepare, images)
        while batch := list(itertools.islice(entries, self.batch_size)):
            yield from self.run(batch)

    def prepare(self, image: ImageLike) -> dict[str, Any]:
        """Read and resize an image.

        Returns:
            The input of detectron2's models: ``image`` (C, h, w), resized, and ``height`` and ``width`` of
            the original image.
        """
        pixels = pixels_of(image, self.image_format, self.max_pixels)
        augmented = self._aug_input(pixels)
        with _explained("resize images"):
            try:
                self._augmentations(augmented)
            except ValueError:  # a side shorter than a pixel
                size = f"{pixels.shape[1]}x{pixels.shape[0]}"
                raise ConfigError(f"an image of {size} pixels is too narrow to be resized") from None
        return {"image": to_tensor(augmented.image), "height": pixels.shape[0], "width": pixels.shape[1]}

    def run(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Run the model on entries that ``prepare`` returned; see ``outputs`` for the result."""
        with torch.no_grad(), _score_threshold(self.model, self.score_threshold), _explained("predict"):
            return [on_cpu(output) for output in self.model(batch)]


@contextmanager
def _explained(purpose: str) -> Iterator[None]:
    """Raise ConfigError for values of a config that no part has refused, but that no part can use."""
    try:
        yield
    except ConfigError:
        raise
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        reason = one_line(error, with_type=True)
        raise ConfigError(
            f"the config of the detector is damaged, so it cannot {purpose}: {reason}"
        ) from error


@contextmanager
def _score_threshold(model: nn.Module, score: float | None) -> Iterator[None]:
    """Change a model's score thresholds for a while: the model may be shared with other predictors."""
    original = {
        (module, name): getattr(module, name)
        for module in (model.modules() if score is not None else ())
        for name in THRESHOLDS
        if hasattr(module, name)
    }
    try:
        for module, name in original:
            setattr(module, name, score)
        yield
    finally:
        for (module, name), value in original.items():
            setattr(module, name, value)


def on_cpu(output: Mapping[str, Any]) -> dict[str, Any]:
    """Move a detectron2 model's output for an image to the CPU."""
    parts = dict(output)
    if "panoptic_seg" in parts:
        segments, infos = parts["panoptic_seg"]
        parts["panoptic_seg"] = (segments.cpu(), infos)
    return {key: part if isinstance(part, tuple) else part.to("cpu") for key, part in parts.items()}
