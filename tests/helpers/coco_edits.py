"""Edits of the content of a COCO file, which simulate mistakes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Edit = Callable[[dict[str, Any]], Any]

ALL = slice(None)
FIRST = slice(1)


def drop(key: str, field: str, which: slice = ALL) -> Edit:
    """An edit that removes a field from entries of a list."""

    def edit(coco: dict[str, Any]) -> None:
        for entry in coco[key][which]:
            del entry[field]

    return edit


def put(key: str, field: str, value: Any, which: slice = ALL) -> Edit:
    """An edit that sets a field of entries of a list."""

    def edit(coco: dict[str, Any]) -> None:
        for entry in coco[key][which]:
            entry[field] = value

    return edit
