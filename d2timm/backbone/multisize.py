"""Run a model at a size for which it was not made, with the weights that it has.

Some timm models take images of one size only, which ``img_size`` sets when they are made. Where timm can
bring the weights of one size to another (``checkpoint_filter_fn``), the model needs no other size than
that of the image: for each size a twin is made on ``meta``, which has the structure and no weights, and is
run with those of the model. They keep the shapes of the native size and get their gradients.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ..utils.sizes import Size
from .meta import TimmModel, create_on_meta
from .spec import BackboneSpec, extract

__all__ = ["MultiSizeModel", "adapt", "create_twin", "why_not"]

#: Twins that are kept; each holds tables of relative positions, which grow with the image.
MOST_TWINS = 8


def adapt(weights: Mapping[str, Tensor], model: TimmModel) -> dict[str, Tensor]:
    """Bring weights to the names and sizes of a model, as the model's module in timm does.

    Position embeddings and tables of relative positions are interpolated, differentiably.
    """
    convention = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    adapted: dict[str, Tensor] = convention(dict(weights), model) if convention else dict(weights)
    return adapted


def create_twin(
    model_name: str, kwargs: Mapping[str, Any], shape: Literal["image", "square"], size: Size
) -> TimmModel:
    """Make a model on ``meta`` for images of a size, or for the square that holds them."""
    canvas = size if shape == "image" else (max(size),) * 2
    return create_on_meta(model_name, **kwargs, img_size=canvas)


def why_not(model: TimmModel, twin: TimmModel) -> str | None:
    """Why the weights of a model do not serve a twin of another size; None if they do."""
    adapted = adapt(model.state_dict(), twin)
    for name, x in twin.state_dict().items():
        if name not in adapted or adapted[name].shape != x.shape:
            return f"{name} is of that size only"
    for path, module in twin.named_modules():
        if module._non_persistent_buffers_set and not hasattr(module, "init_non_persistent_buffers"):
            return f"tables of {path} cannot be made again"
    return None


class MultiSizeModel:
    """The twins of one model.

    Args:
        spec: the model.
        finish: gives a twin the structure of the model: prunes it, and the like.
    """

    def __init__(self, spec: BackboneSpec, finish: Callable[[TimmModel], TimmModel]) -> None:
        self.spec = spec
        self.finish = finish
        self._twins: OrderedDict[tuple[Size, torch.device, torch.dtype], _Twin] = OrderedDict()

    def __deepcopy__(self, memo: dict[int, Any]) -> MultiSizeModel:
        return MultiSizeModel(self.spec, self.finish)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_twins": OrderedDict()}

    def extract(self, model: TimmModel, images: Tensor, indices: Sequence[int]) -> dict[int, Tensor]:
        """As ``features.extract``, for images of any size that the canvas takes."""
        return extract(self.model_for(model, images), images, indices)

    def model_for(self, model: TimmModel, images: Tensor) -> TimmModel:
        """The model itself where it takes the images, or else its twin for them, which has its weights."""
        size = (images.shape[-2], images.shape[-1])
        if size == self.spec.native_size:
            return model
        twin = self._twin(model, size, images.device)
        for original, module in zip(model.modules(), twin.model.modules(), strict=True):
            module.training = original.training
        weights = model.state_dict(keep_vars=True)
        state = None
        if not any(x.is_inference() for x in weights.values()):  # which have no versions
            state = [(id(x), x._version) for x in weights.values()]
        if torch.is_grad_enabled() or state is None or twin.state != state:
            twin.give(adapt(weights, twin.model))
            twin.state = state
        return twin.model

    def _twin(self, model: TimmModel, size: Size, device: torch.device) -> _Twin:
        key = (size, device, next(model.parameters()).dtype)
        if key not in self._twins:
            while len(self._twins) >= MOST_TWINS:
                self._twins.popitem(last=False)
            spec = self.spec
            twin = create_twin(spec.model_name, dict(spec.kwargs), spec.input_spec.multisize or "image", size)
            twin = self.finish(twin)
            with torch.inference_mode(False), torch.no_grad():
                _make_tables(twin, model, device)
            self._twins[key] = _Twin(twin)
        self._twins.move_to_end(key)
        return self._twins[key]


class _Twin:
    """The structure of a model for one size.

    It keeps the weights that it was given, unlike a module in ``torch.func.functional_call``: activations
    that are computed again in the backward pass need them there.
    """

    def __init__(self, model: TimmModel) -> None:
        self.model = model
        self.state: list[tuple[int, int]] | None = None  # of the weights that it has
        self._slots = {
            f"{path}.{name}" if path else name: (slots, name)
            for path, module in model.named_modules(remove_duplicate=False)
            for slots in (module._parameters, module._buffers)
            for name in slots
        }

    def give(self, weights: Mapping[str, Tensor]) -> None:
        """Let the model compute with some tensors, which need not be leaves of the autograd graph."""
        for path, x in weights.items():
            slots, name = self._slots[path]
            slots[name] = x


def _make_tables(twin: TimmModel, model: TimmModel, device: torch.device) -> None:
    """Give a twin the buffers that follow from its size alone; equal ones of several blocks are one."""
    known: list[Tensor] = []
    for path, module in twin.named_modules():
        names = sorted(module._non_persistent_buffers_set)
        for name in names:
            dtype = model.get_submodule(path).get_buffer(name).dtype
            setattr(module, name, torch.empty_like(getattr(module, name), dtype=dtype, device=device))
        if names:
            module.init_non_persistent_buffers()
        for name in names if device.type != "meta" else ():
            table = getattr(module, name)
            same = next((x for x in known if x.shape == table.shape and torch.equal(x, table)), table)
            setattr(module, name, same)
            if same is table:
                known.append(table)
