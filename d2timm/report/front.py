"""The Pareto front of scores and costs."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Point", "pareto_front"]

Point = tuple[float, float]  # cost, score


def pareto_front(points: Sequence[Point]) -> list[int]:
    """The indices of the (cost, score) points that no other point dominates, in the order of their costs.

    A point dominates another if it costs at most as much, scores at least as much, and is not equal to it.
    """
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[index][1] > points[front[-1]][1] or points[index] == points[front[-1]]:
            front.append(index)
    return front
