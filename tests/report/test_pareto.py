"""The picture of a leaderboard, and what is on its front."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from helpers.run_folders import put
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from d2timm.report.entries import leaderboard
from d2timm.report.labels import place_labels
from d2timm.report.pareto import draw, front
from d2timm.runs.status import read_runs

Points = list[tuple[float, float]]
numbers = st.integers(0, 6).map(float) | st.floats(0, 100)


@given(st.lists(st.tuples(numbers, numbers), max_size=20))
def test_front_is_what_nothing_beats(points: Points) -> None:
    def beaten(cost: float, score: float) -> bool:
        return any(x <= cost and y >= score and (x, y) != (cost, score) for x, y in points)

    told = front(points)
    assert sorted(told) == [i for i, point in enumerate(points) if not beaten(*point)]
    assert [points[i] for i in told] == sorted(points[i] for i in told)


@pytest.mark.parametrize("number", [1, 8, 60])
def test_picture(tmp_path: Path, number: int) -> None:
    for i in range(number):
        for seed in range(1 + (i % 5 == 0)):
            put(
                tmp_path / f"backbone=model{i},neck=$fpn$,seed={seed}",
                10 + 4 * math.log1p(i) + math.sin(i) + seed,
                command=["train", str(i), f"train.seed={seed}"],
                parameters=10**6 * (i + 1),
                images_per_second=None if i % 7 == 3 else 500 / (i + 1 + 3 * math.cos(i)),
                stopped="early" if i % 4 == 1 else None,
            )
    entries = leaderboard(read_runs(tmp_path))
    assert len(entries) == number
    draw(entries, tmp_path / "pareto.png")
    with Image.open(tmp_path / "pareto.png") as picture:
        assert picture.size == (1600, 800)
        assert len(set(picture.convert("L").resize((160, 80)).tobytes())) > 10


def test_picture_of_scores_alone(tmp_path: Path) -> None:
    put(tmp_path / "a", 0.0)  # neither its cost nor its speed is known
    put(tmp_path / "b", 0.0)
    draw(leaderboard(read_runs(tmp_path)), tmp_path / "pareto.png")
    assert (tmp_path / "pareto.png").exists()


@pytest.mark.parametrize(
    ("number", "written"),
    [(1, 1), (8, 8), (60, 25)],
)
def test_names_cover_neither_each_other_nor_points(number: int, written: int) -> None:
    points = [(float(i), float(i) ** 0.8) for i in range(number)]
    figure = Figure(figsize=(16, 8))
    axes = figure.subplots(1, 2)[0]
    axes.plot(*zip(*points, strict=True), "o")
    axes.set_xlim(-10, 65)
    names = {i: f"some_backbone_{i} neck" for i in range(number)}
    told = place_labels(axes, points, names)
    assert len(told) >= written
    assert names[number - 1] in told  # the highest
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in axes.texts]  # without the line to the point
    panel = axes.get_window_extent()
    for i, box in enumerate(boxes):
        assert panel.x0 <= box.x0 < box.x1 <= panel.x1
        assert panel.y0 <= box.y0 < box.y1 <= panel.y1
        assert not any(box.overlaps(other) for other in boxes[:i])
        assert not box.count_contains(axes.transData.transform(points))


def test_no_picture_without_a_score(tmp_path: Path) -> None:
    (tmp_path / "pareto.png").write_text("an older one")
    put(tmp_path / "a", status="failed")
    draw(leaderboard(read_runs(tmp_path)), tmp_path / "pareto.png")
    assert not (tmp_path / "pareto.png").exists()
