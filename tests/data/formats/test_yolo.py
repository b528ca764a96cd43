"""Datasets in YOLO's layout: boxes and polygons, the ways to list images, and one-line errors."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from d2timm import ConfigError
from d2timm.data.formats.to_coco import EXIF_ORIENTATION
from d2timm.data.formats.yolo import from_yolo

LABEL = "data.name=yolo data.root"
NUMBER = itertools.count()

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("D2TIMM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write images of 40 x 20 pixels and their labels (text, or None for no file); return the folder."""

    def apply(
        labels: dict[str, str | None], images: str = "images/train", folder: str = "labels/train", **more: Any
    ) -> Path:
        root = tmp_path / f"set{next(NUMBER)}"
        for name, text in labels.items():
            image, file = root / images / f"{name}.png", root / folder / f"{name}.txt"
            for path in (image, file):
                path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 20)).save(image)
            if text is not None:
                file.write_text(text)
        content = {"names": ["cat", "dog"], "train": images, "val": images, **more}
        (root / "data.yaml").write_text(yaml.safe_dump(content))
        return root

    return apply


def read(root: Path, split: str = "train") -> dict[str, Any]:
    files = from_yolo(root, split, LABEL)
    assert files.images == Path("/")
    coco: dict[str, Any] = json.loads(files.json.read_text())
    return coco


def names_of_images(root: Path, split: str = "train") -> list[str]:
    return [Path(image["file_name"]).name for image in read(root, split)["images"]]


# Coordinates


def test_boxes_are_in_pixels(write: Write) -> None:
    coco = read(write({"a": "1 0.5 0.5 0.25 0.5\n\n0 0.1 0.2 0.2 0.4\n", "b": "0 1 1 1 1"}))
    boxes = [(a["image_id"], a["category_id"], a["bbox"], a["area"]) for a in coco["annotations"]]
    assert boxes == [
        (1, 2, pytest.approx([15, 5, 10, 10]), pytest.approx(100)),
        (1, 1, pytest.approx([0, 0, 8, 8]), pytest.approx(64)),
        (2, 1, pytest.approx([20, 10, 40, 20]), pytest.approx(800)),
    ]
    assert [a["id"] for a in coco["annotations"]] == [1, 2, 3]
    assert not any("segmentation" in a or a["iscrowd"] for a in coco["annotations"])
    assert coco["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]


def test_polygons_are_in_pixels(write: Write) -> None:
    (annotation,) = read(write({"a": "1 0.25 0.5 0.75 0.5 0.75 1 0.5 1"}))["annotations"]
    assert annotation["segmentation"] == [[10, 10, 30, 10, 30, 20, 20, 20]]
    assert annotation["bbox"] == [10, 10, 20, 10]
    assert annotation["area"] == 150  # a trapezium


def test_exif_orientation_is_applied(write: Write) -> None:
    root = write({"a": "0 0.5 0.5 0.2 0.2"})
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6  # a quarter turn
    Image.new("RGB", (40, 20)).save(root / "images" / "train" / "b.jpg", exif=exif)
    (root / "labels" / "train" / "b.txt").write_text("0 0.25 0.25 0.5 0.5")
    coco = read(root)
    assert [(image["width"], image["height"]) for image in coco["images"]] == [(40, 20), (20, 40)]
    assert coco["annotations"][1]["bbox"] == [0, 0, 10, 20]


def test_images_without_labels_have_no_objects(write: Write) -> None:
    coco = read(write({"a": None, "b": "", "c": "0 0.5 0.5 0.1 0.1"}))
    assert len(coco["images"]) == 3
    assert [a["image_id"] for a in coco["annotations"]] == [3]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 1), *[st.floats(0, 1).filter(lambda v: v == 0 or v > 1e-6) for _ in range(4)]
        ),
        max_size=4,
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_valid_labels_are_preserved(write: Write, boxes: list[tuple[float, ...]]) -> None:
    root = write({"a": "\n".join(" ".join(map(repr, box)) for box in boxes)})
    converted = []
    for annotation in read(root)["annotations"]:
        x, y, w, h = annotation["bbox"]
        converted.append((annotation["category_id"] - 1, (x + w / 2) / 40, (y + h / 2) / 20, w / 40, h / 20))
    assert np.array(converted) == pytest.approx(np.array(boxes), abs=1e-9)


LINE = st.text("0123456789.-+enaif \t", max_size=30) | st.text(max_size=8)


@given(st.lists(LINE, max_size=3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
def test_any_labels_are_valid_or_a_config_error(write: Write, labels: list[str]) -> None:
    root = write({"a": ""})
    (root / "labels" / "train" / "a.txt").write_text("\n".join(labels), "utf-8", "surrogatepass")
    annotations, message = [], None
    try:
        annotations = read(root)["annotations"]
    except ConfigError as error:
        message = str(error)
    assert message is None or ("a.txt" in message and "\n" not in message)
    assert all(math.isfinite(v) for a in annotations for v in a["bbox"])
    assert all(a["category_id"] in (1, 2) for a in annotations)


# Paths of images and labels


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("images/train", "labels/train"),
        ("train/images", "train/labels"),
        ("images/images/deep", "images/labels/deep"),  # only the last folder of this name
        ("pictures", "pictures"),  # labels next to their images
    ],
)
def test_labels_are_found(write: Write, images: str, labels: str) -> None:
    assert len(read(write({"a": "0 0.5 0.5 0.1 0.1"}, images, labels))["annotations"]) == 1


def test_class_names_can_be_a_mapping(write: Write) -> None:
    coco = read(write({"a": "2 0.5 0.5 0.1 0.1"}, names={2: "c", 0: "a", 1: 7}))
    assert [category["name"] for category in coco["categories"]] == ["a", "7", "c"]
    assert coco["annotations"][0]["category_id"] == 3


def test_images_in_a_text_file(write: Write, tmp_path: Path) -> None:
    root = write({"a": "0 0.5 0.5 0.1 0.1", "b": "", "c": ""}, train="train.txt")
    absolute = root / "images" / "train" / "c.png"
    (root / "train.txt").write_text(f"./images/train/b.png\n\nimages/train/a.png\n{absolute}\n")
    assert names_of_images(root) == ["b.png", "a.png", "c.png"]
    assert names_of_images(root, "val") == ["a.png", "b.png", "c.png"]


def test_several_folders_and_subfolders(write: Write) -> None:
    root = write({"a": "0 0.5 0.5 0.1 0.1", "b": ""}, train=["more/images", "images"])
    (root / "more" / "images").mkdir(parents=True)
    for name in ("z.JPG", ".hidden.png", "notes.txt"):
        Image.new("RGB", (4, 4)).save(root / "more" / "images" / name, "PNG")
    assert names_of_images(root) == ["z.JPG", "a.png", "b.png"]


def test_folders_are_relative_to_path(write: Write) -> None:
    root = write({"a": "0 0.5 0.5 0.1 0.1"})
    other = root.parent / "elsewhere"
    other.mkdir()
    for path in ("", "../" + root.name, str(root), None):
        content = {"names": ["cat"], "train": "images/train", "val": "images/train", "path": path}
        folder = other if path else root
        (folder / "data.yaml").write_text(yaml.safe_dump(content))
        assert names_of_images(folder) == ["a.png"]


def test_folders_as_roboflow_writes_them(write: Write) -> None:
    root = write({"a": "0 0.5 0.5 0.1 0.1"}, "train/images", "train/labels", train="../train/images")
    assert names_of_images(root) == ["a.png"]


def test_yaml_file_can_have_any_name(write: Write) -> None:
    root = write({"a": "0 0.5 0.5 0.1 0.1"})
    file = (root / "data.yaml").rename(root / "coco8.yaml")
    assert names_of_images(file) == ["a.png"]
    with pytest.raises(ConfigError, match=rf"^{LABEL}={root}/data\.yaml: No such file"):
        read(root)


# The cache


def test_file_is_built_once(write: Write, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write({"a": "0 0.5 0.5 0.1 0.1"})
    files = from_yolo(root, "train", LABEL)
    monkeypatch.setattr("d2timm.data.formats.yolo.build_coco", None)
    assert from_yolo(root, "train", LABEL) == files
    assert from_yolo(root, "val", LABEL) == files, "the same images and labels"
    assert list(cache.iterdir()) == [files.json]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda root: (root / "labels/train/a.txt").write_text("0 0.5 0.5 0.25 0.2"), id="label"),
        pytest.param(
            lambda root: (root / "labels/train/b.txt").write_text("0 0.5 0.5 0.2 0.2"), id="new label"
        ),
        pytest.param(lambda root: (root / "labels/train/a.txt").unlink(), id="removed label"),
        pytest.param(lambda root: Image.new("RGB", (9, 9)).save(root / "images/train/a.png"), id="size"),
        pytest.param(lambda root: (root / "images/train/b.png").unlink(), id="removed image"),
        pytest.param(
            lambda root: (root / "data.yaml").write_text("{names: [x, y], train: images, val: images}"),
            id="names",
        ),
    ],
)
def test_file_is_built_again_after_a_change(write: Write, change: Callable[[Path], Any]) -> None:
    root = write({"a": "0 0.5 0.5 0.1 0.1", "b": None, "c": "0 0.5 0.5 0.1 0.1"})
    before = read(root)
    change(root)
    assert read(root) != before


def test_datasets_with_equal_labels_have_separate_files(write: Write) -> None:
    one, other = (write({"a": "0 0.5 0.5 0.1 0.1"}) for _ in range(2))
    assert from_yolo(one, "train", LABEL).json != from_yolo(other, "train", LABEL).json
    assert read(one)["images"][0]["file_name"] == str(one / "images/train/a.png")


def test_working_directory_does_not_matter(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write({"a": "0 0.5 0.5 0.1 0.1"})
    monkeypatch.chdir(root.parent)
    files = from_yolo(Path(root.name), "train", LABEL)
    monkeypatch.chdir("/")
    assert from_yolo(root, "train", LABEL) == files


# Errors


@pytest.mark.parametrize(
    ("line", "facts"),
    [
        ("cat 0.5 0.5 0.1 0.1", "'cat 0.5 0.5 0.1 0.1'"),
        ("0 0.5 half 0.1 0.1", "'0 0.5 half 0.1 0.1'"),
        ("0.5 0.5 0.5 0.1 0.1", "'0.5 0.5 0.5 0.1 0.1'"),
        ("2 0.5 0.5 0.1 0.1", "class 2 .*0 to 1"),
        ("-1 0.5 0.5 0.1 0.1", "class -1 .*0 to 1"),
        ("0 0.5 0.5 17 0.1", "17.0 .*0 to 1"),
        ("0 0.5 0.5 1.01 0.1", "1.01 .*0 to 1"),
        ("0 0.5 -0.01 0.1 0.1", "-0.01 .*0 to 1"),
        ("0 nan 0.5 0.1 0.1", "nan .*0 to 1"),
        ("0 0.5 0.5 inf 0.1", "inf .*0 to 1"),
        ("0", "0 numbers .* 4, .* 6"),
        ("0 0.5 0.5 0.1", "3 numbers .* 4, .* 6"),
        ("0 0.5 0.5 0.1 0.1 0.9", "5 numbers .* 4, .* 6"),
        ("0 0 0 1 0 1 1 0", "7 numbers .* 4, .* 6"),
    ],
)
def test_invalid_line(write: Write, line: str, facts: str) -> None:
    root = write({"a": f"0 0.5 0.5 0.1 0.1\n\n{line}"})
    with pytest.raises(ConfigError, match=rf"^{root}/labels/train/a\.txt:3: .*{facts}"):
        read(root)


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        ("names: [", "YAML"),
        ("\x00", "YAML"),
        ("- a", "names, train and val"),
        ("", "names, train and val"),
        ("{train: images, val: images}", "names: None .*list .*mapping"),
        ("{names: [], train: images}", r"names: \[\] .*list"),
        ("{names: cat, train: images}", "names: 'cat' .*list"),
        ("{names: {1: cat, 2: dog}, train: images}", r"names: \{1: 'cat', 2: 'dog'\} .*mapping from 0, 1, …"),
        ("{names: [cat]}", "train: None .*folder .*text file"),
        ("{names: [cat], train: 5}", "train: 5 .*folder"),
        ("{names: [cat], train: [images, 5]}", r"train: \['images', 5\] .*folder"),
        ("{names: [cat], train: []}", r"train: \[\] .*folder"),
        ("{names: [cat], train: images, path: 5}", "path: 5 .*folder"),
        ("{names: [cat], train: pictures}", r"train: .*/pictures: no such folder"),
        ("{names: [cat], train: images, kpt_shape: [5, 3]}", "kpt_shape"),
    ],
)
def test_invalid_yaml(write: Write, content: str, facts: str) -> None:
    root = write({"a": "0 0.5 0.5 0.1 0.1"})
    (root / "data.yaml").write_text(content)
    with pytest.raises(ConfigError, match=rf"^{LABEL}={root}/data\.yaml: .*{facts}") as caught:
        read(root)
    assert "\n" not in str(caught.value)


def test_dataset_without_label_files(write: Write) -> None:
    root = write({"a": "0 0.5 0.5 0.1 0.1"}, folder="annotations")
    with pytest.raises(ConfigError, match=r"train: .*/labels/train/a\.txt$"):
        read(root)


def test_folder_without_images(write: Write) -> None:
    root = write({"a": ""}, val="nothing")
    (root / "nothing").mkdir()
    with pytest.raises(ConfigError, match=r"val: .*no images"):
        read(root, "val")


@pytest.mark.parametrize("text", ["images/train/missing.png", "images/train/a\0.png", "labels/train/a.txt"])
def test_list_entry_that_is_not_an_image(write: Write, text: str) -> None:
    root = write({"a": "0 0.5 0.5 0.1 0.1"}, train="train.txt")
    (root / "train.txt").write_text(f"images/train/a.png\n{text}\n")
    with pytest.raises(ConfigError, match="as an image"):
        read(root)


def test_label_file_that_is_not_text(write: Write) -> None:
    root = write({"a": ""})
    (root / "labels" / "train" / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"a\.txt .*as text"):
        read(root)


def test_rounded_coordinates_are_accepted(write: Write) -> None:
    coco = read(write({"a": "0 0.5 0.5 1.0009 1\n1 -0.0009 0 1 0 1 1.0009"}))
    assert [a["bbox"][2] for a in coco["annotations"]] == pytest.approx([40, 40], abs=0.1)


def test_byte_order_mark_is_accepted(write: Write) -> None:
    root = write({"a": ""})
    (root / "labels" / "train" / "a.txt").write_text("0 0.5 0.5 0.1 0.1", "utf-8-sig")
    assert len(read(root)["annotations"]) == 1


def test_box_contains_the_drawn_pixels(write: Write) -> None:
    """A drawn rectangle lies where its label says, in the image as detectron2 reads it."""
    root = write({"a": "0 0.375 0.5 0.25 0.5"})
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[5:15, 10:20] = 255
    cv2.imwrite(str(root / "images/train/a.png"), pixels)
    x, y, w, h = map(round, read(root)["annotations"][0]["bbox"])
    assert pixels[y : y + h, x : x + w].all()
    assert pixels.sum() == 3 * 255 * w * h
