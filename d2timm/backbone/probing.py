"""Determine how a timm model works as a backbone, without creating its weights.

timm's own information and runs on the ``meta`` device, which compute shapes only, yield the feature maps,
their channels and strides, and the image sizes that the model accepts. There is no list of model names.
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
from ..utils.text import one_line
from .meta import MetaRun, TimmModel, create_on_meta
from .multisize import create_twin, find_mismatch
from .names import check_name
from .spec import SMALLEST_SIDE, BackboneSpec, Feature, InputSpec, Kwargs, extract

__all__ = ["pretrained_cfg", "probe"]

logger = logging.getLogger(__name__)

#: Image sizes (height, width) in pixels at which a model is tried: odd and even, with different remainders
#: for every stride up to 64. They are rounded up to the multiple under test.
TRIAL_SIZES: tuple[Size, ...] = ((97, 131), (333, 500))
#: What timm's models raise for a keyword argument that they do not have or a value that they do not support
CREATION_ERRORS = (TypeError, ValueError, LookupError, AttributeError, AssertionError, RuntimeError)
#: Unpadded convolutions remove at most this many cells per side; a grid that lacks more has its own size.
MAX_LOST = 4

#: (channels, rows, columns) of each feature
Shapes = tuple[tuple[int, ...], ...]


class RefusalError(Exception):
    """A model does not accept an image size; the message gives the reason."""


class FixedGridError(RefusalError):
    """A model resizes every image internally to the size for which it was created."""


@functools.lru_cache(maxsize=64)
def probe(
    model_name: str, fixed_input_size: bool | Size | None = None, timm_kwargs: Kwargs = ()
) -> BackboneSpec:
    """Determine the features of a timm model and how images of any size are adapted to it.

    Args:
        model_name: any name that ``timm.create_model`` accepts.
        fixed_input_size: None: the model sees images at their own size wherever possible; True: resized to
            its native size; (height, width): resized to this size in pixels.
        timm_kwargs: further keyword arguments of ``timm.create_model``.

    Raises:
        ConfigError: the name is unknown, or the model does not accept a keyword argument or the fixed size.
    """
    check_name(model_name)
    search = _Search(model_name, timm_kwargs)
    size = search.native if fixed_input_size is True else fixed_input_size
    return search.one_size(size) if size else search.any_size()


@functools.lru_cache(maxsize=64)
def pretrained_cfg(model_name: str) -> dict[str, Any]:
    """Return timm's configuration of the weights of a model: ``mean``, ``std``, ``input_size``, ...

    Args:
        model_name: any name that ``timm.create_model`` accepts.

    Raises:
        ConfigError: the name is unknown.
    """
    check_name(model_name)
    return dict(_create(model_name, ()).pretrained_cfg)


@dataclass(frozen=True)
class _Strategy:
    """One way of running a model on images of any size.

    Attributes:
        route, multiple, multisize: see ``InputSpec``.
        kwargs: keyword arguments of ``timm.create_model``.
        exact: accept only grids that follow the image, see ``Feature.exact``.
    """

    route: str
    kwargs: Kwargs
    multiple: int = 1
    multisize: Literal["image", "square"] | None = None
    exact: bool = True


class _Search:
    """The search for the first strategy that works for a model, in order of preference."""

    def __init__(self, model_name: str, kwargs: Kwargs) -> None:
        self.model_name = model_name
        self.kwargs = kwargs
        plain = _create_or_explain(model_name, kwargs)
        self.models: dict[Kwargs, TimmModel] = {kwargs: plain}
        dynamic = (*kwargs, ("dynamic_img_size", True))
        try:
            self.models[dynamic] = _create(model_name, dynamic)
        except CREATION_ERRORS:
            logger.debug("%s has no dynamic_img_size", model_name)
        given = dict(kwargs)
        channels, *native = plain.pretrained_cfg.get("input_size", (3, 224, 224))
        size = given.get("img_size", tuple(native))
        self.channels: int = given.get("in_chans", channels)
        self.native: Size = (size, size) if isinstance(size, int) else tuple(size)
        self.info = plain.feature_info
        self.run = functools.lru_cache(maxsize=None)(self._run)

    def any_size(self) -> BackboneSpec:
        """Return the spec with the first strategy that accepts images of any size, or else with resizing."""
        refused: dict[str, str] = {}
        resizes_internally = False
        for strategy in self._strategies():
            if resizes_internally and not strategy.multisize:
                continue
            try:
                features = self._measure(strategy, [self.native, *TRIAL_SIZES])
            except RefusalError as refusal:
                refused.setdefault(strategy.route, str(refusal))
                resizes_internally |= isinstance(refusal, FixedGridError)
                continue
            input_spec = InputSpec(
                strategy.route, strategy.multiple, self._smallest(strategy), multisize=strategy.multisize
            )
            return self._spec(strategy, input_spec, features, refused)
        return replace(self.one_size(self.native), refused=tuple(refused.items()))

    def one_size(self, size: Size) -> BackboneSpec:
        """Return the spec with all images resized to one size, (height, width) in pixels."""
        strategies = [_Strategy("resizing", kwargs) for kwargs in self.models]
        if "img_size" not in dict(self.kwargs):
            strategies += [_Strategy("resizing", self.kwargs, multisize="image")]
            strategies += [_Strategy("resizing", (*self.kwargs, ("img_size", size)))]
        reason = ""
        for strategy in strategies:
            try:
                features = self._measure(replace(strategy, exact=False), [size])
            except RefusalError as refusal:
                reason = str(refusal)
                continue
            multisize = strategy.multisize if size != self.native else None
            input_spec = InputSpec(strategy.route, size=size, multisize=multisize)
            return self._spec(strategy, input_spec, features, {})
        if size == self.native:
            raise ConfigError(f"{self.model_name} does not run at its native size: {reason}")
        raise ConfigError(
            f"fixed_input_size={size}: {self.model_name} does not run at that size; "
            f"its native size is {self.native} (fixed_input_size=True)"
        )

    def _strategies(self) -> Iterator[_Strategy]:
        """Iterate over strategies for any size: none, timm's dynamic size, padding, multi-size.

        Strategies whose grids follow the image exactly precede the others, and smaller multiples of padding
        precede larger ones.
        """
        routes = dict(zip(self.models, ("any size", "dynamic size"), strict=False))
        step = math.ceil(max(info["reduction"] for info in self.info))
        # a multiple that does not divide the native size cannot be required
        more = [k for k in range(2 * step, max(self.native) + 1, step) if not any(x % k for x in self.native)]
        for kwargs, route in routes.items():
            yield _Strategy(route, kwargs)
        for multiples, exact in (([step], True), ([step], False), (more, True)):
            for multiple in multiples:
                for kwargs, route in routes.items():
                    padding = "padding" if kwargs == self.kwargs else f"{route} and padding"
                    yield _Strategy(padding, kwargs, multiple, exact=exact)
        if "img_size" not in dict(self.kwargs):
            for shape in ("image", "square"):
                for multiple in (1, step):
                    yield _Strategy("multi-size", self.kwargs, multiple, shape)

    def _measure(self, strategy: _Strategy, sizes: Sequence[Size]) -> tuple[Feature, ...]:
        """Describe the features from runs at several sizes, of which the first is the native one.

        Raises:
            RefusalError: the strategy does not work.
        """
        sizes = [round_up_size(size, strategy.multiple) for size in sizes]
        if sizes.count(sizes[0]) == len(sizes) > 1:  # the multiple is so large that all sizes became equal
            sizes.append((strategy.multiple, 2 * strategy.multiple))
        runs = [self.run(strategy.kwargs, strategy.multisize, size) for size in reversed(sizes)][::-1]
        features = []
        for i, info in enumerate(self.info):
            grids = [run[i][1:] for run in runs]
            if len(sizes) > 1 and len({*grids}) == 1:
                raise FixedGridError("it resizes every image to a size of its own")
            features.append(_describe(i, info, runs[0][i][0], sizes, grids))
        unpadded = strategy.multiple == 1 and any(feature.lost for feature in features)
        if strategy.exact and (unpadded or not all(feature.exact for feature in features)):
            raise RefusalError("its grids do not follow the image")
        return tuple(features)

    def _smallest(self, strategy: _Strategy) -> int:
        """Find, by doubling, the side in pixels of the smallest square image that the model accepts."""
        side = round_up(SMALLEST_SIDE, strategy.multiple)
        while side < max(map(max, TRIAL_SIZES)):
            try:
                self.run(strategy.kwargs, strategy.multisize, (side, side))
                break
            except RefusalError:
                side *= 2
        return side

    def _run(self, kwargs: Kwargs, multisize: Literal["image", "square"] | None, size: Size) -> Shapes:
        try:
            model = self._model(kwargs)
            if multisize and size != self.native:
                twin = create_twin(self.model_name, dict(kwargs), multisize, size)
                if reason := find_mismatch(model, twin):
                    raise RefusalError(reason)
                model = twin
            images = torch.empty(1, self.channels, *size, device="meta")
            with torch.no_grad(), MetaRun():
                maps = extract(model, images, range(len(self.info)))
        except RefusalError:
            raise
        except Exception as error:
            # timm's models do not declare which sizes they accept: some operator fails, with any exception
            raise RefusalError(f"at {size[0]}x{size[1]}: {one_line(error, with_type=True)}") from error
        shapes = tuple(tuple(x.shape[1:]) for x in maps.values())
        if any(0 in shape for shape in shapes):
            raise RefusalError(f"at {size[0]}x{size[1]}: a feature map is empty")
        return shapes

    def _model(self, kwargs: Kwargs) -> TimmModel:
        if kwargs not in self.models:
            self.models[kwargs] = _create(self.model_name, kwargs)
        return self.models[kwargs]

    def _spec(
        self,
        strategy: _Strategy,
        input_spec: InputSpec,
        features: tuple[Feature, ...],
        refused: dict[str, str],
    ) -> BackboneSpec:
        others = tuple(item for item in refused.items() if item[0] != strategy.route)
        return BackboneSpec(
            self.model_name, strategy.kwargs, self.channels, self.native, input_spec, features, others
        )


def _describe(index: int, info: Any, channels: int, sizes: Sequence[Size], grids: Sequence[Any]) -> Feature:
    """Describe a feature: its grid has a fixed stride and at most a few lost cells, or a size of its own."""
    measured = max(sizes[0]) / max(grids[0])
    for stride in (info["reduction"], round(measured)):
        missing = {
            math.ceil(side / stride) - cells
            for size, grid in zip(sizes, grids, strict=True)
            for side, cells in zip(size, grid, strict=True)
        }
        # at a single size, a lost cell cannot be distinguished from another stride
        if missing == {0} or (len(missing) == 1 < len(sizes) and 0 < min(missing) <= MAX_LOST):
            return Feature(index, info["module"], channels, stride, True, min(missing))
    return Feature(index, info["module"], channels, measured, False, 0)


def _create_or_explain(model_name: str, kwargs: Kwargs) -> TimmModel:
    """Create the model with the user's keyword arguments.

    Raises:
        ConfigError: the model does not accept them, or has no features with them.
    """
    arguments = ", ".join(f"{key}={value!r}" for key, value in kwargs)
    try:
        model = _create(model_name, kwargs)
    except ConfigError:
        raise
    except CREATION_ERRORS as error:
        reason = one_line(error, with_type=True)
        raise ConfigError(f"{model_name} does not accept {arguments}: {reason}") from error
    if not hasattr(model, "forward_intermediates"):
        raise ConfigError(f"{model_name} has no features with {arguments}; remove this argument")
    return model


def _create(model_name: str, kwargs: Kwargs) -> TimmModel:
    try:
        return create_on_meta(model_name, **dict(kwargs))
    except OSError as error:  # timm reads hf-hub: and local-dir: names when it creates the model
        raise ConfigError(f"model_name={model_name!r} cannot be read: {one_line(error)}") from None
