"""Every timm model as a detectron2 backbone."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["ConfigError", "TimmBackbone", "get_config", "load"]

_ROOMS = {"ConfigError": "errors", "TimmBackbone": "backbone", "get_config": "config", "load": "inference"}


def __getattr__(name: str) -> Any:
    # torch and detectron2 take seconds to import: only who needs them waits
    if name == "__version__":
        from importlib.metadata import version

        return version("d2timm")
    if name in _ROOMS:
        try:
            return getattr(import_module(f".{_ROOMS[name]}", __name__), name)
        except ModuleNotFoundError as error:
            if error.name != "detectron2":
                raise
            raise ModuleNotFoundError(
                "detectron2 is not installed: run `d2timm install-detectron2`", name=error.name
            ) from None
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
