"""Datasets of YOLO's label files, in the layouts that tools write: paths, classes, labels and findings."""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from helpers.reading import ReadSplit, read_split, write_image, write_text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d2timm import ConfigError
from d2timm.data.formats.yolo import FORMAT

EXIF_ORIENTATION = 0x0112
LINE = "0 0.5 0.5 0.25 0.5"  # in images of 40 x 20 pixels
BOX = [15, 5, 10, 10]  # of LINE
NUMBER = itertools.count()

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write images and their labels (text, or None for no file) and a data.yaml; return the folder."""

    def apply(
        labels: dict[str, str | None], images: str = "images/train", folder: str = "labels/train", **more: Any
    ) -> Path:
        root = tmp_path / f"set{next(NUMBER)}"
        for name, text in labels.items():
            write_image(root / images / f"{name}.png")
            if text is not None:
                write_text(root / folder / f"{name}.txt", text)
        content = {"names": ["cat", "dog"], "train": images, "val": images, **more}
        write_text(root / "data.yaml", yaml.safe_dump(content))
        return root

    return apply


def put(root: Path, *paths: str, text: str = LINE) -> None:
    """Write images, and labels in the folder ``labels`` of their path, or else beside them."""
    for path in paths:
        write_image(root / path)
        write_text((root / path.replace("images", "labels")).with_suffix(".txt"), text)


def read(root: Path, split: str = "train") -> ReadSplit:
    return read_split(FORMAT, root, split)


def has_val(root: Path) -> bool:
    return FORMAT.open(root, "val", "data.root") is not None


def objects_of(root: Path) -> list[dict[str, Any]]:
    found = read(root)
    assert set(found.samples) <= {"oriented_box"}
    return list(found.coco["annotations"])


# Labels


def test_boxes_are_in_pixels(write: Write) -> None:
    found = read(write({"a": "1 0.5 0.5 0.25 0.5\n\n0 0.1 0.2 0.2 0.4\n", "b": "0 1 1 1 1"}))
    assert found.boxes == [
        ("a.png", "dog", [15, 5, 10, 10]),
        ("a.png", "cat", [0, 0, 8, 8]),
        ("b.png", "cat", [20, 10, 40, 20]),
    ]
    assert [image["width"] for image in found.coco["images"]] == [40, 40]
    sources = [annotation["source"] for annotation in found.coco["annotations"]]
    assert sources == ["labels/train/a.txt:1", "labels/train/a.txt:3", "labels/train/b.txt:1"]
    assert not found.samples


def test_polygons_are_in_pixels(write: Write) -> None:
    polygon, box = objects_of(write({"a": f"1 0.25 0.5 0.75 0.5 0.75 1\n{LINE}"}))
    assert polygon["segmentation"] == [[10, 10, 30, 10, 30, 20]]
    assert polygon["bbox"] == [10, 10, 20, 10]
    assert "segmentation" not in box


@pytest.mark.parametrize(
    "text",
    [
        "0.0 0.5 0.5 0.25 0.5",
        "0.000000e+00 0.5 0.5 0.25 0.5",
        "\r\n0 .5 5e-1 0.25 0.5  \r\n \t\r\n",
        "0\t0.5\t0.5\t0.25\t0.5",
        "\ufeff0 0.5 0.5 0.25 0.5",
    ],
)
def test_lines_as_tools_write_them(write: Write, text: str) -> None:
    assert read(write({"a": text})).boxes == [("a.png", "cat", BOX)]


def test_labels_in_utf16(write: Write) -> None:
    root = write({"a": ""})
    write_text(root / "labels/train/a.txt", f"{LINE}\r\n", "utf-16")  # PowerShell's redirection
    assert read(root).boxes == [("a.png", "cat", BOX)]


def test_repeated_lines_are_used_once(write: Write) -> None:
    found = read(write({"a": f"{LINE}\n{LINE.replace('0.25', '.250')}\n1{LINE[1:]}\n{LINE}0"}))
    assert [name for _, name, _ in found.boxes] == ["cat", "dog"]
    assert [sample.split(":")[1] for sample in found.samples["repeated_line"]] == ["2", "4"]


def test_images_without_labels_have_no_objects(write: Write) -> None:
    found = read(write({"a": None, "b": "", "c": LINE, "d": "\n \n"}))
    assert found.names == ["a.png", "b.png", "c.png", "d.png"]
    assert [name for name, _, _ in found.boxes] == ["c.png"]


def test_values_slightly_outside(write: Write) -> None:
    found = read(write({"a": "0 0.5 0.5 1.009 1\n1 -0.009 0 1 0 1 1.009"}))
    assert [box[2] for _, _, box in found.boxes] == pytest.approx([40, 40], abs=0.5)


def test_polygons_may_leave_the_image(write: Write) -> None:
    """Ultralytics checks the centre and the sides of the box around a polygon only."""
    (annotation,) = objects_of(write({"a": "0 -0.1 0.2 0.3 0.2 0.3 0.6"}))
    assert annotation["bbox"] == pytest.approx([-4, 4, 16, 8])


def test_exif_orientation_is_applied(write: Write) -> None:
    from PIL import Image

    root, exif = write({"a": LINE}), Image.Exif()
    exif[EXIF_ORIENTATION] = 6  # a quarter turn
    write_image(root / "images/train/b.jpg", exif=exif)
    write_text(root / "labels/train/b.txt", "0 0.25 0.25 0.5 0.5")
    found = read(root)
    assert [(image["width"], image["height"]) for image in found.coco["images"]] == [(40, 20), (20, 40)]
    assert found.boxes[1] == ("b.jpg", "cat", [0, 0, 10, 20])


def test_unreadable_images_have_neither_size_nor_objects(write: Write) -> None:
    root = write({"a": LINE, "b": LINE})
    write_text(root / "images/train/b.png", "no image")
    found = read(root)
    assert [image["width"] for image in found.coco["images"]] == [40, None]
    assert len(found.boxes) == 1


@pytest.mark.parametrize(
    ("line", "facts"),
    [
        ("cat 0.5 0.5 0.1 0.1", "'cat 0.5 0.5 0.1 0.1'"),
        ("0 0.5 half 0.1 0.1", "'0 0.5 half 0.1 0.1'"),
        ("0,0.5,0.5,0.1,0.1", "'0,0.5,0.5,0.1,0.1'"),
        ("0 nan 0.5 0.1 0.1", "'0 nan 0.5 0.1 0.1'"),
        ("0 0.5 0.5 inf 0.1", "'0 0.5 0.5 inf 0.1'"),
        ("0.5 0.5 0.5 0.1 0.1", "class 0.5 .*0 to 1"),
        ("2 0.5 0.5 0.1 0.1", "class 2 .*0 to 1"),
        ("-1 0.5 0.5 0.1 0.1", "class -1 .*0 to 1"),
        ("0 320 240 17 30", "320 .*0 to 1"),
        ("0 10 10 30 10 30 15", "20 of the box .*0 to 1"),
        ("0 0.5 0.5 1.02 0.1", "1.02 .*0 to 1"),
        ("0 0.5 -0.02 0.1 0.1", "-0.02 .*0 to 1"),
        ("0 0.5 0.5 -0.001 0.1", "-0.001 .*width"),
        ("0", "0 numbers .* 4, .* 6"),
        ("0 0.5 0.5 0.1", "3 numbers .* 4, .* 6"),
        ("0 0.5 0.5 0.1 0.1 0.9", "5 numbers .*confidence"),
        ("0 0 0 1 0 1 1 0", "7 numbers .* 4, .* 6"),
    ],
)
def test_all_invalid_lines_are_reported(write: Write, line: str, facts: str) -> None:
    found = read(write({"a": f"{LINE}\n\n{line}\n{line} ", "b": LINE}))
    assert found.boxes == [("a.png", "cat", BOX), ("b.png", "cat", BOX)]
    first, second = found.samples["invalid_annotation"]
    assert first.startswith("labels/train/a.txt:3: ")
    assert second.startswith("labels/train/a.txt:4: ")
    assert re.search(facts, first)


def test_image_is_left_out_if_none_of_its_lines_is_valid(write: Write) -> None:
    found = read(write({"a": "0,1,2,3,4\n1,1,2,3,4", "b": LINE}))
    assert found.names == ["b.png"]
    assert len(found.samples["invalid_annotation"]) == 2


def test_label_file_that_cannot_be_read(write: Write) -> None:
    root = write({"a": LINE, "b": None})
    (root / "labels/train/b.txt").mkdir()
    found = read(root)
    assert found.names == ["a.png"]
    assert [sample[:20] for sample in found.samples["invalid_annotation"]] == ["labels/train/b.txt: "]


def test_labels_without_an_image(write: Write) -> None:
    root = write({"a": LINE}, train="images", val="images/val")
    put(root, "images/val/v.png")
    for name in ("train/b", "train/sub/c", "other/d"):
        write_text(root / f"labels/{name}.txt", LINE)
    write_text(root / "labels/train/blank.txt", "")
    write_text(root / "labels/train/classes.txt", "cat\ndog")
    names = [sample.split(":")[0] for sample in read(root).samples["missing_image"]]
    assert names == ["labels/train/b.txt", "labels/other/d.txt", "labels/train/sub/c.txt"]
    assert "missing_image" not in read(root, "val").samples


def test_labels_of_another_split_in_the_same_folder_have_images(write: Write) -> None:
    root = write({"a": LINE, "b": LINE}, train="train.txt", val="val.txt")
    for split, name in (("train", "a"), ("val", "b")):
        write_text(root / f"{split}.txt", f"./images/train/{name}.png\n")
    assert not read(root).samples
    assert read(root, "val").names == ["b.png"]


# Oriented boxes and poses


def test_oriented_boxes(write: Write) -> None:
    line = "0 0.5 0.1 0.7 0.5 0.5 0.9 0.3 0.5"
    found = read(write({"a": f"{line}\n1{line[1:]}", "b": line, "c": ""}))
    assert found.samples == {"oriented_box": ["labels/train/a.txt", "labels/train/b.txt"]}
    assert [box for _, _, box in found.boxes] == [[12, 2, 16, 16]] * 3
    assert len(found.coco["annotations"][0]["segmentation"][0]) == 8


def test_masks_with_four_corners_are_no_oriented_boxes(write: Write) -> None:
    line = "0 0.5 0.1 0.7 0.5 0.5 0.9 0.3 0.5"
    assert not read(write({"a": line, "b": f"{line} 0.2 0.2"})).samples


@pytest.mark.parametrize(
    ("shape", "points", "expected"),
    [
        ([2, 3], "0.5 0.5 2 0.25 0.5 1", [20, 10, 2, 10, 10, 1]),
        ([2, 3], "0.5 0.5 2.000 0.9 0.9 0.0", [20, 10, 2, 0, 0, 0]),
        ([2, 3], "0.5 0.5 0.87 0 0 0", [20, 10, 2, 0, 0, 0]),  # confidences of predictions
        ([2, 2], "0.5 0.5 0 0", [20, 10, 2, 0, 0, 0]),
        ([2, 2], "0 0.5 -0.005 0.5", [0, 10, 2, 0, 0, 0]),
        ([1, 2], "1 1", [40, 20, 2]),
        ([2, 3], "", [0, 0, 0, 0, 0, 0]),
    ],
)
def test_poses(write: Write, shape: list[int], points: str, expected: list[float]) -> None:
    found = read(write({"a": f"{LINE} {points}"}, kpt_shape=shape))
    (annotation,) = found.coco["annotations"]
    assert annotation["bbox"] == BOX
    assert annotation["keypoints"] == pytest.approx(expected)
    assert annotation["num_keypoints"] == sum(v > 0 for v in expected[2::3])
    names = [f"point_{i}" for i in range(shape[0])]
    assert [category["keypoints"] for category in found.coco["categories"]] == [names, names]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({0: ["nose", "tail"], 1: ["nose", "tail"]}, ["nose", "tail"]),
        ({0: ["nose", "tail"]}, ["nose", "tail"]),
        (["nose", "tail"], ["nose", "tail"]),
        ({0: ["nose", "tail"], 1: ["a", "b"]}, ["point_0", "point_1"]),
        ({0: ["nose"]}, ["point_0", "point_1"]),
        ({}, ["point_0", "point_1"]),
    ],
)
def test_names_of_keypoints(write: Write, names: Any, expected: list[str]) -> None:
    root = write({"a": f"{LINE} 0.1 0.1 0.2 0.2"}, kpt_shape=[2, 2], kpt_names=names, flip_idx=[1, 0])
    assert read(root).coco["categories"][0]["keypoints"] == expected


@pytest.mark.parametrize(
    ("points", "facts"),
    [
        ("0.1 0.1 2 0.1 0.1", "9 numbers .*10"),
        ("0.1 0.1 0.1 0.1", "8 numbers .*10"),
        ("0.1 0.1 2 12 0.1 2", "12 .*0 to 1"),
        ("0.1 0.1 -1 0.1 0.1 2", "visibility -1"),
    ],
)
def test_invalid_poses(write: Write, points: str, facts: str) -> None:
    found = read(write({"a": f"{LINE} {points}", "b": LINE}, kpt_shape=[2, 3]))
    (sample,) = found.samples["invalid_annotation"]
    assert re.search(rf"a\.txt:1: .*{facts}", sample)


# Paths of labels


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("images/train", "labels/train"),
        ("train/images", "train/labels"),
        ("images/images/deep", "images/labels/deep"),  # only the last folder of this name
        ("pictures", "pictures"),
        ("images", "images"),  # labelImg writes labels beside their images
    ],
)
def test_labels_are_found(write: Write, images: str, labels: str) -> None:
    assert read(write({"my photo.v1": LINE}, images, labels)).boxes == [("my photo.v1.png", "cat", BOX)]


def test_dataset_in_a_folder_that_is_named_images(write: Write, tmp_path: Path) -> None:
    root = write({"a": LINE}, "train", "train")
    (tmp_path / "images").mkdir()
    assert len(read(root.rename(tmp_path / "images" / "set")).boxes) == 1


def test_dataset_without_label_files(write: Write) -> None:
    root = write({"a": LINE}, folder="annotations")
    with pytest.raises(ConfigError, match=r"train: .*images/train/a\.txt$"):
        read(root)


# Images


def test_several_folders_and_sub_folders(write: Write) -> None:
    root = write({"a": LINE, "b": ""}, train=["more/images", "images", "one.jpg"])
    for name in ("z.JPG", ".hidden.png"):
        write_image(root / "more/images" / name)
    write_text(root / "more/images/notes.txt", "none")
    write_image(root / "one.jpg")
    assert read(root).names == ["z.JPG", "a.png", "b.png", "one.jpg"]


@pytest.mark.parametrize(
    "entry",
    [
        "./images/train/a.png",
        "images/train/a.png",
        r"images\train\a.png",
        r".\images\train\a.png",
        "data/images/train/a.png",  # CVAT
        "/home/me/set/images/train/a.png",
        r"D:\old\images\train\a.png",
        "  images/train/a.png\r",
    ],
)
@pytest.mark.parametrize("place", ["train.txt", "lists/train.txt"])
def test_entries_of_lists(write: Write, entry: str, place: str) -> None:
    root = write({"a": LINE, "b": LINE}, train=place)
    write_text(root / place, f"{entry}\n\n", "utf-8-sig")
    assert read(root).boxes == [("a.png", "cat", BOX)]


def test_entries_relative_to_the_list_and_absolute(write: Write) -> None:
    root = write({"a": LINE}, train=["lists/train.txt"])
    put(root, "lists/b.jpg")
    write_text(root / "lists/train.txt", f"b.jpg\n{root}/images/train/a.png\n")
    assert read(root).names == ["b.jpg", "a.png"]


@pytest.mark.parametrize("entry", ["images/train/missing.png", "images/train/a\0.png", "images/val/a.png"])
def test_missing_images_of_lists_keep_their_names(write: Write, entry: str) -> None:
    root = write({"a": LINE}, train="train.txt")
    write_text(root / "train.txt", f"images/train/a.png\n{entry}\n")
    found = read(root)
    assert found.names == ["a.png", entry.rpartition("/")[2]]
    assert [image["width"] for image in found.coco["images"]] == [40, None]


# data.yaml


@pytest.mark.parametrize(
    "path",
    [
        r"C:\Users\me\set",
        r"C:\Users\me\data",
        "/home/me/set",
        "../datasets/set",
        "./",
        ".",
        "",
        None,
        "set",
    ],
)
@pytest.mark.parametrize("train", ["images/train", r"images\train", "./images/train", "/old/images/train"])
def test_paths_of_other_machines(write: Write, path: str | None, train: str) -> None:
    root = write({"a": LINE}, train=train, path=path)
    assert read(root).boxes == [("a.png", "cat", BOX)]


@pytest.mark.parametrize("path", ["parent", "absolute", "working", "trailing"])
def test_folders_are_relative_to_path(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    root = write({"a": LINE})
    folder = tmp_path if path == "trailing" else tmp_path / "elsewhere"
    folder.mkdir(exist_ok=True)
    written = {
        "parent": f"../{root.name}",
        "absolute": str(root),
        "working": root.name,
        "trailing": f"/old/{root.name}",
    }[path]
    content = {"names": ["cat"], "train": "images/train", "path": written}
    file = write_text(folder / "my.yaml", yaml.safe_dump(content))
    monkeypatch.chdir(tmp_path)
    assert read(file).names == ["a.png"]


def test_folders_as_roboflow_writes_them(write: Write) -> None:
    root = write({"a": LINE}, "train/images", "train/labels", train="../train/images", val="../valid/images")
    put(root, "valid/images/b.jpg", "valid/images/c.jpg")
    found = read(root)
    assert (found.names, found.note) == (["a.png"], "")
    assert read(root, "val").names == ["b.jpg", "c.jpg"]


def test_splits_are_not_confused(write: Write) -> None:
    """``/old/val/images`` is not the folder of all images."""
    root = write({"a": LINE}, val="/old/val/images")
    with pytest.raises(ConfigError, match=r"val: '/old/val/images'"):
        FORMAT.open(root, "val", "data.root")


@pytest.mark.parametrize("path", [r'"C:\train\new"', r"'C:\train\new'", r"C:\train\new", r'"C:\\train\\new"'])
@pytest.mark.parametrize(
    "train", [r'"images\train"', r"images\train", r'"images\\train"', '["images/train"]']
)
def test_backslashes_in_yaml(write: Write, path: str, train: str) -> None:
    root = write({"a": LINE})
    names = r'["k\u00e4se", "a\\b"]'
    write_text(root / "data.yaml", f"path: {path}\ntrain: {train}  # backslashes\nnames: {names}\n")
    found = read(root)
    assert [category["name"] for category in found.coco["categories"]] == ["käse", r"a\b"]
    assert str(root / "images/train") in found.note or train.startswith("[")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("[a, b]", ["a", "b"]),
        ("{0: a, 1: b}", ["a", "b"]),
        ("{'1': b, '0': a}", ["a", "b"]),
        ("[no, 007]", ["no", "007"]),
        ("[1.0, null]", ["1.0", "null"]),
        ("\n- a\n- '#b'", ["a", "#b"]),
        ("\nnc: 2", ["class_0", "class_1"]),
        ("null\nnc: 2.0", ["class_0", "class_1"]),
    ],
)
def test_class_names(write: Write, names: str, expected: list[str]) -> None:
    root = write({"a": f"1{LINE[1:]}"})
    write_text(root / "data.yaml", f"train: images/train\nnames: {names}\n", "utf-8-sig")
    found = read(root)
    assert [category["name"] for category in found.coco["categories"]] == expected
    assert found.boxes[0][1] == expected[1]


def test_class_numbers_with_gaps(write: Write) -> None:
    found = read(write({"a": f"7{LINE[1:]}\n{LINE}"}, names={3: "c", 7: "g"}))
    assert [name for _, name, _ in found.boxes] == ["g"]
    assert "class 0 " in found.samples["invalid_annotation"][0]


@pytest.mark.parametrize(
    "more", [{"val": None}, {"val": "None"}, {"val": ""}, {"val": []}, {"val": "empty"}, {"val": "empty.txt"}]
)
def test_missing_validation_split(write: Write, more: dict[str, Any]) -> None:
    root = write({"a": LINE}, **more)
    (root / "empty").mkdir()
    write_text(root / "empty.txt", "\n")
    assert not has_val(root)
    assert read(root).names == ["a.png"]


@pytest.mark.parametrize("key", ["val", "valid", "validation", "test", "Validation"])
def test_keys_of_the_validation_split(write: Write, key: str) -> None:
    root = write({"a": LINE}, val=None)
    put(root, "images/other/b.jpg")
    content = yaml.safe_load((root / "data.yaml").read_text())
    del content["val"]
    write_text(root / "data.yaml", yaml.safe_dump({**content, key: "images/other"}))
    found = read(root, "val")
    assert found.names == ["b.jpg"]
    assert bool(found.note) == (key == "test")


def test_validation_images_without_labels(write: Write) -> None:
    root = write({"a": LINE}, val="images/val")
    write_image(root / "images/val/b.jpg")
    assert read(root, "val").boxes == []


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        ("names: [\ntrain: x", "YAML"),
        ("- a", "names, train and val"),
        ("", "names, train and val"),
        ("\x00", "names, train and val"),
        ("{train: images, val: images}", "names: None .*list .*mapping"),
        ("{names: [], train: images}", r"names: \[\] .*list"),
        ("{names: cat, train: images}", "names: 'cat' .*list"),
        ("{names: {a: cat}, train: images}", "names: .*mapping"),
        ("{names: {0: cat, '00': dog}, train: images}", "names: .*mapping"),
        ("{nc: many, train: images}", "names: None"),
        ("{names: [cat]}", "train: nothing is declared"),
        ("{names: [cat], train: 5}", "train: '5': .*folder"),
        ("{names: [cat], train: {a: b}}", r"train: \{'a': 'b'\} .*folder"),
        ("{names: [cat], train: []}", "train: nothing is declared"),
        ("{names: [cat], train: images, path: [5]}", "path: .*folder"),
        ("{names: [cat], train: pictures}", "train: 'pictures': no such folder"),
        ("{names: [cat], train: images, kpt_shape: 5}", "kpt_shape: '5'"),
        ("{names: [cat], train: images, kpt_shape: [5, 4]}", r"kpt_shape: \['5', '4'\]"),
        ("{names: [cat], train: empty}", "train: .*empty: no labelled images"),
    ],
)
def test_invalid_yaml(write: Write, content: str, facts: str) -> None:
    root = write({"a": LINE})
    (root / "empty").mkdir()
    write_text(root / "data.yaml", content)
    with pytest.raises(ConfigError, match=rf"^data\.root=x: data\.yaml: .*{facts}") as caught:
        FORMAT.open(root, "train", "data.root=x")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["coco8.yaml", "my set.yml", "sub/data.yaml", "DATA.YAML"])
def test_yaml_file_of_any_name(write: Write, name: str) -> None:
    root = write({"a": LINE}, path="..") if "/" in name else write({"a": LINE})
    (root / "sub").mkdir()
    file = (root / "data.yaml").rename(root / name)
    write_text(root / "hyp.yaml", "lr0: 0.01\n")
    assert read(root).names == read(file).names == ["a.png"]


def test_several_yaml_files(write: Write) -> None:
    root = write({"a": LINE})
    for name in ("one.yaml", "two.yaml"):
        write_text(root / name, (root / "data.yaml").read_text())
    assert read(root).names == ["a.png"]
    (root / "data.yaml").unlink()
    with pytest.raises(ConfigError, match=r"one\.yaml, two\.yaml.*data\.root"):
        FORMAT.open(root, "train", "data.root")


def test_missing_dataset(tmp_path: Path) -> None:
    for root, facts in ((tmp_path / "x", "no such file"), (tmp_path, r"data\.yaml.*classes\.txt")):
        with pytest.raises(ConfigError, match=rf"^data\.root=x: .*{facts}"):
            FORMAT.open(root, "train", "data.root=x")


# Without data.yaml


@pytest.mark.parametrize("place", [".", "labels", "labels/sub"])
def test_classes_of_labelimg(tmp_path: Path, place: str) -> None:
    put(tmp_path, "images/a.jpg", "images/b b.v1.jpg", "images/sub/c.jpg", text=f"1{LINE[1:]}")
    write_image(tmp_path / "images/unlabelled.jpg")
    write_text(tmp_path / place / "classes.txt", "cat\nmy dog\n")
    found = read(tmp_path)
    assert found.boxes == [(name, "my dog", BOX) for name in ("a.jpg", "b b.v1.jpg", "c.jpg")]
    assert found.names == ["a.jpg", "b b.v1.jpg", "c.jpg"]
    assert found.note
    assert not found.samples
    assert not has_val(tmp_path)


def test_labels_beside_images(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b.jpg")
    write_text(tmp_path / "classes.txt", "cat\n")
    write_text(tmp_path / "gone.txt", LINE)
    found = read(tmp_path)
    assert found.names == ["a.jpg", "b.jpg"]
    assert [sample.split(":")[0] for sample in found.samples["missing_image"]] == ["gone.txt"]


def test_folders_of_splits(tmp_path: Path) -> None:
    for split, names in (("train", "ab"), ("valid", "c"), ("test", "d")):  # Roboflow's Darknet export
        put(tmp_path, *(f"{split}/{name}.jpg" for name in names))
        write_text(tmp_path / split / "_darknet.labels", "cat\ndog")
    assert read(tmp_path).names == ["a.jpg", "b.jpg"]
    assert read(tmp_path, "val").names == ["c.jpg"]


def test_class_lists_that_differ(tmp_path: Path) -> None:
    for folder, names in (("x", "cat"), ("y", "cat\ndog")):
        put(tmp_path, f"{folder}/{folder}.jpg")
        write_text(tmp_path / folder / "classes.txt", names)
    assert [c["name"] for c in read(tmp_path).coco["categories"]] == ["cat", "dog"]
    write_text(tmp_path / "x" / "classes.txt", "dog")
    with pytest.raises(ConfigError, match=r"x/classes\.txt"):
        FORMAT.open(tmp_path, "train", "data.root")


@pytest.mark.parametrize("prefix", ["data/", ""])
def test_export_of_cvat(tmp_path: Path, prefix: str) -> None:
    put(tmp_path, "obj_train_data/a.png", "obj_train_data/sub/b.png", "obj_valid_data/c.png")
    write_text(tmp_path / "obj_train_data/sub/b.txt", "")
    write_text(tmp_path / "obj.names", "cat\ndog\n")
    write_text(tmp_path / "train.txt", f"{prefix}obj_train_data/a.png\n{prefix}obj_train_data/sub/b.png\n")
    lists = f"train = {prefix}train.txt"
    write_text(tmp_path / "obj.data", f"classes = 2\n{lists}\nnames = {prefix}obj.names\nbackup = backup/\n")
    found = read(tmp_path)
    assert (found.names, len(found.boxes)) == (["a.png", "b.png"], 1)
    assert not has_val(tmp_path)
    write_text(tmp_path / "valid.txt", f"{prefix}obj_valid_data/c.png\n")
    write_text(tmp_path / "obj.data", f"{lists}\nvalid = {prefix}valid.txt\nnames = {prefix}obj.names\n")
    assert read(tmp_path / "obj.data", "val").names == ["c.png"]
    (tmp_path / "obj.data").unlink()
    assert read(tmp_path).names == ["a.png", "b.png"]


def test_class_list_that_is_empty_or_missing(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    write_text(tmp_path / "obj.data", "names = x.names\ntrain = train.txt\n")
    with pytest.raises(ConfigError, match=r"obj\.data: names: 'x\.names'"):
        FORMAT.open(tmp_path, "train", "data.root")
    (tmp_path / "obj.data").unlink()
    write_text(tmp_path / "classes.txt", "\n")
    with pytest.raises(ConfigError, match=r"classes\.txt is empty"):
        FORMAT.open(tmp_path, "train", "data.root")


# The source


def test_source_depends_on_labels_and_declaration(write: Write) -> None:
    root = write({"a": LINE, "b": None})
    write_text(root / "labels/train/orphan.txt", LINE)
    source = FORMAT.open(root, "train", "data.root")
    assert source is not None
    assert [os.path.relpath(file, root) for file in source.files] == [
        "data.yaml",
        "labels/train/a.txt",
        "labels/train/b.txt",
        "labels/train/orphan.txt",
    ]
    assert root / "images/train/b.png" in source.settings
    assert "data.root" in source.label


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("data.yaml", "names: [a]\ntrain: images\n", True),
        ("deep/any.yml", "# a comment\nnc: 1\nTrain: images\n", True),
        ("a.json", "{}", False),
        ("config.yaml", "lr: 1\nname: x\n", False),
        ("obj.data", "classes = 1", True),
        ("obj.names", "cat", True),
        ("classes.txt", "cat", False),
        ("labels/a.txt", f"{LINE}\n", True),
        ("labels/a.txt", "0 0.1 0.2 0.3 0.4 0.5 0.6", True),
        ("requirements.txt", "numpy\n", False),
        ("labelTxt/a.txt", "1 2 3 4 5 6 7 8 plane 0", False),  # DOTA
        ("gt/gt.txt", "1,1,2,3,4,5,6,7", False),  # MOT
    ],
)
def test_recognition(tmp_path: Path, file: str, text: str, expected: bool) -> None:
    write_text(tmp_path / file, text)
    assert FORMAT.recognize(tmp_path) is expected
    assert not FORMAT.recognize(tmp_path / "missing")


def test_recognition_of_files(write: Write) -> None:
    root = write({"a": LINE})
    assert FORMAT.recognize(root / "data.yaml")
    assert not FORMAT.recognize(root / "labels/train/a.txt")
    write_text(root / "other.yaml", "lr: 1")
    assert not FORMAT.recognize(root / "other.yaml")


# Random content


@given(
    st.lists(
        st.tuples(
            st.integers(0, 1), *[st.floats(0, 1).filter(lambda v: v == 0 or v > 1e-6) for _ in range(4)]
        ),
        max_size=4,
        unique=True,
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
def test_valid_labels_are_preserved(write: Write, boxes: list[tuple[float, ...]]) -> None:
    root = write({"a": "\n".join(" ".join(map(repr, box)) for box in boxes)})
    converted = []
    for annotation in objects_of(root):
        x, y, w, h = annotation["bbox"]
        converted.append((annotation["category_id"] - 1, (x + w / 2) / 40, (y + h / 2) / 20, w / 40, h / 20))
    assert np.array(converted) == pytest.approx(np.array(boxes), abs=1e-9)


ANY_LINE = st.text("0123456789.-+enaif \t", max_size=30) | st.text(max_size=8) | st.just(LINE)


@given(st.lists(ANY_LINE, max_size=3), st.sampled_from([{}, {"kpt_shape": [2, 2]}]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
def test_any_labels_are_read_or_reported(write: Write, labels: list[str], more: dict[str, Any]) -> None:
    root = write({"a": ""}, **more)
    text = "\n".join(labels)
    (root / "labels/train/a.txt").write_text(text, "utf-8", "surrogatepass")
    found = read(root)
    count = sum(map(len, found.samples.values())) - len(found.samples.get("oriented_box", []))
    lines = text.encode("utf-8", "surrogatepass").decode("utf-8-sig", "replace").splitlines()
    assert len(found.boxes) + count == sum(bool(line.strip()) for line in lines)
    assert all(math.isfinite(v) for _, _, box in found.boxes for v in box)


def test_box_contains_the_drawn_pixels(write: Write) -> None:
    """A drawn rectangle lies where its label says, in the image as detectron2 reads it."""
    root = write({"a": "0 0.375 0.5 0.25 0.5"})
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[5:15, 10:20] = 255
    cv2.imwrite(str(root / "images/train/a.png"), pixels)
    x, y, w, h = map(round, read(root).boxes[0][2])
    assert pixels[y : y + h, x : x + w].all()
    assert pixels.sum() == 3 * 255 * w * h
