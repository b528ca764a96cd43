"""Lengths of a training in epochs or iterations, and the one-cycle schedule of the learning rate."""

from __future__ import annotations

import logging
import math

from fvcore.common.param_scheduler import CompositeParamScheduler, CosineParamScheduler
from omegaconf import DictConfig, OmegaConf

from ..errors import ConfigError
from ..utils.targets import config_target

__all__ = ["check_lengths", "counts_epochs", "images_per_step", "in_iterations", "one_cycle"]

logger = logging.getLogger(__name__)

#: Key of a length in epochs -> key of the same length in iterations
LENGTHS = {"epochs": "max_iter", "eval_epochs": "eval_period"}


@config_target
def one_cycle(rise: float = 0.3, start: float = 1 / 25, end: float = 1 / 25e4) -> CompositeParamScheduler:
    """Return the 1cycle schedule: the rate rises to the learning rate, then falls almost to zero.

    Smith and Topin, https://arxiv.org/abs/1708.07120, with the shape of torch's ``OneCycleLR``: two half
    cosine waves. Unlike in the paper, the momentum is constant.

    Args:
        rise: fraction of the schedule in which the rate rises, 0 < rise < 1.
        start: initial rate as a fraction of the learning rate, 0 <= start <= 1.
        end: final rate as a fraction of the learning rate, 0 <= end <= 1.

    Raises:
        ConfigError: ``rise`` is out of range.
    """
    if not 0 < rise < 1:
        raise ConfigError(f"lr_multiplier.rise={rise}: a fraction of the schedule, 0 < rise < 1")
    waves = [CosineParamScheduler(start, 1.0), CosineParamScheduler(1.0, end)]
    return CompositeParamScheduler(waves, [rise, 1 - rise], ["rescaled", "rescaled"])


def images_per_step(cfg: DictConfig) -> int:
    """Return the images per optimizer step, over all processes and accumulated batches."""
    return int(cfg.dataloader.train.total_batch_size * cfg.train.get("accumulate", 1))


def counts_epochs(train: DictConfig) -> bool:
    """Return whether a length is in epochs, so that the number of training images is needed."""
    return any(train.get(epochs) is not None for epochs in LENGTHS)


def in_iterations(train: DictConfig, images: int, step: int) -> None:
    """Convert lengths in epochs to iterations, rounded up, in place.

    ``train.epochs`` sets ``train.max_iter``, and ``train.eval_epochs`` sets ``train.eval_period``. The keys
    in epochs become None.

    Args:
        train: the node ``train``; the config that a run saves keeps its epochs, so pass that of a copy.
        images: number of images in the training set.
        step: images per optimizer step.

    Raises:
        ConfigError: as ``check_lengths``.
    """
    check_lengths(train)
    for key, iterations in LENGTHS.items():
        epochs = train.get(key)
        if epochs is None:
            continue
        length = math.ceil(epochs * images / step)
        train[iterations], train[key] = length, None
        logger.info(
            "train.%s=%g: %d iterations of %d images, with %d images per epoch",
            *(key, epochs, length, step, images),
        )


def check_lengths(train: DictConfig) -> None:
    """Raise ConfigError if a length in epochs is also set in iterations, or if there is no length."""
    if train.get("epochs") is None and train.max_iter is None:
        raise ConfigError("train.max_iter=None and train.epochs=None: the length of the training is missing")
    for key, iterations in LENGTHS.items():
        epochs = train.get(key)
        if epochs is None:
            continue
        # a default of the dataset is an interpolation, a value that the user set is not
        if not OmegaConf.is_interpolation(train, iterations) and train[iterations] is not None:
            raise ConfigError(
                f"train.{key}={epochs} and train.{iterations}={train[iterations]} set the same length: "
                "remove one, or set it to null"
            )
