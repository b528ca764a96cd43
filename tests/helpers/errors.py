"""Errors of calls that may fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from d2timm import ConfigError

__all__ = ["error_message"]


def error_message(function: Callable[..., Any], *arguments: Any) -> str | None:
    """The message of the ConfigError that a call raises, or None."""
    try:
        function(*arguments)
    except ConfigError as error:
        return str(error)
    return None
