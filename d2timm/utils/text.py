"""Errors as text that fits on one line."""

from __future__ import annotations

import re

from ..errors import ConfigError
from .signals import Interrupted

__all__ = ["LIMIT", "error_reason", "first_line", "one_line", "printable", "unreadable"]

LIMIT = 200  # characters of a line


def one_line(error: object, with_type: bool = False) -> str:
    """Return the message of an error, squeezed to one line of at most 200 characters.

    Args:
        error: an exception, or its message.
        with_type: whether the line begins with the name of the exception's class.
    """
    return printable(" ".join(_text(str(error), error, with_type).split())[:LIMIT])


def first_line(error: object, with_type: bool = False) -> str:
    """Return the first line of an error's message, at most 200 characters; without a message, its class.

    Args:
        error: an exception, or its message.
        with_type: whether the line begins with the name of the exception's class.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return printable(_text(lines[0] if lines else "", error, with_type)[:LIMIT])


def error_reason(error: BaseException) -> str:
    """Return the first line of an error as the reason of a failure.

    The class is named as well, except for those whose message says all there is to say. An error of a worker
    process of torch's loader, whose text has the traceback there, is reduced to that of its cause.
    """
    lines = str(error).strip().splitlines()
    if lines and re.match(r"Caught \w+ in DataLoader worker process", lines[0]):
        return lines[-1]
    return first_line(error, with_type=not isinstance(error, (ConfigError, Interrupted)))


def unreadable(error: BaseException) -> str:
    """Return on one line why torch cannot load a file, without its advice to execute the code in it."""
    if any("Weights only load failed" in str(each) for each in (error, error.__cause__)):
        return "it holds more than weights"
    return first_line(error, with_type=True).partition(". ")[0]


def printable(text: str, lines: bool = False) -> str:
    """Escape what a terminal would obey or could not show: control characters and broken bytes.

    Args:
        text: any text, such as a name in a file of somebody else.
        lines: whether line breaks stay.
    """
    if lines:
        return "\n".join(map(printable, text.split("\n")))
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _text(message: str, error: object, with_type: bool) -> str:
    kind = type(error).__name__
    if not message.strip():
        return kind
    return f"{kind}: {message}" if with_type else message
