"""Objects of a COCO file: their boxes, masks, areas and keypoints as they are used."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from d2timm.data.checks.findings import Findings
from d2timm.data.checks.images import CheckedImage
from d2timm.data.checks.objects import check_objects, find_other_conventions
from d2timm.data.checks.orientation import Turn

IMAGE = CheckedImage("a.png", Path("a.png"), Turn(1, (60, 40)), (60, 40))
BOX = [10, 10, 20, 10]
POLYGON = [10, 10, 30, 10, 30, 20, 10, 20]


def check(
    *annotations: dict[str, Any], keypoints: int = 0, image: CheckedImage = IMAGE
) -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
    """Check annotations of one image, whose ids are 0, 1, …"""
    findings = Findings()
    numbered = [({"id": i, "category_id": 5, **a}, 7) for i, a in enumerate(annotations)]
    checked = check_objects(numbered, {7: image}, keypoints, findings)
    assert all(index == 7 for _, index in checked)
    return [entry for entry, _ in checked], findings.samples


def test_object_with_all_fields() -> None:
    annotation = {"bbox": BOX, "segmentation": [POLYGON], "area": 150, "iscrowd": 0, "keypoints": [11, 12, 2]}
    entries, samples = check({**annotation, "attributes": {}}, keypoints=1)
    assert entries == [{"id": 0, "category_id": 5, **annotation, "num_keypoints": 1}]
    assert samples == {}


def test_objects_of_images_that_are_left_out_are_left_out() -> None:
    findings = Findings()
    assert check_objects([({"id": 1, "category_id": 5, "bbox": BOX}, 3)], {7: IMAGE}, 0, findings) == []
    assert findings.counts == {}


@pytest.mark.parametrize(
    ("box", "kind", "reason"),
    [
        (None, "invalid_annotation", "no bbox"),
        ([], "invalid_annotation", "no bbox"),
        ([1, 2, 3], "invalid_annotation", "bbox is [1, 2, 3]"),
        ([1, 2, 3, None], "invalid_annotation", "bbox is [1, 2, 3, None]"),
        ([1, 2, 0, 4], "empty_box", "bbox is [1, 2, 0, 4]"),
        ([1, 2, 3, -4], "empty_box", "bbox is [1, 2, 3, -4]"),
        ([1, 2, 3, 1e-4], "empty_box", "[1, 2, 3, 0.0001], and the image has 60x40 pixels"),
        ([59.999, 2, 3, 4], "empty_box", "[59.999, 2, 3, 4], and the image has 60x40 pixels"),
        ([60, 2, 3, 4], "outside_box", "[60, 2, 3, 4], and the image has 60x40 pixels"),
        ([-5, 2, 3, 4], "outside_box", "[-5, 2, 3, 4], and the image has 60x40 pixels"),
    ],
)
def test_box_that_cannot_be_used(box: Any, kind: str, reason: str) -> None:
    assert check({"bbox": box}) == ([], {kind: [f"annotation 0 of a.png: {reason}"]})


@pytest.mark.parametrize("box", [None, [1, 2, 3], [1, 2, 0, 4], "x"])
def test_box_is_fitted_to_the_mask(box: Any) -> None:
    entries, samples = check({"bbox": box, "segmentation": [POLYGON]})
    assert entries[0]["bbox"] == BOX
    assert samples == {"box_from_mask": ["annotation 0 of a.png"]}


def test_box_beyond_the_image_is_used_as_it_is() -> None:
    beyond = [[-3, 10, 20, 10], [50, 10, 20, 10], [-0.5, 10, 61, 10]]
    entries, samples = check(*({"bbox": box} for box in beyond))
    assert [entry["bbox"] for entry in entries] == beyond
    assert samples == {"beyond_image": [f"annotation {i} of a.png: {beyond[i]}" for i in (0, 1)]}


def test_numbers_as_text() -> None:
    entries, samples = check({"bbox": ["10", "10.0", "20", 10]})
    assert entries[0]["bbox"] == BOX
    assert samples == {"odd_numbers": ["annotation 0 of a.png"]}


@pytest.mark.parametrize(
    ("values", "area"),
    [
        ({"area": 150}, 150),
        ({"area": "150"}, 150),
        ({}, 200),
        *(({"area": value}, 200) for value in (None, 0, -1, "x", math.nan, math.inf, 2401)),
        ({"segmentation": [[10, 10, 30, 10, 30, 20]]}, 100),
        ({"segmentation": [[10, 10, 30, 20, 30, 10, 10, 20]]}, 200),  # as much one way as the other way
        ({"bbox": [-100, -100, 1000, 1000]}, 2400),
    ],
)
def test_area(values: dict[str, Any], area: float) -> None:
    entries, _ = check({"bbox": BOX, **values})
    assert entries[0]["area"] == area


@pytest.mark.parametrize(
    ("values", "crowd", "samples"),
    [
        ({"iscrowd": None}, 0, {}),
        ({"iscrowd": "1"}, 1, {"crowd_object": ["annotation 0 of a.png"]}),
        ({"ignore": True}, 1, {"difficult_object": ["annotation 0 of a.png"]}),
        ({"ignore": 0}, 0, {}),
        ({"iscrowd": 1, "ignore": 1}, 1, {"crowd_object": ["annotation 0 of a.png"]}),
    ],
)
def test_crowds(values: dict[str, Any], crowd: int, samples: dict[str, list[str]]) -> None:
    (entry,), found = check({"bbox": BOX, **values})
    assert (entry["iscrowd"], found) == (crowd, samples)


def test_crowd_that_is_no_flag() -> None:
    assert check({"bbox": BOX, "iscrowd": "x"}) == (
        [],
        {"invalid_annotation": ["annotation 0 of a.png: iscrowd is 'x'"]},
    )


def test_masks_that_cannot_be_used() -> None:
    values = [[POLYGON], [[1, 2, 3, 4]], "x", {"size": [9, 9], "counts": [81]}, None]
    entries, samples = check(*({"bbox": BOX, "segmentation": value} for value in values))
    assert ["segmentation" in entry for entry in entries] == [True, False, False, False, False]
    names = [f"annotation {i} of a.png" for i in range(5)]
    assert samples == {
        "degenerate_polygon": names[1:2],
        "invalid_mask": names[2:3],
        "other_rle_size": names[3:4],
        "no_mask": names[1:],
    }


def test_objects_without_masks_are_noted_only_beside_others() -> None:
    assert check({"bbox": BOX}, {"bbox": BOX})[1] == {}
    crowd = {"bbox": BOX, "segmentation": [POLYGON], "iscrowd": 1}
    assert check({"bbox": BOX}, crowd)[1]["no_mask"] == ["annotation 0 of a.png"]
    assert (
        "no_mask" not in check({"bbox": BOX, "segmentation": [POLYGON]}, {**crowd, "segmentation": None})[1]
    )


def test_polygon_that_crosses_itself() -> None:
    crossing = [10, 10, 30, 20, 30, 10, 10, 25]
    _, samples = check(*({"bbox": BOX, "segmentation": [p]} for p in (POLYGON, crossing)))
    assert samples == {"crossing_polygon": ["annotation 1 of a.png"]}


@pytest.mark.parametrize(
    ("value", "numbers", "count", "kinds"),
    [
        ([1, 2, 2, 3, 4, 1], [1, 2, 2, 3, 4, 1], 2, set()),
        ([1, 2, 0, "3", "4", "1"], [1, 2, 0, 3, 4, 1], 1, set()),
        *((value, [0] * 6, 0, set()) for value in (None, [], [0] * 6)),
        *(
            (value, [0] * 6, 0, {"invalid_keypoints"})
            for value in ([1, 2, 2], [1] * 7, "x", [None] * 6, {"a": 1})
        ),
        ([70, 2, 2, 3, 4, 1], [70, 2, 2, 3, 4, 1], 2, {"outside_keypoint"}),
        ([70, 2, 0, 3, 4, 1], [70, 2, 0, 3, 4, 1], 1, set()),
    ],
)
def test_keypoints(value: Any, numbers: list[float], count: int, kinds: set[str]) -> None:
    (entry,), samples = check({"bbox": BOX, "keypoints": value}, keypoints=2)
    assert (entry["keypoints"], entry["num_keypoints"]) == (numbers, count)
    assert set(samples) == kinds


def test_objects_are_turned_upright() -> None:
    turn = Turn(6, (60, 40))  # stored as 40x60, and shown turned clockwise
    image = CheckedImage("a.png", Path("a.png"), turn, (40, 60))
    pixels = np.zeros((60, 40), np.uint8, order="F")
    pixels[50:60, 0:5] = 1
    rle = coco_mask.encode(pixels)
    rle = {**rle, "counts": rle["counts"].decode()}
    box = {"bbox": [0, 50, 5, 10], "keypoints": [0, 59, 2]}
    entries, samples = check(
        {**box, "segmentation": [[0, 50, 5, 50, 5, 60]]},
        {**box, "segmentation": rle},
        {"bbox": None, "segmentation": rle},
        image=image,
        keypoints=1,
    )
    assert [entry["bbox"] for entry in entries] == [[0, 0, 10, 5]] * 3
    assert entries[0]["segmentation"] == [[10, 0, 10, 5, 0, 5]]
    assert np.array_equal(coco_mask.decode(entries[1]["segmentation"]), np.rot90(pixels, -1))
    assert entries[0]["keypoints"] == [0, 0, 2]
    assert set(samples) == {"box_from_mask"}


def kinds_of(boxes: list[Any]) -> set[str]:
    findings = Findings()
    find_other_conventions([({"bbox": box}, 7) for box in boxes], {7: IMAGE}, findings)
    return set(findings.counts)


@pytest.mark.parametrize(
    ("boxes", "kinds"),
    [
        ([[40, 20, 55, 38]] * 3, {"corner_boxes"}),
        ([[40, 20, 55, 38]] * 3 + [[2, 2, 20, 20]] * 4, {"corner_boxes"}),
        ([[40, 20, 55, 38]] * 9 + [[30, 2, 20, 20]], {"corner_boxes"}),
        ([[40, 20, 55, 38]] * 2, set()),
        ([[40, 20, 15, 18]] * 9, set()),
        ([[2, 2, 50, 30]] * 9, set()),
        ([[2, 2, 50, 30]] * 9 + [[20, 20, 50, 30]], set()),
        ([[40, 20, 30, 25]] * 9, set()),
        ([[0.5, 0.5, 0.2, 0.2]], {"fraction_boxes"}),
        ([[0, 0, 1, 1], [0.1, 0.9, 0.2, 0.1]], {"fraction_boxes"}),
        ([[0.5, 0.5, 0.2, 0.2], [5, 5, 2, 2]], set()),
        ([], set()),
        ([None, "x", [1, 2]], set()),
    ],
)
def test_other_conventions_of_boxes(boxes: list[Any], kinds: set[str]) -> None:
    assert kinds_of(boxes) == kinds
