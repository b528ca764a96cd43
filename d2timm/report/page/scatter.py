"""The Pareto plot of a page: score against cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..columns import shorten
from ..front import pareto_front
from .figures import make_figure, make_layout, safe

__all__ = ["FRONT", "OTHERS", "Point", "draw_pareto"]

FRONT = "#f97316"
OTHERS = "#3b82f6"
NAME = 26  # characters of a name beside its point
NAMED = 8  # points that have their name beside them
RATIO = 10  # of the largest and the smallest cost, from which on the axis is logarithmic


@dataclass(frozen=True)
class Point:
    """A point of the Pareto plot.

    Attributes:
        name: of the entry.
        score: in percent.
        low: lower end of the interval of the score; None: unknown.
        high: upper end of it.
        milliseconds: per image.
        parameters: of the detector.
        kind: ``chosen``, ``done`` or another status.
        about: further lines of its label.
        comparable: whether it may be on the front; the score of a shorter training may not.
    """

    name: str
    score: float
    low: float | None
    high: float | None
    milliseconds: float | None
    parameters: int | None
    kind: str
    about: tuple[str, ...] = ()
    comparable: bool = True


def draw_pareto(points: Sequence[Point], metric: str) -> dict[str, Any] | None:
    """Score against milliseconds and against parameters; None if no cost is known."""
    costs = (
        ("ms per image", "milliseconds per image", [point.milliseconds for point in points]),
        (
            "parameters",
            "parameters (millions)",
            [point.parameters and point.parameters / 1e6 for point in points],
        ),
    )
    axes = [
        _pareto_axis(label, title, values, points)
        for label, title, values in costs
        if any(value and value > 0 for value in values)
    ]
    if not axes:
        return None
    first = axes[0]
    groups = _groups(points)
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "Pareto front",
            "x": first["x"][0],
            "y": first["y"][0],
            "line": {"color": FRONT, "width": 2},
            "hoverinfo": "skip",
        }
    ]
    for place, (kind, members) in enumerate(groups.items(), start=1):
        traces.append(
            {
                "type": "scatter",
                "mode": "markers+text",
                "name": safe(kind),
                "x": first["x"][place],
                "y": first["y"][place],
                "text": first["text"][place],
                "textposition": first["position"][place],
                "hovertext": [_label(points[i], metric) for i in members],
                "hovertemplate": "%{hovertext}<extra></extra>",
                "marker": {**_marker(kind), "color": first["color"][place]},
                "error_y": _errors([points[i] for i in members]),
                "cliponaxis": False,
            }
        )
    layout = make_layout(first["title"], f"{metric} (%)", axes)
    layout["xaxis"]["type"] = first["type"]
    layout["legend"] = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
    return make_figure(traces, layout)


def _groups(points: Sequence[Point]) -> dict[str, list[int]]:
    """Kind -> indices of its points; the front is drawn by a line, so that hiding a kind hides its points."""
    kinds = sorted(
        {point.kind for point in points}, key=lambda kind: (kind != "chosen", kind != "done", kind)
    )
    return {kind: [i for i, point in enumerate(points) if point.kind == kind] for kind in kinds}


def _pareto_axis(
    label: str, title: str, costs: Sequence[float | None], points: Sequence[Point]
) -> dict[str, Any]:
    """One choice of the horizontal axis: the front, then the points of each kind."""
    known = [(i, cost) for i, cost in enumerate(costs) if cost is not None and cost > 0]
    compared = [(i, cost) for i, cost in known if points[i].comparable]
    front = [compared[i] for i in pareto_front([(cost, points[i].score) for i, cost in compared])]
    named = {i for i, _ in front[-NAMED:]}
    members = list(_groups(points).values())
    values = [cost for _, cost in known]
    is_log = max(values) > RATIO * min(values)
    middle = math.sqrt(min(values) * max(values)) if is_log else (min(values) + max(values)) / 2
    on_front = {i for i, _ in front}
    shown = dict(known)
    return {
        "label": label,
        "title": title,
        "position": [
            "top left",
            *(["top left" if shown.get(i, 0) > middle else "top right" for i in group] for group in members),
        ],
        "color": [FRONT, *([FRONT if i in on_front else OTHERS for i in group] for group in members)],
        "type": "log" if is_log else "linear",
        "x": [[cost for _, cost in front], *([shown.get(i) for i in group] for group in members)],
        "y": [[points[i].score for i, _ in front], *([points[i].score for i in group] for group in members)],
        "text": [
            [],
            *(
                [safe(shorten(points[i].name, NAME)) if i in named else "" for i in group]
                for group in members
            ),
        ],
    }


def _marker(kind: str) -> dict[str, Any]:
    if kind == "chosen":
        return {"size": 16, "symbol": "star"}
    symbol = "circle" if kind in ("done", "finalist") else "circle-open"
    return {"size": 10, "symbol": symbol, "line": {"width": 2 if symbol.endswith("open") else 0}}


def _errors(points: Sequence[Point]) -> dict[str, Any]:
    """Error bars of the scores; those of points without an interval have no length."""
    if not any(point.low is not None for point in points):
        return {"visible": False}
    return {
        "type": "data",
        "symmetric": False,
        "array": [0 if point.high is None else max(point.high - point.score, 0) for point in points],
        "arrayminus": [0 if point.low is None else max(point.score - point.low, 0) for point in points],
        "thickness": 1,
        "color": OTHERS,
    }


def _label(point: Point, metric: str) -> str:
    interval = "" if point.low is None else f" ({point.low:.1f} to {point.high:.1f})"
    lines = [f"<b>{safe(point.name)}</b>", f"{safe(metric)} {point.score:.2f}{interval}"]
    if point.milliseconds:
        lines.append(f"{point.milliseconds:.1f} ms per image")
    if point.parameters:
        lines.append(f"{point.parameters / 1e6:.2f} M parameters")
    return "<br>".join([*lines, *map(safe, point.about)])
