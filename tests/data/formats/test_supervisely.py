"""Projects of Supervisely: shapes, bitmaps, classes and datasets."""

from __future__ import annotations

import base64
import io
import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.mutations import assert_only_config_errors, mutated
from helpers.reading import ReadSplit, read_split, write_image, write_text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from d2timm import ConfigError
from d2timm.data.formats.supervisely import FORMAT

META = {
    "classes": [
        {"title": "truck", "shape": "rectangle", "color": "#8A1C0F", "geometry_config": {}, "hotkey": ""},
        {"title": "cat", "shape": "any", "color": "#418A0F"},
        {"title": "mark", "shape": "point", "color": "#8A0F85"},
        {"title": "lane", "shape": "line", "color": "#8A0F85"},
    ],
    "tags": [],
    "projectType": "images",
}
#: A ring of 3 x 3 pixels, from the documentation of Supervisely's SDK
RING = (
    "eJzrDPBz5+WS4mJgYOD19HAJAtLMIMwIInOeqf8BUmwBPiGuQPr///9Lb86/C2QxlgT5BTM4PLuRBuTwebo4hlTMSa44sKHhISMDux"
    "pTYrr03F6gDIOnq5/LOqeEJgDM5ht6"
)


def obj(kind: str, label: Any = "cat", **more: Any) -> dict[str, Any]:
    return {"id": 1, "classId": 2, "tags": [], "classTitle": label, "geometryType": kind, **more}


def points(*exterior: Any, interior: Any = ()) -> dict[str, Any]:
    return {"points": {"exterior": [list(p) for p in exterior], "interior": list(interior)}}


RECTANGLE = obj("rectangle", **points((10, 5), (20, 15)))
SQUARE = ((10, 5), (20, 5), (20, 15), (10, 15))


def content(*objects: Any, **more: Any) -> dict[str, Any]:
    return {
        "description": "",
        "tags": [],
        "size": {"height": 20, "width": 40},
        "objects": list(objects),
        **more,
    }


def read(root: Path, *objects: Any, **more: Any) -> ReadSplit:
    write_text(root / "meta.json", json.dumps(META))
    write_image(root / "ds0" / "img" / "a.jpg")
    write_text(root / "ds0" / "ann" / "a.jpg.json", json.dumps(content(*objects, **more)))
    return read_split(FORMAT, root)


def pixels(annotation: Any) -> Any:
    return coco_mask.decode(coco_mask.frPyObjects(annotation["segmentation"], 20, 40))


def test_rectangles_and_polygons(tmp_path: Path) -> None:
    found = read(tmp_path, RECTANGLE, obj("polygon", **points(*SQUARE[:3])))
    assert found.boxes == [("a.jpg", "cat", [10, 5, 10, 10])] * 2
    assert [a.get("segmentation") for a in found.coco["annotations"]] == [None, [[10, 5, 20, 5, 20, 15]]]
    assert found.coco["annotations"][1]["source"] == "ds0/ann/a.jpg.json: object 2"
    assert [category["name"] for category in found.coco["categories"]] == ["truck", "cat"]
    assert not found.samples


def test_holes_are_cut_out(tmp_path: Path) -> None:
    hole = [[12, 7], [16, 7], [16, 11], [12, 11]]
    for size in ({"height": 20, "width": 40}, None):
        found = read(tmp_path, obj("polygon", **points(*SQUARE, interior=[hole])), size=size)
        (annotation,) = found.coco["annotations"]
        assert pixels(annotation).sum() == 100 - 16


def test_bitmap_lies_at_its_origin(tmp_path: Path) -> None:
    found = read(tmp_path, obj("bitmap", bitmap={"data": RING, "origin": [10, 5]}))
    (annotation,) = found.coco["annotations"]
    assert annotation["bbox"] == [10, 5, 3, 3]
    assert pixels(annotation).sum() == 8
    assert pixels(annotation)[6, 11] == 0


def test_bitmap_may_be_a_plain_image(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.ones((2, 3), np.uint8)).save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    (annotation,) = read(tmp_path, obj("bitmap", bitmap={"data": data, "origin": [0, 0]})).coco["annotations"]
    assert annotation["bbox"] == [0, 0, 3, 2]


def test_oriented_boxes_and_multipolygons(tmp_path: Path) -> None:
    oriented = obj("oriented_bbox", points=[[10, 6], [20, 10]], angle=math.pi / 2)
    parts = [{"exterior": [list(p) for p in SQUARE], "interior": []}] * 2
    found = read(tmp_path, oriented, obj("multipolygon", parts=parts))
    assert [box for _, _, box in found.boxes] == [[13, 3, 4, 10], [10, 5, 10, 10]]
    assert len(found.coco["annotations"][1]["segmentation"]) == 2
    assert list(found.samples) == ["oriented_box"]


def test_points_and_lines_are_counted(tmp_path: Path) -> None:
    others = [obj(kind, **points((1, 1))) for kind in ("point", "line", "graph", "cuboid")]
    found = read(tmp_path, *others, RECTANGLE)
    assert len(found.boxes) == 1
    assert len(found.samples["ignored_shape"]) == 4


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (obj("rectangle", None, **points((10, 5), (20, 15))), "no class"),
        (obj("rectangle", **points((10, 5))), "rectangle of 1 points"),
        (obj("rectangle"), "points is None"),
        (obj("polygon", **points((1, 1), (2, 2))), "2 corners"),
        (obj("polygon", **points(*SQUARE, interior=[7])), "7 is not a list of points"),
        (obj("bitmap"), "bitmap is None"),
        (obj("bitmap", bitmap={"data": "aGFsbG8=", "origin": [1, 1]}), "not an image"),
        (obj("bitmap", bitmap={"data": base64.b64encode(zlib.compress(b"x")).decode()}), "not a point"),
        (obj("blob", **points((1, 1))), "'blob'"),
        ("text", "'text'"),
    ],
)
def test_broken_objects_are_reported(tmp_path: Path, broken: Any, reason: str) -> None:
    found = read(tmp_path, broken, RECTANGLE)
    assert len(found.boxes) == 1
    (sample,) = found.samples["invalid_annotation"]
    assert sample.startswith("ds0/ann/a.jpg.json: object 1: ")
    assert reason in sample


def test_broken_files_are_reported(tmp_path: Path) -> None:
    read(tmp_path)
    write_text(tmp_path / "ds0" / "ann" / "b.jpg.json", "{")
    write_text(tmp_path / "ds0" / "ann" / "c.jpg.json", "[]")
    write_text(tmp_path / "meta.json", "[]")
    found = read(tmp_path, RECTANGLE)
    assert len(found.boxes) == 1
    assert len(found.samples["invalid_annotation"]) == 2


def test_project_without_meta_json_is_read(tmp_path: Path) -> None:
    read(tmp_path, RECTANGLE)
    (tmp_path / "meta.json").unlink()
    assert [category["name"] for category in read_split(FORMAT, tmp_path).coco["categories"]] == ["cat"]


def test_image_of_an_old_project(tmp_path: Path) -> None:
    """Annotations were once called as the image without its suffix."""
    read(tmp_path, RECTANGLE)
    (tmp_path / "ds0/ann/a.jpg.json").rename(tmp_path / "ds0/ann/a.json")
    assert read_split(FORMAT, tmp_path).files == [str(tmp_path / "ds0" / "img" / "a.jpg")]


def test_splits_are_datasets(tmp_path: Path) -> None:
    for split, label in (("train", "cat"), ("validation", "truck")):
        write_text(
            tmp_path / split / "ann" / "a.jpg.json", json.dumps(content({**RECTANGLE, "classTitle": label}))
        )
    assert [name for _, name, _ in read_split(FORMAT, tmp_path).boxes] == ["cat"]
    assert [name for _, name, _ in read_split(FORMAT, tmp_path, "val").boxes] == ["truck"]


def test_only_projects_are_recognized(tmp_path: Path) -> None:
    assert not FORMAT.recognize(tmp_path)
    with pytest.raises(ConfigError, match="ann"):
        read_split(FORMAT, tmp_path)
    read(tmp_path, RECTANGLE)
    assert FORMAT.recognize(tmp_path)
    assert FORMAT.open(tmp_path, "val", "data.root") is None


VALID = content(
    RECTANGLE,
    obj("polygon", **points(*SQUARE, interior=[[[12, 7], [16, 7], [16, 11]]])),
    obj("bitmap", bitmap={"data": RING, "origin": [10, 5]}),
    obj("oriented_bbox", points=[[10, 6], [20, 10]], angle=1),
)


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_any_content_is_read_or_a_config_error(tmp_path: Path, data: st.DataObject) -> None:
    write_text(tmp_path / "meta.json", json.dumps(data.draw(st.just(META) | mutated(META))))
    write_image(tmp_path / "ds0" / "img" / "a.jpg")
    write_text(tmp_path / "ds0" / "ann" / "a.jpg.json", json.dumps(data.draw(mutated(VALID))))
    assert_only_config_errors(FORMAT, tmp_path)
