"""Training images in batches, without end."""

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
    """detectron2's loader, with images of rare classes repeated if wanted.

    Args:
        dataset: in detectron2's format.
        mapper: makes of an entry what the detector takes.
        total_batch_size: images of all processes together.
        num_workers: processes that read images; 0: the training process does.
        repeat_threshold: 0 to 1; classes that are in a smaller share of the images are seen more often
            (repeat factor sampling of LVIS, https://arxiv.org/abs/1908.03195, which has 0.001); 0: none.

    Raises:
        ConfigError: a threshold out of its range, or one for images whose objects are not learnt.
    """
    if not 0 <= repeat_threshold <= 1:
        raise ConfigError(
            f"repeat_threshold={repeat_threshold}: has to be a share of the images, 0 (none) to 1"
        )
    sampler = None
    if repeat_threshold:
        if any("annotations" not in entry for entry in dataset):
            raise ConfigError(
                f"repeat_threshold={repeat_threshold}: goes by classes of objects, and this detector finds "
                "those of pixels: use 0"
            )
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            dataset, repeat_threshold
        )
        sampler = RepeatFactorTrainingSampler(factors)
    return build_detection_train_loader(
        dataset, mapper=mapper, sampler=sampler, total_batch_size=total_batch_size, num_workers=num_workers
    )
