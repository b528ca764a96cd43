"""Changes of the content of a COCO file, as mistakes make them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Change = Callable[[dict[str, Any]], Any]

ALL = slice(None)
FIRST = slice(1)


def drop(key: str, field: str, which: slice = ALL) -> Change:
    """Take a field out of the entries of a list."""

    def edit(coco: dict[str, Any]) -> None:
        for entry in coco[key][which]:
            del entry[field]

    return edit


def put(key: str, field: str, value: Any, which: slice = ALL) -> Change:
    """Set a field of the entries of a list."""

    def edit(coco: dict[str, Any]) -> None:
        for entry in coco[key][which]:
            entry[field] = value

    return edit
