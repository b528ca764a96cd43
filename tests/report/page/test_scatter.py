"""The Pareto plot of a page."""

from __future__ import annotations

import json
from typing import Any

import pytest
from helpers.pages import EVIL

from d2timm.report.page.scatter import FRONT, OTHERS, Point, draw_pareto


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


def test_names_are_no_html() -> None:
    figure = draw_pareto([point(EVIL, 1, 2, kind=EVIL, about=(EVIL,))], EVIL)
    assert "<img" not in json.dumps(figure)
    assert "&lt;img" in json.dumps(figure)


def test_names_do_not_overlap() -> None:
    crowded = [point(f"a long name {i}", 50 + i / 100, 10 + i / 100) for i in range(10)]
    figure = draw_pareto([*crowded, point("far", 10, 1)], "AP")
    assert figure
    text = figure["data"][1]["text"]
    assert 0 < sum(map(bool, text[:-1])) < 10
    assert text[-1] == "far"


def test_ticks_of_a_logarithmic_axis() -> None:
    figure = draw_pareto([point("a", 1, 3), point("b", 2, 90)], "AP")
    assert figure
    ticks = figure["layout"]["xaxis"]["tickvals"]
    assert ticks == [1, 2, 5, 10, 20, 50, 100, 200, 500]
