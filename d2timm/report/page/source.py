"""Which runs a page shows: those of a sweep, of a choice, or a single one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import ConfigError
from ...runs.choice import FILE as CHOICE
from ...runs.choice import Choice
from ...runs.record import FILE as RECORD
from ...runs.record import is_held
from ...runs.samples import FILE as SAMPLES
from ...runs.status import Run, read_run, read_runs, run_folders
from ...utils.text import printable
from ..certainty import with_intervals
from ..columns import short_names
from ..entries import Entry, make_entries

__all__ = ["ShownRun", "Source", "open_source", "state_of"]

#: Folders of a choice that hold run folders, or folders of them
PARTS = ("finals", "rungs", "winner")
WATCHED = (Path(RECORD), Path("metrics.json"), Path("config.yaml"), SAMPLES)


@dataclass(frozen=True)
class ShownRun:
    """A run of a page.

    Attributes:
        folder: the run folder.
        label: short and unique on the page.
        run: as it was read.
        entry: name of the entry or candidate that it belongs to.
    """

    folder: Path
    label: str
    run: Run
    entry: str


@dataclass(frozen=True)
class Source:
    """What a page is about.

    Attributes:
        folder: of the sweep, the choice or the run.
        choice: the choice; None for a sweep or a run.
        runs: those of the best entries come first.
        entries: of the leaderboard, the best first; of a choice, one for each candidate that has a run.
        is_run: whether the folder is a single run.
    """

    folder: Path
    choice: Choice | None
    runs: tuple[ShownRun, ...]
    entries: tuple[Entry, ...]
    is_run: bool = False

    @property
    def places(self) -> dict[str, int]:
        """Entry or candidate -> its place, which decides its colour."""
        names = [candidate.name for candidate in self.choice.candidates] if self.choice else []
        names += [entry.name for entry in self.entries] + [run.entry for run in self.runs]
        return {name: place for place, name in enumerate(dict.fromkeys(names))}


def open_source(folder: Path, entries: Sequence[Entry] | None = None, intervals: bool = False) -> Source:
    """Read what a folder holds.

    Args:
        folder: of a choice, a run or a sweep.
        entries: of the leaderboard of a sweep, if they are known.
        intervals: whether the scores of a sweep get intervals, which takes time for large datasets.

    Raises:
        ConfigError: the folder holds none of the three.
    """
    choice = Choice.read(folder) if folder.is_dir() else None
    if choice:
        return _open_choice(folder, choice)
    if _is_run(folder):
        run = read_run(folder)
        if run is None:  # it was moved aside at this moment
            raise ConfigError(f"{folder} has no {RECORD}")
        name = printable(folder.resolve().name)
        (entry,) = make_entries([run])
        return Source(folder, None, (ShownRun(folder, name, run, entry.name),), (entry,), is_run=True)
    return _open_sweep(folder, entries, intervals)


def state_of(folder: Path) -> int:
    """A number that changes when a page about the folder would."""
    state: list[object] = []
    for place in [folder, *_run_folders(folder)]:
        for name in (Path(CHOICE), *WATCHED):
            try:
                status = (place / name).stat()
            except OSError:
                continue
            state.append((str(place / name), status.st_mtime_ns, status.st_size))
        if (place / RECORD).is_file():
            state.append(is_held(place))  # a run that was killed changes no file
    return hash(tuple(state))


def _is_run(folder: Path) -> bool:
    """Whether a folder is a run and not a sweep; it may hold an earlier run that was moved aside."""
    if not (folder / RECORD).is_file():
        return False
    inner = [place.name for place in run_folders(folder) if (place / RECORD).is_file()]
    return all(re.fullmatch(r"run~\d+", name) for name in inner)


def _run_folders(folder: Path) -> Iterator[Path]:
    """The run folders of a sweep or a choice."""
    if not folder.is_dir():
        return
    if not (folder / CHOICE).is_file():
        yield from run_folders(folder)
        return
    for part in PARTS:
        yield from _inside(folder / part, levels=2)


def _inside(folder: Path, levels: int) -> Iterator[Path]:
    for place in run_folders(folder) if folder.is_dir() and levels else ():
        if (place / RECORD).is_file():
            yield place
        else:
            yield from _inside(place, levels - 1)


def _open_sweep(folder: Path, entries: Sequence[Entry] | None, intervals: bool) -> Source:
    if entries is None:
        entries = make_entries(read_runs(folder))
        entries = with_intervals(entries, folder) if intervals else entries
    places = {printable(place.name): place for place in run_folders(folder)}
    runs = [(run, entry.name) for entry in entries for run in entry.runs if run.name in places]
    labels = short_names([run.name for run, _ in runs])
    shown = [
        ShownRun(places[run.name], label, run, entry)
        for (run, entry), label in zip(runs, labels, strict=True)
    ]
    return Source(folder, None, tuple(shown), tuple(entries))


def _open_choice(folder: Path, choice: Choice) -> Source:
    """The runs of a choice: of its finals, of the chosen detector and of the rungs, as far as they exist."""
    candidates = {name: c.name for c in choice.candidates for name in (c.name, c.folder)}
    root = folder.resolve()
    finals = {place: final for final in choice.finals if (place := _inner(root, final.folder))}
    others = (place.resolve() for place in _run_folders(folder))
    order = _order(choice)
    found: list[tuple[tuple[int, int, str], ShownRun]] = []
    for place in dict.fromkeys([*finals, *others]):
        run = read_run(place) if root in place.parents else None
        if run is None:
            continue
        label, final = printable(place.relative_to(root).as_posix()), finals.get(place)
        known = (final.name if final else "", run.record.model_name, place.name, place.parent.name)
        entry = next((candidates[name] for name in known if name in candidates), label)
        part = label.partition("/")[0]
        kind = PARTS.index(part) + 1 if part in PARTS else len(PARTS) + 1
        kind -= bool(final and final.counts)
        found.append(((order.get(entry, len(order)), kind, label), ShownRun(place, label, run, entry)))
    found.sort(key=lambda pair: pair[0])
    return Source(folder, choice, tuple(shown for _, shown in found), tuple(_candidate_entries(found)))


def _inner(root: Path, name: str) -> Path | None:
    """The folder of a name that a record has, unless it is outside of the choice or no path."""
    try:
        place = (root / name).resolve()
    except (OSError, ValueError, RuntimeError):
        return None
    return place if root in place.parents else None


def _order(choice: Choice) -> dict[str, int]:
    """Candidate -> its place: finalists as they were compared, then those that were dropped last."""
    compared = [part.name for part in choice.verdict.compared] if choice.verdict else []
    rest = sorted(choice.candidates, key=lambda candidate: (bool(candidate.dropped), -len(candidate.rungs)))
    return {name: place for place, name in enumerate(dict.fromkeys([*compared, *(c.name for c in rest)]))}


def _candidate_entries(found: Sequence[tuple[tuple[int, int, str], ShownRun]]) -> Iterator[Entry]:
    """An entry for each candidate: of the finals that count, or else of other runs of the same kind."""
    for name in dict.fromkeys(shown.entry for _, shown in found):
        own = [(kind, shown.run) for (_, kind, _), shown in found if shown.entry == name]
        first = min(kind for kind, _ in own)
        yield Entry(name, tuple(run for kind, run in own if kind == first))
