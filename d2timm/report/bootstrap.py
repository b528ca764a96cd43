"""How sure a difference between runs is: bootstrap over the images of the validation set, and over seeds.

The images are drawn with replacement, the same for all runs that are compared (a paired bootstrap, Efron and
Tibshirani 1993), and AP is computed for each draw. Runs that differ only in their seed are drawn as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..utils.text import one_line

__all__ = ["Comparison", "Matches", "compare", "draw_scores", "interval"]

DRAWS = 1000
CONFIDENCE = 0.95
RECALLS = np.linspace(0.0, 1.0, 101)  # at which COCO reads the precision
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """The difference of the metric of two entries, in percent.

    Attributes:
        difference: of the means over their seeds, the first minus the second.
        low: lower end of the interval of 95 %.
        high: upper end.
        probability: that the first one is better, 0 to 1; a draw without a difference counts half.
    """

    difference: float
    low: float
    high: float
    probability: float

    @property
    def is_tie(self) -> bool:
        """Whether the interval contains 0."""
        return self.low <= 0 <= self.high


class Matches:
    """Detections of a validation set and the objects that they match.

    Args:
        arrays: as in the file that an evaluation writes.
    """

    def __init__(self, arrays: dict[str, NDArray[Any]]) -> None:
        self.images, self.objects = arrays["images"], arrays["objects"]
        order = np.argsort(-arrays["score"], kind="stable")
        self._image, self._category = arrays["image"][order], arrays["category"][order]
        self._matched, self._ignored = arrays["matched"][:, order], arrays["ignored"][:, order]

    @classmethod
    def read(cls, file: Path) -> Matches:
        """Read the file of an evaluation.

        Raises:
            ConfigError: it cannot be read.
        """
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return cls(dict(arrays))
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise ConfigError(f"{file}: {one_line(error)}") from None

    @cached_property
    def _by_category(self) -> list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
        """Images (D,), hits and misses (T, D) of the detections of each class, the most confident first."""
        parts = []
        for category in range(self.objects.shape[1]):
            chosen = np.flatnonzero(self._category == category)
            counted = ~self._ignored[:, chosen]
            matched = self._matched[:, chosen]
            parts.append((self._image[chosen], matched & counted, ~matched & counted))
        return parts

    def average_precision(self, weights: Floats | None = None) -> float:
        """COCO's AP in percent, of all objects and thresholds; NaN if no class has an object.

        Args:
            weights: (I,) how often each image occurs; None: once.
        """
        if weights is None:
            weights = np.ones(len(self.images))
        objects = weights @ self.objects
        values = [
            _precision(weights[image], hits, misses, number)
            for (image, hits, misses), number in zip(self._by_category, objects, strict=True)
            if number > 0
        ]
        return 100 * float(np.mean(values)) if values else float("nan")


def _precision(weights: Floats, hits: NDArray[Any], misses: NDArray[Any], objects: float) -> float:
    """Mean precision of a class over thresholds and recalls, as pycocotools accumulates it."""
    found, wrong = np.cumsum(weights * hits, axis=1), np.cumsum(weights * misses, axis=1)
    precision = found / (found + wrong + np.spacing(1))
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    envelope = np.pad(envelope, ((0, 0), (0, 1)))  # 0 at recalls that are not reached
    index = np.stack([np.searchsorted(row, RECALLS, side="left") for row in found / objects])
    return float(np.take_along_axis(envelope, index, axis=1).mean())


def draw_scores(
    entries: Sequence[Sequence[Matches]], draws: int = DRAWS, seed: int = 0
) -> NDArray[np.float64]:
    """The metric of each entry in each draw, (draws, entries), in percent.

    Args:
        entries: the runs of each entry, which differ only in their seed.
        draws: how often images and seeds are drawn.
        seed: of the draws.

    Raises:
        ConfigError: the runs were evaluated on different images.
    """
    images = entries[0][0].images
    for runs in entries:
        if any(not np.array_equal(run.images, images) for run in runs):
            raise ConfigError("runs that were evaluated on different images cannot be compared")
    generator = np.random.default_rng(seed)
    scores = np.empty((draws, len(entries)))
    for draw in range(draws):
        weights = np.bincount(generator.integers(0, len(images), len(images)), minlength=len(images))
        for column, runs in enumerate(entries):
            chosen, times = np.unique(generator.integers(0, len(runs), len(runs)), return_counts=True)
            values = [runs[index].average_precision(weights.astype(float)) for index in chosen]
            scores[draw, column] = np.average(values, weights=times)
    return scores


def interval(scores: NDArray[np.float64], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The interval that contains this share of draws, between equal shares of lower and higher ones."""
    low, high = np.nanquantile(scores, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def compare(one: NDArray[np.float64], other: NDArray[np.float64], difference: float) -> Comparison:
    """Compare two entries by their scores in the same draws.

    Args:
        one: (draws,) scores of an entry.
        other: (draws,) scores of another one.
        difference: of their scores on all images.
    """
    differences = one - other
    differences = differences[~np.isnan(differences)]
    better = float(np.mean(differences > 0) + np.mean(differences == 0) / 2) if len(differences) else 0.5
    low, high = interval(differences) if len(differences) else (float("nan"), float("nan"))
    return Comparison(difference, low, high, better)
