"""Entries of a leaderboard -> columns of text, and the lines around a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from .entries import DECIMALS, Entry, best, metrics_compared, ranks
from .runs import STATUSES

__all__ = ["COSTS", "columns", "counts", "metric_header", "praise", "remarks", "short_names", "shortened"]

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
