"""The leaderboard of a sweep: tables, a plot and a page written from its run folders, at any time."""

from __future__ import annotations

from pathlib import Path

from .entries import Entry
from .page.write import write_page
from .pareto import draw_pareto
from .tables import PLOT, write_tables

__all__ = ["write_leaderboard"]


def write_leaderboard(sweep: Path) -> list[Entry]:
    """Write ``leaderboard.md``, ``.csv``, ``.json``, ``pareto.png`` and ``report.html`` into a sweep folder.

    Returns:
        The entries of the leaderboard, the best first.

    Raises:
        ConfigError: the folder does not exist, or has no run folder in it.
    """
    entries = write_tables(sweep)
    draw_pareto(entries, sweep / PLOT)
    write_page(sweep, entries)
    return entries
