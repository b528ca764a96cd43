"""``TimmBackbone``: any timm model as a detectron2 backbone."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
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
from .arguments import check_knobs, check_output_arguments, choose, merge_kwargs, parse_size
from .freezing import batch_norms, freeze_names, freeze_stages, put_frozen_in_eval_mode, stage_of_parameters
from .meta import MetaRun, TimmModel
from .multisize import MultiSizeModel
from .probing import probe
from .resample import Resample, base_stride, check_norms, norm_epsilon, restore
from .spec import Feature, extract
from .surgery import build_structure, check_structure
from .weights import load_checkpoint, load_pretrained, tell

__all__ = ["TimmBackbone"]


class TimmBackbone(Backbone):
    """Any timm model as a detectron2 backbone, at any image size.

    Change ``model_name`` and everything else follows: channels come from the model, images are padded or
    resized as it input_spec, and its feature maps are brought onto the grids of ``strides``.

    Args:
        model_name: any name that ``timm.create_model`` takes: ``arch``, ``arch.tag``, ``hf-hub:…`` or
            ``local-dir:…``.
        out_indices: which timm feature each output is made of, negative ones counted from the end;
            None: those whose strides fit best, the deepest of equals. Where several outputs are made
            from features of one stride, as in a plain ViT, they are spread over the depth;
            ``out_indices=(-1,), strides=(16,)`` is ViTDet's way.
        remaps: names of the outputs, shallow to deep.
        strides: strides of the outputs in pixels, each >= 1.
        out_features: of ``remaps``, those that are used; None: all. The others are not made, so that
            nothing is left without a gradient under a neck that does not take them.
        fixed_input_size: None: the model sees images at their own size wherever it can; True: resized
            to its native size; a side or (height, width) in pixels: resized to that. The outputs are
            on the grid of the image as given in any case.
        pretrained: load timm's weights for the name.
        checkpoint_path: load weights from this file (.pth, .safetensors) of a timm model instead.
        in_chans: channels of the images; pretrained weights of the first layer are adapted as timm does.
        drop_path_rate: stochastic depth, 0 to 1; None: the model's own default.
        output_stride: stride of the deepest features (8, 16 or 32); later stages are dilated.
        grad_checkpointing: compute activations again in the backward pass, to save memory.
        freeze_at: stages to freeze, 0 to all: 1 is the stem. What is frozen stays in eval mode.
        freeze: parameters to freeze, patterns of timm's names for them, such as ``blocks.0.*``.
        norm: ``keep``; ``FrozenBN``: batch norms keep their statistics, scale and shift, as training
            with few images a GPU needs; ``SyncBN``: their statistics are those of all GPUs.
        level_norm: which outputs a layer norm precedes, with the epsilon of the model's own: ``resampled``,
            those that are doubled or halved; ``all``, as in the detectors of Swin and ConvNeXt; ``none``.
        doubling_norm: between two doublings of a map: ``LN`` as in ViTDet, ``BN`` or ``SyncBN`` as in XCiT.
        timm_kwargs: further keywords of ``timm.create_model``.

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
        check_output_arguments(remaps, strides, out_indices, out_features)
        check_knobs(in_chans, drop_path_rate, output_stride, freeze_at, freeze)
        check_norms(level_norm, doubling_norm)
        kwargs = merge_kwargs(
            timm_kwargs,
            in_chans=in_chans if in_chans != 3 else None,  # what every model has
            drop_path_rate=drop_path_rate,
            output_stride=output_stride,
        )
        self.spec = probe(model_name, parse_size(fixed_input_size), kwargs)
        if output_stride and output_stride < max(feature.stride for feature in self.spec.features):
            raise ConfigError(f"output_stride={output_stride}: {model_name} keeps its own; leave it out")
        used = [i for i, name in enumerate(remaps) if out_features is None or name in out_features]
        chosen = choose(self.spec.features, strides, out_indices, used)
        remaps, strides = [remaps[i] for i in used], [strides[i] for i in used]
        self.out_indices = tuple(feature.index for feature in chosen)
        self.norm = norm
        check_structure(self.spec, self.out_indices, norm, grad_checkpointing)
        finish = functools.partial(
            build_structure,
            spec=self.spec,
            indices=self.out_indices,
            norm=norm,
            grad_checkpointing=grad_checkpointing,
        )

        # weights are loaded into the whole model, whose names timm's files have, then it is pruned
        on_meta = torch.empty(0).is_meta
        if pretrained and not checkpoint_path and not on_meta:
            model = load_pretrained(self.spec)
        else:
            model = self.spec.create()
        given = (
            load_checkpoint(model, self.spec, checkpoint_path) if checkpoint_path and not on_meta else None
        )
        self.model = finish(model)
        if given is not None:
            tell(str(checkpoint_path), given, self.model.state_dict())
        self.multisize = MultiSizeModel(self.spec, finish) if self.spec.input_spec.multisize else None
        self._freeze(freeze_at, freeze)

        bases = [base_stride(f.stride, s) for f, s in zip(chosen, strides, strict=True)]
        resample = functools.partial(
            Resample,
            level_norm=level_norm,
            doubling_norm=doubling_norm,
            epsilon=norm_epsilon(self.model),
        )
        self.levels = nn.ModuleDict(
            {
                name: resample(feature.channels, base, stride)
                for name, feature, base, stride in zip(remaps, chosen, bases, strides, strict=True)
            }
        )
        # an interpolated level needs image under the whole of its last cell, which padding gives; what is
        # resized is not padded before, so that it is shrunk no more than it must be
        self._cover = [
            base
            for feature, base in zip(chosen, bases, strict=True)
            if not self.spec.input_spec.size and (not feature.exact or feature.stride != base)
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
        run = self.multisize.extract if self.multisize else extract
        with MetaRun(fast=False) if x.is_meta and not MetaRun.active else nullcontext():
            maps = run(self.model, images, self.out_indices)
        outputs = {}
        for (name, level), index in zip(self.levels.items(), self.out_indices, strict=True):
            feature = self.spec.features[index]
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
        put_frozen_in_eval_mode(self.model)
        if self.norm == "FrozenBN":
            for module in batch_norms(self.model):
                module.eval()
        return self

    def as_run(self, x: Tensor) -> tuple[TimmModel, Tensor, Size]:
        """What ``forward`` runs for a batch, for those who look into it.

        Args:
            x: as that of ``forward``.

        Returns:
            The timm model, pruned; the images that it is given, padded or resized; and the (height, width) in
            pixels of ``x`` that these stand for.
        """
        images, extent = self._prepare(x)
        model = self.multisize.model_for(self.model, images) if self.multisize else self.model
        return model, images, extent

    def _freeze(self, stages: int, patterns: Sequence[str]) -> None:
        if stages:
            freeze_stages(self.model, self.stage_of_parameters(coarse=True), stages)
        freeze_names(self.model, patterns)
        if self.norm == "FrozenBN":
            for module in batch_norms(self.model):
                module.requires_grad_(False)

    def stage_of_parameters(self, coarse: bool) -> dict[str, int]:
        """Number the parameters of ``self.model`` by depth: stages if ``coarse``, otherwise layers."""
        return stage_of_parameters(self.model, self.spec, self.out_indices, coarse)

    def _prepare(self, x: Tensor) -> tuple[Tensor, Size]:
        """Pad and resize as the model needs; also the size that the result stands for, in image pixels."""
        input_spec = self.spec.input_spec
        height, width = (self._padded(side) for side in x.shape[-2:])
        x = F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))
        if input_spec.size and input_spec.size != (height, width):
            if not x.is_meta:
                to = f"{input_spec.size[0]}x{input_spec.size[1]}"
                told = f"{self.spec.model_name} sees images resized to {to} pixels"
                log_first_n(logging.WARNING, told, name=__name__, key="message")
            x = F.interpolate(x, input_spec.size, mode="bilinear", antialias=True)
        return x, (height, width)

    def _padded(self, side: int) -> int:
        input_spec = self.spec.input_spec
        if input_spec.size:
            return side
        side = max([side, *(round_up(side, base) for base in self._cover)])
        return at_least(round_up(side, input_spec.multiple), input_spec.smallest)

    def _cell(self, feature: Feature, grid: Tensor, extent: Size) -> tuple[float, float]:
        """(height, width) in image pixels of a cell of a feature map."""
        if not feature.exact:
            return extent[0] / grid.shape[-2], extent[1] / grid.shape[-1]
        seen = self.spec.input_spec.size
        if seen is None:  # known whatever the size, for an exporter that knows none
            return feature.stride, feature.stride
        return feature.stride * extent[0] / seen[0], feature.stride * extent[1] / seen[1]
