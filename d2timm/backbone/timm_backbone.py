"""``TimmBackbone``: any timm model as a detectron2 backbone."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from detectron2.utils.logger import log_first_n
from torch import Tensor, nn

from ..errors import ConfigError
from ..utils.sizes import Size, at_least, round_up
from ..utils.targets import config_target
from .arguments import (
    REMAPS,
    check_arguments,
    check_output_arguments,
    merge_kwargs,
    name_outputs,
    parse_size,
    select_features,
)
from .freezing import batch_norms, freeze_names, freeze_stages, put_frozen_in_eval_mode, stage_of_parameters
from .meta import MetaRun, TimmModel
from .multisize import MultiSizeModel
from .probing import probe
from .resample import Resample, base_stride, check_norms, norm_epsilon, restore
from .spec import Feature, extract
from .surgery import apply_surgery, check_surgery
from .weights import load_checkpoint, load_pretrained, log_loaded

__all__ = ["TimmBackbone"]


@config_target
class TimmBackbone(Backbone):
    """Any timm model as a detectron2 backbone, for images of any size.

    Only ``model_name`` is required. The channels follow from the model, images are padded or resized as the
    model requires, and its feature maps are resampled to the grids of ``strides``.

    Args:
        model_name: any name that ``timm.create_model`` accepts: ``arch``, ``arch.tag``, ``hf-hub:…`` or
            ``local-dir:…``.
        out_indices: index of the timm feature from which each output is computed, negative ones counted from
            the end; None: the features with the nearest strides, the deepest of several. If several outputs
            share features of one stride, as in a plain ViT, they are spread over the depth.
            ViTDet uses ``out_indices=(-1,), strides=(16,)``.
        remaps: names of the outputs, from shallow to deep; if they are left out for another number of
            strides, which are powers of two, ``res{k}`` for a stride of ``2**k``.
        strides: strides of the outputs in pixels, each >= 1.
        out_features: the used outputs, some of ``remaps``; None: all. Other outputs are not computed, so
            that no parameter is left without a gradient if the neck does not use them.
        fixed_input_size: None: the model sees images at their own size wherever possible; True: resized
            to its native size; a side or (height, width) in pixels, each >= 1: resized to this size. In any
            case, the outputs have the grid of the original image.
        pretrained: load timm's pretrained weights.
        checkpoint_path: load the weights of a timm model from this file (.pth, .safetensors) instead.
        in_chans: number of image channels, >= 1; timm adapts pretrained weights of the first layer.
        drop_path_rate: rate of stochastic depth, 0 <= rate < 1; None: the default of the model.
        output_stride: stride of the deepest features, 8, 16 or 32 pixels; later stages are dilated. None: the
            stride of the model.
        grad_checkpointing: recompute activations in the backward pass, to save memory.
        freeze_at: number of stages to freeze, >= 0; 1 freezes the stem. Frozen parts stay in eval mode.
        freeze: parameters to freeze: shell patterns of timm's parameter names, such as ``blocks.0.*``.
        norm: ``keep``; ``FrozenBN``: batch norms keep their statistics, scale and shift, which training with
            few images per GPU requires; ``SyncBN``: batch norms share their statistics between GPUs.
        level_norm: outputs that start with a layer norm, with the epsilon of the model's own layer norms:
            ``resampled``, those that are doubled or halved; ``all``, as in the detectors of Swin and
            ConvNeXt; or ``none``.
        doubling_norm: norm between two doublings of a map: ``LN`` as in ViTDet, ``BN`` or ``SyncBN`` as in
            XCiT.
        timm_kwargs: further keyword arguments of ``timm.create_model``.

    Raises:
        ConfigError: an argument is invalid; the message has its value, the permitted values and a fix.
    """

    def __init__(
        self,
        model_name: str,
        out_indices: Sequence[int] | None = None,
        remaps: Sequence[str] = REMAPS,
        strides: Sequence[int] = (4, 8, 16, 32),
        fixed_input_size: bool | int | Sequence[int] | None = None,
        *,
        out_features: Sequence[str] | None = None,
        pretrained: bool = False,
        checkpoint_path: str | None = None,
        in_chans: int = 3,
        drop_path_rate: float | None = None,
        output_stride: int | None = None,
        grad_checkpointing: bool = False,
        freeze_at: int = 0,
        freeze: Sequence[str] = (),
        norm: str = "keep",
        level_norm: str = "resampled",
        doubling_norm: str = "LN",
        timm_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        remaps = name_outputs(remaps, strides)
        check_output_arguments(remaps, strides, out_indices, out_features)
        check_arguments(in_chans, drop_path_rate, output_stride, freeze_at, freeze)
        check_norms(level_norm, doubling_norm)
        kwargs = merge_kwargs(
            timm_kwargs,
            in_chans=in_chans if in_chans != 3 else None,  # 3 is every model's default
            drop_path_rate=drop_path_rate,
            output_stride=output_stride,
        )
        self.spec = probe(model_name, parse_size(fixed_input_size), kwargs)
        if output_stride and output_stride < max(feature.stride for feature in self.spec.features):
            raise ConfigError(
                f"output_stride={output_stride}: {model_name} cannot be dilated; leave it at null"
            )
        used = [i for i, name in enumerate(remaps) if out_features is None or name in out_features]
        features = select_features(self.spec.features, strides, out_indices, used)
        self.out_indices = tuple(feature.index for feature in features)
        self.norm = norm
        check_surgery(self.spec, self.out_indices, norm, grad_checkpointing)
        finish = functools.partial(
            apply_surgery,
            spec=self.spec,
            indices=self.out_indices,
            norm=norm,
            grad_checkpointing=grad_checkpointing,
        )
        self.model = self._create_model(finish, pretrained, checkpoint_path)
        self.multisize = MultiSizeModel(self.spec, finish) if self.spec.input_spec.multisize else None
        self._freeze(freeze_at, freeze)
        self._create_levels(
            [remaps[i] for i in used], features, [strides[i] for i in used], level_norm, doubling_norm
        )

    def _create_model(
        self, finish: Callable[[TimmModel], TimmModel], pretrained: bool, checkpoint_path: str | None
    ) -> TimmModel:
        """Create the model with its weights; on ``meta``, no weights are loaded.

        Weights are loaded before the surgery, because files contain the complete model under timm's names.
        """
        if torch.empty(0).is_meta:
            return finish(self.spec.create())
        if not checkpoint_path:
            return finish(load_pretrained(self.spec) if pretrained else self.spec.create())
        model = self.spec.create()
        names = load_checkpoint(model, self.spec, checkpoint_path)
        model = finish(model)
        log_loaded(checkpoint_path, names, model.state_dict())
        return model

    def _create_levels(
        self,
        names: Sequence[str],
        features: Sequence[Feature],
        strides: Sequence[int],
        level_norm: str,
        doubling_norm: str,
    ) -> None:
        """Create the layers that resample the features, and declare the outputs."""
        bases = [base_stride(f.stride, s) for f, s in zip(features, strides, strict=True)]
        resample = functools.partial(
            Resample,
            level_norm=level_norm,
            doubling_norm=doubling_norm,
            epsilon=norm_epsilon(self.model),
        )
        self.levels = nn.ModuleDict(
            {
                name: resample(feature.channels, base, stride)
                for name, feature, base, stride in zip(names, features, bases, strides, strict=True)
            }
        )
        # Interpolation needs pixels under all of the last cell, which padding provides. Images that are
        # resized anyway are not padded first, so that they do not shrink more than necessary.
        self._interpolated_bases = [
            base
            for feature, base in zip(features, bases, strict=True)
            if not self.spec.input_spec.size and (not feature.exact or feature.stride != base)
        ]
        self._out_features = list(names)
        self._out_feature_channels = {n: f.channels for n, f in zip(names, features, strict=True)}
        self._out_feature_strides = dict(zip(names, strides, strict=True))

    def _freeze(self, stages: int, patterns: Sequence[str]) -> None:
        if stages:
            freeze_stages(self.model, self.stage_of_parameters(coarse=True), stages)
        freeze_names(self.model, patterns)
        if self.norm == "FrozenBN":
            for module in batch_norms(self.model):
                module.requires_grad_(False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the feature maps of a batch.

        Args:
            x: (N, C, H, W) normalised images, H and W >= 32. Padding has the value zero, which is the mean.

        Returns:
            Name -> (N, C_i, ceil(H / stride_i), ceil(W / stride_i)).
        """
        size = (x.shape[-2], x.shape[-1])
        with MetaRun(fast=False) if x.is_meta and not MetaRun.active else nullcontext():
            model, images, extent = self.prepare(x)
            maps = extract(model, images, self.out_indices)
        outputs = {}
        for (name, level), index in zip(self.levels.items(), self.out_indices, strict=True):
            feature = self.spec.features[index]
            grid = restore(maps[index], feature.lost)
            outputs[name] = level(grid, self._cell_size(feature, grid, extent), size)
        return outputs

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return the channels and the stride in pixels of each output, by name."""
        shapes: dict[str, ShapeSpec] = super().output_shape()
        return shapes

    def train(self, mode: bool = True) -> TimmBackbone:
        """Set the mode of all modules but the frozen ones, which stay in eval mode."""
        super().train(mode)
        put_frozen_in_eval_mode(self.model)
        if self.norm == "FrozenBN":
            for module in batch_norms(self.model):
                module.eval()
        return self

    def stage_of_parameters(self, coarse: bool) -> dict[str, int]:
        """Number the parameters of ``self.model`` by depth.

        Args:
            coarse: number stages; otherwise layers.

        Returns:
            Parameter name -> number, consecutive from 0 for the stem.
        """
        return stage_of_parameters(self.model, self.spec, self.out_indices, coarse)

    def prepare(self, x: Tensor) -> tuple[TimmModel, Tensor, Size]:
        """Return the model and the input with which ``forward`` runs.

        Args:
            x: (N, C, H, W), as for ``forward``.

        Returns:
            The pruned timm model; its input, (N, C, H', W'), padded or resized; and the (height, width) in
            pixels of ``x`` to which the input corresponds, padding included.
        """
        images, extent = self._fit(x)
        model = self.multisize.model_for(self.model, images) if self.multisize else self.model
        return model, images, extent

    def _fit(self, x: Tensor) -> tuple[Tensor, Size]:
        """Pad and resize images as the model requires; also return their (height, width) after padding."""
        input_spec = self.spec.input_spec
        height, width = (self._padded_side(side) for side in x.shape[-2:])
        x = F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))
        if input_spec.size and input_spec.size != (height, width):
            if not x.is_meta:
                size = f"{input_spec.size[0]}x{input_spec.size[1]}"
                message = f"{self.spec.model_name} sees images resized to {size} pixels"
                log_first_n(logging.WARNING, message, name=__name__, key="message")
            x = F.interpolate(x, input_spec.size, mode="bilinear", antialias=True)
        return x, (height, width)

    def _padded_side(self, side: int) -> int:
        input_spec = self.spec.input_spec
        if input_spec.size:
            return side
        side = max([side, *(round_up(side, base) for base in self._interpolated_bases)])
        return at_least(round_up(side, input_spec.multiple), input_spec.smallest)

    def _cell_size(self, feature: Feature, grid: Tensor, extent: Size) -> tuple[float, float]:
        """Compute (height, width) in image pixels of a cell of a feature map."""
        if not feature.exact:
            return extent[0] / grid.shape[-2], extent[1] / grid.shape[-1]
        resized = self.spec.input_spec.size
        if resized is None:  # independent of the image size, which may be symbolic in an export
            return feature.stride, feature.stride
        return feature.stride * extent[0] / resized[0], feature.stride * extent[1] / resized[1]
