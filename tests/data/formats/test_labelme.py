"""labelme's JSON files: shapes, images, groups and masks."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.mutations import assert_only_config_errors, mutated
from helpers.reading import read_split, write_image, write_text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from d2timm import ConfigError
from d2timm.data.formats.labelme import FORMAT

Write = Callable[..., Path]


def shape(kind: str, points: Any, label: Any = "cat", **more: Any) -> dict[str, Any]:
    """A shape as labelme 5 writes it."""
    common = {"label": label, "points": points, "group_id": None, "description": "", "shape_type": kind}
    return {**common, "flags": {}, "mask": None, **more}


def mask(rows: list[list[int]]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.array(rows, np.uint8)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def content(*shapes: Any, **more: Any) -> dict[str, Any]:
    """A file as labelme 5 writes it."""
    return {
        "version": "5.4.1",
        "flags": {},
        "shapes": list(shapes),
        "imagePath": "a.jpg",
        "imageData": None,
        "imageHeight": 20,
        "imageWidth": 40,
        **more,
    }


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def apply(*shapes: Any, name: str = "a", image: str | None = "a.jpg", **more: Any) -> Path:
        if image:
            write_image(tmp_path / image)
        write_text(tmp_path / f"{name}.json", json.dumps(content(*shapes, **more)))
        return tmp_path

    return apply


def test_boxes_and_polygons(write: Write) -> None:
    found = read_split(
        FORMAT,
        write(
            shape("rectangle", [[20, 15], [10, 5]]),
            shape("polygon", [[1, 2], [11, 2], [6, 7]], "dog"),
            shape("rectangle", [[1, 1], [9, 1], [9, 5], [1, 5]], 7),
        ),
    )
    assert found.boxes == [
        ("a.jpg", "cat", [10, 5, 10, 10]),
        ("a.jpg", "dog", [1, 2, 10, 5]),
        ("a.jpg", "7", [1, 1, 8, 4]),
    ]
    assert [a.get("segmentation") for a in found.coco["annotations"]] == [None, [[1, 2, 11, 2, 6, 7]], None]
    assert [a["source"] for a in found.coco["annotations"]] == [f"a.json: shape {i}" for i in (1, 2, 3)]
    (image,) = found.coco["images"]
    assert (image["width"], image["height"]) == (40, 20)
    assert not found.samples


def test_older_files_have_only_polygons(write: Write) -> None:
    old = {"label": "cat", "line_color": None, "fill_color": None, "points": [[1, 2], [11, 2], [6, 7]]}
    assert read_split(FORMAT, write(old, lineColor=[0, 255, 0, 128])).boxes == [
        ("a.jpg", "cat", [1, 2, 10, 5])
    ]


def test_circles_and_oriented_boxes_are_converted(write: Write) -> None:
    found = read_split(
        FORMAT,
        write(
            shape("circle", [[20, 10], [23, 14]]),
            shape("oriented_rectangle", [[10, 5], [20, 5], [20, 9], [10, 9]], "dog"),
        ),
    )
    assert [box for _, _, box in found.boxes] == [[15, 5, 10, 10], [10, 5, 10, 4]]
    assert all(len(a["segmentation"]) == 1 for a in found.coco["annotations"])
    assert found.samples == {
        "converted_shape": ["a.json: shape 1: circle"],
        "oriented_box": ["a.json: shape 2: dog"],
    }


def test_lines_points_and_reserved_labels_are_counted(write: Write) -> None:
    box = [[1, 1], [5, 5]]
    shapes = [shape("line", box), shape("linestrip", box), shape("point", [[1, 1]])]
    labels = [shape("polygon", box, label) for label in ("__ignore__", "_background_")]
    found = read_split(FORMAT, write(*shapes, *labels, shape("rectangle", box)))
    assert len(found.boxes) == 1
    assert len(found.samples["ignored_shape"]) == 5


def test_mask_is_placed_at_its_corner(write: Write) -> None:
    drawn = shape("mask", [[10, 5], [12, 6]], mask=mask([[0, 1, 1], [1, 1, 0]]))
    (annotation,) = read_split(FORMAT, write(drawn)).coco["annotations"]
    assert annotation["bbox"] == [10, 5, 3, 2]
    array = coco_mask.decode(coco_mask.frPyObjects(annotation["segmentation"], 20, 40))
    assert array.sum() == 4
    assert array[5, 11] == array[6, 10] == 1
    assert array[5, 10] == 0


def test_size_of_a_mask_may_come_from_the_image(write: Write) -> None:
    drawn = shape("mask", [[10, 5], [12, 6]], mask=mask([[0, 1, 1], [1, 1, 0]]))
    (annotation,) = read_split(FORMAT, write(drawn, imageWidth=None, imageHeight=None)).coco["annotations"]
    assert annotation["segmentation"]["size"] == [20, 40]


def test_groups_of_the_same_label_are_one_object(write: Write) -> None:
    found = read_split(
        FORMAT,
        write(
            shape("polygon", [[1, 1], [5, 1], [5, 5]], group_id=1),
            shape("polygon", [[20, 1], [25, 1], [25, 9]], group_id=1),
            shape("polygon", [[1, 1], [5, 1], [5, 5]], "dog", group_id=1),
            shape("polygon", [[1, 1], [5, 1], [5, 5]], group_id=2),
        ),
    )
    assert [box for _, _, box in found.boxes] == [[1, 1, 24, 8], [1, 1, 4, 4], [1, 1, 4, 4]]
    first = found.coco["annotations"][0]
    assert len(first["segmentation"]) == 2
    assert first["source"] == "a.json: shapes 1, 2"


@pytest.mark.parametrize(
    ("path", "image"),
    [
        ("../images/b.jpg", "images/b.jpg"),
        ("..\\images\\b.jpg", "images/b.jpg"),
        ("C:\\Users\\me\\b.jpg", "labels/a.png"),  # the name of the JSON file
        ("/home/me/set/b.jpg", "images/deep/b.jpg"),
        ("photo.png", "images/photo.png"),
        ("a.json", "labels/a.jpg"),  # as labelme has written it
        (None, "labels/a.JPG"),
    ],
)
def test_image_is_found(tmp_path: Path, path: str | None, image: str) -> None:
    write_image(tmp_path / image)
    text = json.dumps(content(shape("rectangle", [[1, 1], [5, 5]]), imagePath=path))
    write_text(tmp_path / "labels" / "a.json", text)
    found = read_split(FORMAT, tmp_path)
    assert [Path(file).resolve() for file in found.files] == [tmp_path / image]


def test_picture_only_in_the_file_is_reported(write: Write) -> None:
    root = write(shape("rectangle", [[1, 1], [5, 5]]), image=None, imageData="aGFsbG8=")
    found = read_split(FORMAT, root)
    assert found.files == []
    (sample,) = found.samples["missing_image"]
    assert "a.json: a.jpg" in sample
    assert "imageData" in sample


def test_missing_image_is_left_to_the_check(write: Write) -> None:
    found = read_split(FORMAT, write(shape("rectangle", [[1, 1], [5, 5]]), image=None))
    assert found.names == ["a.jpg"]


def test_splits_are_sub_folders(write: Write) -> None:
    for split, label in (("train", "cat"), ("val", "dog")):
        write(shape("rectangle", [[1, 1], [5, 5]], label), name=f"{split}/a", image=f"{split}/a.jpg")
    root = write(name="other/b", image="other/a.jpg")
    assert [name for _, name, _ in read_split(FORMAT, root).boxes] == ["cat"]
    assert [name for _, name, _ in read_split(FORMAT, root, "val").boxes] == ["dog"]
    assert "1 other" in read_split(FORMAT, root).note


def test_folder_without_splits_is_for_training(write: Write) -> None:
    root = write(shape("rectangle", [[1, 1], [5, 5]]))
    assert FORMAT.open(root, "val", "data.root") is None
    assert len(read_split(FORMAT, root).boxes) == 1


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("text", "'text'"),
        (shape("rectangle", [[1, 1], [5, 5]], None), "no class"),
        (shape("rectangle", [[1, 1], [5, 5]], ""), "no class"),
        (shape("rectangle", [[1, 1]]), "'rectangle' of 1 points"),
        (shape("polygon", [[1, 1], [5, 5]]), "2 corners"),
        (shape("polygon", [[1, 1], [5, None], [2, 2]]), "None is not a coordinate"),
        (shape("polygon", "here"), "'here'"),
        (shape("cube", [[1, 1], [5, 5]]), "'cube'"),
        (shape("circle", [[1, 1], [1, 1]]), "radii 0 and 0"),
        (shape("mask", [[1, 1], [5, 5]]), "base64"),
        (shape("mask", [[1, 1], [5, 5]], mask="aGFsbG8="), "not an image"),
        (shape("mask", [[50, 1], [52, 2]], mask=mask([[1, 1], [1, 1]])), "without pixels"),
    ],
)
def test_broken_shapes_are_reported(write: Write, broken: Any, reason: str) -> None:
    found = read_split(FORMAT, write(broken, shape("rectangle", [[1, 1], [5, 5]])))
    assert len(found.boxes) == 1
    (sample,) = found.samples["invalid_annotation"]
    assert sample.startswith("a.json: shape 1: ")
    assert reason in sample


def test_broken_and_other_files_are_reported(write: Write) -> None:
    root = write(shape("rectangle", [[1, 1], [5, 5]]))
    write_text(root / "b.json", "{")
    write_text(root / "classes.json", '["cat"]')
    write_text(root / "c.json", json.dumps(content(shapes=7)))
    found = read_split(FORMAT, root)
    assert len(found.boxes) == 1
    assert found.samples["other_file"] == ["classes.json"]
    invalid = " ".join(found.samples["invalid_annotation"])
    assert len(found.samples["invalid_annotation"]) == 2
    assert "b.json is not JSON" in invalid
    assert "c.json: shapes is 7" in invalid


def test_folder_of_another_format(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^data.root=.*no JSON files"):
        read_split(FORMAT, tmp_path)
    write_text(tmp_path / "a.json", '{"images": []}')
    with pytest.raises(ConfigError, match="'shapes'"):
        read_split(FORMAT, tmp_path)
    assert not FORMAT.recognize(tmp_path)


def test_folder_is_recognized(write: Write) -> None:
    assert FORMAT.recognize(write(shape("rectangle", [[1, 1], [5, 5]]), name="deep/a"))
    assert not FORMAT.recognize(Path("/no/such/folder"))


VALID = content(
    shape("rectangle", [[20, 15], [10, 5]]),
    shape("polygon", [[1, 2], [11, 2], [6, 7]], group_id=1),
    shape("circle", [[20, 10], [23, 14]]),
    shape("mask", [[10, 5], [12, 6]], mask=mask([[0, 1, 1], [1, 1, 0]]), group_id=1),
)


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_any_content_is_read_or_a_config_error(tmp_path: Path, data: st.DataObject) -> None:
    write_image(tmp_path / "a.jpg")
    write_text(tmp_path / "a.json", json.dumps(data.draw(mutated(VALID))))
    assert_only_config_errors(FORMAT, tmp_path)
