"""predictions.png: ground truth on the left, predictions on the right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog, get_detection_dataset_dicts
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances
from omegaconf import OmegaConf

from d2timm.engine.predictions import SIDE, draw_predictions
from d2timm.visualize.image_grid import GAP

Picture = np.ndarray  # (H, W, 3) BGR
Output = dict[str, Any]

HEIGHTS = [SIDE * 80 // 96, SIDE, SIDE]  # of the pictures of the three validation images


def draw(cfg: Any, model: Any, folder: Path, **options: int) -> Picture:
    np.random.seed(0)  # detectron2 draws random colours
    file = folder / "predictions.png"
    draw_predictions(cfg.dataloader, model, file, **options)
    grid = cv2.imread(str(file))
    assert grid is not None
    return grid


def halves(grid: Picture) -> tuple[Picture, Picture]:
    """The left and the right picture of a grid with one pair."""
    left, right = np.split(grid[:-GAP], 2, axis=1)
    return left[:, :-GAP], right[:, :-GAP]


class Boxer:
    """A detector with the same detections for every image."""

    def __init__(self, *scores: float, masks: bool = True) -> None:
        self.scores, self.masks = scores, masks

    def __call__(self, inputs: list[dict[str, Any]]) -> list[Output]:
        (image,) = inputs
        n, size = len(self.scores), (image["height"], image["width"])
        instances = Instances(
            size,
            pred_boxes=Boxes(torch.tensor([[10.0, 10.0, 40.0, 40.0]] * n).reshape(n, 4)),
            pred_classes=torch.zeros(n, dtype=torch.int64),
            scores=torch.tensor(self.scores),
        )
        if self.masks:
            instances.pred_masks = torch.zeros(n, *size, dtype=torch.bool)
            instances.pred_masks[:, 10:40, 10:40] = True
        return [{"instances": instances}]


@pytest.fixture
def drawn(tiny: Callable[..., Any], tmp_path: Path) -> Callable[..., Picture]:
    """The grid that is drawn for a detector on the small dataset."""

    def grid_of(model: Any, **options: int) -> Picture:
        picture = draw(tiny("mask_rcnn_timm.py", tmp_path), model, tmp_path, **options)
        assert [path.name for path in tmp_path.iterdir()] == ["predictions.png"]
        return picture

    return grid_of


@pytest.mark.parametrize(
    ("images", "columns", "heights"),
    [
        (1, 2, HEIGHTS[:1]),
        (2, 4, [max(HEIGHTS[0], HEIGHTS[2])]),
        (3, 4, [max(HEIGHTS[:2]), HEIGHTS[2]]),
        (6, 4, [max(HEIGHTS[:2]), HEIGHTS[2]]),  # the dataset has three
    ],
)
def test_rows_have_two_pairs(
    drawn: Callable[..., Picture], images: int, columns: int, heights: list[int]
) -> None:
    grid = drawn(Boxer(), images=images)
    assert grid.shape == (sum(heights) + GAP * len(heights), columns * (SIDE + GAP), 3)
    top = 0
    for row, height in enumerate(heights):
        for column in range(columns):
            left = column * (SIDE + GAP)
            tile = grid[top : top + height, left : left + SIDE]
            used = row * columns + column < 2 * images and row * columns + column < 6
            assert (tile.std() > 5) == used
            assert used or (tile == 255).all()
        top += height + GAP


def test_row_is_as_high_as_its_highest_picture(drawn: Callable[..., Picture]) -> None:
    grid = drawn(Boxer(), images=1)  # of 80 x 96 pixels
    assert grid.shape[0] == HEIGHTS[0] + GAP
    picture = grid[: HEIGHTS[0], :SIDE]
    assert (picture != 255).any(axis=2).mean() > 0.9
    assert (grid[HEIGHTS[0] :] == 255).all()
    assert (grid[:, SIDE : SIDE + GAP] == 255).all()


def test_ground_truth_is_on_the_left_for_any_detections(
    drawn: Callable[..., Picture], small_coco: Any
) -> None:
    left, right = halves(drawn(Boxer(), images=1))
    assert not np.array_equal(right, halves(drawn(Boxer(0.9), images=1))[1])
    plain = cv2.imread(str(small_coco.val_images / "0.png"))
    plain = cv2.resize(plain, right.shape[1::-1]).astype(float)
    assert np.abs(right - plain).mean() < 5, "without detections the right side is the image"
    assert np.abs(left - plain).mean() > 5, "the left side has objects"


@pytest.mark.parametrize("masks", [True, False])
def test_only_confident_detections_are_drawn(drawn: Callable[..., Picture], masks: bool) -> None:
    nothing = drawn(Boxer(masks=masks))
    assert np.array_equal(drawn(Boxer(0.49, masks=masks)), nothing)
    assert not np.array_equal(drawn(Boxer(0.51, masks=masks)), nothing)


# Other annotations: one image of 90 x 120 pixels, a thing on two kinds of stuff

SIZE = (90, 120)
BOX = (30, 20, 90, 60)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Any]:
    """A config whose validation set is that image, with all kinds of annotations."""
    rng = np.random.default_rng(0)
    image, segments = tmp_path / "image.png", tmp_path / "segments.png"
    cv2.imwrite(str(image), rng.integers(90, 160, (*SIZE, 3), np.uint8))
    ids = segment_ids().numpy()
    cv2.imwrite(
        str(segments), np.stack([ids // 256**2, ids // 256 % 256, ids % 256], axis=2).astype(np.uint8)
    )
    x0, y0, x1, y1 = BOX
    keypoints = [x0 + 10.0, y0 + 10.0, 2.0, x1 - 10.0, y1 - 10.0, 2.0, 0.0, 0.0, 0.0]
    thing = {
        "bbox": list(BOX),
        "bbox_mode": BoxMode.XYXY_ABS,
        "category_id": 0,
        "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
        "keypoints": keypoints,
    }
    entry = {
        **{"file_name": str(image), "height": SIZE[0], "width": SIZE[1], "image_id": 1},
        "annotations": [thing],
        "pan_seg_file_name": str(segments),
        "segments_info": [{**info, "label": info["category_id"], "iscrowd": 0} for info in segment_infos()],
    }
    DatasetCatalog.register("scene", lambda: [entry])
    MetadataCatalog.get("scene").set(
        thing_classes=["boat"],
        stuff_classes=["things", "sky", "sea"],
        keypoint_names=["bow", "stern", "mast"],
        ignore_label=255,
    )
    test = {
        "mapper": L(DatasetMapper)(is_train=False, augmentations=[], image_format="RGB"),
        "dataset": L(get_detection_dataset_dicts)(names="scene", filter_empty=False),
    }
    yield OmegaConf.create(
        {"dataloader": {"test": test, "evaluator": {"dataset_name": "scene"}}}, flags={"allow_objects": True}
    )
    DatasetCatalog.remove("scene")
    MetadataCatalog.remove("scene")


def segment_ids() -> torch.Tensor:
    ids = torch.full(SIZE, 70000)  # needs three bytes
    ids[45:] = 300
    ids[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 7
    return ids


def segment_infos() -> list[dict[str, Any]]:
    return [
        {"id": 70000, "isthing": False, "category_id": 1},
        {"id": 300, "isthing": False, "category_id": 2},
        {"id": 7, "isthing": True, "category_id": 0},
    ]


def semantic() -> Output:
    ids = segment_ids()
    classes = torch.where(ids == 70000, 1, torch.where(ids == 300, 2, 0))
    return {"sem_seg": torch.nn.functional.one_hot(classes, 3).permute(2, 0, 1).float()}


def instances(keypoints: bool) -> Output:
    x0, y0, x1, y1 = BOX
    result = Instances(
        SIZE,
        pred_boxes=Boxes(torch.tensor([BOX])),
        pred_classes=torch.tensor([0]),
        scores=torch.tensor([1.0]),
        pred_masks=BitMasks((segment_ids() == 7)[None]).tensor,
    )
    if keypoints:
        result.pred_keypoints = torch.tensor(
            [[[x0 + 10.0, y0 + 10.0, 0.9], [x1 - 10.0, y1 - 10.0, 0.9], [0, 0, 0]]]
        )
    return {"instances": result}


def panoptic() -> Output:
    return {"panoptic_seg": (segment_ids(), segment_infos()), **semantic(), **instances(keypoints=False)}


@pytest.fixture
def paint(scene: Any, tmp_path: Path) -> Callable[[Output], tuple[Picture, Picture]]:
    """Draw ground truth and predictions of an output: (left, right)."""
    return lambda output: halves(draw(scene, lambda inputs: [output], tmp_path))


def colour(picture: Picture, x: float, y: float) -> np.ndarray:
    """Mean colour around (x, y), in pixels of the image."""
    scale = SIDE / SIZE[1]
    row, column = int(y * scale), int(x * scale)
    return picture[row - 4 : row + 4, column - 4 : column + 4].mean(axis=(0, 1))


def test_semantic_classes_have_the_same_colours_on_both_sides(paint: Any) -> None:
    left, right = paint(semantic())
    assert np.array_equal(left, right)
    sky, sea, things = colour(left, 110, 10), colour(left, 110, 80), colour(left, 40, 50)
    assert min(np.abs(sky - sea).max(), np.abs(sky - things).max(), np.abs(sea - things).max()) > 20
    wrong = semantic()
    wrong["sem_seg"] = wrong["sem_seg"].flip(1)
    left, right = paint(wrong)
    np.testing.assert_allclose(colour(left, 110, 10), colour(right, 110, 80), atol=12)


def test_panoptic_segments_are_drawn_instead_of_their_parts(paint: Any) -> None:
    left, right = paint(panoptic())
    for x, y in [(110, 10), (110, 80)]:  # stuff
        np.testing.assert_allclose(colour(left, x, y), colour(right, x, y), atol=1)
    parts = {key: value for key, value in panoptic().items() if key != "panoptic_seg"}
    assert not np.array_equal(right, paint(parts)[1])
    empty = {"panoptic_seg": (torch.zeros(SIZE, dtype=torch.int32), [])}
    plain = paint({"instances": instances(keypoints=False)["instances"][:0]})[1]
    assert np.array_equal(paint(empty)[1], plain)


def test_keypoints_are_drawn_on_both_sides(paint: Any) -> None:
    def red(picture: Picture, x: float, y: float) -> bool:
        blue, green, red = colour(picture, x, y)
        return bool(red > 180 and max(blue, green) < 80)

    points = [(BOX[0] + 10, BOX[1] + 10), (BOX[2] - 10, BOX[3] - 10)]
    for picture in paint(instances(keypoints=True)):
        assert all(red(picture, *point) for point in points)
        assert not red(picture, 110, 10)
    for picture in paint(instances(keypoints=False)):
        assert not any(red(picture, *point) for point in points), "only what the model predicts is drawn"


def test_masks_are_not_drawn_for_boxes_alone(paint: Any) -> None:
    output = instances(keypoints=False)
    spot = (BOX[0] + 10, BOX[1] + 10)
    masked, _ = paint(output)
    output["instances"].remove("pred_masks")
    boxed, plain = paint({"instances": output["instances"]})
    assert np.abs(colour(masked, *spot) - colour(boxed, *spot)).max() > 10
    np.testing.assert_allclose(colour(boxed, *spot), colour(plain, *spot), atol=3)
