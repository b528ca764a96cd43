"""The detector that weights are converted for: what it is called there, and what it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn

from ...config.build import build_on_meta, resolve_dataset
from ...errors import ConfigError

__all__ = ["BODY", "LEVELS", "Pixels", "Target"]

BODY = "backbone.bottom_up.model."  # the timm model
LEVELS = "backbone.bottom_up.levels."  # what brings its features onto the strides of the outputs


@dataclass(frozen=True)
class Pixels:
    """What a model is shown: ``(image - mean) / std``, 0 to 255.

    Attributes:
        order: of the channels, such as ``RGB``.
        mean: of each channel, in that order.
        std: of each channel.
    """

    order: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Target:
    """A detector without numbers.

    Attributes:
        model: it, on ``meta``.
        model_name: of its timm model.
        pixels: what it is shown.
    """

    model: Any
    model_name: str
    pixels: Pixels

    @classmethod
    def of(cls, cfg: DictConfig) -> Target:
        """The detector of a tree.

        Raises:
            ConfigError: the tree makes no detector, or one without a backbone of timm.
        """
        resolve_dataset(cfg)
        model: Any = build_on_meta(cfg)
        try:
            model.get_submodule(BODY.rstrip("."))
        except AttributeError:
            raise ConfigError(
                "the recipe's detector has no TimmBackbone at model.backbone.bottom_up"
            ) from None
        mean, std = (tuple(instantiate(cfg.model[key])) for key in ("pixel_mean", "pixel_std"))
        pixels = Pixels(model.input_format or "RGB", mean, std)
        return cls(model, cfg.model.backbone.bottom_up.model_name, pixels)

    @cached_property
    def state(self) -> dict[str, Tensor]:
        """Name -> shape and type of each weight, as the detector's checkpoints have them."""
        return dict(self.model.state_dict())

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """Parts of the detector, in order, that have weights."""
        return tuple(dict.fromkeys(part_of(name) for name in self.state))

    @property
    def body(self) -> Any:
        """The timm model."""
        return self.model.backbone.bottom_up.model

    def level(self, feature: int) -> str | None:
        """Name of the output that is made of a feature of the timm model; None: it is not used."""
        bottom_up = self.model.backbone.bottom_up
        outputs = dict(zip(bottom_up.out_indices, bottom_up.levels, strict=True))
        return outputs.get(feature)

    @property
    def norms(self) -> tuple[bool, ...]:
        """Of each output, fine to coarse, whether it begins with a norm."""
        levels = self.model.backbone.bottom_up.levels.values()
        return tuple(isinstance(next(iter(level.scale), None), nn.LayerNorm) for level in levels)

    def delta_weights(self, stage: int) -> tuple[float, ...]:
        """What the box head of a stage divides its deltas by."""
        predictors = self.model.roi_heads.box_predictor
        predictor: Any = predictors[stage] if isinstance(predictors, nn.ModuleList) else predictors
        return tuple(predictor.box2box_transform.weights)


def part_of(name: str) -> str:
    """The part of a detector that a weight belongs to: ``backbone``, ``neck``, or its own name for it."""
    first, _, rest = name.partition(".")
    return "neck" if first == "backbone" and not rest.startswith("bottom_up.") else first
