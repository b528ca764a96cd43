"""The infinite stream of training batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detectron2.data import build_detection_train_loader
from detectron2.data.samplers import RepeatFactorTrainingSampler

from ..errors import ConfigError

__all__ = ["build_train_loader"]


def build_train_loader(
    dataset: list[dict[str, Any]],
    mapper: Callable[[dict[str, Any]], dict[str, Any]],
    total_batch_size: int,
    num_workers: int = 0,
    repeat_threshold: float = 0.0,
) -> Any:
    """detectron2's training loader, which can repeat images of rare classes.

    Args:
        dataset: images and annotations in detectron2's format.
        mapper: turns one entry of ``dataset`` into the input of the detector.
        total_batch_size: number of images per iteration, over all processes.
        num_workers: number of processes that read images; 0: the training process reads them itself.
        repeat_threshold: 0 to 1; classes that occur in a smaller fraction of the images are sampled more
            often (the repeat factor sampling of LVIS, https://arxiv.org/abs/1908.03195, which uses 0.001); 0:
            off.

    Raises:
        ConfigError: the threshold is out of range, or the entries have no object annotations.
    """
    if not 0 <= repeat_threshold <= 1:
        raise ConfigError(
            f"repeat_threshold={repeat_threshold} is not a fraction of the images: use 0 (off) to 1"
        )
    sampler = None
    if repeat_threshold:
        if any("annotations" not in entry for entry in dataset):
            raise ConfigError(
                f"repeat_threshold={repeat_threshold} counts object classes, and this detector only predicts "
                "pixel classes: use 0"
            )
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            dataset, repeat_threshold
        )
        sampler = RepeatFactorTrainingSampler(factors)
    return build_detection_train_loader(
        dataset, mapper=mapper, sampler=sampler, total_batch_size=total_batch_size, num_workers=num_workers
    )
