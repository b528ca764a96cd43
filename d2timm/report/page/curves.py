"""Loss and score of a run over its training, from ``metrics.json`` and its record."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from ...runs.record import Record

__all__ = ["Curve", "Curves", "read_curves"]

FILE = "metrics.json"
LONGEST = 2**16  # bytes of a line that is read
LARGEST = 2**25  # bytes of a file that is read line by line
SAMPLED = 4000  # lines that are read of a larger file


@dataclass(frozen=True)
class Curve:
    """Values over a training; all three lists have the same length.

    Attributes:
        iterations: ascending.
        seconds: of training until then.
        values: at that moment.
    """

    iterations: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Curves:
    """What a page shows of the training of a run.

    Attributes:
        loss: the total loss.
        score: the metric that runs are compared by, in percent.
    """

    loss: Curve
    score: Curve


def read_curves(folder: Path, record: Record, points: int = 300) -> Curves:
    """Read the curves of a run; without a file that can be read, they are shorter or empty.

    Args:
        folder: the run folder.
        record: its record.
        points: a longer curve is thinned to this number.
    """
    lines = _read(folder / FILE)
    known = sorted(lines)
    clock = _Clock(known, [lines[iteration].time for iteration in known], record)
    losses = [(i, loss) for i in known if (loss := lines[i].total_loss) is not None and math.isfinite(loss)]
    losses = losses[:: math.ceil(len(losses) / points)] + losses[-1:] if len(losses) > points else losses
    scores = [(i, score) for i, score in sorted(dict(record.scores).items()) if math.isfinite(score)]
    return Curves(clock.curve(losses), clock.curve(scores[-points:]))


class _Line(msgspec.Struct):
    """What is read of a line; the others of its values are skipped."""

    iteration: int
    total_loss: float | None = None
    time: float | None = None


class _Clock:
    """The seconds of training at an iteration.

    Args:
        iterations: that have been measured, ascending.
        paces: seconds per iteration at each of them.
        record: its seconds are those of the whole training.
    """

    def __init__(self, iterations: Sequence[int], paces: Sequence[float | None], record: Record) -> None:
        usable = [
            (iteration, pace)
            for iteration, pace in zip(iterations, paces, strict=True)
            if pace is not None and math.isfinite(pace) and pace > 0
        ]
        end = max(record.iterations, 1)
        mean = record.train_seconds / end
        steps = np.diff([0, *(iteration for iteration, _ in usable)])
        self.iterations = np.array([0, *(iteration for iteration, _ in usable)], float)
        self.seconds = np.concatenate([[0.0], np.cumsum(steps * [pace for _, pace in usable])])
        if mean > 0:  # the sum of paces lacks what is slower than the median
            measured = float(np.interp(end, self.iterations, self.seconds))
            if not usable or measured <= 0:
                self.iterations, self.seconds = np.array([0.0, end]), np.array([0.0, record.train_seconds])
            else:
                self.seconds *= record.train_seconds / measured

    def curve(self, values: Sequence[tuple[int, float]]) -> Curve:
        """The curve of (iteration, value)."""
        iterations = [iteration for iteration, _ in values]
        seconds = np.interp(iterations, self.iterations, self.seconds) if values else np.array([])
        return Curve(iterations, seconds.round(2).tolist(), [float(f"{value:.5g}") for _, value in values])


def _read(file: Path) -> dict[int, _Line]:
    """Iterations trained -> line; the later line of iterations that were trained twice."""
    decoder = msgspec.json.Decoder(_Line)
    found = {}
    for text in _lines(file):
        try:
            line = decoder.decode(text)
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            try:
                line = msgspec.convert(json.loads(text), _Line)  # it may have a NaN, which Python reads
            except (ValueError, RecursionError):  # it is cut off, or of another program
                continue
        if line.iteration >= 0:
            found[line.iteration + 1] = line
    return found


def _lines(file: Path) -> Iterator[bytes]:
    """The lines of a file; of a large one, those at evenly spaced places."""
    try:
        with file.open("rb") as opened:
            size = file.stat().st_size
            if size <= LARGEST:
                while line := opened.readline(LONGEST):
                    yield line
                return
            for place in range(0, size, size // SAMPLED):
                opened.seek(place)
                opened.readline(LONGEST)  # the rest of the line
                yield opened.readline(LONGEST)
    except OSError:
        return
