"""Folders in VOC's layout: numbers of boxes, classes, and every mistake in a line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from d2timm import ConfigError
from d2timm.data.formats.voc_folder import from_voc

TOLD = "data.name=voc_folder data.root"

Write = Callable[[dict[str, dict[str, list[str]]]], Path]


def thing(name: str = "cat", box: tuple[Any, ...] = (11, 5, 20, 14), more: str = "") -> str:
    """An object as VOC writes it; boxes count pixels from 1, both ends included."""
    sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    corners = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return f"<object><name>{name}</name><pose>Left</pose>{more}<bndbox>{corners}</bndbox></object>"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a set of splits, images of 40 x 20 pixels and their objects; gives its folder."""
    monkeypatch.setenv("D2TIMM_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "set"

    def apply(splits: dict[str, dict[str, list[str]]]) -> Path:
        for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (root / folder).mkdir(parents=True)
        for split, images in splits.items():
            (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{n}\n" for n in images))
            for name, objects in images.items():
                Image.new("RGB", (40, 20)).save(root / "JPEGImages" / f"{name}.jpg")
                xml = f"<annotation><filename>{name}</filename>{''.join(objects)}</annotation>"
                (root / "Annotations" / f"{name}.xml").write_text(xml)
        return root

    return apply


def read(root: Path, split: str = "train") -> dict[str, Any]:
    coco: dict[str, Any] = json.loads(from_voc(root, split, TOLD).json.read_text())
    return coco


def test_boxes_are_in_pixels_from_0(write: Write) -> None:
    coco = read(write({"train": {"a": [thing("dog"), thing("cat", (1, 1, 40, 20))], "b": []}}))
    names = {category["id"]: category["name"] for category in coco["categories"]}
    found = [(a["image_id"], names[a["category_id"]], a["bbox"], a["area"]) for a in coco["annotations"]]
    assert found == [(1, "dog", [10, 4, 10, 10], 100), (1, "cat", [0, 0, 40, 20], 800)]
    assert [(image["width"], image["height"]) for image in coco["images"]] == [(40, 20)] * 2


def test_difficult_objects_are_crowds(write: Write) -> None:
    objects = [thing(more=f"<difficult>{value}</difficult>") for value in ("0", "1", " 1 ")]
    coco = read(write({"train": {"a": [*objects, thing()]}}))
    assert [a["iscrowd"] for a in coco["annotations"]] == [0, 1, 1, 0]


def test_classes_are_those_of_the_training_set(write: Write) -> None:
    root = write(
        {"train": {"a": [thing(" dog\n"), thing("ant"), thing("dog")]}, "val": {"b": [thing("dog")]}}
    )
    for split in ("train", "val"):
        assert [category["name"] for category in read(root, split)["categories"]] == ["ant", "dog"]
    assert [a["category_id"] for a in read(root, "val")["annotations"]] == [2]


def test_class_that_the_training_set_lacks(write: Write) -> None:
    root = write({"train": {"a": [thing("dog")]}, "val": {"b": [thing("cat")]}})
    with pytest.raises(ConfigError, match=r"b\.xml: class 'cat' is none of the training set's, dog$"):
        read(root, "val")


def test_other_formats_of_images_and_second_columns(write: Write) -> None:
    root = write({"train": {"a": [thing()]}})
    Image.new("RGB", (40, 20)).save(root / "JPEGImages" / "a.PNG", "PNG")
    (root / "JPEGImages" / "a.jpg").unlink()
    (root / "ImageSets" / "Main" / "train.txt").write_text("a  -1\n\n")
    assert [Path(image["file_name"]).name for image in read(root)["images"]] == ["a.PNG"]


def test_file_is_made_once_and_anew_after_a_change(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write({"train": {"a": [thing()]}, "val": {"b": [thing()]}})
    files = from_voc(root, "val", TOLD)
    monkeypatch.chdir(root.parent)
    with monkeypatch.context() as patch:
        patch.setattr("d2timm.data.formats.voc_folder.to_coco", None)
        assert from_voc(Path("set"), "val", TOLD) == files
    (root / "Annotations" / "a.xml").write_text(f"<annotation>{thing('ant')}{thing()}</annotation>")
    assert [c["name"] for c in read(root, "val")["categories"]] == ["ant", "cat"]


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        (thing("  "), "an object has no name"),
        ("<object/>", "an object has no name"),
        (
            "<object><name>cat</name></object>",
            "an object cat has the bndbox {'xmin': None, .*be pixels",
        ),
        (thing(box=("a", 1, 2, 2)), "an object cat has the bndbox {'xmin': 'a', "),
        (thing(box=("nan", 1, 2, 2)), "an object cat has the bndbox"),
        (thing(box=(1, 1, "inf", 2)), "an object cat has the bndbox"),
        (thing(box=(5, 1, 4, 2)), "xmin <= xmax and ymin <= ymax"),
        (thing(box=(1, 5, 4, 2)), "xmin <= xmax and ymin <= ymax"),
        (
            thing(more="<difficult>yes</difficult>"),
            "an object cat is 'yes'; it has to be 0 or 1",
        ),
        ("<object>", "cannot be read: mismatched tag"),
    ],
)
def test_annotation_that_will_not_do(write: Write, objects: str, message: str) -> None:
    root = write({"train": {"a": [thing()], "b": [objects]}})
    with pytest.raises(ConfigError, match=rf"^{root}/Annotations/b\.xml:? .*{message}") as caught:
        read(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        (
            "ImageSets/Main/train.txt",
            r"train\.txt is not there; it lists the images of the split",
        ),
        ("ImageSets/Main/val.txt", r"val\.txt is not there"),
        ("JPEGImages/b.jpg", r"1 of 1 images of val\.txt are not in JPEGImages, such as b$"),
        ("Annotations/a.xml", r"a\.xml cannot be read: .*No such file"),
        ("Annotations/b.xml", r"b\.xml cannot be read: .*No such file"),
    ],
)
def test_what_is_missing(write: Write, gone: str, message: str) -> None:
    root = write({"train": {"a": [thing()]}, "val": {"b": [thing()]}})
    os.remove(root / gone)
    with pytest.raises(ConfigError, match=message) as caught:
        read(root, "val")
    assert str(root) in str(caught.value)
