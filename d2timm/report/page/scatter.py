"""The Pareto plot of a page: score against cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..columns import shorten
from ..front import pareto_front
from .figures import make_figure, make_layout, safe

__all__ = ["FRONT", "OTHERS", "Point", "draw_pareto"]

FRONT = "#f97316"
OTHERS = "#3b82f6"
COMPLETE = ("done", "finalist")  # kinds whose points are filled
NAME = 26  # characters of a name beside its point
WIDTH, HEIGHT = 1000, 300  # of the plot in pixels where names are written, which narrow windows do without
LETTER, LINE, GAP = 7, 16, 8  # width and height of a letter, and how far a name is from its point, in pixels
#: Places of a name beside its point: horizontally and vertically, as -1, 0 or 1
PLACES = {
    "top right": (1, 1),
    "top left": (-1, 1),
    "bottom right": (1, -1),
    "bottom left": (-1, -1),
    "middle right": (1, 0),
    "middle left": (-1, 0),
}
Box = tuple[float, float, float, float]  # left, bottom, right, top
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
            "showlegend": False,
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
    if first["ticks"]:
        layout["xaxis"] |= {"tickmode": "array", "tickvals": first["ticks"]}
    layout["showlegend"] = len(groups) > 1
    layout["legend"] = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "itemclick": False}
    return make_figure(traces, layout)


def _groups(points: Sequence[Point]) -> dict[str, list[int]]:
    """Kind -> indices of its points; the front is drawn by a line, so that hiding a kind hides its points."""
    kinds = sorted(
        {point.kind for point in points}, key=lambda kind: (kind != "chosen", kind not in COMPLETE, kind)
    )
    return {kind: [i for i, point in enumerate(points) if point.kind == kind] for kind in kinds}


def _pareto_axis(
    label: str, title: str, costs: Sequence[float | None], points: Sequence[Point]
) -> dict[str, Any]:
    """One choice of the horizontal axis: the front, then the points of each kind."""
    known = [(i, cost) for i, cost in enumerate(costs) if cost is not None and cost > 0]
    compared = [(i, cost) for i, cost in known if points[i].comparable]
    front = [compared[i] for i in pareto_front([(cost, points[i].score) for i, cost in compared])]
    members = list(_groups(points).values())
    values = [cost for _, cost in known]
    is_log = max(values) > RATIO * min(values)
    on_front = {i for i, _ in front}
    shown = dict(known)
    named = _place_names(shown, points, [i for i, _ in front], is_log)
    return {
        "label": label,
        "title": title,
        "ticks": _ticks(min(values), max(values)) if is_log else None,
        "position": ["top left", *([named.get(i, "top right") for i in group] for group in members)],
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


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten between two costs, and those around them."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [factor * 10.0**power for power in powers for factor in (1, 2, 5)]


def _place_names(
    costs: Mapping[int, float], points: Sequence[Point], front: Sequence[int], is_log: bool
) -> dict[int, str]:
    """Where the names of points on the front are written, so that they cover neither points nor each other.

    A name for which there is no room is left out; the highest scores come first.
    """
    scale = math.log if is_log else float
    across = [scale(cost) for cost in costs.values()]
    ends = [end for i in costs for end in (points[i].low, points[i].high, points[i].score) if end is not None]
    spots = {
        i: (
            WIDTH * (scale(cost) - min(across)) / (max(across) - min(across) or 1),
            HEIGHT * (points[i].score - min(ends)) / (max(ends) - min(ends) or 1),
        )
        for i, cost in costs.items()
    }
    taken = [(x - GAP, y - GAP, x + GAP, y + GAP) for x, y in spots.values()]
    named = {}
    for i in sorted(front, key=lambda i: -points[i].score):
        x, y = spots[i]
        width = LETTER * min(len(points[i].name), NAME)
        for place, (right, up) in PLACES.items():
            left, bottom = x + (GAP if right > 0 else -GAP - width), y + up * (GAP + LINE / 2) - LINE / 2
            box = (left, bottom, left + width, bottom + LINE)
            if box[0] >= 0 and box[2] <= WIDTH and not any(_overlap(box, other) for other in taken):
                named[i] = place
                taken.append(box)
                break
    return named


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _marker(kind: str) -> dict[str, Any]:
    if kind == "chosen":
        return {"size": 16, "symbol": "star"}
    symbol = "circle" if kind in COMPLETE else "circle-open"
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
