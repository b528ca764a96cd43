"""Numbers and ids as annotation tools write them: integers, floats, text, null."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from contextlib import suppress
from math import isfinite
from typing import Any

__all__ = ["LARGEST", "Ids", "as_flag", "as_number", "as_numbers", "is_plain_id"]

FLAGS = {"true": True, "yes": True, "false": False, "no": False, "": False, "none": False, "null": False}
LARGEST_ID = 2**53  # above it, JavaScript and float64 confuse integers
LARGEST = 1e7  # pixels; beyond it, a number is no coordinate


def as_number(value: Any) -> float | None:
    """A finite number, which may be written as text; None for anything else."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if isfinite(value) else None
    except OverflowError:  # an integer of more than 308 digits
        return None


def as_numbers(values: Any) -> list[float] | None:
    """A list of numbers that may be coordinates, in pixels; None for anything else."""
    if not isinstance(values, list):
        return None
    if not {*map(type, values)} <= {int, float}:  # which is rare, and slow
        values = [as_number(value) for value in values]
        if None in values:
            return None
    if values and not (min(values) > -LARGEST and max(values) < LARGEST):
        return None
    numbers = [*map(float, values)]
    return numbers if isfinite(sum(numbers)) else None  # min and max do not see each NaN


def as_flag(value: Any) -> bool | None:
    """Whether a field such as ``iscrowd`` is set; null counts as not set; None for anything else."""
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in FLAGS:
        return FLAGS[value.strip().lower()]
    number = as_number(value)
    return None if number is None else number != 0


def is_plain_id(value: Any) -> bool:
    """Whether an id is an integer that every program reads."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST_ID


class Ids:
    """Ids of any kind, as keys: an id is found if it is equal, or else if it is the same as text or number.

    Args:
        ids: strings, numbers, booleans or None, without duplicates.
    """

    def __init__(self, ids: Sequence[Hashable]) -> None:
        self._positions = {value: position for position, value in enumerate(ids)}
        texts = Counter(map(_as_text, ids))
        self._by_text = {text: p for p, v in enumerate(ids) if texts[text := _as_text(v)] == 1}

    def find(self, value: Any) -> int | None:
        """The position of an id in the list; None if it is not there."""
        try:
            position = self._positions.get(value)
        except TypeError:  # a list or a mapping
            return None
        return self._by_text.get(_as_text(value)) if position is None else position


def _as_text(value: Any) -> str:
    """An id as text; all ways to write the same integer have the same text."""
    text = str(value).strip()
    with suppress(ValueError):
        return str(int(text))
    with suppress(ValueError, OverflowError):
        return str(int(float(text))) if float(text).is_integer() else text
    return text
