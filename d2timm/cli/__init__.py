"""The command ``d2timm`` and its sub-commands."""

from .app import main

__all__ = ["main"]
