"""The plots of a page as plotly figures; the page adds colours of its light or dark theme.

``layout.meta`` has what the page needs beside plotly's own keys: ``axes``, between which a reader chooses,
each with ``label``, ``title``, ``type``, and ``x`` and ``y`` of every trace where the figure has others.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .curves import Curve

__all__ = ["Series", "draw_curves", "draw_rungs", "make_figure", "make_layout", "safe", "style"]

#: Readable on white and on black
COLORS = (
    *("#3b82f6", "#f97316", "#16a34a", "#e11d48", "#8b5cf6", "#b45309"),
    *("#ec4899", "#64748b", "#a3a300", "#06b6d4"),
)
DASHES = ("solid", "dot", "dash", "dashdot", "longdash")


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


def draw_curves(series: Sequence[Series], title: str, markers: bool = False) -> dict[str, Any] | None:
    """Values over iterations and over seconds, one line for each run; None if no run has any.

    The traces have the order of ``series``, so that a legend beside the plot can hide them by their number.
    """
    values = [value for one in series for value in one.curve.values]
    if not values:
        return None
    axes: list[dict[str, Any]] = [{"label": "iterations", "title": "iterations", "type": "linear"}]
    if any(any(one.curve.seconds) for one in series):
        seconds = [one.curve.seconds for one in series]
        axes.append({"label": "seconds", "title": "seconds of training", "type": "linear", "x": seconds})
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers" if markers or len(one.curve.values) < 3 else "lines",
            "name": safe(one.name),
            "x": one.curve.iterations,
            "y": one.curve.values,
            "line": {"color": one.color, "dash": one.dash, "width": 2},
            "hovertemplate": "%{fullData.name}<br>%{y:.4g} at %{x:,}<extra></extra>",
        }
        for one in series
    ]
    layout = make_layout("iterations", title, axes)
    if not markers and min(values) > 0 and max(values) > 20 * sorted(values)[len(values) // 2]:
        layout["yaxis"]["type"] = "log"
    return make_figure(traces, layout)


def draw_rungs(series: Sequence[Series], metric: str) -> dict[str, Any] | None:
    """The score of each candidate at its rungs over the seconds of training; a cross ends a dropped one."""
    if not any(one.curve.values for one in series):
        return None
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": safe(one.name),
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
    return make_figure(traces, make_layout("seconds of training", f"{metric} (%)", []))


def make_layout(x_title: str, y_title: str, axes: list[dict[str, Any]]) -> dict[str, Any]:
    """The layout that all plots have in common."""
    return {
        "template": "none",
        "autosize": True,
        "height": 420,
        "margin": {"l": 60, "r": 20, "t": 40, "b": 55},
        "showlegend": False,
        "hovermode": "closest",
        "hoverlabel": {"align": "left", "namelength": -1},
        "xaxis": {"title": {"text": x_title}, "automargin": True},
        "yaxis": {"title": {"text": safe(y_title)}, "automargin": True},
        "meta": {"axes": axes},
    }


def make_figure(traces: list[dict[str, Any]], layout: dict[str, Any]) -> dict[str, Any]:
    """A figure as plain data; plotly checks its keys and values."""
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


def safe(text: str) -> str:
    """A text that plotly, which reads a few HTML tags, shows as it is."""
    return html.escape(text, quote=False)
