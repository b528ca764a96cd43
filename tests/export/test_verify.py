"""Differences between two results."""

from __future__ import annotations

import numpy as np

from d2timm.export.verify import Difference, compare


def result(boxes: list[list[float]], classes: list[int], scores: list[float]) -> dict[str, np.ndarray]:
    masks = np.zeros((len(boxes), 4, 5), bool)
    masks[:, 1:3] = True
    return {
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "classes": np.array(classes),
        "scores": np.array(scores),
        "masks": masks,
    }


ONE = result([[0, 0, 10, 10], [5, 5, 20, 20], [5, 5, 20, 20]], [1, 2, 3], [0.9, 0.8, 0.7])


def test_order_does_not_matter() -> None:
    reversed_ = {name: values[::-1] for name, values in ONE.items()}
    assert compare(ONE, reversed_) == Difference(3, 0, 0.0, 0.0, 0, 30)


def test_differences_are_the_largest() -> None:
    other = result([[0, 0, 10, 10.25], [5, 5, 20, 20], [5, 5, 20, 20]], [1, 2, 3], [0.9, 0.8, 0.5])
    other["masks"][0, 0, 0] = True
    difference = compare(ONE, other)
    assert (difference.boxes, round(difference.scores, 6), difference.pixels) == (0.25, 0.2, 1)


def test_unmatched_objects_are_counted() -> None:
    fewer = result([[0, 0, 10, 10]], [1], [0.9])
    assert compare(ONE, fewer).unmatched == compare(fewer, ONE).unmatched == 2
    wrong = result([[0, 0, 10, 10]], [2], [0.9])
    assert compare(fewer, wrong) == Difference(1, 2)
    none = result([], [], [])
    assert compare(none, none) == Difference(0, 0)
    assert str(compare(none, none)) == "no objects in either"
    assert "2 objects are in one result only" in str(compare(fewer, wrong))
