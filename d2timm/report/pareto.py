"""The plot of a leaderboard: score against cost, with the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import textalloc
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ..runs.status import STATUSES
from ..utils.files import atomic_write
from .columns import short_names, shorten
from .entries import Entry, metrics_compared
from .front import Point, pareto_front

__all__ = ["draw_pareto"]

BLUE, ORANGE = "#4c72b0", "#c44e00"
LARGE, SMALL = 10, 6  # diameters of the markers in points: on the front, others
MAX_NAME = 44  # characters
DPI = 100


def draw_pareto(entries: Sequence[Entry], file: Path) -> None:
    """Plot the entries that have a score into a PNG file; without any, remove the file."""
    scored = [entry for entry in entries if entry.score is not None]
    if not scored:
        file.unlink(missing_ok=True)
        return
    figure = make_figure(scored)
    with atomic_write(file) as unfinished:
        figure.savefig(unfinished, format="png", metadata={"Software": None})


def make_figure(scored: Sequence[Entry]) -> Figure:
    """Plot entries that all have a score: against latency on the left, against parameters on the right."""
    figure = Figure(figsize=(16, 8), dpi=DPI)
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.055, right=0.985, top=0.93, bottom=0.08, wspace=0.04)
    panels = figure.subplots(1, 2, sharey=True)
    compared = metrics_compared(scored)
    panels[0].set_ylabel(f"{compared[0]} (%)" if len(compared) == 1 else f"score (%): {', '.join(compared)}")
    panels[0].set_ylim(*_score_limits(scored))
    names = short_names([entry.name for entry in scored])
    latencies = [entry.latency_ms for entry in scored]
    _draw_panel(panels[0], scored, names, latencies, "latency (ms per image)")
    millions = [entry.parameters and entry.parameters / 1e6 for entry in scored]
    _draw_panel(panels[1], scored, names, millions, "parameters (M)")
    figure.legend(handles=_legend(scored), loc="upper center", ncols=4, frameon=False)
    return figure


def _score_limits(scored: Sequence[Entry]) -> tuple[float, float]:
    """Limits of the score axis that contain the error bars."""
    means_and_spreads = [(entry.score, entry.spread or 0) for entry in scored if entry.score is not None]
    low = min(score - spread for score, spread in means_and_spreads)
    high = max(score + spread for score, spread in means_and_spreads)
    margin = 0.1 * (high - low) or 0.5
    return low - margin, high + margin


def _draw_panel(
    axes: Axes, scored: Sequence[Entry], names: Sequence[str], costs: Sequence[float | None], label: str
) -> None:
    axes.set_xlabel(label)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    known = [
        (entry, (cost, entry.score), shorten(name, MAX_NAME))
        for entry, cost, name in zip(scored, costs, names, strict=True)
        if cost and entry.score is not None
    ]
    if not known:
        axes.set_xticks([])
        axes.text(0.5, 0.5, "not known for any run", transform=axes.transAxes, ha="center")
        return
    points = [point for _, point, _ in known]
    front = pareto_front(points)
    axes.plot(*zip(*(points[i] for i in front), strict=True), color=ORANGE, zorder=2)
    for i, (entry, (cost, score), _) in enumerate(known):
        color, size = (ORANGE, LARGE) if i in front else (BLUE, SMALL)
        fill = color if entry.status == "done" else "white"
        axes.errorbar(cost, score, entry.spread, color=color, capsize=3, lw=1)
        axes.plot(cost, score, "o", color=color, markersize=size, markerfacecolor=fill, zorder=3)
    _scale_costs(axes, [cost for cost, _ in points])
    _write_names(axes, points, {i: known[i][2] for i in front})


def _scale_costs(axes: Axes, costs: Sequence[float]) -> None:
    """Set the limits and ticks of the cost axis, logarithmic for costs of different magnitudes."""
    axes.margins(x=0.1)
    if max(costs) > 10 * min(costs):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda cost, _: f"{cost:g}"))
    _, high = axes.get_xlim()  # also updates the transformation that the next line uses
    left, _ = axes.transData.inverted().transform(axes.transAxes.transform((-0.2, 0)))
    axes.set_xlim(max(left, 0) if axes.get_xscale() == "linear" else left, high)  # room for names


def _write_names(axes: Axes, points: Sequence[Point], names: Mapping[int, str]) -> None:
    """Write the names of the points on the front next to them, joined by a line.

    Names do not overlap each other, points or lines. A name for which there is no room is left out, the
    lowest scores first.

    Args:
        axes: a panel whose limits are final.
        points: all points of the panel.
        names: index -> name of the points on the front, in the order of their costs.
    """
    costs, scores = [cost for cost, _ in points], [score for _, score in points]
    highest_first = sorted(names, key=lambda i: -scores[i])
    radii: Any = [(LARGE if i in names else SMALL) / 2 * DPI / 72 for i in range(len(points))]  # in pixels
    with redirect_stdout(None):  # where a name has no room, textalloc prints so
        textalloc.allocate(
            axes,
            [costs[i] for i in highest_first],
            [scores[i] for i in highest_first],
            [names[i] for i in highest_first],
            x_scatter=costs,
            y_scatter=scores,
            scatter_sizes=radii,
            x_lines=[[costs[i] for i in names]],
            y_lines=[[scores[i] for i in names]],
            textsize=9,
            margin=0.003,
            direction=["northwest", "west", "southeast", "east"],  # the front rises from left to right
            draw_all=False,
            avoid_label_lines_overlap=True,
            avoid_crossing_label_lines=True,
            linecolor="0.6",
            linewidth=0.8,
            parse_math=False,
        )


def _legend(scored: Sequence[Entry]) -> list[Line2D]:
    dot = partial(Line2D, [], [], marker="o")
    statuses = sorted({entry.status for entry in scored}, key=STATUSES.index)
    handles = [dot(color=ORANGE, markersize=LARGE, label="Pareto front")]
    if "done" in statuses:
        handles.append(dot(color=BLUE, markersize=SMALL, linestyle="none", label="done"))
    if statuses != ["done"]:
        others = ", ".join(status for status in statuses if status != "done")
        hollow = dot(color=BLUE, markersize=SMALL, linestyle="none", mfc="white", label=f"hollow: {others}")
        handles.append(hollow)
    if any(entry.spread is not None for entry in scored):
        spread = "± standard deviation over seeds"
        handles.append(Line2D([], [], color="0.4", marker="|", ms=14, linestyle="none", label=spread))
    return handles
