"""Weights for timm models: timm's own, and files."""

from __future__ import annotations

import sys
from pathlib import Path

import timm
from timm.models import load_state_dict

from .errors import ConfigError
from .features import Source, TimmModel

__all__ = ["load_checkpoint", "load_pretrained"]

HOW_TO_DO_WITHOUT = "give checkpoint_path=FILE, or start from scratch with pretrained=False"


def load_pretrained(source: Source) -> TimmModel:
    """Make a model with timm's weights for its name.

    Raises:
        ConfigError: timm has none, or the hub cannot be reached.
    """
    if ":" not in source.model_name and not timm.is_model_pretrained(source.model_name):
        raise ConfigError(f"timm has no weights for {source.model_name}: {HOW_TO_DO_WITHOUT}")
    try:
        return source.create(pretrained=True)
    except Exception as error:  # whatever the hub's client, the network or the file system raises
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"the weights of {source.model_name} could not be had ({reason}): {HOW_TO_DO_WITHOUT}"
        ) from error


def load_checkpoint(model: TimmModel, path: str) -> None:
    """Load a file of weights into a whole timm model.

    A classifier of another size and what only other tasks need are passed over; weights that the features
    may depend on are not.

    Args:
        model: what timm made, not pruned.
        path: .pth, .pt, .bin or .safetensors with the names that timm gives.

    Raises:
        ConfigError: no such file, not a file of weights, or those of another model.
    """
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"checkpoint_path={path}: no such file")
    try:
        state = load_state_dict(str(file))
    except Exception as error:  # torch and safetensors raise what they like for a file that is no such thing
        raise ConfigError(f"checkpoint_path={path}: not a file of weights ({error})") from error
    head = tuple(f"{name}." for name in _classifiers(model))
    # timm's convention: the module of a model adapts the files that it knows, position embeddings included
    adapt = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    try:
        state = adapt(state, model) if adapt else state
        state = {name: value for name, value in state.items() if not name.startswith(head)}
        missing = model.load_state_dict(state, strict=False).missing_keys
    except (RuntimeError, LookupError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"checkpoint_path={path} holds another model: {reason[:200]}") from error
    missing = [name for name in missing if not name.startswith(head)]
    if missing:
        raise ConfigError(
            f"checkpoint_path={path} holds another model: {len(missing)} of its weights are missing, "
            f"such as {missing[0]}"
        )


def _classifiers(model: TimmModel) -> tuple[str, ...]:
    names = model.pretrained_cfg.get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)
