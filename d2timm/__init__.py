"""Every timm model as a detectron2 backbone."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Any

__all__ = ["ConfigError", "TimmBackbone", "get_config", "load"]
__version__ = version("d2timm")

_HOMES = {"ConfigError": "errors", "TimmBackbone": "backbone", "get_config": "config", "load": "predictor"}


def __getattr__(name: str) -> Any:
    # torch and detectron2 take seconds to import: only who needs them waits
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
