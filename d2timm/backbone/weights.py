"""Weights for timm models: timm's own, and files."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

import timm
from timm.models import adapt_input_conv, load_state_dict
from torch import Tensor

from ..errors import ConfigError
from .meta import TimmModel
from .multisize import adapt
from .spec import BackboneSpec

__all__ = ["classifiers", "first_convolutions", "load_checkpoint", "load_pretrained", "tell"]

logger = logging.getLogger(__name__)

HOW_TO_DO_WITHOUT = "give checkpoint_path=FILE, or start from scratch with pretrained=False"


def load_pretrained(spec: BackboneSpec) -> TimmModel:
    """Make a model with timm's weights for its name.

    Raises:
        ConfigError: timm has none, or the hub cannot be reached.
    """
    if ":" not in spec.model_name and not timm.is_model_pretrained(spec.model_name):
        raise ConfigError(f"timm has no weights for {spec.model_name}: {HOW_TO_DO_WITHOUT}")
    try:
        return spec.create(pretrained=True)
    except Exception as error:  # whatever the hub's client, the network or the file system raises
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"the weights of {spec.model_name} could not be had ({reason}): {HOW_TO_DO_WITHOUT}"
        ) from error


def load_checkpoint(model: TimmModel, spec: BackboneSpec, path: str) -> set[str]:
    """Load a file of weights into a whole timm model.

    A classifier of another size and what only other tasks need are passed over; weights that the features
    may depend on are not.

    Args:
        model: what timm made, not pruned.
        spec: where it comes from.
        path: .pth, .pt, .bin or .safetensors with the names that timm gives.

    Returns:
        Names of the tensors in the file, as the model has them.

    Raises:
        ConfigError: no such file, not a file of weights, or those of another model.
    """
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"checkpoint_path={path}: no such file")
    try:
        state = load_state_dict(str(file))
    except Exception as error:  # torch and safetensors raise what they like for a file that is no such thing
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"checkpoint_path={path}: not a file of weights ({reason[:200]})") from error
    head = tuple(f"{name}." for name in classifiers(model))
    try:
        # timm's convention: the module of a model adapts the files that it knows
        state = _adapt_channels(model, spec, adapt(state, model))
        needed = {name: value for name, value in state.items() if not name.startswith(head)}
        missing = model.load_state_dict(needed, strict=False).missing_keys
    except (RuntimeError, LookupError, ValueError, AttributeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"checkpoint_path={path} holds another model: {reason[:200]}") from error
    missing = [name for name in missing if not name.startswith(head)]
    if missing:
        raise ConfigError(
            f"checkpoint_path={path} holds another model: {len(missing)} of its weights are missing, "
            f"such as {missing[0]}"
        )
    return set(state)


def tell(path: str, given: Collection[str], used: Collection[str]) -> None:
    """Log how many tensors of a file the features use, and which they do not."""
    left = sorted(set(given) - set(used))
    told = f"; not needed: {', '.join(left[:12])}" + (f" and {len(left) - 12} more" if len(left) > 12 else "")
    logger.info(
        "%s: loaded %d of %d tensors%s", path, len(set(used) & set(given)), len(used), told if left else ""
    )


def _adapt_channels(model: TimmModel, spec: BackboneSpec, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the first layer for another number of image channels, as timm does for its own."""
    trained = model.pretrained_cfg.get("input_size", (3,))[0]
    for name in first_convolutions(model):
        key = f"{name}.weight"
        if key in state and state[key].shape[1:2] != model.get_parameter(key).shape[1:2]:
            state[key] = adapt_input_conv(spec.channels, state[key], base_chans=trained)
    return state


def classifiers(model: TimmModel) -> tuple[str, ...]:
    """Paths of the layers that only a classifier input_spec."""
    return _names(model, "classifier")


def first_convolutions(model: TimmModel) -> tuple[str, ...]:
    """Paths of the layers that see the image."""
    return _names(model, "first_conv")


def _names(model: TimmModel, key: str) -> tuple[str, ...]:
    names = model.pretrained_cfg.get(key) or ()
    return (names,) if isinstance(names, str) else tuple(names)
