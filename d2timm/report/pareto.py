"""Score against cost: a picture of a leaderboard, and which entries nothing else beats."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ..runs.status import STATUSES
from ..utils.files import atomic_write
from .entries import Entry, metrics_compared
from .labels import place_labels
from .tables import short_names, shortened

__all__ = ["draw", "front"]

BLUE, ORANGE = "#4c72b0", "#c44e00"
LONGEST = 44  # characters of a name


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which (cost, score) are on the Pareto front: no other costs at most as much, scores at least as much.

    Equal points are on it together. In the order of their costs.
    """
    chosen: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not chosen or points[index][1] > points[chosen[-1]][1] or points[index] == points[chosen[-1]]:
            chosen.append(index)
    return chosen


def draw(entries: Sequence[Entry], file: Path) -> None:
    """Draw entries with a score into a PNG file; without any, there is no such file."""
    scored = [entry for entry in entries if entry.score is not None]
    if not scored:
        file.unlink(missing_ok=True)
        return
    figure = Figure(figsize=(16, 8), dpi=100)
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.055, right=0.985, top=0.93, bottom=0.08, wspace=0.04)
    panels = figure.subplots(1, 2, sharey=True)
    compared = metrics_compared(scored)
    panels[0].set_ylabel(f"{compared[0]} (%)" if len(compared) == 1 else f"score (%): {', '.join(compared)}")
    ends = [
        entry.score + sign * (entry.spread or 0)
        for entry in scored
        for sign in (-1, 1)
        if entry.score is not None
    ]
    room = 0.1 * (max(ends) - min(ends)) or 0.5
    panels[0].set_ylim(min(ends) - room, max(ends) + room)
    names = short_names([entry.name for entry in scored])
    latencies = [entry.latency_ms for entry in scored]
    _draw_panel(panels[0], scored, names, latencies, "latency (ms per image)")
    millions = [entry.parameters and entry.parameters / 1e6 for entry in scored]
    _draw_panel(panels[1], scored, names, millions, "parameters (M)")
    figure.legend(handles=_legend(scored), loc="upper center", ncols=4, frameon=False)
    with atomic_write(file) as unfinished:
        figure.savefig(unfinished, format="png", metadata={"Software": None})


def _draw_panel(
    axes: Axes, scored: Sequence[Entry], names: Sequence[str], costs: Sequence[float | None], label: str
) -> None:
    axes.set_xlabel(label)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    told = [
        (cost, entry.score, entry, shortened(name, LONGEST))
        for cost, entry, name in zip(costs, scored, names, strict=True)
        if cost and entry.score is not None
    ]
    if not told:
        axes.set_xticks([])
        axes.text(0.5, 0.5, "not known of any run", transform=axes.transAxes, ha="center")
        return
    points = [(cost, score) for cost, score, *_ in told]
    on_front = front(points)
    axes.plot(*zip(*(points[i] for i in on_front), strict=True), color=ORANGE, zorder=2)
    for i, (cost, score, entry, _) in enumerate(told):
        color, size = (ORANGE, 10) if i in on_front else (BLUE, 6)
        fill = color if entry.status == "done" else "white"
        axes.errorbar(cost, score, entry.spread, color=color, capsize=3, lw=1)
        axes.plot(cost, score, "o", color=color, markersize=size, markerfacecolor=fill, zorder=3)
    _set_costs(axes, [cost for cost, _ in points])
    place_labels(axes, points, {i: told[i][3] for i in on_front})


def _set_costs(axes: Axes, costs: Sequence[float]) -> None:
    """Limits and ticks of the costs, which are final after that."""
    axes.margins(x=0.1)
    if max(costs) > 10 * min(costs):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda cost, _: f"{cost:g}"))
    _, high = axes.get_xlim()  # before the transformation below, which it brings up to date
    left, _ = axes.transData.inverted().transform(axes.transAxes.transform((-0.2, 0)))
    axes.set_xlim(max(left, 0) if axes.get_xscale() == "linear" else left, high)  # room for names


def _legend(scored: Sequence[Entry]) -> list[Line2D]:
    dot = partial(Line2D, [], [], marker="o")
    statuses = sorted({entry.status for entry in scored}, key=STATUSES.index)
    handles = [dot(color=ORANGE, markersize=10, label="Pareto front")]
    if "done" in statuses:
        handles.append(dot(color=BLUE, markersize=6, linestyle="none", label="done"))
    if statuses != ["done"]:
        others = ", ".join(status for status in statuses if status != "done")
        handles.append(
            dot(color=BLUE, markersize=6, linestyle="none", mfc="white", label=f"hollow: {others}")
        )
    if any(entry.spread is not None for entry in scored):
        spread = "± standard deviation over seeds"
        handles.append(Line2D([], [], color="0.4", marker="|", ms=14, linestyle="none", label=spread))
    return handles
