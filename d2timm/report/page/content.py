"""What a page shows, as data for its template."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ...utils.text import printable
from ..columns import best_text, counts, metric_header, remarks, short_names
from ..entries import Entry, best, ranks
from .choices import choice_content
from .configs import differences, read_config
from .curves import read_curves
from .figures import Series, draw_curves, style
from .images import images_of
from .parts import Content, Key, duration
from .scatter import Point, draw_pareto
from .source import Source
from .tables import class_tables, leaderboard, metric_table

__all__ = ["make_content"]

POINTS = 300  # of a curve
ALL_POINTS = 20_000  # of all curves together


def make_content(source: Source) -> Content:
    """Collect what the page about a folder shows; runs may be training."""
    name = printable(source.folder.resolve().name)
    if source.choice:
        content = choice_content(source, source.choice, name)
    elif source.is_run:
        content = _run_content(source, name)
    else:
        content = _sweep_content(source, name)
    content.classes = class_tables(source.entries)
    _add_curves(content, source)
    content.images = images_of(source.runs)
    configs = [(run.label, config) for run in source.runs if (config := read_config(run.folder))]
    content.configs = differences(configs) if len(configs) > 1 else None
    content.figures = {name: figure for name, figure in content.figures.items() if figure}
    return content


def _sweep_content(source: Source, name: str) -> Content:
    entries = source.entries
    first = best(entries)
    content = Content("sweep", name, _sentence(entries))
    content.notes = [counts(entries), *(remark for remark in remarks(entries) if first)]
    content.leaderboard = leaderboard(entries)
    if first:
        run = max(first.runs, key=lambda run: run.record.score or 0)
        folders = [one.folder for one in source.runs if one.run is run]
        content.commands = _commands(run.record.command, folders[0], "the best run") if folders else []
    points = [
        Point(
            short,
            entry.score,
            *_ends(entry),
            entry.latency_ms,
            entry.parameters,
            entry.status,
            (f"{len(entry.runs)} seeds",) if len(entry.runs) > 1 else (),
        )
        for entry, short in zip(entries, short_names([entry.name for entry in entries]), strict=True)
        if entry.score is not None
    ]
    content.figures["pareto"] = draw_pareto(points, metric_header(entries))
    return content


def _sentence(entries: Sequence[Entry]) -> str:
    """The best entry in words, and those that tie with it."""
    first = best(entries)
    if first is None or first.score is None:
        return "No run has a score yet."
    if first.status != "done":
        return best_text(entries)
    names = short_names([entry.name for entry in entries])
    interval = " (95 % interval {:.1f} to {:.1f})".format(*first.interval) if first.interval else ""
    sentence = f"{names[entries.index(first)]} is best: {first.metric} {first.score:.2f}{interval}."
    by_rank = ranks(entries)
    own = by_rank[entries.index(first)]
    tied = [
        name
        for entry, name, rank in zip(entries, names, by_rank, strict=True)
        if rank == own and entry != first
    ]
    return f"{sentence} It ties with {', '.join(tied)}." if tied else sentence


def _ends(entry: Entry) -> tuple[float | None, float | None]:
    """The interval of a score, or else the standard deviation over seeds on both sides."""
    if entry.interval or entry.score is None or entry.spread is None:
        return entry.interval or (None, None)
    return entry.score - entry.spread, entry.score + entry.spread


def _run_content(source: Source, name: str) -> Content:
    (entry,), (one,) = source.entries, source.runs
    record, run = one.run.record, one.run
    result = f"{record.metric} {record.score:.2f}" if record.score is not None else "no score yet"
    model = printable(record.model_name) or name
    content = Content("run", name, f"{model}: {result} after {record.iterations:,} iterations.")
    facts = {
        "status": f"{run.status}: {run.reason}" if run.reason else run.status,
        "best score": _best_score(record.best_score, record.best_iterations),
        "parameters": f"{record.parameters / 1e6:.2f} M" if record.parameters else "",
        "GFLOPs": f"{record.multiply_adds / 1e9:.2f}" if record.multiply_adds else "",
        "training": duration(record.train_seconds) if record.train_seconds else "",
        "time per image": f"{entry.latency_ms:.1f} ms" if entry.latency_ms else "",
        "peak memory": f"{record.peak_memory_bytes / 2**30:.2f} GiB" if record.peak_memory_bytes else "",
        "recipe": printable(str(record.recipe.get("name") or "")),
        "went back": f"{record.times_back} times" if record.times_back else "",
    }
    content.facts = [(label, value) for label, value in facts.items() if value]
    content.notes = [printable(note) for note in record.notes]
    content.metrics = metric_table(entry)
    content.commands = _commands(record.command, one.folder, "this run")
    return content


def _best_score(score: float | None, iterations: int | None) -> str:
    return "" if score is None else f"{score:.2f} after {iterations:,} iterations"


def _add_curves(content: Content, source: Source) -> None:
    points = max(min(POINTS, ALL_POINTS // max(len(source.runs), 1)), 20)
    places, repeats = source.places, Counter[str]()
    losses, scores = [], []
    for run in source.runs:
        curves = read_curves(run.folder, run.run.record, points)
        if not (curves.loss.values or curves.score.values):
            continue
        line = style(places[run.entry], repeats[run.entry])
        repeats[run.entry] += 1
        losses.append(Series(run.label, curves.loss, *line))
        scores.append(Series(run.label, curves.score, *line))
    metrics = {run.run.record.metric for run in source.runs if run.run.record.scores}
    content.figures["loss"] = draw_curves(losses, "total loss")
    content.figures["score"] = draw_curves(
        scores, f"{metrics.pop() if len(metrics) == 1 else 'score'} (%)", markers=True
    )
    content.runs = [Key(one.name, one.color, one.dash) for one in losses]


def _commands(command: Sequence[str], folder: Path, what: str) -> list[tuple[str, str]]:
    predict = ["d2timm", "predict", "--run", str(folder), "IMAGE", "--output", "detections"]
    commands = [(f"Detect objects with {what}", shlex.join(predict))]
    if command:
        commands.append((f"Repeat {what}", shlex.join(command)))
    return [(label, printable(text)) for label, text in commands]
