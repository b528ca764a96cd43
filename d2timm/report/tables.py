"""Leaderboards as Markdown, CSV, JSON and text for the terminal."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tabulate import tabulate

from ..runs.status import read_runs
from ..utils.files import atomic_write
from ..utils.text import printable
from .certainty import with_intervals
from .columns import (
    COSTS,
    INTERVAL,
    best_text,
    counts,
    make_columns,
    metric_header,
    remarks,
    short_names,
    shorten,
)
from .entries import Entry, best, make_entries, ranks

__all__ = ["PLOT", "as_json", "summary", "write_tables"]

PLOT = "pareto.png"
TERMINAL_WIDTH = 120
UNFINISHED = ("interrupted", "killed", "failed", "unreadable")

NOTES = (
    "GFLOPs are billions of multiply-adds of backbone and neck for an image of the evaluated size. "
    "Parameters are counted over the whole detector; images/s is the speed of the detector alone in "
    "evaluation; memory is the peak on the GPU, or of the process on a machine without one. "
    "Repeats that differ only in their seed are one entry: mean ± sample standard deviation, highest memory."
)


def write_tables(sweep: Path, out: Path | None = None) -> list[Entry]:
    """Write ``leaderboard.md``, ``.csv`` and ``.json``; the same run folders give the same bytes.

    Args:
        sweep: the folder that holds the run folders.
        out: the folder to write to; None: ``sweep``.

    Returns:
        The entries of the leaderboard, the best first.
    """
    entries = with_intervals(make_entries(read_runs(sweep)), sweep)
    texts = {
        "md": _as_markdown(sweep.resolve().name, entries),
        "csv": _as_csv(entries),
        "json": as_json(entries),
    }
    for suffix, text in texts.items():
        with atomic_write((out or sweep) / f"leaderboard.{suffix}") as partial:
            partial.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
    return entries


def summary(entries: Sequence[Entry]) -> str:
    """A leaderboard for the terminal, with the command line of the best run."""
    columns = make_columns(entries)
    headers = ("rank", "name", "seeds", metric_header(entries), INTERVAL, *COSTS, "status")
    columns = {header: columns[header] for header in headers if header in columns}
    if _excess_width(columns) > 0:
        columns["name"] = short_names(columns["name"])
    if (excess := _excess_width(columns)) > 0:
        longest = max(map(len, columns["name"]))
        columns["name"] = [shorten(name, longest - excess) for name in columns["name"]]
    lines = [_table(columns, "simple"), "", counts(entries), *remarks(entries)]
    if best(entries):
        lines += [f"Best: {best_text(entries)}", "", f"  {_best_command(entries)}"]
    return printable("\n".join(lines), lines=True)


def as_json(entries: Sequence[Entry]) -> str:
    """A leaderboard with everything that is known, including the runs of each entry."""
    first = best(entries)
    tree = {
        "best": first and {"name": first.name, "command": first.first.command},
        "entries": [
            {
                **_plain(entry, rank),
                "metrics": entry.metrics,
                "spreads": entry.spreads,
                "runs": [asdict(run) for run in entry.runs],
            }
            for entry, rank in zip(entries, ranks(entries), strict=True)
        ],
    }
    return json.dumps(tree, indent=2, allow_nan=False) + "\n"


def _as_csv(entries: Sequence[Entry]) -> str:
    rows = []
    for entry, rank in zip(entries, ranks(entries), strict=True):
        row = {**_plain(entry, rank), "command": shlex.join(entry.first.command)}
        for task, numbers in entry.metrics.items():
            row |= {f"{task}/{key}_percent": value for key, value in numbers.items()}
        rows.append({printable(key): _printable(value) for key, value in row.items()})
    headers = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, headers, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _printable(value: Any) -> Any:
    return printable(value) if isinstance(value, str) else value


def _plain(entry: Entry, rank: tuple[int, bool] | None) -> dict[str, Any]:
    """The numbers of an entry; the keys name their units."""
    return {
        "rank": rank and rank[0],
        "name": entry.name,
        "repeats": len(entry.runs),
        "status": entry.status,
        "reason": entry.reason,
        "metric": entry.metric,
        "score_percent": entry.score,
        "score_spread_percent": entry.spread,
        "score_low_percent": entry.interval and entry.interval[0],
        "score_high_percent": entry.interval and entry.interval[1],
        "model_name": entry.first.model_name,
        "parameters": entry.parameters,
        "multiply_adds": entry.multiply_adds,
        "train_seconds": entry.train_seconds,
        "images_per_second": entry.images_per_second,
        "milliseconds_per_image": entry.latency_ms,
        "peak_memory_bytes": entry.peak_memory_bytes,
        "iterations": entry.iterations,
        "max_iterations": entry.first.max_iter,
    }


def _as_markdown(title: str, entries: Sequence[Entry]) -> str:
    columns = {header: [_escape(cell) for cell in cells] for header, cells in make_columns(entries).items()}
    parts = [f"# Leaderboard of {_escape(printable(title))}", counts(entries)]
    parts += [_table(columns, "github"), *remarks(entries), NOTES]
    if best(entries):
        parts.append(f"![Score against latency and against parameters]({PLOT})")
    unfinished = [run for entry in entries for run in entry.runs if run.status in UNFINISHED]
    if unfinished:
        lines = (f"- {_escape(f'{run.name}, {run.status}: {run.reason}')}" for run in unfinished)
        parts += ["## Runs that did not finish", "\n".join(lines)]
    if best(entries):
        command = _best_command(entries)
        # longer than any run of backticks in the command
        fence = max(["```", *(f"{ticks}`" for ticks in re.findall("`+", command))], key=len)
        parts += ["## Best", _escape(best_text(entries)), f"{fence}sh\n{command}\n{fence}"]
    return printable("\n\n".join(parts), lines=True) + "\n"


def _table(columns: dict[str, list[str]], style: str) -> str:
    left = ("name", "status", "reason")
    align = ["left" if header in left else "right" for header in columns]
    return str(tabulate(columns, headers="keys", tablefmt=style, colalign=align, disable_numparse=True))


def _excess_width(columns: dict[str, list[str]]) -> int:
    """The number of characters by which a table is wider than the terminal; negative if it fits."""
    return max(map(len, _table(columns, "simple").splitlines())) - TERMINAL_WIDTH


def _best_command(entries: Sequence[Entry]) -> str:
    entry = best(entries)
    command = shlex.join(entry.first.command) if entry else ""
    return printable(command) or "# no command was recorded"


def _escape(text: str) -> str:
    """Escape a text for Markdown; underscores inside a word need no escape."""
    return re.sub(r"[\\`*\[\]<>|~&]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)
