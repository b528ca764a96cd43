"""The detector for which weights are converted: its weights, and its image format."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from omegaconf import DictConfig
from torch import Tensor, nn

from ...config.build import build_on_meta, instantiate, resolve_dataset
from ...config.compatibility import check_compatibility
from ...errors import ConfigError

__all__ = ["BODY", "LEVELS", "Pixels", "Target", "part_of"]

BODY = "backbone.bottom_up.model."  # prefix of the weights of the timm model
LEVELS = "backbone.bottom_up.levels."  # prefix of the layers that bring its features to the output strides


@dataclass(frozen=True)
class Pixels:
    """The image format of a model: it sees ``(image - mean) / std``, with images of values 0 to 255.

    Attributes:
        order: order of the channels, such as ``RGB``.
        mean: mean of each channel, in that order.
        std: standard deviation of each channel, in that order.
    """

    order: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Target:
    """A detector on the ``meta`` device.

    Attributes:
        model: the detector.
        model_name: name of its timm model.
        pixels: its image format.
    """

    model: Any
    model_name: str
    pixels: Pixels

    @classmethod
    def of(cls, cfg: DictConfig) -> Target:
        """Build the detector of a config tree, without weights.

        Raises:
            ConfigError: the tree does not describe a detector, or its backbone is not a ``TimmBackbone``.
        """
        resolve_dataset(cfg)
        check_compatibility(cfg)
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
        """Name -> weight, with shape and type, as the detector's checkpoints contain them."""
        return dict(self.model.state_dict())

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """Parts of the detector that have weights, in order."""
        return tuple(dict.fromkeys(part_of(name) for name in self.state))

    @property
    def body(self) -> Any:
        """The timm model."""
        return self.model.backbone.bottom_up.model

    def level(self, feature: int) -> str | None:
        """Name of the output that is computed from a feature of the timm model; None if there is none."""
        bottom_up = self.model.backbone.bottom_up
        outputs = dict(zip(bottom_up.out_indices, bottom_up.levels, strict=True))
        return outputs.get(feature)

    @property
    def norms(self) -> tuple[bool, ...]:
        """Whether each output, fine to coarse, begins with a norm."""
        levels = self.model.backbone.bottom_up.levels.values()
        return tuple(isinstance(next(iter(level.scale), None), nn.LayerNorm) for level in levels)

    def delta_weights(self, stage: int) -> tuple[float, ...]:
        """Weights by which the box head of a stage divides its deltas."""
        predictors = self.model.roi_heads.box_predictor
        predictor: Any = predictors[stage] if isinstance(predictors, nn.ModuleList) else predictors
        return tuple(predictor.box2box_transform.weights)


def part_of(name: str) -> str:
    """The part to which a weight belongs: ``backbone``, ``neck``, or the detector's name for it."""
    first, _, rest = name.partition(".")
    return "neck" if first == "backbone" and not rest.startswith("bottom_up.") else first
