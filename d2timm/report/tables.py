"""Leaderboards: in Markdown, CSV and JSON, and for the terminal."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tabulate import tabulate

from ..runs.status import STATUSES, printable, read_runs
from ..utils.files import atomic_write
from .entries import DECIMALS, Entry, best, leaderboard, metrics_compared, ranks

__all__ = [
    "COSTS",
    "PLOT",
    "as_json",
    "columns",
    "counts",
    "metric_header",
    "praise",
    "remarks",
    "short_names",
    "shortened",
    "summary",
    "write_tables",
]

COSTS = ("params (M)", "GFLOPs", "train (s)", "images/s")
TASKS = {"bbox": "box", "segm": "mask"}
METRICS = ("AP", "AP50", "APs", "APm", "APl")

TIES = (
    "Entries that share a rank are ties: their scores are equal as shown. "
    "They are ordered by images/s, then by parameters."
)


def columns(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """Header -> a cell an entry; columns without a single entry are left out."""
    compared = metrics_compared(entries)
    told = {
        "rank": [_rank(rank) for rank in ranks(entries)],
        "name": [entry.name for entry in entries],
        "seeds": [f"×{len(entry.runs)}" if len(entry.runs) > 1 else "" for entry in entries],
        metric_header(entries): [_score(entry, named=len(compared) > 1) for entry in entries],
    }
    for task, thing in TASKS.items():
        for key in METRICS:
            if compared != [f"{task}/{key}"]:  # else it is the score
                values = (entry.metrics.get(task, {}).get(key) for entry in entries)
                told[f"{thing} {key}"] = _numbers(values, DECIMALS)
    costs = (
        _numbers((entry.parameters for entry in entries), 2, 1e6),
        _numbers((entry.multiply_adds for entry in entries), 2, 1e9),
        _numbers((entry.train_seconds for entry in entries), 0),
        _numbers((entry.images_per_second for entry in entries), 1),
    )
    told |= zip(COSTS, costs, strict=True)
    told["memory (GiB)"] = _numbers((entry.peak_memory_bytes for entry in entries), 2, 2**30)
    told["iterations"] = _numbers((entry.iterations or None for entry in entries), 0)
    told["status"] = [entry.status for entry in entries]
    told["reason"] = [entry.reason for entry in entries]
    return {header: cells for header, cells in told.items() if any(cells)}


def metric_header(entries: Sequence[Entry]) -> str:
    """The metric that all scores are of, or else what a score is called."""
    compared = metrics_compared(entries)
    return compared[0] if len(compared) == 1 else "score"


def counts(entries: Sequence[Entry]) -> str:
    """How many runs there are of each status."""
    runs = [run for entry in entries for run in entry.runs]
    number = Counter(run.status for run in runs)
    told = ", ".join(f"{number[status]} {status}" for status in STATUSES if number[status])
    return f"{len(runs)} run{'s' * (len(runs) != 1)}: {told or 'none'}."


def remarks(entries: Sequence[Entry]) -> list[str]:
    """What a reader of the ranks has to know."""
    told = []
    compared = metrics_compared(entries)
    if not compared:
        told.append("No run has a score yet.")
    if len(compared) > 1:
        told.append(f"The runs are scored by different metrics, which do not compare: {', '.join(compared)}.")
    if any(rank and rank[1] for rank in ranks(entries)):
        told.append(TIES)
    return told


def praise(entries: Sequence[Entry]) -> str:
    """Which entry is the best, and why it counts as that."""
    entry = best(entries)
    if entry is None:
        return ""
    said = f"{entry.name}: {entry.metric} {_score(entry)}"
    if entry.status != "done":
        return f"{said}. No run with a score is done; this one is {entry.status}: {entry.reason}."
    return f"{said}."


def short_names(names: Sequence[str]) -> list[str]:
    """Values of ``key=value,key=value``, without those that all names share, as long as names stay apart."""
    parts = [name.split(",") for name in names]
    if len(names) > 1:
        shared = set.intersection(*map(set, parts))
        parts = [[part for part in own if part not in shared] or own for own in parts]
    short = [" ".join(part.partition("=")[2] or part for part in own) for own in parts]
    number = Counter(short)
    return [text if number[text] == 1 else " ".join(own) for text, own in zip(short, parts, strict=True)]


def shortened(text: str, most: int) -> str:
    """Text with its middle left out, so that it has at most so many characters."""
    if len(text) <= most:
        return text
    kept = max(most, 3) - 1
    return f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"


def _rank(rank: tuple[int, bool] | None) -> str:
    return f"{rank[0]}{'=' * rank[1]}" if rank else ""


def _score(entry: Entry, named: bool = False) -> str:
    if entry.score is None:
        return ""
    spread = "" if entry.spread is None else f" ± {entry.spread:.{DECIMALS}f}"
    return f"{entry.score:.{DECIMALS}f}{spread}{f' ({entry.metric})' if named else ''}"


def _numbers(values: Iterable[float | None], digits: int, unit: float = 1) -> list[str]:
    return ["" if value is None else f"{value / unit:.{digits}f}" for value in values]


PLOT = "pareto.png"
TERMINAL = 120  # characters a line

NOTES = (
    "GFLOPs are billions of multiply-adds of backbone and neck, for an image of the evaluated size. "
    "Parameters are those of the whole detector; images/s are of the detector alone, in evaluation; "
    "memory is the peak, on the GPU or of the process where there is none. "
    "Repeats that differ in their seed only are one entry: mean ± sample standard deviation, the most memory."
)


def write_tables(sweep: Path, out: Path | None = None) -> list[Entry]:
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
        with atomic_write((out or sweep) / f"leaderboard.{kind}") as partial:
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
        parts.append(f"![Score against latency and against parameters]({PLOT})")
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
