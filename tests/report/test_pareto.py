"""The plot of a leaderboard: which entries are on the front, and where their names are written."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from helpers.run_folders import put
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text
from PIL import Image

from d2timm.report.columns import short_names
from d2timm.report.entries import Entry, make_entries
from d2timm.report.front import pareto_front
from d2timm.report.pareto import draw_pareto, make_figure
from d2timm.runs.status import read_runs

Points = list[tuple[float, float]]
numbers = st.integers(0, 6).map(float) | st.floats(0, 100)


def entries_of(sweep: Path) -> list[Entry]:
    return make_entries(read_runs(sweep))


def put_runs(sweep: Path, number: int) -> list[Entry]:
    """Runs with statuses, costs and repeats of all kinds, whose scores rise with the cost."""
    for i in range(number):
        for seed in range(1 + (i % 5 == 0)):
            put(
                sweep / f"backbone=model_with_a_long_name_{i},neck=$fpn$,seed={seed}",
                10 + 4 * math.log1p(i) + math.sin(i) + seed,
                command=["train", str(i), f"train.seed={seed}"],
                parameters=10**6 * (i + 1),
                images_per_second=None if i % 7 == 3 else 500 / (i + 1 + 3 * math.cos(i)),
                stopped="early" if i % 4 == 1 else None,
            )
    return entries_of(sweep)


@given(st.lists(st.tuples(numbers, numbers), max_size=20))
def test_front_is_the_points_that_none_dominates(points: Points) -> None:
    def dominated(cost: float, score: float) -> bool:
        return any(x <= cost and y >= score and (x, y) != (cost, score) for x, y in points)

    front = pareto_front(points)
    assert sorted(front) == [i for i, point in enumerate(points) if not dominated(*point)]
    assert [points[i] for i in front] == sorted(points[i] for i in front)


@pytest.mark.parametrize("number", [1, 8, 60])
def test_plot_is_a_png_of_fixed_size(tmp_path: Path, number: int, capsys: pytest.CaptureFixture[str]) -> None:
    entries = put_runs(tmp_path, number)
    assert len(entries) == number
    draw_pareto(entries, tmp_path / "pareto.png")
    with Image.open(tmp_path / "pareto.png") as picture:
        assert picture.size == (1600, 800)
        assert len(set(picture.convert("L").resize((160, 80)).tobytes())) > 10
    assert capsys.readouterr() == ("", "")


def test_plot_without_costs(tmp_path: Path) -> None:
    put(tmp_path / "a", 0.0)  # with neither parameters nor speed
    put(tmp_path / "b", 0.0)
    draw_pareto(entries_of(tmp_path), tmp_path / "pareto.png")
    assert (tmp_path / "pareto.png").exists()


@pytest.mark.parametrize("number", [1, 3, 12, 40])
def test_names_of_the_front_are_inside_the_panel_and_apart(tmp_path: Path, number: int) -> None:
    entries = put_runs(tmp_path, number)
    figure = make_figure(entries)
    figure.draw_without_rendering()
    by_parameters = [(entry.parameters or 0, entry.score or 0) for entry in entries]
    names = short_names([entry.name for entry in entries])
    on_front = {names[i] for i in pareto_front(by_parameters)}
    written = {text.get_text() for text in figure.axes[1].texts}
    assert written <= on_front
    assert len(on_front - written) == 0 if number <= 12 else len(on_front - written) <= 2
    for axes in figure.axes:
        boxes = [Text.get_window_extent(text) for text in axes.texts]
        panel = axes.get_window_extent()
        points = axes.transData.transform(
            [line.get_xydata()[0] for line in axes.lines if line.get_marker() == "o"]
        )
        for i, box in enumerate(boxes):
            assert panel.x0 <= box.x0 < box.x1 <= panel.x1
            assert panel.y0 <= box.y0 < box.y1 <= panel.y1
            assert not any(box.overlaps(other) for other in boxes[:i])
            assert not box.count_contains(points)


def test_names_without_room_are_left_out_the_lowest_first(tmp_path: Path) -> None:
    for i in range(60):
        put(
            tmp_path / f"backbone=some_backbone_with_a_long_name_{i}",
            30 + i / 100,
            parameters=10**6 + i * 10**4,
        )
    axes = make_figure(entries_of(tmp_path)).axes[1]
    written = [text.get_text() for text in axes.texts]
    assert 10 < len(written) < 60
    assert written[0] == "some_backbone_with_a_long_name_59"


def test_no_plot_without_a_score(tmp_path: Path) -> None:
    (tmp_path / "pareto.png").write_text("an older plot")
    put(tmp_path / "a", status="failed")
    draw_pareto(entries_of(tmp_path), tmp_path / "pareto.png")
    assert not (tmp_path / "pareto.png").exists()
