"""Folders in VOC's layout: boxes, classes, and one-line errors."""

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

LABEL = "data.name=voc_folder data.root"

Write = Callable[[dict[str, dict[str, list[str]]]], Path]


def xml_object(name: str = "cat", box: tuple[Any, ...] = (11, 5, 20, 14), more: str = "") -> str:
    """An object in VOC's XML; pixels start at 1, and the corners belong to the box."""
    sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    corners = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return f"<object><name>{name}</name><pose>Left</pose>{more}<bndbox>{corners}</bndbox></object>"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write the objects of each image of each split, with images of 40 x 20 pixels; return the folder."""
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
    coco: dict[str, Any] = json.loads(from_voc(root, split, LABEL).json.read_text())
    return coco


def test_boxes_are_in_pixels_that_start_at_0(write: Write) -> None:
    coco = read(write({"train": {"a": [xml_object("dog"), xml_object("cat", (1, 1, 40, 20))], "b": []}}))
    names = {category["id"]: category["name"] for category in coco["categories"]}
    objects = [(a["image_id"], names[a["category_id"]], a["bbox"], a["area"]) for a in coco["annotations"]]
    assert objects == [(1, "dog", [10, 4, 10, 10], 100), (1, "cat", [0, 0, 40, 20], 800)]
    assert [(image["width"], image["height"]) for image in coco["images"]] == [(40, 20)] * 2


def test_difficult_objects_are_crowds(write: Write) -> None:
    objects = [xml_object(more=f"<difficult>{value}</difficult>") for value in ("0", "1", " 1 ")]
    coco = read(write({"train": {"a": [*objects, xml_object()]}}))
    assert [a["iscrowd"] for a in coco["annotations"]] == [0, 1, 1, 0]


def test_classes_come_from_the_training_split(write: Write) -> None:
    root = write(
        {
            "train": {"a": [xml_object(" dog\n"), xml_object("ant"), xml_object("dog")]},
            "val": {"b": [xml_object("dog")]},
        }
    )
    for split in ("train", "val"):
        assert [category["name"] for category in read(root, split)["categories"]] == ["ant", "dog"]
    assert [a["category_id"] for a in read(root, "val")["annotations"]] == [2]


def test_class_that_is_missing_in_the_training_split(write: Write) -> None:
    root = write({"train": {"a": [xml_object("dog")]}, "val": {"b": [xml_object("cat")]}})
    with pytest.raises(ConfigError, match=r"b\.xml: .*'cat'.*dog$"):
        read(root, "val")


def test_other_image_formats_and_second_columns(write: Write) -> None:
    root = write({"train": {"a": [xml_object()]}})
    Image.new("RGB", (40, 20)).save(root / "JPEGImages" / "a.PNG", "PNG")
    (root / "JPEGImages" / "a.jpg").unlink()
    (root / "ImageSets" / "Main" / "train.txt").write_text("a  -1\n\n")
    assert [Path(image["file_name"]).name for image in read(root)["images"]] == ["a.PNG"]


def test_file_is_built_once_and_again_after_a_change(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write({"train": {"a": [xml_object()]}, "val": {"b": [xml_object()]}})
    files = from_voc(root, "val", LABEL)
    monkeypatch.chdir(root.parent)
    with monkeypatch.context() as patch:
        patch.setattr("d2timm.data.formats.voc_folder.build_coco", None)
        assert from_voc(Path("set"), "val", LABEL) == files
    (root / "Annotations" / "a.xml").write_text(f"<annotation>{xml_object('ant')}{xml_object()}</annotation>")
    assert [c["name"] for c in read(root, "val")["categories"]] == ["ant", "cat"]


@pytest.mark.parametrize(
    ("objects", "facts"),
    [
        (xml_object("  "), "an object has no name"),
        ("<object/>", "an object has no name"),
        (
            "<object><name>cat</name></object>",
            "cat .*bndbox {'xmin': None, ",
        ),
        (xml_object(box=("a", 1, 2, 2)), "cat .*bndbox {'xmin': 'a', "),
        (xml_object(box=("nan", 1, 2, 2)), "cat .*bndbox"),
        (xml_object(box=(1, 1, "inf", 2)), "cat .*bndbox"),
        (xml_object(box=(5, 1, 4, 2)), "xmin <= xmax and ymin <= ymax"),
        (xml_object(box=(1, 5, 4, 2)), "xmin <= xmax and ymin <= ymax"),
        (
            xml_object(more="<difficult>yes</difficult>"),
            "difficult .*cat .*'yes'.* 0 or 1",
        ),
        ("<object>", "mismatched tag"),
    ],
)
def test_invalid_annotation(write: Write, objects: str, facts: str) -> None:
    root = write({"train": {"a": [xml_object()], "b": [objects]}})
    with pytest.raises(ConfigError, match=rf"^{root}/Annotations/b\.xml:? .*{facts}") as caught:
        read(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("missing", "facts"),
    [
        (
            "ImageSets/Main/train.txt",
            r"train\.txt: no such file",
        ),
        ("ImageSets/Main/val.txt", r"val\.txt: no such file"),
        ("JPEGImages/b.jpg", r"1 of 1 images of val\.txt .*JPEGImages.* b$"),
        ("Annotations/a.xml", r"a\.xml .*No such file"),
        ("Annotations/b.xml", r"b\.xml .*No such file"),
    ],
)
def test_missing_files(write: Write, missing: str, facts: str) -> None:
    root = write({"train": {"a": [xml_object()]}, "val": {"b": [xml_object()]}})
    os.remove(root / missing)
    with pytest.raises(ConfigError, match=facts) as caught:
        read(root, "val")
    assert str(root) in str(caught.value)
