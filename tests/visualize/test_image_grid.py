"""Grids of pictures: stacked pixel by pixel, or as tiles with titles."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.colors import Normalize

from d2timm.visualize.image_grid import GAP, Scale, Tile, stack_pictures, write_grid

SIZES = [(20, 30), (50, 40), (10, 10)]  # (height, width)


def pictures(*sizes: tuple[int, int]) -> list[np.ndarray]:
    """A dark grey for each size, different from picture to picture."""
    return [np.full((*size, 3), 10 * i, np.uint8) for i, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("columns", "heights"),
    [(1, [20, 50, 10]), (2, [50, 10]), (3, [50]), (9, [50])],  # there are only three pictures
)
def test_stacked_pictures_keep_their_pixels(columns: int, heights: list[int]) -> None:
    grid = stack_pictures(pictures(*SIZES), columns)
    columns = min(columns, len(SIZES))
    assert grid.shape == (sum(heights) + GAP * len(heights), columns * (40 + GAP), 3)
    rest = np.ones(grid.shape[:2], bool)
    for i, (height, width) in enumerate(SIZES):
        row, column = divmod(i, columns)
        top, left = sum(heights[:row]) + GAP * row, column * (40 + GAP)
        assert (grid[top : top + height, left : left + width] == 10 * i).all()
        rest[top : top + height, left : left + width] = False
    assert (grid[rest] == 255).all()


def test_a_single_picture_has_a_gap_to_its_right_and_below() -> None:
    (picture,) = pictures((20, 30))
    grid = stack_pictures([picture], 4)
    assert grid.shape == (20 + GAP, 30 + GAP, 3)
    assert np.array_equal(grid[:20, :30], picture)


def test_cells_of_a_tile_are_enlarged_without_smoothing(tmp_path: Path) -> None:
    cells = np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8)
    write_grid(tmp_path / "grid.png", [[Tile("two cells", cells)]])
    picture = cv2.imread(str(tmp_path / "grid.png"))[..., ::-1]
    for color in cells[0]:
        assert (picture == color).all(axis=2).mean() > 0.2
    blended = ((picture[..., 0] > 0) & (picture[..., 2] > 0) & (picture[..., 1] == 0)).mean()
    assert blended < 0.01
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]


def test_rows_may_differ_in_length(tmp_path: Path) -> None:
    tiles = [Tile(str(i), picture) for i, picture in enumerate(pictures((20, 20), (20, 20), (20, 20)))]
    shapes = []
    for name, rows in (("one", [tiles[:2]]), ("two", [tiles[:2], tiles[2:]])):
        write_grid(tmp_path / f"{name}.png", rows)
        shapes.append(cv2.imread(str(tmp_path / f"{name}.png")).shape)
    assert shapes[1][0] == pytest.approx(2 * shapes[0][0], abs=2)
    assert shapes[1][1] == shapes[0][1]


def test_scale_colours_numbers_and_adds_a_bar(tmp_path: Path) -> None:
    tile = Tile("numbers", np.array([[0.0, 2.0]]))
    plain = Tile("picture", np.zeros((1, 2, 3), np.uint8))
    write_grid(tmp_path / "plain.png", [[plain]])
    write_grid(tmp_path / "scaled.png", [[tile]], Scale("value", "RdBu", Normalize(0, 2)))
    without, scaled = (cv2.imread(str(tmp_path / f"{name}.png")) for name in ("plain", "scaled"))
    assert scaled.shape[1] > without.shape[1]
    red, blue = ((scaled[..., i].astype(int) - scaled[..., 2 - i] > 50).mean() for i in (2, 0))
    assert red > 0.1
    assert blue > 0.1
