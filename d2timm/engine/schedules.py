"""Lengths of a training in epochs or iterations, and the one-cycle schedule of the learning rate."""

from __future__ import annotations

import logging
import math
from typing import Literal, TypeAlias

from fvcore.common.param_scheduler import CompositeParamScheduler, CosineParamScheduler
from omegaconf import DictConfig, OmegaConf

from ..errors import ConfigError
from ..utils.targets import config_target

__all__ = [
    "check_lengths",
    "counts_epochs",
    "images_per_step",
    "in_iterations",
    "one_cycle",
    "start_of",
    "usual_epochs",
]

logger = logging.getLogger(__name__)

#: Key of a length in epochs -> key of the same length in iterations
LENGTHS = {"epochs": "max_iter", "eval_epochs": "eval_period"}
AUTO = "auto"
Start: TypeAlias = Literal["detector", "backbone", "nothing"]
#: (images, epochs) between which the length of a training from a pretrained detector falls, and
#: factors for other weights
FEW, MANY = (1_000, 30), (20_000, 16)
FACTORS = {"detector": 1.0, "backbone": 2.5, "nothing": 7.5}


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


def start_of(cfg: DictConfig) -> Start:
    """What the weights of a training come from."""
    backbone = cfg.model.backbone.bottom_up
    pretrained = backbone.get("pretrained") or backbone.get("checkpoint_path")
    if cfg.train.get("init_checkpoint") or (pretrained and cfg.train.get("init_heads")):
        return "detector"
    return "backbone" if pretrained else "nothing"


def images_per_step(cfg: DictConfig) -> int:
    """Return the images per optimizer step, over all processes and accumulated batches."""
    return int(cfg.dataloader.train.total_batch_size * cfg.train.get("accumulate", 1))


def usual_epochs(images: int, start: Start) -> float:
    """Length of the training on a user's own set, in epochs.

    Detectors that are pretrained on a large set take about 30 epochs for up to 1,000 images, and 16 from
    20,000 on; in between, the length falls with the logarithm of their number. Pretrained backbones take 2 to
    3 times as long, and random weights 3 times as long again (He et al., https://arxiv.org/abs/1811.08883).

    Args:
        images: number of images in the training set, >= 1.
        start: ``detector``, if all weights are pretrained; ``backbone``; or ``nothing``.
    """
    position = math.log(max(images, 1) / FEW[0]) / math.log(MANY[0] / FEW[0])
    epochs = FEW[1] + min(max(position, 0.0), 1.0) * (MANY[1] - FEW[1])
    return round(epochs * FACTORS[start], 1)


def counts_epochs(train: DictConfig) -> bool:
    """Return whether a length is in epochs, so that the number of training images is needed."""
    return any(train.get(epochs) is not None for epochs in LENGTHS)


def in_iterations(train: DictConfig, images: int, step: int, start: Start = "backbone") -> None:
    """Convert lengths in epochs to iterations, rounded up, in place.

    ``train.epochs`` sets ``train.max_iter``, and ``train.eval_epochs`` sets ``train.eval_period``. The keys
    in epochs become None.

    Args:
        train: the node ``train``; the config that a run saves keeps its epochs, so pass that of a copy.
        start: what the weights come from, see ``usual_epochs``.
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
        if epochs == AUTO:
            epochs = usual_epochs(images, start)
        length = math.ceil(epochs * images / step)
        train[iterations], train[key] = length, None
        logger.info(
            "train.%s=%g: %d iterations of %d images, with %d images per epoch",
            *(key, epochs, length, step, images),
        )


def check_lengths(train: DictConfig) -> None:
    """Raise ConfigError if a length is set in two units, or if there is no length."""
    hours, epochs = train.get("budget_hours"), train.get("epochs")
    others = {"epochs": epochs} if OmegaConf.is_interpolation(train, "max_iter") else dict(train)
    for key in ("epochs", "max_iter"):
        if hours is not None and others.get(key) is not None:
            raise ConfigError(
                f"train.budget_hours={hours} and train.{key}={others[key]} set the same length: remove one"
            )
    if hours is None and epochs is None and train.max_iter is None:
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
