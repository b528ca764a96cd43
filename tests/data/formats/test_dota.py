"""Folders in the layout of DOTA: oriented boxes, difficult objects, versions and splits."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.reading import read_split, write_image, write_text

from d2timm import ConfigError
from d2timm.data.formats.dota import FORMAT

HEADER = "imagesource:GoogleEarth\ngsd:0.146343590398\n"
LINE = "10.0 5.0 20.0 5.0 20.0 15.0 10.0 15.0 large-vehicle 0"


def write(
    root: Path, text: str, folder: str = "labelTxt", images: str = "images", name: str = "P0001"
) -> Path:
    write_image(root / images / f"{name}.png")
    write_text(root / folder / f"{name}.txt", text)
    return root


def test_boxes_are_masks_of_four_corners(tmp_path: Path) -> None:
    found = read_split(FORMAT, write(tmp_path, f"{HEADER}{LINE}\n15 2 20 7 15 12 10 7 ship 1\n"))
    assert found.boxes == [
        ("P0001.png", "large-vehicle", [10, 5, 10, 10]),
        ("P0001.png", "ship", [10, 2, 10, 10]),
    ]
    assert found.coco["annotations"][1]["segmentation"] == [[15, 2, 20, 7, 15, 12, 10, 7]]
    assert [annotation["ignore"] for annotation in found.coco["annotations"]] == [0, 1]
    assert found.samples == {"oriented_box": ["labelTxt/P0001.txt:3", "labelTxt/P0001.txt:4"]}


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (LINE.removesuffix(" 0"), "large-vehicle"),
        (LINE.replace("large-vehicle", "large vehicle"), "large vehicle"),
        (LINE.replace("large-vehicle", "3"), "3"),
        (LINE.replace("large-vehicle 0", "5"), "5"),
    ],
)
def test_names_of_classes(tmp_path: Path, line: str, name: str) -> None:
    ((_, found, _),) = read_split(FORMAT, write(tmp_path, line)).boxes
    assert found == name


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1 2 3 4 5 6 ship 0", "is not x1 y1"),
        (LINE.replace("20.0", "right", 1), "'right' is not a coordinate"),
        (LINE.replace("20.0", "nan", 1), "'nan' is not a coordinate"),
        ("0 0.5 0.5 0.1 0.1", "is not x1 y1"),
    ],
)
def test_broken_lines_are_reported(tmp_path: Path, line: str, reason: str) -> None:
    found = read_split(FORMAT, write(tmp_path, f"{HEADER}\n{line}\n{LINE}"))
    assert len(found.boxes) == 1
    (sample,) = found.samples["invalid_annotation"]
    assert sample.startswith("labelTxt/P0001.txt:4: ")
    assert reason in sample


def test_splits_are_folders(tmp_path: Path) -> None:
    write(tmp_path, LINE, "train/labelTxt-v1.5/DOTA-v1.5_train", "train/images")
    write(tmp_path, LINE.replace("large-vehicle", "ship"), "val/labelTxt-v1.5", "val/images")
    train, val = (read_split(FORMAT, tmp_path, split) for split in ("train", "val"))
    assert train.files == [str(tmp_path / "train/images/P0001.png")]
    assert val.files == [str(tmp_path / "val/images/P0001.png")]
    assert [name for _, name, _ in val.boxes] == ["ship"]


def test_label_file_without_an_image_is_reported(tmp_path: Path) -> None:
    write_text(write(tmp_path, LINE) / "labelTxt" / "P0002.txt", LINE)
    found = read_split(FORMAT, tmp_path)
    assert len(found.boxes) == 1
    assert found.samples["missing_image"] == ["labelTxt/P0002.txt: no image has the name P0002"]


def test_empty_label_files_are_images_without_objects(tmp_path: Path) -> None:
    root = write(write(tmp_path, LINE), HEADER, name="P0002")
    found = read_split(FORMAT, root)
    assert found.names == ["P0001.png", "P0002.png"]
    assert len(found.boxes) == 1


def test_only_dota_is_recognized(tmp_path: Path) -> None:
    write(tmp_path, "0 0.5 0.5 0.1 0.1", "labels")
    assert not FORMAT.recognize(tmp_path)
    with pytest.raises(ConfigError, match="labelTxt"):
        read_split(FORMAT, tmp_path)
    assert FORMAT.recognize(write(tmp_path, LINE))
    assert FORMAT.open(tmp_path, "val", "data.root") is None
