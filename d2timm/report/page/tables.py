"""The tables of a page: headers, cells as text, and what a reader sorts and filters by."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from ...runs.choice import Candidate, Choice, Comparison
from ...runs.status import read_run
from ...utils.text import printable
from ..columns import COSTS, INTERVAL, TASKS, make_columns, metric_header, short_names
from ..entries import Entry, best
from .source import Source

__all__ = ["Cell", "Column", "Row", "Table", "candidate_table", "class_tables", "final_table", "leaderboard"]

#: Columns of a leaderboard that are shown at first; the others, on request
SHORT = ("rank", "name", "seeds", INTERVAL, *COSTS[:3], "ms/image", "memory (GiB)", "status", "reason")
TEXTS = ("name", "backbone", "status", "reason", "prior", "licence", "result", "run", "class", INTERVAL)
ALL_CLASSES = re.compile(r"AP-")
#: Columns of candidates that are shown on request; the page has the reasons in a list
CANDIDATE_DETAILS = ("transfer", "s/step", "prior", "licence", "reason")
MOST_ENTRIES = 24  # columns of a table of classes


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        header: its name.
        is_text: whether it is sorted as text; otherwise by the number with which a cell begins.
        detail: whether it is shown on request only.
        title: its full name, if the header is short.
    """

    header: str
    is_text: bool = False
    detail: bool = False
    title: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: what it shows.
        heat: 0 to 1, how strong its background is; None: it has none.
        title: the full text, if the text is short.
    """

    text: str
    heat: float | None = None
    title: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a table; ``is_best`` marks the one that the page recommends."""

    cells: list[Cell]
    is_best: bool = False


@dataclass(frozen=True)
class Table:
    """A table that a reader can sort and filter.

    Attributes:
        name: unique on the page.
        caption: what it shows.
        columns: without those in which all cells are empty.
        rows: in their first order.
    """

    name: str
    caption: str
    columns: list[Column] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    @property
    def has_details(self) -> bool:
        """Whether some columns are shown on request only."""
        return any(column.detail for column in self.columns)


def leaderboard(entries: Sequence[Entry]) -> Table:
    """The leaderboard of a sweep."""
    columns = make_columns(entries)
    score = metric_header(entries)
    latencies = [f"{entry.latency_ms:.1f}" if entry.latency_ms else "" for entry in entries]
    if any(latencies):
        columns["ms/image"] = latencies
    order = [*SHORT[:3], score, *SHORT[3:]]
    headers = [header for header in order if header in columns]
    headers += [header for header in columns if header not in headers]
    headers.sort(key=lambda header: header in ("status", "reason"))
    names = short_names(columns["name"])
    rows = []
    for index, entry in enumerate(entries):
        cells = [Cell(columns[header][index]) for header in headers]
        cells[headers.index("name")] = Cell(names[index], title=entry.name)
        rows.append(Row(cells, entry is best(entries)))
    return Table(
        "leaderboard",
        "Entries, the best first",
        [Column(header, header in TEXTS, header not in order) for header in headers],
        rows,
    )


def candidate_table(source: Source, choice: Choice) -> Table:
    """The candidates of a choice with their results and costs."""
    compared = {part.name: part for part in choice.verdict.compared} if choice.verdict else {}
    chosen = choice.verdict.name if choice.verdict else ""
    names = _by_result(choice, compared)
    known = {candidate.name: candidate for candidate in choice.candidates}
    rows = {name: _candidate_cells(source, choice, known[name], compared.get(name), chosen) for name in names}
    headers = list(dict.fromkeys(header for row in rows.values() for header in row))
    headers = [header for header in headers if any(row[header] for row in rows.values())]
    return Table(
        "candidates",
        "Candidates, the best first",
        [Column(header, header in TEXTS, header in CANDIDATE_DETAILS) for header in headers],
        [Row([Cell(row[header]) for header in headers], name == chosen) for name, row in rows.items()],
    )


def _by_result(choice: Choice, compared: Iterable[str]) -> list[str]:
    """Names of the candidates: finalists, those that go on, those that were dropped last."""
    stages = {stage.name: place for place, stage in enumerate(choice.stages)}

    def order(candidate: Candidate) -> tuple[bool, int, float]:
        last = candidate.rungs[-1].score if candidate.rungs else None
        return bool(candidate.dropped), -stages.get(candidate.dropped, 0), -(last or 0)

    rest = [candidate.name for candidate in sorted(choice.candidates, key=order)]
    known = set(rest)
    return list(dict.fromkeys([*(name for name in compared if name in known), *rest]))


def _candidate_cells(
    source: Source, choice: Choice, candidate: Candidate, comparison: Comparison | None, chosen: str
) -> dict[str, str]:
    finals = [final.score for final in choice.finals if final.name == candidate.name and final.counts]
    scores = [score for score in finals if score is not None]
    score = comparison.score if comparison else fmean(scores) if scores else None
    rungs = [rung.score for rung in candidate.rungs if rung.score is not None]
    runs = [one for one in source.runs if one.entry == candidate.name]
    seconds = sum(one.run.record.train_seconds for one in runs) or (
        candidate.rungs[-1].seconds if candidate.rungs else 0
    )
    probe = read_run(source.folder / "probes" / candidate.folder)
    records = [*(one.run.record for one in runs), *([probe.record] if probe else [])]
    multiply_adds = next((record.multiply_adds for record in records if record.multiply_adds), 0)
    return {
        "backbone": printable(candidate.name),
        "result": _result(candidate, comparison, chosen),
        "score": _number(score, 2),
        INTERVAL: f"{comparison.low:.1f} to {comparison.high:.1f}" if comparison else "",
        "sure (%)": _number(comparison.probability * 100 if comparison else None, 0),
        "last rung": _number(rungs[-1] if rungs else None, 2),
        "params (M)": _number(candidate.parameters / 1e6 or None, 2),
        "GFLOPs": _number(multiply_adds / 1e9 or None, 2),
        "ms/image": _number(candidate.milliseconds, 1),
        "memory (GiB)": _number(candidate.peak_memory_bytes / 2**30 or None, 2),
        "train (s)": _number(seconds or None, 0),
        "reason": printable(candidate.reason),
        "transfer": _number(candidate.transfer, 3),
        "s/step": _number(candidate.seconds_per_step, 3),
        "prior": printable(candidate.prior),
        "licence": printable(candidate.licence),
    }


def _result(candidate: Candidate, comparison: Comparison | None, chosen: str) -> str:
    if candidate.name == chosen:
        return "chosen"
    if comparison:
        return "tied" if comparison.tied else "finalist"
    return f"dropped: {printable(candidate.dropped)}" if candidate.dropped else "in the race"


def final_table(choice: Choice) -> Table | None:
    """The complete trainings of finalists; None if there are none yet."""
    if not choice.finals:
        return None
    headers = ("backbone", "seed", "learning rate ×", "score", "counts", "run")
    rows = [
        Row(
            [
                Cell(printable(final.name)),
                Cell(str(final.seed)),
                Cell(f"{final.lr_factor:g}"),
                Cell(_number(final.score, 2) or ("failed" if final.failed else "")),
                Cell("yes" if final.counts else "no"),
                Cell(printable(final.folder)),
            ]
        )
        for final in choice.finals
    ]
    return Table(
        "finals", "Trainings of the finalists", [Column(h, h in (*TEXTS, "counts")) for h in headers], rows
    )


def class_tables(entries: Sequence[Entry]) -> list[Table]:
    """For each task with AP of classes, a table of classes and entries."""
    all_names = short_names([entry.name for entry in entries])
    shown = [pair for pair in zip(entries, all_names, strict=True) if pair[0].score is not None][
        :MOST_ENTRIES
    ]
    entries, names = [entry for entry, _ in shown], [name for _, name in shown]
    tables: list[Table] = []
    for task in dict.fromkeys(task for entry in entries for task in entry.metrics):
        values = [entry.metrics.get(task, {}) for entry in entries]
        keys = list(dict.fromkeys(key for own in values for key in own if ALL_CLASSES.match(key)))
        if not keys:
            continue
        known = [value for own in values for key in keys if (value := own.get(key)) is not None]
        ends = min(known, default=0), max(known, default=0)
        rows = [
            Row(
                [
                    Cell(printable(key.removeprefix("AP-"))),
                    *(_heat(own.get(key), *ends) for own in values),
                ]
            )
            for key in keys
        ]
        columns = [Column("class", is_text=True), *map(_name_column, names)]
        label = f"{TASKS.get(task, task)} AP of each class (%)"
        tables.append(Table(f"classes-{len(tables)}", label, columns, rows))
    return tables


def metric_table(entry: Entry) -> Table | None:
    """All metrics of a single run but those of classes; None without any."""
    tasks = [printable(TASKS.get(task, task)) for task in entry.metrics]
    keys = dict.fromkeys(
        key for own in entry.metrics.values() for key, value in own.items() if not ALL_CLASSES.match(key)
    )
    rows = [
        Row([Cell(printable(key)), *(Cell(_number(own.get(key), 2)) for own in entry.metrics.values())])
        for key in keys
        if any(own.get(key) is not None for own in entry.metrics.values())
    ]
    columns = [Column("metric", is_text=True), *(Column(f"{task} (%)") for task in tasks)]
    return Table("metrics", "Metrics of the validation set", columns, rows) if rows else None


def _name_column(name: str) -> Column:
    return Column(name, title=name)


def _heat(value: float | None, low: float, high: float) -> Cell:
    """A cell whose background is the stronger, the nearer its value is to the highest."""
    if value is None:
        return Cell("")
    return Cell(f"{value:.1f}", round((value - low) / (high - low), 3) if high > low else 0.5)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
