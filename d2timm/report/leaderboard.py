"""The answer of a sweep: run folders to a leaderboard and a plot, at any time."""

from __future__ import annotations

from pathlib import Path

from .entries import Entry
from .pareto import draw
from .tables import PLOT, write_tables

__all__ = ["write_leaderboard"]


def write_leaderboard(sweep: Path) -> list[Entry]:
    """Write ``leaderboard.md``, ``.csv``, ``.json`` and ``pareto.png`` of a sweep into its folder.

    Returns:
        The entries of the leaderboard, the best first.

    Raises:
        ConfigError: there is no such folder, or no run folder in it.
    """
    entries = write_tables(sweep)
    draw(entries, sweep / PLOT)
    return entries
