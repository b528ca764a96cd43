"""JSON that somebody else may have written."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from ..errors import ConfigError
from .text import one_line

__all__ = ["encode_json", "parse_json", "read_json", "without_collector"]


def read_json(file: Path) -> Any:
    """The content of a JSON file in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Raises:
        ConfigError: the file cannot be read, or is not JSON.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    return parse_json(content, str(file))


def parse_json(content: bytes | str, label: str) -> Any:
    """The value of a JSON text.

    Args:
        content: the text, or its bytes in UTF-8, UTF-16 or UTF-32.
        label: what errors call it, such as its file name.

    Raises:
        ConfigError: it is not JSON.
    """
    try:
        with without_collector():
            return _decode(content)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{label} is not JSON: {one_line(error)}; save it in UTF-8") from None
    except (ValueError, RecursionError) as error:  # a number may have too many digits
        raise ConfigError(f"{label} is not JSON: {one_line(error)}") from None


def encode_json(content: Any) -> bytes:
    """A value as a JSON text, by the faster msgspec where it can; both readers give the value back."""
    try:
        return msgspec.json.encode(content)
    except (ValueError, OverflowError):  # an unpaired surrogate, as of a file name, or a long integer
        return json.dumps(content).encode()


@contextmanager
def without_collector() -> Iterator[None]:
    """Do without Python's garbage collector, which looks for cycles at millions of new objects in vain."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _decode(content: bytes | str) -> Any:
    """The value of a JSON text; msgspec is faster than Python's reader, which accepts more."""
    try:
        return msgspec.json.decode(content)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return json.loads(content)  # which also reads NaN, unpaired surrogates and other encodings
