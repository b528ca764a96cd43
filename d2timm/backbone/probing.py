"""Find out what a timm model gives and input_spec.

Everything is found from timm's own information and from runs on the ``meta`` device, which compute shapes
and no numbers: the feature maps, their channels and strides, and the image sizes that the model takes.
There is no list of model names.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from ..errors import ConfigError
from ..utils.sizes import Size, round_up, round_up_size
from .meta import MetaRun, TimmModel, create_on_meta
from .multisize import create_twin, why_not
from .names import check_name
from .spec import SMALLEST_SIDE, BackboneSpec, Feature, InputSpec, Kwargs, extract

__all__ = ["pretrained_cfg", "probe"]

logger = logging.getLogger(__name__)

#: Image sizes (height, width) at which a model is tried: odd and even, with different remainders for every
#: stride up to 64. They are rounded up to the multiple under test.
TRIAL_SIZES: tuple[Size, ...] = ((97, 131), (333, 500))
#: What timm's models raise for a keyword that they do not have or a value that they cannot use
REFUSALS = (TypeError, ValueError, LookupError, AttributeError, AssertionError, RuntimeError)
#: More cells than this are not lost to unpadded convolutions: such a grid has its own size.
MOST_LOST = 4

Shapes = tuple[tuple[int, ...], ...]


class RefusalError(Exception):
    """A model does not take a size; the text says how it told."""


class FixedGridError(RefusalError):
    """A model resizes every image inside, to the size for which it was made."""


@functools.lru_cache(maxsize=64)
def probe(
    model_name: str, fixed_input_size: bool | Size | None = None, timm_kwargs: Kwargs = ()
) -> BackboneSpec:
    """Find out what a timm model gives and input_spec, without making its weights.

    Args:
        model_name: any name that ``timm.create_model`` takes.
        fixed_input_size: None: the model sees images at their own size wherever it can; True: at its
            native size; (height, width): at that size.
        timm_kwargs: further keywords of ``timm.create_model``.

    Raises:
        ConfigError: the name is unknown, or the model refuses a keyword or the fixed size.
    """
    check_name(model_name)
    search = _Search(model_name, timm_kwargs)
    size = search.native if fixed_input_size is True else fixed_input_size
    return search.one_size(size) if size else search.any_size()


@functools.lru_cache(maxsize=64)
def pretrained_cfg(model_name: str) -> dict[str, Any]:
    """What timm says of the weights of a model: ``mean``, ``std``, ``input_size``, ``classifier``, ...."""
    check_name(model_name)
    return dict(_create(model_name, ()).pretrained_cfg)


@dataclass(frozen=True)
class _Strategy:
    """One way of giving a model images of any size."""

    route: str
    kwargs: Kwargs
    multiple: int = 1
    multisize: Literal["image", "square"] | None = None
    exact: bool = True  # grids must follow the image


class _Search:
    """Tries the ways in the order in which they are preferred, on one model."""

    def __init__(self, model_name: str, kwargs: Kwargs) -> None:
        self.model_name = model_name
        self.kwargs = kwargs
        plain = _plain(model_name, kwargs)
        self.models: dict[Kwargs, TimmModel] = {kwargs: plain}
        dynamic = (*kwargs, ("dynamic_img_size", True))
        try:
            self.models[dynamic] = _create(model_name, dynamic)
        except REFUSALS:
            logger.debug("%s has no dynamic_img_size", model_name)
        given = dict(kwargs)
        channels, *native = plain.pretrained_cfg.get("input_size", (3, 224, 224))
        size = given.get("img_size", tuple(native))
        self.channels: int = given.get("in_chans", channels)
        self.native: Size = (size, size) if isinstance(size, int) else tuple(size)
        self.info = plain.feature_info
        self.run = functools.lru_cache(maxsize=None)(self._run)

    def any_size(self) -> BackboneSpec:
        """The least that lets the model take images of any size, or else resizing to the native one."""
        refused: dict[str, str] = {}
        resizes_inside = False
        for way in self._ways():
            if resizes_inside and not way.multisize:
                continue
            try:
                features = self._measure(way, [self.native, *TRIAL_SIZES])
            except RefusalError as refusal:
                refused.setdefault(way.route, str(refusal))
                resizes_inside |= isinstance(refusal, FixedGridError)
                continue
            input_spec = InputSpec(way.route, way.multiple, self._smallest(way), multisize=way.multisize)
            return self._source(way, input_spec, features, refused)
        return replace(self.one_size(self.native), refused=tuple(refused.items()))

    def one_size(self, size: Size) -> BackboneSpec:
        """The model for images that are all resized to one size."""
        ways = [_Strategy("resizing", kwargs) for kwargs in self.models]
        if "img_size" not in dict(self.kwargs):
            ways += [_Strategy("resizing", self.kwargs, multisize="image")]
            ways += [_Strategy("resizing", (*self.kwargs, ("img_size", size)))]
        reason = ""
        for way in ways:
            try:
                features = self._measure(replace(way, exact=False), [size])
            except RefusalError as refusal:
                reason = str(refusal)
                continue
            input_spec = InputSpec(
                way.route, size=size, multisize=way.multisize if size != self.native else None
            )
            return self._source(way, input_spec, features, {})
        if size == self.native:
            raise ConfigError(f"{self.model_name} does not run at its native size: {reason}")
        raise ConfigError(
            f"fixed_input_size={size}: {self.model_name} does not run at that size; "
            f"its native size is {self.native} (fixed_input_size=True)"
        )

    def _ways(self) -> Iterator[_Strategy]:
        """Nothing, the model's own dynamic size, padding, and a canvas.

        Within each, grids that follow the image exactly come first, then what costs the image least.
        """
        names = dict(zip(self.models, ("any size", "dynamic size"), strict=False))
        step = math.ceil(max(info["reduction"] for info in self.info))
        # what the native size is not a multiple of is not needed
        more = [k for k in range(2 * step, max(self.native) + 1, step) if not any(x % k for x in self.native)]
        for kwargs, route in names.items():
            yield _Strategy(route, kwargs)
        for multiples, exact in (([step], True), ([step], False), (more, True)):
            for multiple in multiples:
                for kwargs, route in names.items():
                    padding = "padding" if kwargs == self.kwargs else f"{route} and padding"
                    yield _Strategy(padding, kwargs, multiple, exact=exact)
        if "img_size" not in dict(self.kwargs):
            for canvas in ("image", "square"):
                for multiple in (1, step):
                    yield _Strategy("multi-size", self.kwargs, multiple, canvas)

    def _measure(self, way: _Strategy, sizes: Sequence[Size]) -> tuple[Feature, ...]:
        """Describe the features from runs at some sizes, the first of them the native one."""
        sizes = [round_up_size(size, way.multiple) for size in sizes]
        if sizes.count(sizes[0]) == len(sizes) > 1:
            sizes.append((way.multiple, 2 * way.multiple))  # so large a multiple made them one
        runs = [self.run(way.kwargs, way.multisize, size) for size in reversed(sizes)][::-1]
        features = []
        for i, info in enumerate(self.info):
            grids = [run[i][1:] for run in runs]
            if len(sizes) > 1 and len({*grids}) == 1:
                raise FixedGridError("it resizes every image to a size of its own")
            features.append(_describe(i, info, runs[0][i][0], sizes, grids))
        unpadded = way.multiple == 1 and any(feature.lost for feature in features)
        if way.exact and (unpadded or not all(feature.exact for feature in features)):
            raise RefusalError("its grids do not follow the image")
        return tuple(features)

    def _smallest(self, way: _Strategy) -> int:
        """The smallest square image that the model takes, found by doubling."""
        side = round_up(SMALLEST_SIDE, way.multiple)
        while side < max(map(max, TRIAL_SIZES)):
            try:
                self.run(way.kwargs, way.multisize, (side, side))
                break
            except RefusalError:
                side *= 2
        return side

    def _run(self, kwargs: Kwargs, multisize: Literal["image", "square"] | None, size: Size) -> Shapes:
        """(channels, rows, columns) of each feature."""
        try:
            model = self._model(kwargs)
            if multisize and size != self.native:
                twin = create_twin(self.model_name, dict(kwargs), multisize, size)
                if reason := why_not(model, twin):
                    raise RefusalError(reason)
                model = twin
            images = torch.empty(1, self.channels, *size, device="meta")
            with torch.no_grad(), MetaRun():
                maps = extract(model, images, range(len(self.info)))
        except RefusalError:
            raise
        except Exception as refusal:
            # timm's models refuse a size in whatever way the first mismatch inside raises
            reason = " ".join(f"{type(refusal).__name__} {refusal}".split())
            raise RefusalError(f"at {size[0]}x{size[1]}: {reason[:200]}") from refusal
        shapes = tuple(tuple(x.shape[1:]) for x in maps.values())
        if any(0 in shape for shape in shapes):
            raise RefusalError(f"at {size[0]}x{size[1]}: a feature map is empty")
        return shapes

    def _model(self, kwargs: Kwargs) -> TimmModel:
        if kwargs not in self.models:
            self.models[kwargs] = _create(self.model_name, kwargs)
        return self.models[kwargs]

    def _source(
        self, way: _Strategy, input_spec: InputSpec, features: tuple[Feature, ...], refused: dict[str, str]
    ) -> BackboneSpec:
        others = tuple(item for item in refused.items() if item[0] != way.route)
        return BackboneSpec(
            self.model_name, way.kwargs, self.channels, self.native, input_spec, features, others
        )


def _describe(index: int, info: Any, channels: int, sizes: Sequence[Size], grids: Sequence[Any]) -> Feature:
    """Tell a grid of a fixed stride, at most short of some cells, from one with a size of its own."""
    measured = max(sizes[0]) / max(grids[0])
    for stride in (info["reduction"], round(measured)):
        missing = {
            math.ceil(side / stride) - cells
            for size, grid in zip(sizes, grids, strict=True)
            for side, cells in zip(size, grid, strict=True)
        }
        # at a single size a lost cell looks the same as a grid of another stride
        if missing == {0} or (len(missing) == 1 < len(sizes) and 0 < min(missing) <= MOST_LOST):
            return Feature(index, info["module"], channels, stride, True, min(missing))
    return Feature(index, info["module"], channels, measured, False, 0)


def _plain(model_name: str, kwargs: Kwargs) -> TimmModel:
    """The model as the user asks for it."""
    told = ", ".join(f"{key}={value!r}" for key, value in kwargs)
    try:
        model = _create(model_name, kwargs)
    except REFUSALS as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())
        raise ConfigError(f"{model_name} does not take {told}: {reason}") from error
    if not hasattr(model, "forward_intermediates"):
        raise ConfigError(f"{model_name} gives no features with {told}; leave that out")
    return model


def _create(model_name: str, kwargs: Kwargs) -> TimmModel:
    try:
        return create_on_meta(model_name, **dict(kwargs))
    except OSError as error:  # hf-hub: and local-dir: names are looked up here
        raise ConfigError(f"model_name={model_name!r} cannot be read: {error}") from None
