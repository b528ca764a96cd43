"""Label Studio's exports: regions in percent, annotators, names of uploaded files, brush masks."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.mutations import assert_only_config_errors, mutated
from helpers.reading import ReadSplit, read_split, write_image, write_text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from d2timm import ConfigError
from d2timm.data.formats.label_studio import FORMAT

BOX = {"x": 25, "y": 25, "width": 25, "height": 50, "rotation": 0}  # percent of 40 x 20 pixels


def result(value: Any, kind: str = "rectanglelabels", label: Any = "cat", **more: Any) -> dict[str, Any]:
    """A region as the export JSON has it."""
    return {
        "original_width": 40,
        "original_height": 20,
        "image_rotation": 0,
        "value": {**value, kind: [label]},
        "from_name": "label",
        "to_name": "image",
        "type": kind,
        "origin": "manual",
        **more,
    }


def annotation(*results: Any, **more: Any) -> dict[str, Any]:
    dates = {"created_at": "2024-01-01T10:00:00.1Z", "updated_at": "2024-01-02T10:00:00.1Z"}
    regions = [
        {"id": f"r{i}", **found} if isinstance(found, dict) else found for i, found in enumerate(results)
    ]
    return {"id": 7, "completed_by": 1, "result": regions, "was_cancelled": False, **dates, **more}


def task(*annotations: Any, image: Any = "/data/upload/1/1a2b3c4d-a.jpg", **more: Any) -> dict[str, Any]:
    return {"id": 1, "annotations": list(annotations), "predictions": [], "data": {"image": image}, **more}


def read(root: Path, *tasks: Any, image: str = "images/a.jpg") -> ReadSplit:
    write_image(root / image)
    write_text(root / "project-1-at-2024-01-01.json", json.dumps(list(tasks)))
    return read_split(FORMAT, root)


def brush(values: Iterable[int], same: bool = True) -> list[int]:
    """Run lengths as Label Studio packs them, of a mask repeated for the four channels."""
    channels = np.repeat(np.fromiter(values, int), 4)
    edges = [0, *(np.flatnonzero(np.diff(channels)) + 1), len(channels)]
    bits = f"{len(channels):032b}" + f"{8 - 1:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    for start, end in pairwise(edges):
        length, value = f"{end - start - 1:016b}", f"{channels[start]:08b}"
        bits += f"111{length}{value}" if same else f"011{length}{value * int(end - start)}"
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def test_shapes_are_in_percent(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        task(
            annotation(
                result(BOX),
                result({"points": [[25, 50], [75, 50], [50, 100]], "closed": True}, "polygonlabels", "dog"),
                result({"x": 50, "y": 50, "radiusX": 20, "radiusY": 10, "rotation": 0}, "ellipselabels", 3),
            )
        ),
    )
    assert found.boxes == [
        ("a.jpg", "cat", [10, 5, 10, 10]),
        ("a.jpg", "dog", [10, 10, 20, 10]),
        ("a.jpg", "3", [12, 8, 16, 4]),
    ]
    assert found.coco["annotations"][1]["segmentation"] == [[10, 10, 30, 10, 20, 20]]
    assert found.coco["annotations"][0]["source"].endswith("task 1: region r0")
    (entry,) = found.coco["images"]
    assert (entry["width"], entry["height"]) == (40, 20)
    assert list(found.samples) == ["converted_shape"]


def test_boxes_turn_around_their_first_corner_in_pixels(tmp_path: Path) -> None:
    """In percent, the sides of a turned box would have other lengths unless the image is a square."""
    found = read(tmp_path, task(annotation(result({**BOX, "height": 20, "rotation": 90}))))
    assert found.boxes == [("a.jpg", "cat", [6, 5, 4, 10])]
    assert len(found.coco["annotations"][0]["segmentation"][0]) == 8
    assert list(found.samples) == ["oriented_box"]


@pytest.mark.parametrize("same", [True, False])
def test_brush_masks(tmp_path: Path, same: bool) -> None:
    mask = np.zeros((20, 40), int)
    mask[3:6, 10:17] = 255
    value = {"format": "rle", "rle": brush(mask.ravel(), same)}
    (found,) = read(tmp_path, task(annotation(result(value, "brushlabels")))).coco["annotations"]
    assert found["bbox"] == [10, 3, 7, 3]
    decoded = coco_mask.decode(coco_mask.frPyObjects(found["segmentation"], 20, 40))
    assert np.array_equal(decoded > 0, mask > 0)


def test_labels_and_shapes_with_the_same_id_are_one_region(tmp_path: Path) -> None:
    shape = {**result(BOX, "rectanglelabels"), "value": BOX, "type": "rectangle", "id": "x"}
    label = {**result(BOX, "labels", "dog"), "id": "x"}
    answer = {**result({**BOX, "choices": ["good"]}), "value": {**BOX, "choices": ["good"]}, "id": "x"}
    found = read(tmp_path, task(annotation(shape, label, answer)))
    assert found.boxes == [("a.jpg", "dog", [10, 5, 10, 10])]
    assert not found.samples


def test_points_and_answers_are_counted(tmp_path: Path) -> None:
    point = result({"x": 10, "y": 10, "width": 1}, "keypointlabels", "nose")
    choice = {"value": {"choices": ["day"]}, "type": "choices", "from_name": "time", "to_name": "image"}
    found = read(tmp_path, task(annotation(point, choice, result(BOX))))
    assert len(found.boxes) == 1
    assert len(found.samples["ignored_shape"]) == 2


def test_latest_annotation_is_used(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        task(
            annotation(result(BOX, label="old"), updated_at="2024-01-01T00:00:00Z"),
            annotation(result(BOX, label="new"), updated_at="2024-03-01T00:00:00Z"),
            annotation(result(BOX, label="cancelled"), updated_at="2024-05-01T00:00:00Z", was_cancelled=True),
            predictions=[annotation(result(BOX, label="predicted"))],
        ),
    )
    assert [name for _, name, _ in found.boxes] == ["new"]
    assert len(found.samples["other_annotator"]) == 1


def test_tasks_without_annotations_are_not_labelled(tmp_path: Path) -> None:
    found = read(
        tmp_path, task(annotation(result(BOX))), task(image="b.jpg"), task(annotation(), image="c.jpg")
    )
    assert found.names == ["a.jpg", "c.jpg"]
    assert len(found.samples["unlabelled_file"]) == 1


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("/data/upload/1/1a2b3c4d-a.jpg", "a.jpg"),
        ("/data/upload/1/1a2b3c4d-a.jpg", "images/1a2b3c4d-a.jpg"),
        ("/data/local-files/?d=set/b%20c.jpg", "images/b c.jpg"),
        ("s3://bucket/deep/b.jpg", "deep/b.jpg"),
        ("https://host/b.jpg?token=x.png", "b.jpg"),
        ("upload\\1\\b.jpg", "b.jpg"),
    ],
)
def test_image_is_found(tmp_path: Path, name: str, image: str) -> None:
    found = read(tmp_path, task(annotation(result(BOX)), image=name), image=image)
    assert found.files == [str(tmp_path / image)]


def test_name_of_the_upload_is_tried_as_well(tmp_path: Path) -> None:
    uploaded = task(annotation(result(BOX)), image="/image2", file_upload="1a2b3c4d-b.jpg")
    assert read(tmp_path, uploaded, image="b.jpg").names == ["b.jpg"]


def test_json_min(tmp_path: Path) -> None:
    size = {"original_width": 40, "original_height": 20}
    record = {
        "image": "/data/upload/1/1a2b3c4d-a.jpg",
        "id": 1,
        "label": [{**BOX, "rectanglelabels": ["cat"], **size}],
        "polygon": [{"points": [[25, 50], [75, 50], [50, 100]], "polygonlabels": ["dog"], **size}],
        "choice": "day",
        "annotator": 1,
        "annotation_id": 7,
        "created_at": "2024-01-01T00:00:00Z",
        "updated_at": "2024-01-01T00:00:00Z",
        "lead_time": 1.5,
    }
    later = {**record, "label": [], "polygon": [], "updated_at": "2024-02-01T00:00:00Z"}
    assert read(tmp_path, record).boxes == [
        ("a.jpg", "cat", [10, 5, 10, 10]),
        ("a.jpg", "dog", [10, 10, 20, 10]),
    ]
    assert FORMAT.recognize(tmp_path)
    assert read(tmp_path, later, record).boxes == []


def test_single_annotations_of_a_storage(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    write_text(tmp_path / "7.json", json.dumps({**annotation(result(BOX)), "task": task()}))
    assert read_split(FORMAT, tmp_path).boxes == [("a.jpg", "cat", [10, 5, 10, 10])]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (result(BOX, label=None), "no class"),
        ({**result(BOX), "value": BOX}, "no class"),
        (result({**BOX, "x": "left"}), "'left' is not a coordinate"),
        (result({"points": [[1, 1], [2, 2]]}, "polygonlabels"), "2 corners"),
        (result({"rle": [1, 2, 3]}, "brushlabels"), "too early"),
        (result({"rle": "text"}, "brushlabels"), "not a list of bytes"),
        (result({"rle": brush([255] * 5)}, "brushlabels"), "20 values, and the image 40x20"),
        (result(BOX, image_rotation=90), "turned in Label Studio"),
        ({**result(BOX), "value": 7}, "value is 7"),
        (None, "None"),
    ],
)
def test_broken_regions_are_reported(tmp_path: Path, broken: Any, reason: str) -> None:
    found = read(tmp_path, task(annotation(broken, result(BOX))))
    assert len(found.boxes) == 1
    (sample,) = found.samples["invalid_annotation"]
    assert "task 1" in sample
    assert reason in sample


def test_second_label_is_reported(tmp_path: Path) -> None:
    both = result(BOX)
    both["value"]["rectanglelabels"] = ["cat", "dog"]
    found = read(tmp_path, task(annotation(both)))
    assert [name for _, name, _ in found.boxes] == ["cat"]
    assert [sample.split(": ")[-1] for sample in found.samples["further_class"]] == ["dog"]


def test_size_may_come_from_the_image(tmp_path: Path) -> None:
    bare = {key: value for key, value in result(BOX).items() if not key.startswith("original")}
    other = task(annotation(result(BOX)), image="b.jpg")
    assert read(tmp_path, task(annotation(bare)), other).boxes[0] == ("a.jpg", "cat", [10, 5, 10, 10])


def test_broken_tasks_are_reported(tmp_path: Path) -> None:
    inside = task(annotation(result(BOX)), image="data:image/png;base64,aa")
    tasks = ("text", task(annotation(), image=3), {"id": 5}, inside)
    found = read(tmp_path, *tasks, task(annotation(result(BOX))))
    assert len(found.boxes) == 1
    assert len(found.samples["invalid_annotation"]) == 3
    assert len(found.samples["missing_image"]) == 1


def test_splits_are_files(tmp_path: Path) -> None:
    for split, label in (("train", "cat"), ("val", "dog")):
        write_text(tmp_path / f"{split}.json", json.dumps([task(annotation(result(BOX, label=label)))]))
    assert [name for _, name, _ in read_split(FORMAT, tmp_path, "val").boxes] == ["dog"]


def test_folder_of_another_format(tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", '{"original_width": 3}')
    assert not FORMAT.recognize(tmp_path)
    with pytest.raises(ConfigError, match="Label Studio"):
        read_split(FORMAT, tmp_path)
    assert FORMAT.open(tmp_path, "val", "data.root") is None


VALID = [
    task(
        annotation(
            result(BOX),
            result({"points": [[25, 50], [75, 50], [50, 100]]}, "polygonlabels", "dog"),
            result({"rle": brush([0, 255] * 400)}, "brushlabels"),
        ),
        annotation(result(BOX)),
    )
]
MIN = [{"image": "a.jpg", "id": 1, "label": [{**BOX, "rectanglelabels": ["cat"], "original_width": 40}]}]


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80, deadline=None)
def test_any_content_is_read_or_a_config_error(tmp_path: Path, data: st.DataObject) -> None:
    valid = data.draw(st.sampled_from([VALID, MIN]))
    write_image(tmp_path / "a.jpg")
    write_text(tmp_path / "a.json", json.dumps(data.draw(mutated(valid))))
    assert_only_config_errors(FORMAT, tmp_path)
