"""The plots of a page as plotly figures; the page adds colours of its light or dark theme.

``layout.meta`` has what the page needs beside plotly's own keys: ``axes``, between which a reader chooses,
each with ``label``, ``title``, ``type``, and ``x`` and ``y`` of every trace.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..columns import shorten
from ..front import pareto_front
from .curves import Curve

__all__ = ["Point", "Series", "draw_curves", "draw_pareto", "draw_rungs", "style"]

#: Readable on white and on black
COLORS = (
    *("#3b82f6", "#f97316", "#16a34a", "#e11d48", "#8b5cf6", "#b45309"),
    *("#ec4899", "#64748b", "#a3a300", "#06b6d4"),
)
DASHES = ("solid", "dot", "dash", "dashdot", "longdash")
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
    comparable: bool = True


@dataclass(frozen=True)
class Series:
    """A line of a plot.

    Attributes:
        name: of the run or candidate.
        curve: its values.
        color: of the line.
        dash: of the line, as plotly names it.
        dropped: whether a cross ends the line.
    """

    name: str
    curve: Curve
    color: str = COLORS[0]
    dash: str = DASHES[0]
    dropped: bool = False


def style(place: int, repeat: int = 0) -> tuple[str, str]:
    """Colour and dashes of an entry's line in all plots; repeats of an entry share its colour.

    Args:
        place: of the entry.
        repeat: of the run in its entry.
    """
    return COLORS[place % len(COLORS)], DASHES[(place // len(COLORS) + repeat) % len(DASHES)]


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
                "name": _safe(kind),
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
    layout = _layout(first["title"], f"{metric} (%)", axes)
    layout["xaxis"]["type"] = first["type"]
    layout["legend"] = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
    return _figure(traces, layout)


def draw_curves(series: Sequence[Series], title: str, markers: bool = False) -> dict[str, Any] | None:
    """Values over iterations and over seconds, one line for each run; None if no run has any.

    The traces have the order of ``series``, so that a legend beside the plot can hide them by their number.
    """
    values = [value for one in series for value in one.curve.values]
    if not values:
        return None
    axes = [
        {
            "label": label,
            "title": axis_title,
            "type": "linear",
            "x": [getattr(one.curve, key) for one in series],
            "y": [one.curve.values for one in series],
        }
        for label, axis_title, key in (
            ("iterations", "iterations", "iterations"),
            ("seconds", "seconds of training", "seconds"),
        )
    ]
    if not any(any(one.curve.seconds) for one in series):
        del axes[1]
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers" if markers or len(one.curve.values) < 3 else "lines",
            "name": _safe(one.name),
            "x": one.curve.iterations,
            "y": one.curve.values,
            "line": {"color": one.color, "dash": one.dash, "width": 2},
            "hovertemplate": "%{fullData.name}<br>%{y:.4g} at %{x:,}<extra></extra>",
        }
        for one in series
    ]
    layout = _layout("iterations", title, axes)
    if not markers and min(values) > 0 and max(values) > 20 * sorted(values)[len(values) // 2]:
        layout["yaxis"]["type"] = "log"
    return _figure(traces, layout)


def draw_rungs(series: Sequence[Series], metric: str) -> dict[str, Any] | None:
    """The score of each candidate at its rungs over the seconds of training; a cross ends a dropped one."""
    if not any(one.curve.values for one in series):
        return None
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": _safe(one.name),
            "x": one.curve.seconds,
            "y": one.curve.values,
            "line": {"color": one.color, "dash": one.dash, "width": 2},
            "marker": {
                "size": 9,
                "symbol": ["circle"] * (len(one.curve.values) - 1) + ["x" if one.dropped else "circle"],
            },
            "hovertemplate": "%{fullData.name}<br>%{y:.2f} after %{x:.0f} s<extra></extra>",
        }
        for one in series
    ]
    return _figure(traces, _layout("seconds of training", f"{metric} (%)", []))


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
                [_safe(shorten(points[i].name, NAME)) if i in named else "" for i in group]
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
    lines = [f"<b>{_safe(point.name)}</b>", f"{_safe(metric)} {point.score:.2f}{interval}"]
    if point.milliseconds:
        lines.append(f"{point.milliseconds:.1f} ms per image")
    if point.parameters:
        lines.append(f"{point.parameters / 1e6:.2f} M parameters")
    return "<br>".join([*lines, *map(_safe, point.about)])


def _layout(x_title: str, y_title: str, axes: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "template": "none",
        "autosize": True,
        "height": 420,
        "margin": {"l": 60, "r": 20, "t": 40, "b": 55},
        "showlegend": False,
        "hovermode": "closest",
        "hoverlabel": {"align": "left", "namelength": -1},
        "xaxis": {"title": {"text": x_title}, "automargin": True},
        "yaxis": {"title": {"text": _safe(y_title)}, "automargin": True},
        "meta": {"axes": axes},
    }


def _figure(traces: list[dict[str, Any]], layout: dict[str, Any]) -> dict[str, Any]:
    """The figure as plain data; plotly checks its keys and values."""
    import plotly.graph_objects as go

    figure: dict[str, Any] = go.Figure(data=traces, layout=layout).to_plotly_json()
    figure["layout"].pop("template", None)
    return _plain(figure)  # type: ignore[no-any-return]


def _plain(value: Any) -> Any:
    """JSON without NaN."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _safe(text: str) -> str:
    """A text that plotly, which reads a few HTML tags, shows as it is."""
    return html.escape(text, quote=False)
