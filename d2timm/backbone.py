"""``TimmBackbone``: any timm model as a detectron2 backbone."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from timm.models import group_parameters
from torch import Tensor, nn

from .errors import ConfigError
from .features import Feature, Size, TimmModel, extract, probe, round_up
from .pruning import prune
from .resample import Resample, base_stride, restore
from .weights import load_checkpoint, load_pretrained

__all__ = ["TimmBackbone"]

logger = logging.getLogger(__name__)


class TimmBackbone(Backbone):
    """Any timm model as a detectron2 backbone, at any image size.

    Change ``model_name`` and everything else follows: channels come from the model, images are padded or
    resized as it needs, and its feature maps are brought onto the grids of ``strides``.

    Args:
        model_name: any name that ``timm.create_model`` takes: ``arch``, ``arch.tag``, ``hf-hub:…`` or
            ``local-dir:…``.
        out_indices: which timm feature each output is made of, negative ones counted from the end;
            None: those whose strides fit best, the deepest of equals. Where several outputs are made
            from features of one stride, as in a plain ViT, they are spread over the depth.
        remaps: names of the outputs, shallow to deep.
        strides: strides of the outputs in pixels, each >= 1.
        fixed_input_size: None: the model sees images at their own size wherever it can; True: resized
            to its native size; a side or (height, width) in pixels: resized to that. The outputs are
            on the grid of the image as given in any case.
        pretrained: load timm's weights for the name.
        checkpoint_path: load weights from this file (.pth, .safetensors) of a timm model instead.
        freeze_at: stages to freeze, 0 to all: 1 is the stem. Frozen stages stay in eval mode.
        timm_kwargs: further keywords of ``timm.create_model``, such as ``drop_path_rate``.

    Raises:
        ConfigError: a value that cannot be; the text names it, what is allowed and the fix.
    """

    def __init__(
        self,
        model_name: str,
        out_indices: Sequence[int] | None = None,
        remaps: Sequence[str] = ("res2", "res3", "res4", "res5"),
        strides: Sequence[int] = (4, 8, 16, 32),
        fixed_input_size: bool | int | Sequence[int] | None = None,
        *,
        pretrained: bool = False,
        checkpoint_path: str | None = None,
        freeze_at: int = 0,
        timm_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        _check_outputs(remaps, strides, out_indices)
        kwargs = tuple((key, _hashable(value)) for key, value in (timm_kwargs or {}).items())
        self.source = probe(model_name, _size(fixed_input_size), kwargs)
        chosen = _choose(self.source.features, strides, out_indices)
        self.out_indices = tuple(feature.index for feature in chosen)

        # weights are loaded into the whole model, whose names timm's files have, then it is pruned
        on_meta = torch.empty(0).is_meta
        if pretrained and not checkpoint_path and not on_meta:
            self.model = load_pretrained(self.source)
        else:
            self.model = self.source.create()
        if checkpoint_path and not on_meta:
            load_checkpoint(self.model, checkpoint_path)
        prune(self.model, self.source, self.out_indices)
        if freeze_at:
            _freeze_stages(self.model, freeze_at)

        bases = [base_stride(f.stride, s) for f, s in zip(chosen, strides, strict=True)]
        self.levels = nn.ModuleDict(
            {
                name: Resample(feature.channels, base, stride)
                for name, feature, base, stride in zip(remaps, chosen, bases, strides, strict=True)
            }
        )
        # an interpolated level needs image under the whole of its last cell
        resized = self.source.needs.size is not None
        self._cover = [
            base
            for feature, base in zip(chosen, bases, strict=True)
            if resized or not feature.exact or feature.stride != base
        ]
        self._out_features = list(remaps)
        self._out_feature_channels = {n: f.channels for n, f in zip(remaps, chosen, strict=True)}
        self._out_feature_strides = dict(zip(remaps, strides, strict=True))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the feature maps of a batch.

        Args:
            x: (N, C, H, W) normalised images, H and W >= 32; zero is the mean, what padding is filled with.

        Returns:
            Name -> (N, C_i, ceil(H / stride_i), ceil(W / stride_i)).
        """
        size = (x.shape[-2], x.shape[-1])
        images, extent = self._prepare(x)
        maps = extract(self.model, images, self.out_indices)
        outputs = {}
        for (name, level), index in zip(self.levels.items(), self.out_indices, strict=True):
            feature = self.source.features[index]
            grid = restore(maps[index], feature.lost)
            outputs[name] = level(grid, self._cell(feature, grid, extent), size)
        return outputs

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Name -> channels and stride of each output."""
        shapes: dict[str, ShapeSpec] = super().output_shape()
        return shapes

    def train(self, mode: bool = True) -> TimmBackbone:
        """Set the mode of all but the frozen parts, which stay in eval mode."""
        super().train(mode)
        for module in self.model.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()
        return self

    def _prepare(self, x: Tensor) -> tuple[Tensor, Size]:
        """Pad and resize as the model needs; also the size that the result stands for, in image pixels."""
        needs = self.source.needs
        height, width = (self._padded(side) for side in x.shape[-2:])
        x = F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))
        if needs.size and needs.size != (height, width):
            x = F.interpolate(x, needs.size, mode="bilinear", antialias=True)
        return x, (height, width)

    def _padded(self, side: int) -> int:
        needs = self.source.needs
        side = max([side, *(round_up(side, base) for base in self._cover)])
        return side if needs.size else max(round_up(side, needs.multiple), needs.smallest)

    def _cell(self, feature: Feature, grid: Tensor, extent: Size) -> tuple[float, float]:
        """(height, width) in image pixels of a cell of a feature map."""
        if feature.exact and not self.source.needs.size:
            return feature.stride, feature.stride
        return extent[0] / grid.shape[-2], extent[1] / grid.shape[-1]


def _choose(
    features: Sequence[Feature], strides: Sequence[int], out_indices: Sequence[int] | None
) -> list[Feature]:
    """The feature that each output is made of."""
    if out_indices is not None:
        for index in out_indices:
            if not isinstance(index, int) or not -len(features) <= index < len(features):
                raise ConfigError(
                    f"out_indices={list(out_indices)}: {index!r} is out of range, the model has "
                    f"{len(features)} features: 0 to {len(features) - 1}, or negative from the end"
                )
        return [features[index] for index in out_indices]

    nearest = [min((f.stride for f in features), key=lambda s: abs(math.log2(s / t))) for t in strides]
    chosen = []
    for i, stride in enumerate(nearest):
        alike = [feature for feature in features if feature.stride == stride]
        share = nearest.count(stride)
        place = i - nearest.index(stride)
        chosen.append(alike[_spread(place, share, len(alike))])
    return chosen


def _spread(place: int, share: int, depth: int) -> int:
    """Which of ``depth`` blocks the output ``place`` of ``share`` takes.

    Evenly spaced from a third of the depth on, and the last: blocks 3, 5, 7 and 11 of 12 for four outputs,
    those of XCiT's detection models.
    """
    if place == share - 1:
        return depth - 1
    return max(0, math.ceil(depth * (place + 2) / (share + 2)) - 1)


def _freeze_stages(model: TimmModel, stages: int) -> None:
    if not isinstance(stages, int) or stages < 0:
        raise ConfigError(f"freeze_at={stages}: a whole number of stages, 0 for none, 1 for the stem")
    if not hasattr(model, "group_matcher"):
        raise ConfigError(
            f"freeze_at={stages}: timm does not tell the stages of {type(model).__name__}; use 0"
        )
    stage = group_parameters(model, model.group_matcher(coarse=True), reverse=True)
    for name, parameter in model.named_parameters():
        if stage[name] < stages:
            parameter.requires_grad_(False)


def _check_outputs(remaps: Sequence[str], strides: Sequence[int], out_indices: Sequence[int] | None) -> None:
    given: dict[str, Any] = {"remaps": remaps, "strides": strides}
    if out_indices is not None:
        given["out_indices"] = out_indices
    for key, value in given.items():
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ConfigError(f"{key}={value}: a list is needed, one entry an output")
    if len({len(value) for value in given.values()}) > 1 or not remaps:
        told = ", ".join(f"{key} has {len(value)}" for key, value in given.items())
        raise ConfigError(f"one entry an output is needed, and at least one output: {told}")
    if not all(isinstance(name, str) and name.isidentifier() for name in remaps):
        raise ConfigError(f"remaps={list(remaps)}: names must be identifiers, such as 'res2'")
    if len(set(remaps)) < len(remaps):
        raise ConfigError(f"remaps={list(remaps)}: two outputs have the same name; give each its own")
    taken = [name for name in remaps if hasattr(nn.ModuleDict, name)]
    if taken:
        raise ConfigError(f"remaps={list(remaps)}: {taken[0]!r} is a name of torch's own; give it another")
    if not all(isinstance(stride, int) and stride >= 1 for stride in strides):
        raise ConfigError(f"strides={list(strides)}: strides are whole pixels >= 1")


def _size(fixed_input_size: bool | int | Sequence[int] | None) -> bool | Size | None:
    if fixed_input_size is None or isinstance(fixed_input_size, bool):
        return fixed_input_size or None
    square = isinstance(fixed_input_size, (int, float, str))
    sides: tuple[Any, ...] = (fixed_input_size,) * 2 if square else tuple(fixed_input_size)  # type: ignore[arg-type]
    if len(sides) != 2 or not all(isinstance(side, int) and side >= 1 for side in sides):
        raise ConfigError(
            f"fixed_input_size={fixed_input_size}: None, True (the native size), a side or (height, width)"
        )
    return sides[0], sides[1]


class _Frozen(dict[str, Any]):
    """A dict that a cache can remember."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self.items()))


def _hashable(value: Any) -> Any:
    """Lists and dicts of a config in a form by which a probe is remembered."""
    if isinstance(value, Mapping):
        return _Frozen({key: _hashable(inner) for key, inner in value.items()})
    return (
        tuple(map(_hashable, value)) if isinstance(value, Sequence) and not isinstance(value, str) else value
    )
