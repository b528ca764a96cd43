"""Leaderboards: in Markdown, CSV and JSON, and for the terminal."""

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

from ..files import whole
from .columns import COSTS, columns, counts, metric_header, praise, remarks, short_names, shortened
from .entries import Entry, best, leaderboard, ranks
from .runs import printable, read_runs

__all__ = ["PICTURE", "as_json", "summary", "write"]

PICTURE = "pareto.png"
TERMINAL = 120  # characters a line

NOTES = (
    "GFLOPs are billions of multiply-adds of backbone and neck, for an image of the evaluated size. "
    "Parameters are those of the whole detector; images/s are of the detector alone, in evaluation; "
    "memory is the peak, on the GPU or of the process where there is none. "
    "Repeats that differ in their seed only are one entry: mean ± sample standard deviation, the most memory."
)


def write(sweep: Path, out: Path | None = None) -> list[Entry]:
    """Write ``leaderboard.md``, ``.csv`` and ``.json`` of a sweep into ``out``, or into its own folder.

    The same run folders give the same bytes.
    """
    entries = leaderboard(read_runs(sweep))
    texts = {
        "md": _as_markdown(sweep.resolve().name, entries),
        "csv": _as_csv(entries),
        "json": as_json(entries),
    }
    for kind, text in texts.items():
        with whole((out or sweep) / f"leaderboard.{kind}") as partial:
            partial.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
    return entries


def summary(entries: Sequence[Entry]) -> str:
    """A leaderboard for the terminal, with the command line of the best."""
    told = columns(entries)
    kept = ("rank", "name", "seeds", metric_header(entries), *COSTS, "status")
    told = {header: told[header] for header in kept if header in told}
    if _too_wide(told) > 0:
        told["name"] = short_names(told["name"])
    if (excess := _too_wide(told)) > 0:
        longest = max(map(len, told["name"]))
        told["name"] = [shortened(name, longest - excess) for name in told["name"]]
    lines = [_table(told, "simple"), "", counts(entries), *remarks(entries)]
    if best(entries):
        lines += [f"Best: {praise(entries)}", "", f"  {_best_command(entries)}"]
    return "\n".join(lines)


def as_json(entries: Sequence[Entry]) -> str:
    """Everything that is known, the runs of each entry included."""
    first = best(entries)
    told = {
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
    return json.dumps(told, indent=2, allow_nan=False) + "\n"


def _as_csv(entries: Sequence[Entry]) -> str:
    rows = []
    for entry, rank in zip(entries, ranks(entries), strict=True):
        row = {**_plain(entry, rank), "command": shlex.join(entry.first.command)}
        for task, numbers in entry.metrics.items():
            row |= {f"{task}/{key}_percent": value for key, value in numbers.items()}
        rows.append(row)
    text = io.StringIO()
    writer = csv.DictWriter(
        text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _plain(entry: Entry, rank: tuple[int, bool] | None) -> dict[str, Any]:
    """An entry in plain numbers, with their units."""
    return {
        "rank": rank and rank[0],
        "name": entry.name,
        "repeats": len(entry.runs),
        "status": entry.status,
        "reason": entry.reason,
        "metric": entry.metric,
        "score_percent": entry.score,
        "score_spread_percent": entry.spread,
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
    told = {header: [_escaped(cell) for cell in cells] for header, cells in columns(entries).items()}
    parts = [f"# Leaderboard of {_escaped(printable(title))}", counts(entries)]
    parts += [_table(told, "github"), *remarks(entries), NOTES]
    if best(entries):
        parts.append(f"![Score against latency and against parameters]({PICTURE})")
    lost = [
        run for entry in entries for run in entry.runs if run.status in ("killed", "failed", "unreadable")
    ]
    if lost:
        lines = (f"- {_escaped(f'{run.name}, {run.status}: {run.reason}')}" for run in lost)
        parts += ["## Runs without an end", "\n".join(lines)]
    if best(entries):
        command = _best_command(entries)
        fence = max(["```", *(f"{ticks}`" for ticks in re.findall("`+", command))], key=len)
        parts += ["## Best", _escaped(praise(entries)), f"{fence}sh\n{command}\n{fence}"]
    return "\n\n".join(parts) + "\n"


def _table(told: dict[str, list[str]], style: str) -> str:
    left = ("name", "status", "reason")
    align = ["left" if header in left else "right" for header in told]
    return str(tabulate(told, headers="keys", tablefmt=style, colalign=align, disable_numparse=True))


def _too_wide(told: dict[str, list[str]]) -> int:
    """By how many characters a table goes over the terminal's edge; negative if it does not."""
    return max(map(len, _table(told, "simple").splitlines())) - TERMINAL


def _best_command(entries: Sequence[Entry]) -> str:
    entry = best(entries)
    return shlex.join(entry.first.command) if entry and entry.first.command else "# no command was recorded"


def _escaped(text: str) -> str:
    """Text as Markdown shows it; a name's inner underscores mean nothing there."""
    return re.sub(r"[\\`*\[\]<>|~&]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)
