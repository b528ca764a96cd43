"""What ``d2timm report`` prints about a folder."""

from __future__ import annotations

import json
from dataclasses import asdict

from tabulate import tabulate

from ..runs.choice import Choice
from ..utils.text import printable
from .columns import INTERVAL, shorten
from .page.choices import sentence_of
from .page.source import Source
from .page.tables import candidate_table
from .tables import as_json, summary

__all__ = ["print_text"]

REASON = 40  # characters of a cell
SHOWN = ("backbone", "result", "score", INTERVAL, "sure (%)", "last rung", "params (M)", "ms/image", "reason")


def print_text(source: Source, json_format: bool = False) -> str:
    """The leaderboard of a sweep or of a run, or the result of a choice with its candidates.

    Args:
        source: the folder.
        json_format: whether the text is JSON.
    """
    if source.choice and json_format:
        return json.dumps(asdict(source.choice), indent=2) + "\n"
    if source.choice:
        return _choice_text(source, source.choice)
    return as_json(source.entries) if json_format else summary(source.entries) + "\n"


def _choice_text(source: Source, choice: Choice) -> str:
    parts = [sentence_of(choice)]
    table = candidate_table(source, choice)
    if table.rows:
        shown = [place for place, column in enumerate(table.columns) if column.header in SHOWN]
        rows = [[shorten(row.cells[place].text, REASON) for place in shown] for row in table.rows]
        headers = [table.columns[place].header for place in shown]
        parts.append(str(tabulate(rows, headers, disable_numparse=True)))
    if choice.verdict and choice.verdict.command:
        parts.append(f"  {printable(choice.verdict.command)}")
    return printable("\n\n".join(parts), lines=True) + "\n"
