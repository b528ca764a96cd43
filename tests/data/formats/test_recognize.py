"""The format of a folder is recognized if it is the only one."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.reading import write_image, write_text

from d2timm import ConfigError
from d2timm.data.formats import folder_formats, recognize

VOC = "<annotation><object><name>cat</name></object></annotation>"
FILES = {
    "coco_folder": [("train/_annotations.coco.json", '{"images": [], "annotations": [], "categories": []}')],
    "labelme": [("a.json", '{"shapes": [], "imagePath": "a.jpg"}')],
    "label_studio": [("a.json", '[{"original_width": 3, "rectanglelabels": []}]')],
    "via": [("a.json", '{"a": {"filename": "a.jpg", "regions": []}}')],
    "cvat": [("annotations.xml", "<annotations></annotations>")],
    "open_images": [("a.csv", "ImageID,LabelName,XMin,XMax,YMin,YMax\n")],
    "supervisely": [("meta.json", '{"classes": []}'), ("ds/ann/a.jpg.json", '{"objects": []}')],
    "dota": [("labelTxt/a.txt", "1 2 3 4 5 6 7 8 cat 0")],
    "yolo": [
        ("data.yaml", "{names: [cat], train: images, val: images}"),
        ("labels/a.txt", "0 0.5 0.5 0.1 0.1"),
    ],
    "voc_folder": [("Annotations/a.xml", VOC)],
}


def write(root: Path, name: str) -> None:
    write_image(root / "images" / "a.jpg")
    for file, text in FILES[name]:
        write_text(root / file, text)


def test_every_format_is_tested() -> None:
    assert set(FILES) == set(folder_formats())


@pytest.mark.parametrize("name", FILES)
def test_format_of_a_folder(tmp_path: Path, name: str) -> None:
    write(tmp_path, name)
    assert recognize(tmp_path).name == name


def test_several_formats_are_named(tmp_path: Path) -> None:
    write(tmp_path, "labelme")
    write(tmp_path, "cvat")
    with pytest.raises(ConfigError, match=r"^data.root=.*: set data\.name=cvat or labelme"):
        recognize(tmp_path)


def test_unknown_format_names_the_known_ones(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.jpg")
    with pytest.raises(ConfigError) as caught:
        recognize(tmp_path)
    assert all(name in str(caught.value) for name in FILES)
    with pytest.raises(ConfigError, match="no such file or folder"):
        recognize(tmp_path / "missing")


@pytest.mark.parametrize("content", [b"", b"\0", b"\xff\xfe{", b"{" * 5000])
def test_recognizing_never_raises(tmp_path: Path, content: bytes) -> None:
    names = (
        "meta.json",
        "a.json",
        "ds/ann/a.json",
        "a.xml",
        "a.csv",
        "labelTxt/a.txt",
        "data.yaml",
        "labels/a.txt",
    )
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    for declared in folder_formats().values():
        assert declared.recognize(tmp_path) in (True, False)
        assert declared.recognize(tmp_path / "a.json") in (True, False)
        assert declared.recognize(tmp_path / "missing") is False
