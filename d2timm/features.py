"""What a timm model gives a detector, and what it needs in return.

Everything here is found from timm's own information and from runs on the ``meta`` device, which compute
shapes and no numbers: the feature maps of a model, their channels and strides, and the image sizes that
it takes. There is no list of model names.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import timm
import torch
from torch import Tensor

from .errors import ConfigError
from .names import check_name

__all__ = ["Feature", "Needs", "Source", "extract", "pretrained_cfg", "probe", "round_up"]

logger = logging.getLogger(__name__)

Size = tuple[int, int]
Kwargs = tuple[tuple[str, Any], ...]
#: An nn.Module with timm's ways (feature_info, forward_intermediates, ...), which no type of timm's tells
TimmModel: TypeAlias = Any

#: Image sizes (height, width) at which a model is tried: odd and even, wide and narrow, with different
#: remainders for every stride up to 64. They are rounded up to the multiple under test.
TRIAL_SIZES: tuple[Size, ...] = ((97, 131), (333, 500), (224, 700))
SMALLEST_SIDE = 32
#: What timm's models raise for a keyword that they do not have or a value that they cannot use
REFUSALS = (TypeError, ValueError, LookupError, AttributeError, AssertionError, RuntimeError)
#: More cells than this are not lost to unpadded convolutions: such a grid has its own size.
MOST_LOST = 4


@dataclass(frozen=True)
class Feature:
    """One feature map of a timm model.

    Attributes:
        index: its place in timm's ``feature_info``, what ``out_indices`` counts.
        name: the module that ends there.
        channels: number of channels.
        stride: image pixels a cell, measured; a whole number where ``exact``.
        exact: at every size that the model takes the grid has ``ceil(size / stride) - lost`` cells a
            side. If not, the grid is stretched over the image, whatever its number of cells.
        lost: cells that convolutions without padding take off a side, half at each end.
    """

    index: int
    name: str
    channels: int
    stride: float
    exact: bool
    lost: int


@dataclass(frozen=True)
class Needs:
    """What is done to an image of any size before the model sees it.

    Attributes:
        route: ``any size``, ``dynamic size`` (a keyword of the model's own), ``padding`` or ``resizing``.
        multiple: sides are padded to a multiple of this many pixels; 1: none is needed.
        smallest: sides are padded to at least this many pixels.
        size: (height, width) to which the image is resized, or None.
    """

    route: str
    multiple: int = 1
    smallest: int = SMALLEST_SIDE
    size: Size | None = None


@dataclass(frozen=True)
class Source:
    """A timm model as a source of features: what is known of it before its weights are made.

    Attributes:
        model_name: what ``timm.create_model`` is given, with ``kwargs``.
        kwargs: keywords, those that the chosen route asks for included.
        channels: image channels.
        native_size: (height, width) of the images that the model was made for.
        needs: what is done to the image.
        features: all feature maps, shallow to deep.
    """

    model_name: str
    kwargs: Kwargs
    channels: int
    native_size: Size
    needs: Needs
    features: tuple[Feature, ...]

    def create(self, pretrained: bool = False) -> TimmModel:
        """Make the full timm model."""
        return timm.create_model(self.model_name, pretrained=pretrained, **dict(self.kwargs))

    @property
    def trial_size(self) -> Size:
        """(height, width) of an image that the model takes as it is."""
        return self.needs.size or _rounded(self.native_size, self.needs.multiple)


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple of ``multiple`` that is not below ``value``."""
    return -(-value // multiple) * multiple


def extract(model: TimmModel, images: Tensor, indices: Sequence[int]) -> dict[int, Tensor]:
    """Run a timm model as far as its features need.

    Args:
        model: a full or pruned timm model.
        images: (N, C, H, W), normalised.
        indices: which features, each >= 0.

    Returns:
        Feature index -> (N, C_i, H_i, W_i), whatever layout the model uses inside.
    """
    wanted = sorted(set(indices))
    maps = model.forward_intermediates(
        images, indices=wanted, stop_early=True, output_fmt="NCHW", intermediates_only=True
    )
    return dict(zip(wanted, maps, strict=True))


@functools.lru_cache(maxsize=64)
def probe(model_name: str, fixed_input_size: bool | Size | None = None, timm_kwargs: Kwargs = ()) -> Source:
    """Find out what a timm model gives and needs, without making its weights.

    Args:
        model_name: any name that ``timm.create_model`` takes.
        fixed_input_size: None: the model sees images at their own size wherever it can; True: at its
            native size; (height, width): at that size.
        timm_kwargs: further keywords of ``timm.create_model``.

    Raises:
        ConfigError: the name is unknown, or the model refuses a keyword or the fixed size.
    """
    try:
        model = _on_meta(model_name, timm_kwargs)
    except ConfigError:
        raise
    except REFUSALS as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())
        raise ConfigError(f"{model_name} does not take timm_kwargs={dict(timm_kwargs)}: {reason}") from error
    if not hasattr(model, "forward_intermediates"):
        raise ConfigError(
            f"timm_kwargs={dict(timm_kwargs)}: {model_name} gives no features then; leave them out"
        )
    given = dict(timm_kwargs)
    channels, *native = model.pretrained_cfg.get("input_size", (3, 224, 224))
    channels = given.get("in_chans", channels)
    size = given.get("img_size", tuple(native))
    native_size = (size, size) if isinstance(size, int) else tuple(size)

    ways = {timm_kwargs: model}
    dynamic = (*timm_kwargs, ("dynamic_img_size", True))
    try:
        ways[dynamic] = _on_meta(model_name, dynamic)
    except REFUSALS:
        logger.debug("%s has no dynamic_img_size", model_name)

    wanted = native_size if isinstance(fixed_input_size, bool | None) else fixed_input_size
    if not fixed_input_size:
        found = _flexible(model_name, ways, channels, native_size)
        if found:
            return found
    return _fixed(model_name, ways, channels, native_size, wanted)


@functools.lru_cache(maxsize=64)
def pretrained_cfg(model_name: str) -> dict[str, Any]:
    """What timm says of the weights of a model: ``mean``, ``std``, ``input_size``, ``classifier``, ...."""
    return dict(_on_meta(model_name, ()).pretrained_cfg)


def _flexible(model_name: str, ways: dict[Kwargs, TimmModel], channels: int, native: Size) -> Source | None:
    """The least that lets the model take images of any size, or None if nothing does.

    Grids that follow the image exactly come first, then what costs the image least: nothing, the
    model's own dynamic size, padding to its coarsest stride, more padding.
    """
    plain = next(iter(ways))
    step = math.ceil(max(info["reduction"] for info in ways[plain].feature_info))
    more = sorted({step * k for k in (2, 3, 4)} | {math.lcm(step, side) for side in native})
    for multiples, exact in (((1, step), True), ((step,), False), (more, True)):
        for kwargs, model in ways.items():
            for multiple in multiples:
                sizes = [_rounded(size, multiple) for size in (native, *TRIAL_SIZES)]
                features = _measure(model, channels, sizes)
                unpadded = multiple == 1 and any(f.lost for f in features)
                if not features or unpadded or (exact and not all(f.exact for f in features)):
                    continue
                routes = ["dynamic size"] * (kwargs != plain) + ["padding"] * (multiple > 1)
                smallest = _smallest(model, channels, multiple)
                needs = Needs(" and ".join(routes) or "any size", multiple, smallest)
                return Source(model_name, kwargs, channels, native, needs, features)
    return None


def _fixed(model_name: str, ways: dict[Kwargs, TimmModel], channels: int, native: Size, size: Size) -> Source:
    """The model for images that are all resized to one size."""
    canvas = (*next(iter(ways)), ("img_size", size))
    try:
        ways = {**ways, canvas: _on_meta(model_name, canvas)}
    except REFUSALS as refusal:
        logger.debug("%s cannot be built with img_size=%s: %s", model_name, size, refusal)
    for kwargs, model in ways.items():
        features = _measure(model, channels, [size])
        if features:
            needs = Needs("resizing", size=size)
            return Source(model_name, kwargs, channels, native, needs, features)
    raise ConfigError(
        f"fixed_input_size={size}: {model_name} does not run at that size; "
        f"its native size is {native} (fixed_input_size=True)"
    )


def _measure(model: TimmModel, channels: int, sizes: Sequence[Size]) -> tuple[Feature, ...]:
    """Describe the features of a model on ``meta`` from runs at some sizes; () if it refuses one."""
    info = model.feature_info
    grids: list[list[Size]] = [[] for _ in info]
    widths = [0] * len(info)
    for height, width in sizes:
        images = torch.empty(1, channels, height, width, device="meta")
        try:
            with torch.no_grad():
                maps = extract(model, images, range(len(info)))
        except Exception as refusal:
            # timm's models refuse a size in whatever way the first mismatch inside raises
            logger.debug("%s refuses %dx%d: %s", type(model).__name__, height, width, refusal)
            return ()
        for i, x in maps.items():
            widths[i] = x.shape[1]
            grids[i].append((x.shape[2], x.shape[3]))
    if any(0 in grid for level in grids for grid in level):
        return ()
    return tuple(_describe(i, info[i], widths[i], sizes, grids[i]) for i in range(len(info)))


def _describe(index: int, info: Any, channels: int, sizes: Sequence[Size], grids: Sequence[Size]) -> Feature:
    """Tell a grid of a fixed stride, at most short of some cells, from one with a size of its own."""
    stride = info["reduction"]
    missing = {
        math.ceil(side / stride) - cells
        for size, grid in zip(sizes, grids, strict=True)
        for side, cells in zip(size, grid, strict=True)
    }
    # at a single size a lost cell looks the same as a grid of another stride
    exact = missing == {0} or (len(missing) == 1 < len(sizes) and 0 < min(missing) <= MOST_LOST)
    measured = stride if exact else max(sizes[0]) / max(grids[0])
    return Feature(index, info["module"], channels, measured, exact, min(missing) if exact else 0)


def _smallest(model: TimmModel, channels: int, multiple: int) -> int:
    """The smallest square image that the model takes, found by doubling."""
    side = round_up(SMALLEST_SIDE, multiple)
    while not _measure(model, channels, [(side, side)]) and side < max(map(max, TRIAL_SIZES)):
        side *= 2
    return side


def _on_meta(model_name: str, kwargs: Kwargs) -> TimmModel:
    check_name(model_name)
    try:
        with torch.device("meta"):
            return timm.create_model(model_name, pretrained=False, **dict(kwargs)).eval()
    except OSError as error:  # hf-hub: and local-dir: names are looked up here
        raise ConfigError(f"model_name={model_name!r} cannot be read: {error}") from None


def _rounded(size: Size, multiple: int) -> Size:
    return round_up(size[0], multiple), round_up(size[1], multiple)
