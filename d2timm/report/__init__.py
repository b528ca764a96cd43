"""The answer of a sweep: run folders -> a leaderboard and a picture, at any time."""

from __future__ import annotations

from pathlib import Path

from .entries import Entry
from .pareto import draw
from .tables import PICTURE, write

__all__ = ["Entry", "report"]


def report(sweep: Path) -> list[Entry]:
    """Write ``leaderboard.md``, ``.csv``, ``.json`` and ``pareto.png`` of a sweep into its folder.

    Returns:
        The entries of the leaderboard, the best first.

    Raises:
        ConfigError: there is no such folder, or no run folder in it.
    """
    entries = write(sweep)
    draw(entries, sweep / PICTURE)
    return entries
