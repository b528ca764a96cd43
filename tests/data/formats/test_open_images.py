"""Open Images' CSV files: fractions, class names, crowds and splits."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.reading import read_split, write_image, write_text

from d2timm import ConfigError
from d2timm.data.formats.open_images import FORMAT

FLAGS = "IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
HEADER = f"ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,{FLAGS}"
BOX = "a,xclick,/m/01,1,0.25,0.5,0.25,0.75,0,0,0,0,0"
TRAIN = "train-annotations-bbox.csv"


def write(
    root: Path, *lines: str, name: str = TRAIN, image: str = "train/a.jpg", header: str = HEADER
) -> Path:
    write_image(root / image)
    write_text(root / name, "\n".join([header, *lines, ""]))
    return root


def test_boxes_are_fractions_of_the_image(tmp_path: Path) -> None:
    found = read_split(FORMAT, write(tmp_path, BOX, BOX.replace("0,0,0,0,0", "-1,-1,1,-1,-1")))
    assert found.boxes == [("a.jpg", "/m/01", [10, 5, 10, 10])] * 2
    assert [annotation["iscrowd"] for annotation in found.coco["annotations"]] == [0, 1]
    assert found.coco["annotations"][0]["source"] == f"{TRAIN}:2"
    assert not found.samples


@pytest.mark.parametrize("header", ["", "LabelName,DisplayName\n"])
def test_names_of_classes_that_occur(tmp_path: Path, header: str) -> None:
    root = write(tmp_path, BOX, BOX.replace("/m/01", "/m/02"), BOX.replace("/m/01", "/m/99"))
    text = f'{header}/m/03,Zebra\n/m/02,"Bread, brown"\n/m/01,Cat\n'
    write_text(root / "class-descriptions-boxable.csv", text)
    found = read_split(FORMAT, root)
    assert [category["name"] for category in found.coco["categories"]] == ["Bread, brown", "Cat", "/m/99"]
    assert [name for _, name, _ in found.boxes] == ["Cat", "Bread, brown", "/m/99"]


def test_splits_are_files(tmp_path: Path) -> None:
    write(tmp_path, BOX, name="annotations/oidv6-train-annotations-bbox.csv", image="images/train/a.jpg")
    other = "annotations/validation-annotations-bbox.csv"
    write(tmp_path, BOX, BOX, name=other, image="images/validation/a.jpg")
    write(tmp_path, BOX, name="annotations/test-annotations-bbox.csv", image="images/test/a.jpg")
    train, val = (read_split(FORMAT, tmp_path, split) for split in ("train", "val"))
    assert train.files == [str(tmp_path / "images/train/a.jpg")]
    assert val.files == [str(tmp_path / "images/validation/a.jpg")]
    assert (len(train.boxes), len(val.boxes)) == (1, 2)


def test_layout_of_fiftyone(tmp_path: Path) -> None:
    write(tmp_path, BOX, name="train/labels/detections.csv", image="train/data/a.jpg")
    write(tmp_path, BOX, name="validation/labels/detections.csv", image="validation/data/a.jpg")
    write_text(tmp_path / "train" / "metadata" / "classes.csv", "/m/01,Cat\n")
    for split, folder in (("train", "train"), ("val", "validation")):
        found = read_split(FORMAT, tmp_path, split)
        assert found.files == [str(tmp_path / folder / "data" / "a.jpg")]
        assert found.boxes == [("a.jpg", "Cat", [10, 5, 10, 10])]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (BOX.replace("0.25,0.5", "0.25,17"), "17 is not a fraction"),
        (BOX.replace("0.25,0.5", "-0.1,0.5"), "-0.1 is not a fraction"),
        (BOX.replace("0.25,0.5", "0.5,0.25"), "XMin > XMax"),
        (BOX.replace("0.25,0.75", "0.75,0.25"), "YMin > YMax"),
        (BOX.replace("0.25,0.5", "nan,0.5"), "'nan' is not a coordinate"),
        (BOX.replace("0.25,0.5", "left,0.5"), "'left' is not a coordinate"),
        (BOX.replace("/m/01", ""), "no class"),
        ("a,xclick,/m/01,1,0.25", "'' is not a coordinate"),
        (",xclick,/m/01,1,0.25,0.5,0.25,0.75", "no ImageID"),
    ],
)
def test_broken_lines_are_reported(tmp_path: Path, line: str, reason: str) -> None:
    found = read_split(FORMAT, write(tmp_path, line, BOX))
    assert len(found.boxes) == 1
    (sample,) = found.samples["invalid_annotation"]
    assert sample.startswith(f"{TRAIN}:2: ")
    assert reason in sample


def test_images_that_were_not_downloaded_are_counted(tmp_path: Path) -> None:
    others = [BOX.replace("a,", "b,"), BOX.replace("a,", "b,"), BOX.replace("a,", "c,")]
    found = read_split(FORMAT, write(tmp_path, *others, BOX))
    assert found.names == ["a.jpg"]
    assert found.samples["missing_image"] == ["b: 2 objects", "c: 1 objects"]


def test_masks_are_counted(tmp_path: Path) -> None:
    root = write(tmp_path, BOX)
    write_text(root / "train-annotations-object-segmentation.csv", "MaskPath,ImageID,LabelName\n")
    assert len(read_split(FORMAT, root).samples["ignored_shape"]) == 1


def test_only_boxes_are_recognized(tmp_path: Path) -> None:
    write_text(tmp_path / "labels.csv", "ImageID,LabelName,Confidence\na,/m/01,1\n")
    assert not FORMAT.recognize(tmp_path)
    with pytest.raises(ConfigError, match="ImageID, LabelName, XMin"):
        read_split(FORMAT, tmp_path)
    assert FORMAT.recognize(write(tmp_path, BOX, header="\ufeff" + HEADER))
    assert len(read_split(FORMAT, tmp_path).boxes) == 1
    assert FORMAT.open(tmp_path, "val", "data.root") is None
