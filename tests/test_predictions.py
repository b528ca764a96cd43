"""predictions.png: ground truth left, detections right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from d2timm.predictions import GAP, SIDE, draw_predictions

TILE = SIDE + GAP
Tiles = np.ndarray  # (rows, columns, TILE, TILE, 3)


class Detector:
    """Gives the same detections for every image."""

    def __init__(self, *scores: float) -> None:
        self.scores = scores

    def __call__(self, inputs: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        (image,) = inputs
        n, height, width = len(self.scores), image["height"], image["width"]
        mask = torch.zeros(n, height, width, dtype=torch.bool)
        mask[:, 10:40, 10:40] = True
        return [
            {
                "instances": Instances(
                    (height, width),
                    pred_boxes=Boxes(torch.tensor([[10.0, 10.0, 40.0, 40.0]] * n).reshape(n, 4)),
                    pred_masks=mask,
                    pred_classes=torch.zeros(n, dtype=torch.int64),
                    scores=torch.tensor(self.scores),
                )
            }
        ]


@pytest.fixture
def draw(tiny: Callable[..., Any], tmp_path: Path) -> Callable[..., Tiles]:
    """The tiles of the picture that is drawn of a detector."""

    def drawn(detector: Any, **options: int) -> Tiles:
        np.random.seed(0)  # colours of the drawing
        file = tmp_path / "predictions.png"
        draw_predictions(tiny("mask_rcnn_timm.py", tmp_path), detector, file, **options)
        assert [path.name for path in tmp_path.iterdir()] == ["predictions.png"]
        sheet = cv2.imread(str(file))
        assert sheet is not None
        rows, columns = sheet.shape[0] // TILE, sheet.shape[1] // TILE
        assert sheet.shape == (rows * TILE, columns * TILE, 3)
        return sheet.reshape(rows, TILE, columns, TILE, 3).swapaxes(1, 2)

    return drawn


@pytest.mark.parametrize(("images", "rows"), [(1, 1), (2, 1), (3, 2), (6, 2)])
def test_pairs_of_tiles_two_in_a_row(draw: Callable[..., Tiles], images: int, rows: int) -> None:
    tiles = draw(Detector(), images=images)
    assert tiles.shape == (rows, 4, TILE, TILE, 3)
    flat = tiles.reshape(-1, TILE, TILE, 3)
    used = 2 * min(images, 3)  # the set has three images
    assert all(tile.std() > 5 for tile in flat[:used])
    assert all((tile == 255).all() for tile in flat[used:])


def test_picture_keeps_its_proportions_in_a_white_tile(draw: Callable[..., Tiles]) -> None:
    tile = draw(Detector(), images=1)[0, 1]  # of 80 x 96 pixels
    assert (tile[SIDE * 80 // 96 + 1 :] == 255).all()
    assert (tile[:, SIDE + 1 :] == 255).all()
    assert tile[: SIDE * 80 // 96, :SIDE].std() > 5
    assert (tile[: SIDE * 80 // 96, :SIDE] != 255).any(axis=2).mean() > 0.9


def test_truth_is_on_the_left_whatever_is_detected(draw: Callable[..., Tiles], small_coco: Any) -> None:
    nothing, something = draw(Detector()), draw(Detector(0.9))
    assert not np.array_equal(nothing[0, 1], something[0, 1])
    plain = cv2.imread(str(small_coco.val_images / "0.png"))
    plain = cv2.resize(plain, (SIDE, SIDE * 80 // 96)).astype(float)
    height, width = plain.shape[:2]
    left, right = (nothing[0, side, :height, :width] for side in (0, 1))
    assert np.abs(right - plain).mean() < 5, "without detections the right is the picture"
    assert np.abs(left - plain).mean() > 5, "objects are drawn on the left"


def test_only_confident_detections_are_drawn(draw: Callable[..., Tiles]) -> None:
    assert np.array_equal(draw(Detector(0.49))[:, 1], draw(Detector())[:, 1])
    assert not np.array_equal(draw(Detector(0.51))[:, 1], draw(Detector())[:, 1])


def test_model_without_masks(draw: Callable[..., Tiles]) -> None:
    class Boxer(Detector):
        def __call__(self, inputs: list[dict[str, Any]]) -> list[dict[str, Instances]]:
            (output,) = super().__call__(inputs)
            output["instances"].remove("pred_masks")
            return [output]

    assert not np.array_equal(draw(Boxer(0.9))[0, 1], draw(Boxer())[0, 1])
