"""One line of the table that says what old keys are in our tree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["LEAVE", "Quotient", "Rule", "pair", "rounded", "under"]

LEAVE = object()  # what a rule gives where our recipe is right as it is


class Quotient(NamedTuple):
    """A number that a reader understands better as its parts."""

    part: int
    whole: int


class Rule(NamedTuple):
    """Old keys, and the value of ours that they make.

    A rule whose place is not in the tree is of a part that the detector does not have.

    Attributes:
        old: keys of the old config, with blanks between them.
        new: key of our tree, in which ``{data}`` is ``data.name``.
        make: takes the values of the old keys, gives that of ours or ``LEAVE``.
        add: our nodes leave it to the default of the class, which is that of the old keys.
        follows: it is derived here and not written; a value that differs is not converted.
        always: written even where our recipe has it, because there it depends on the machine.
        tolerance: numbers that differ by no more are equal.
    """

    old: str
    new: str
    make: Callable[..., Any] = lambda value: value
    add: bool = False
    follows: bool = False
    always: bool = False
    tolerance: float = 0.0


def under(old: str, new: str, names: dict[str, str], **more: Any) -> tuple[Rule, ...]:
    """Rules that differ in the last part of their keys, ``names``: old -> ours."""
    return tuple(Rule(f"{old}.{name}", f"{new}.{ours}", **more) for name, ours in names.items())


def pair(train: Any, test: Any) -> list[Any]:
    """Two keys that are one list of ours."""
    return [train, test]


def rounded(value: float) -> float:
    """Without the dust of floating-point arithmetic."""
    return float(f"{value:.12g}")
