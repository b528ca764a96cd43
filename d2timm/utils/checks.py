"""Checks of values that users type, with suggestions for misspelt ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from ..errors import ConfigError

__all__ = ["check_outputs", "suggest"]


def suggest(value: str, known: Iterable[str]) -> str:
    """Return the names in ``known`` that resemble ``value``, as the end of an error message."""
    matches = difflib.get_close_matches(value, list(known), n=4, cutoff=0.5)
    return f"did you mean {' or '.join(matches)}?" if matches else "no known name is similar"


def check_outputs(remaps: Sequence[str], strides: Sequence[int], **more: Any) -> None:
    """Raise ConfigError unless each list has one valid entry per output of a backbone.

    Args:
        remaps: names of the outputs, without duplicates.
        strides: strides of the outputs in pixels, each >= 1.
        more: further lists with one entry per output, by the keys that name them in errors.
    """
    lists: dict[str, Any] = {"remaps": remaps, "strides": strides, **more}
    for key, value in lists.items():
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ConfigError(f"{key}={value}: a list is needed, with one entry per output")
    if len({len(value) for value in lists.values()}) > 1 or not remaps:
        lengths = ", ".join(f"{key} has {len(value)}" for key, value in lists.items())
        raise ConfigError(f"each list needs one entry per output, and there is at least one: {lengths}")
    if len(set(remaps)) < len(remaps):
        raise ConfigError(f"remaps={list(remaps)}: two outputs have the same name; give each its own")
    if not all(isinstance(stride, int) and stride >= 1 for stride in strides):
        raise ConfigError(f"strides={list(strides)}: strides are whole pixels >= 1")
