"""Errors as text that fits a line."""

from __future__ import annotations

from ..errors import ConfigError

__all__ = ["error_reason", "first_line", "one_line"]

LIMIT = 200  # characters


def one_line(error: object, with_type: bool = False) -> str:
    """The whole message of an error on one line of at most 200 characters.

    Args:
        error: an exception, or its message.
        with_type: begin with the name of the exception's class.
    """
    return " ".join(_text(error, with_type).split())[:LIMIT]


def first_line(error: object, with_type: bool = False) -> str:
    """The first line of an error's message, at most 200 characters; the class's name if it has no message.

    Args:
        error: an exception, or its message.
        with_type: begin with the name of the exception's class.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return _text(error, with_type, lines[0] if lines else "")[:LIMIT]


def error_reason(error: BaseException) -> str:
    """An error as the reason of a failure, for a table: a user's mistake as it is, others with their class."""
    return first_line(error, with_type=not isinstance(error, ConfigError))


def _text(error: object, with_type: bool, message: str | None = None) -> str:
    message = str(error) if message is None else message
    kind = [type(error).__name__] if with_type or not message.strip() else []
    return ": ".join([*kind, *([message] if message.strip() else [])])
