"""Plots: their values, and names that plotly would read as HTML."""

from __future__ import annotations

import json

from helpers.pages import EVIL

from d2timm.report.page.curves import Curve
from d2timm.report.page.figures import Series, draw_curves, draw_rungs, style


def test_curves() -> None:
    series = [
        Series("a", Curve([1, 2], [10.0, 20.0], [5.0, 4.0]), *style(0)),
        Series("b", Curve(), *style(1)),
    ]
    figure = draw_curves(series, "loss")
    assert figure
    assert [trace["name"] for trace in figure["data"]] == ["a", "b"], "a legend finds lines by their number"
    iterations, seconds = figure["layout"]["meta"]["axes"]
    assert ("x" in iterations, seconds["x"]) == (False, [[10.0, 20.0], []])
    assert [trace["x"] for trace in figure["data"]] == [[1, 2], []]
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
        draw_curves([Series(EVIL, Curve([1], [1.0], [2.0]))], EVIL),
        draw_rungs([Series(EVIL, Curve([1], [1.0], [2.0]))], EVIL),
    ]
    assert "<img" not in json.dumps(figures)
    assert "&lt;img" in json.dumps(figures)


def test_figures_have_no_nan() -> None:
    figure = draw_curves([Series("a", Curve([1, 2], [float("nan"), 1.0], [5.0, 4.0]))], "loss")
    assert json.dumps(figure, allow_nan=False)
