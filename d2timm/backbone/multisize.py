"""Run a model at sizes for which it was not created, with the weights that it has.

Some timm models accept images of one size only, which ``img_size`` sets when they are created. If timm can
adapt the weights of one size to another (``checkpoint_filter_fn``), the model can follow the image: for each
size a twin is created on ``meta``. It has the structure of the model but no weights of its own, and runs with
adapted weights of the model, which keep their native shapes and receive the gradients.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from ..utils.sizes import Size
from .meta import TimmModel, create_on_meta
from .spec import BackboneSpec

__all__ = ["MultiSizeModel", "adapt", "create_twin", "find_mismatch"]

#: Maximum number of twins; each one holds tables of relative positions, which grow with the image.
MAX_TWINS = 8


def adapt(weights: Mapping[str, Tensor], model: TimmModel) -> dict[str, Tensor]:
    """Adapt weights to the names and shapes of a model, by the function of the model's module in timm.

    Position embeddings and tables of relative positions are interpolated, differentiably.

    Args:
        weights: name -> tensor, of the same architecture.
        model: a timm model on any device; it is not changed.
    """
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    adapted: dict[str, Tensor] = convert(dict(weights), model) if convert else dict(weights)
    return adapted


def create_twin(
    model_name: str, kwargs: Mapping[str, Any], shape: Literal["image", "square"], size: Size
) -> TimmModel:
    """Create a model on ``meta`` for images of one size.

    Args:
        model_name: any name that ``timm.create_model`` accepts.
        kwargs: keyword arguments of ``timm.create_model``, without ``img_size``.
        shape: create the model for the size of the ``image``, or for a ``square`` that contains it.
        size: (height, width) of the images in pixels.
    """
    img_size = size if shape == "image" else (max(size),) * 2
    return create_on_meta(model_name, **kwargs, img_size=img_size)


def find_mismatch(model: TimmModel, twin: TimmModel) -> str | None:
    """Return why the weights of a model cannot be adapted to a twin of another size, or None if they can."""
    adapted = adapt(model.state_dict(), twin)
    for name, x in twin.state_dict().items():
        if name not in adapted or adapted[name].shape != x.shape:
            return f"{name} fits one image size only"
    for path, module in twin.named_modules():
        if module._non_persistent_buffers_set and not hasattr(module, "init_non_persistent_buffers"):
            return f"the buffers of {path} cannot be recomputed"
    return None


class MultiSizeModel:
    """The twins of one model.

    Args:
        spec: the specification of the model.
        finish: gives a new twin the structure of the model, which may be pruned, for example.
    """

    def __init__(self, spec: BackboneSpec, finish: Callable[[TimmModel], TimmModel]) -> None:
        self.spec = spec
        self.finish = finish
        self._twins: OrderedDict[tuple[Size, torch.device, torch.dtype], _Twin] = OrderedDict()

    def __deepcopy__(self, memo: dict[int, Any]) -> MultiSizeModel:
        return MultiSizeModel(self.spec, self.finish)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_twins": OrderedDict()}

    def model_for(self, model: TimmModel, images: Tensor) -> TimmModel:
        """Return the model itself if the images have its native size, otherwise its twin for their size.

        Args:
            model: the model whose weights the twin uses.
            images: (N, C, H, W); any H and W that the spec permits.
        """
        size = (images.shape[-2], images.shape[-1])
        if size == self.spec.native_size:
            return model
        twin = self._twin(model, size, images.device)
        for original, module in zip(model.modules(), twin.model.modules(), strict=True):
            module.training = original.training
        weights = model.state_dict(keep_vars=True)
        versions = None
        if not any(x.is_inference() for x in weights.values()):  # inference tensors have no version
            versions = [(id(x), x._version) for x in weights.values()]
        if torch.is_grad_enabled() or versions is None or twin.versions != versions:
            twin.set_weights(adapt(weights, twin.model))
            twin.versions = versions
        return twin.model

    def _twin(self, model: TimmModel, size: Size, device: torch.device) -> _Twin:
        key = (size, device, next(model.parameters()).dtype)
        if key not in self._twins:
            while len(self._twins) >= MAX_TWINS:
                self._twins.popitem(last=False)
            spec = self.spec
            twin = create_twin(spec.model_name, dict(spec.kwargs), spec.input_spec.multisize or "image", size)
            twin = self.finish(twin)
            with torch.inference_mode(False), torch.no_grad():
                _compute_buffers(twin, model, device)
            self._twins[key] = _Twin(twin)
        self._twins.move_to_end(key)
        return self._twins[key]


class _Twin:
    """The structure of a model for one size.

    It keeps the weights that it is given, unlike a module in ``torch.func.functional_call``: checkpointed
    activations, which the backward pass computes again, need them there.

    Attributes:
        versions: (id, version) of the original weights from which the current ones were adapted; None:
            unknown.
    """

    def __init__(self, model: TimmModel) -> None:
        self.model = model
        self.versions: list[tuple[int, int]] | None = None
        self._slots = {
            f"{path}.{name}" if path else name: (slots, name)
            for path, module in model.named_modules(remove_duplicate=False)
            for slots in (module._parameters, module._buffers)
            for name in slots
        }

    def set_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Let the model compute with these tensors, which need not be leaves of the autograd graph."""
        for path, x in weights.items():
            slots, name = self._slots[path]
            slots[name] = x


def _compute_buffers(twin: TimmModel, model: TimmModel, device: torch.device) -> None:
    """Compute the buffers of a twin that depend on its size only; equal ones share memory."""
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
