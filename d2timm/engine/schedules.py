"""How long to train and how fast to learn: epochs as iterations, and a schedule of the learning rate."""

from __future__ import annotations

import logging
import math

from fvcore.common.param_scheduler import CompositeParamScheduler, CosineParamScheduler
from omegaconf import DictConfig, OmegaConf

from ..errors import ConfigError

__all__ = ["check_lengths", "counts_epochs", "images_per_step", "in_iterations", "one_cycle"]

logger = logging.getLogger(__name__)

#: Lengths in epochs, and those in iterations that they stand for.
LENGTHS = {"epochs": "max_iter", "eval_epochs": "eval_period"}


def one_cycle(rise: float = 0.3, start: float = 1 / 25, end: float = 1 / 25e4) -> CompositeParamScheduler:
    """The 1cycle policy: up to the learning rate, and down again to nearly nothing.

    Smith and Topin, https://arxiv.org/abs/1708.07120, in the shape of torch's ``OneCycleLR``: two half
    waves of a cosine. The momentum, which the paper lowers meanwhile, stays as it is.

    Args:
        rise: part of the schedule until the learning rate is reached, 0 < rise < 1.
        start: of the learning rate at the beginning, 0 <= start <= 1.
        end: of the learning rate at the end, 0 <= end <= 1.

    Raises:
        ConfigError: a rise that leaves nothing to fall.
    """
    if not 0 < rise < 1:
        raise ConfigError(f"lr_multiplier.rise={rise}: 0 < rise < 1, the part of the schedule that rises")
    waves = [CosineParamScheduler(start, 1.0), CosineParamScheduler(1.0, end)]
    return CompositeParamScheduler(waves, [rise, 1 - rise], ["rescaled", "rescaled"])


def images_per_step(cfg: DictConfig) -> int:
    """Images of one step of the optimizer, over all processes and accumulated batches."""
    return int(cfg.dataloader.train.total_batch_size * cfg.train.get("accumulate", 1))


def counts_epochs(train: DictConfig) -> bool:
    """Whether a length is in epochs, so that the number of training images must be known."""
    return any(train.get(epochs) is not None for epochs in LENGTHS)


def in_iterations(train: DictConfig, images: int, step: int) -> None:
    """Turn lengths in epochs into iterations, in place.

    ``train.epochs`` becomes ``train.max_iter`` and ``train.eval_epochs`` ``train.eval_period``, rounded up;
    the lengths in epochs are then None. A run does this to a copy of the tree that it saves.

    Args:
        train: the node ``train``.
        images: number of images of the training set that the loader draws from.
        step: images of one step of the optimizer.

    Raises:
        ConfigError: a length that is not positive, or two lengths for one thing.
    """
    check_lengths(train)
    for key, iterations in LENGTHS.items():
        epochs = train.get(key)
        if epochs is None:
            continue
        length = math.ceil(epochs * images / step)
        train[iterations], train[key] = length, None
        logger.info("train.%s=%g: %d iterations of %d of %d images", *(key, epochs, length, step, images))


def check_lengths(train: DictConfig) -> None:
    """Raise ConfigError if a length in epochs is not positive, or is given in iterations as well."""
    for key, iterations in LENGTHS.items():
        epochs = train.get(key)
        if epochs is None:
            continue
        if not epochs > 0:
            raise ConfigError(f"train.{key}={epochs}: epochs, > 0; null: train.{iterations} counts")
        # the default of a dataset is an interpolation, a user's own value is not
        if not OmegaConf.is_interpolation(train, iterations) and train[iterations] is not None:
            raise ConfigError(
                f"train.{key}={epochs} and train.{iterations}={train[iterations]} are two lengths: "
                "leave one out, or set it to null"
            )
