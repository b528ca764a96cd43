"""Texts of a leaderboard that its formats share: columns of cells, names, counts and remarks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ..runs.status import STATUSES
from .entries import DECIMALS, Entry, best, metrics_compared, ranks

__all__ = [
    "COSTS",
    "INTERVAL",
    "best_text",
    "counts",
    "make_columns",
    "metric_header",
    "remarks",
    "short_names",
    "shorten",
]

INTERVAL = "95 % interval"
COSTS = ("params (M)", "GFLOPs", "train (s)", "images/s")
TASKS = {"bbox": "box", "segm": "mask"}
METRICS = ("AP", "AP50", "APs", "APm", "APl")

TIES = (
    "Entries that share a rank have equal scores as shown, ordered by images/s, then by parameters, or "
    "scores whose difference may be chance: its interval of 95 %, over draws of images and seeds, contains 0."
)


def make_columns(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """Header -> one cell per entry, without the columns in which all cells are empty."""
    compared = metrics_compared(entries)
    columns = {
        "rank": [_rank(rank) for rank in ranks(entries)],
        "name": [entry.name for entry in entries],
        "seeds": [f"×{len(entry.runs)}" if len(entry.runs) > 1 else "" for entry in entries],
        metric_header(entries): [_score(entry, with_metric=len(compared) > 1) for entry in entries],
        INTERVAL: [_interval(entry) for entry in entries],
    }
    for task, object_kind in TASKS.items():
        for key in METRICS:
            if compared != [f"{task}/{key}"]:  # otherwise it is the score
                values = (entry.metrics.get(task, {}).get(key) for entry in entries)
                columns[f"{object_kind} {key}"] = _numbers(values, DECIMALS)
    costs = (
        _numbers((entry.parameters for entry in entries), 2, 1e6),
        _numbers((entry.multiply_adds for entry in entries), 2, 1e9),
        _numbers((entry.train_seconds for entry in entries), 0),
        _numbers((entry.images_per_second for entry in entries), 1),
    )
    columns |= zip(COSTS, costs, strict=True)
    columns["memory (GiB)"] = _numbers((entry.peak_memory_bytes for entry in entries), 2, 2**30)
    columns["iterations"] = _numbers((entry.iterations or None for entry in entries), 0)
    columns["status"] = [entry.status for entry in entries]
    columns["reason"] = [entry.reason for entry in entries]
    return {header: cells for header, cells in columns.items() if any(cells)}


def metric_header(entries: Sequence[Entry]) -> str:
    """The header of the scores: their metric, or ``score`` if there are several."""
    compared = metrics_compared(entries)
    return compared[0] if len(compared) == 1 else "score"


def counts(entries: Sequence[Entry]) -> str:
    """The number of runs of each status."""
    runs = [run for entry in entries for run in entry.runs]
    number = Counter(run.status for run in runs)
    by_status = ", ".join(f"{number[status]} {status}" for status in STATUSES if number[status])
    return f"{len(runs)} run{'s' * (len(runs) != 1)}: {by_status or 'none'}."


def remarks(entries: Sequence[Entry]) -> list[str]:
    """Notes that a reader needs in order to understand the ranks."""
    notes = []
    compared = metrics_compared(entries)
    if not compared:
        notes.append("No run has a score yet.")
    if len(compared) > 1:
        metrics = ", ".join(compared)
        notes.append(f"The runs are scored by different metrics, which cannot be compared: {metrics}.")
    if any(rank and rank[1] for rank in ranks(entries)):
        notes.append(TIES)
    return notes


def best_text(entries: Sequence[Entry]) -> str:
    """The best entry and its score; also its status if it is not done. Empty if no entry has a score."""
    entry = best(entries)
    if entry is None:
        return ""
    text = f"{entry.name}: {entry.metric} {_score(entry)}."
    if entry.status == "done":
        return text
    return f"{text} No run with a score is done; this one is {entry.status}: {entry.reason}."


def short_names(names: Sequence[str]) -> list[str]:
    """Shorten names of the form ``key=value,key=value`` to the values in which they differ.

    A name keeps its keys where it would otherwise equal another.
    """
    parts = [name.split(",") for name in names]
    if len(names) > 1:
        shared = set.intersection(*map(set, parts))
        parts = [[part for part in own if part not in shared] or own for own in parts]
    short = [" ".join(part.partition("=")[2] or part for part in own) for own in parts]
    number = Counter(short)
    return [text if number[text] == 1 else " ".join(own) for text, own in zip(short, parts, strict=True)]


def shorten(text: str, limit: int) -> str:
    """Replace the middle of a text by an ellipsis so that it has at most ``limit`` (>= 3) characters."""
    if len(text) <= limit:
        return text
    kept = max(limit, 3) - 1
    return f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"


def _rank(rank: tuple[int, bool] | None) -> str:
    return f"{rank[0]}{'=' * rank[1]}" if rank else ""


def _score(entry: Entry, with_metric: bool = False) -> str:
    if entry.score is None:
        return ""
    spread = "" if entry.spread is None else f" ± {entry.spread:.{DECIMALS}f}"
    return f"{entry.score:.{DECIMALS}f}{spread}{f' ({entry.metric})' if with_metric else ''}"


def _interval(entry: Entry) -> str:
    return "" if entry.interval is None else "{:.1f} to {:.1f}".format(*entry.interval)


def _numbers(values: Iterable[float | None], digits: int, unit: float = 1) -> list[str]:
    return ["" if value is None else f"{value / unit:.{digits}f}" for value in values]
