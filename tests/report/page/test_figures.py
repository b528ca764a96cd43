"""Plots: their values, and names that plotly would read as HTML."""

from __future__ import annotations

import json
from typing import Any

import pytest
from helpers.pages import EVIL

from d2timm.report.page.curves import Curve
from d2timm.report.page.figures import (
    FRONT,
    OTHERS,
    Point,
    Series,
    draw_curves,
    draw_pareto,
    draw_rungs,
    style,
)


def point(name: str, score: float, milliseconds: float | None, **fields: Any) -> Point:
    values = {"low": None, "high": None, "parameters": int(score * 1e6), "kind": "done", **fields}
    return Point(name=name, score=score, milliseconds=milliseconds, **values)


def test_pareto_has_a_trace_for_each_kind_and_the_front() -> None:
    points = [point("a", 10, 5), point("b", 8, 9), point("c", 12, 30, kind="chosen", low=11.0, high=14.0)]
    figure = draw_pareto(points, "bbox/AP")
    assert figure
    front, chosen, done = figure["data"]
    assert (front["x"], front["y"]) == ([5, 30], [10, 12])
    assert (chosen["name"], chosen["x"], chosen["y"]) == ("chosen", [30], [12])
    assert chosen["error_y"]["array"] == [2.0]
    assert (done["x"], done["y"]) == ([5, 9], [10, 8])
    assert done["text"] == ["a", ""], "only names of the front are written"
    assert done["marker"]["color"] == [FRONT, OTHERS]
    assert "5.0 ms per image" in done["hovertext"][0]
    assert [axis["label"] for axis in figure["layout"]["meta"]["axes"]] == ["ms per image", "parameters"]
    parameters = figure["layout"]["meta"]["axes"][1]
    assert parameters["x"][0] == [8, 10, 12]


def test_points_of_shorter_trainings_are_not_on_the_front() -> None:
    points = [point("a", 10, 5), point("b", 8, 1, comparable=False)]
    figure = draw_pareto(points, "AP")
    assert figure
    assert figure["data"][0]["x"] == [5]


def test_unknown_costs() -> None:
    assert draw_pareto([point("a", 1, None, parameters=None)], "AP") is None
    assert draw_pareto([], "AP") is None
    figure = draw_pareto([point("a", 1, None), point("b", 2, 3)], "AP")
    assert figure
    assert figure["data"][1]["x"] == [None, 3]
    figure = draw_pareto([point("a", 1, None), point("b", 2, 0)], "AP")
    assert figure
    assert [axis["label"] for axis in figure["layout"]["meta"]["axes"]] == ["parameters"]


@pytest.mark.parametrize(("costs", "kind"), [((1, 9), "linear"), ((1, 11), "log")])
def test_scale_of_costs(costs: tuple[int, int], kind: str) -> None:
    figure = draw_pareto([point("a", 1, costs[0]), point("b", 2, costs[1])], "AP")
    assert figure
    assert figure["layout"]["xaxis"]["type"] == kind


def test_curves() -> None:
    series = [
        Series("a", Curve([1, 2], [10.0, 20.0], [5.0, 4.0]), *style(0)),
        Series("b", Curve(), *style(1)),
    ]
    figure = draw_curves(series, "loss")
    assert figure
    assert [trace["name"] for trace in figure["data"]] == ["a", "b"], "a legend finds lines by their number"
    iterations, seconds = figure["layout"]["meta"]["axes"]
    assert (iterations["x"], seconds["x"]) == ([[1, 2], []], [[10.0, 20.0], []])
    assert draw_curves([Series("b", Curve())], "loss") is None


def test_curves_without_a_clock_have_one_axis() -> None:
    figure = draw_curves([Series("a", Curve([1, 2], [0.0, 0.0], [5.0, 4.0]))], "loss")
    assert figure
    assert len(figure["layout"]["meta"]["axes"]) == 1


def test_loss_of_different_magnitudes_is_logarithmic() -> None:
    values = [1000.0, *[1.0] * 20]
    figure = draw_curves([Series("a", Curve([*range(21)], [1.0] * 21, values))], "loss")
    assert figure
    assert figure["layout"]["yaxis"]["type"] == "log"


def test_line_of_a_dropped_candidate_ends_with_a_cross() -> None:
    curve = Curve([1, 2], [60.0, 120.0], [5.0, 8.0])
    figure = draw_rungs([Series("a", curve), Series("b", curve, dropped=True)], "AP")
    assert figure
    assert [trace["marker"]["symbol"][-1] for trace in figure["data"]] == ["circle", "x"]
    assert draw_rungs([], "AP") is None


def test_styles_differ_and_repeats_share_a_colour() -> None:
    assert len({style(place) for place in range(50)}) == 50
    assert style(3)[0] == style(3, repeat=1)[0]
    assert style(3)[1] != style(3, repeat=1)[1]


def test_names_are_no_html() -> None:
    figures = [
        draw_pareto([point(EVIL, 1, 2, kind=EVIL, about=(EVIL,))], EVIL),
        draw_curves([Series(EVIL, Curve([1], [1.0], [2.0]))], EVIL),
        draw_rungs([Series(EVIL, Curve([1], [1.0], [2.0]))], EVIL),
    ]
    assert "<img" not in json.dumps(figures)
    assert "&lt;img" in json.dumps(figures)


def test_figures_have_no_nan() -> None:
    figure = draw_curves([Series("a", Curve([1, 2], [float("nan"), 1.0], [5.0, 4.0]))], "loss")
    assert json.dumps(figure, allow_nan=False)
