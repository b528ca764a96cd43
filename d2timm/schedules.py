"""How long to train and how fast to learn: epochs as iterations, and a schedule of the learning rate."""

from __future__ import annotations

import logging
import math

from fvcore.common.param_scheduler import CompositeParamScheduler, CosineParamScheduler
from omegaconf import DictConfig, OmegaConf

from .errors import ConfigError

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


def counts_epochs(cfg: DictConfig) -> bool:
    """Whether a length is in epochs, so that the number of training images must be known."""
    return any(cfg.train.get(epochs) is not None for epochs in LENGTHS)


def in_iterations(cfg: DictConfig, images: int) -> None:
    """Turn lengths in epochs into iterations, in place.

    ``train.epochs`` becomes ``train.max_iter`` and ``train.eval_epochs`` ``train.eval_period``, rounded up;
    the lengths in epochs are then gone. To be done in a run, to a copy of what is saved of it.

    Args:
        cfg: the tree, settled.
        images: of the training set, as many as the loader draws from.

    Raises:
        ConfigError: a length that is none, or two for one thing.
    """
    check_lengths(cfg)
    for key, iterations in LENGTHS.items():
        epochs = cfg.train.get(key)
        if epochs is None:
            continue
        length = math.ceil(epochs * images / images_per_step(cfg))
        cfg.train[iterations], cfg.train[key] = length, None
        logger.info(
            "train.%s=%g: %d iterations of %d of %d images",
            *(key, epochs, length, images_per_step(cfg), images),
        )


def check_lengths(cfg: DictConfig) -> None:
    """Raise ConfigError if a length in epochs is none, or is said in iterations as well."""
    for key, iterations in LENGTHS.items():
        epochs = cfg.train.get(key)
        if epochs is None:
            continue
        if not epochs > 0:
            raise ConfigError(f"train.{key}={epochs}: epochs, > 0; null: train.{iterations} says it")
        # what goes with a set of data is an interpolation, a user's own is not
        if not OmegaConf.is_interpolation(cfg.train, iterations) and cfg.train[iterations] is not None:
            raise ConfigError(
                f"train.{key}={epochs} and train.{iterations}={cfg.train[iterations]} both say how long: "
                "leave one out, or set it to null"
            )
