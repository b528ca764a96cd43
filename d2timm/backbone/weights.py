"""Load weights into timm models: timm's pretrained weights, or a file."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

import timm
from timm.models import adapt_input_conv, load_state_dict
from torch import Tensor

from ..errors import ConfigError
from ..utils.text import first_line, one_line, unreadable
from ..utils.torch_file import verify
from .meta import TimmModel
from .multisize import adapt
from .spec import BackboneSpec

__all__ = ["classifiers", "first_convolutions", "load_checkpoint", "load_pretrained", "log_loaded"]

logger = logging.getLogger(__name__)

ALTERNATIVES = "use checkpoint_path=FILE, or train from scratch with pretrained=False"

#: Number of unused tensors that the log names
MAX_NAMES = 12


def load_pretrained(spec: BackboneSpec) -> TimmModel:
    """Create a model with timm's pretrained weights.

    Args:
        spec: the specification of the model.

    Raises:
        ConfigError: timm has no weights for the model, or the hub cannot be reached.
    """
    if ":" not in spec.model_name and not timm.is_model_pretrained(spec.model_name):
        raise ConfigError(f"timm has no weights for {spec.model_name}: {ALTERNATIVES}")
    try:
        return spec.create(pretrained=True)
    except Exception as error:  # the client of the hub, the network and the file system raise various types
        raise ConfigError(
            f"the weights of {spec.model_name} could not be loaded ({first_line(error)}): {ALTERNATIVES}"
        ) from error


def load_checkpoint(model: TimmModel, spec: BackboneSpec, path: str) -> set[str]:
    """Load a file of weights into a complete timm model.

    The file may lack the classifier or have one of another size, and may contain tensors that the model does
    not have. It must contain all weights on which the features may depend.

    Args:
        model: a model that ``spec.create()`` created, not pruned.
        spec: the specification of the model.
        path: a .pth, .pt, .bin or .safetensors file with timm's parameter names.

    Returns:
        Names of the tensors in the file, as adapted to the model.

    Raises:
        ConfigError: the file does not exist, does not contain weights, or belongs to another model.
    """
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"checkpoint_path={path}: no such file")
    verify(file)
    try:
        state = load_state_dict(str(file))
    except Exception as error:  # torch and safetensors raise various types for other files
        raise ConfigError(f"checkpoint_path={path}: not a file of weights ({unreadable(error)})") from error
    head = tuple(f"{name}." for name in classifiers(model))
    try:
        state = _adapt_channels(model, spec, adapt(state, model))
        needed = {name: value for name, value in state.items() if not name.startswith(head)}
        missing = model.load_state_dict(needed, strict=False).missing_keys
    except (RuntimeError, LookupError, ValueError, AttributeError, NotImplementedError) as error:
        raise ConfigError(f"checkpoint_path={path} holds another model: {one_line(error)}") from error
    missing = [name for name in missing if not name.startswith(head)]
    if missing:
        raise ConfigError(
            f"checkpoint_path={path} holds another model: it lacks {len(missing)} weights of "
            f"{spec.model_name}, such as {missing[0]}"
        )
    return set(state)


def log_loaded(path: str, names: Collection[str], used: Collection[str]) -> None:
    """Log how many tensors of the backbone a file contains, and which tensors of the file are not used.

    Args:
        path: path of the file.
        names: names of the tensors in the file.
        used: names of the tensors in the backbone.
    """
    unused = sorted(set(names) - set(used))
    more = f" and {len(unused) - MAX_NAMES} more" if len(unused) > MAX_NAMES else ""
    suffix = f"; not needed: {', '.join(unused[:MAX_NAMES])}{more}" if unused else ""
    logger.info("%s: loaded %d of %d tensors%s", path, len(set(used) & set(names)), len(used), suffix)


def _adapt_channels(model: TimmModel, spec: BackboneSpec, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Adapt the weights of the first layer to another number of image channels, as timm does for its own."""
    trained = model.pretrained_cfg.get("input_size", (3,))[0]
    for name in first_convolutions(model):
        key = f"{name}.weight"
        if key in state and state[key].shape[1:2] != model.get_parameter(key).shape[1:2]:
            state[key] = adapt_input_conv(spec.channels, state[key], base_chans=trained)
    return state


def classifiers(model: TimmModel) -> tuple[str, ...]:
    """Return the paths of the layers that only classification needs."""
    return _layers(model, "classifier")


def first_convolutions(model: TimmModel) -> tuple[str, ...]:
    """Return the paths of the layers that take the image as input."""
    return _layers(model, "first_conv")


def _layers(model: TimmModel, key: str) -> tuple[str, ...]:
    names = model.pretrained_cfg.get(key) or ()
    return (names,) if isinstance(names, str) else tuple(names)
