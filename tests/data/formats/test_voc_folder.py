"""Folders of VOC's XML files, in the layouts that tools write: images, splits, boxes and findings."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from helpers.reading import ReadSplit, read_split, write_image, write_text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d2timm import ConfigError
from d2timm.data.formats.voc_folder import FORMAT

BOX = (11, 5, 20, 14)
EDGES = [11, 5, 9, 9]  # of BOX, as labelImg and CVAT write edges
OFFICIAL = [10, 4, 10, 10]  # of BOX, as VOC counts pixels from 1


def xml_object(name: str = "cat", box: tuple[Any, ...] | None = BOX, more: str = "") -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), box or (), strict=False)
    corners = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    bndbox = f"<bndbox>{corners}</bndbox>" if box else ""
    return f"<object><name>{name}</name><pose>Left</pose>{more}{bndbox}</object>"


def xml_text(*objects: str, more: str = "") -> str:
    return f"<annotation>{more}{''.join(objects or (xml_object(),))}</annotation>"


def put(root: Path, xml: str, image: str | None, *objects: str, more: str = "") -> None:
    """Write an annotation file, with one object unless others are given, and its image."""
    write_text(root / xml, xml_text(*objects, more=more))
    if image:
        write_image(root / image)


def read(root: Path, split: str = "train") -> ReadSplit:
    return read_split(FORMAT, root, split)


def has_val(root: Path) -> bool:
    return FORMAT.open(root, "val", f"data.root={root}") is not None


def one_box(tmp_path: Path, *objects: str, more: str = "") -> ReadSplit:
    put(tmp_path, "a.xml", "a.jpg", *objects, more=more)
    return read(tmp_path)


def official(root: Path, **splits: list[str]) -> Path:
    """Write VOC's own layout."""
    for split, names in splits.items():
        write_text(root / f"ImageSets/Main/{split}.txt", "".join(f"{name}\n" for name in names))
        for name in names:
            put(root, f"Annotations/{name}.xml", f"JPEGImages/{name}.jpg")
    return root


# Layouts


def test_lists_of_voc(tmp_path: Path) -> None:
    root = official(tmp_path, train=["a", "b"], val=["c"], trainval=["a", "b", "c"], test=["d"])
    assert read(root).boxes == [("a.jpg", "cat", OFFICIAL), ("b.jpg", "cat", OFFICIAL)]
    assert read(root, "val").boxes == [("c.jpg", "cat", OFFICIAL)]
    assert read(root).note == read(root, "val").note == ""


@pytest.mark.parametrize(
    ("lists", "train", "val"),
    [
        ({"trainval": ["a", "b"], "test": ["c"]}, 2, 1),
        ({"trainval": ["a", "b"], "val": ["b"], "test": ["c", "d", "e"]}, 2, 3),
        ({"train": ["a"], "valid": ["b", "c"]}, 1, 2),
        ({"train": ["a"], "validation": ["b", "c"], "test": ["d"]}, 1, 2),
        ({"Train": ["a", "b"], "Validation": ["c"]}, 2, 1),  # CVAT's names of subsets
        ({"train": ["a", "b"]}, 2, None),
        ({"default": ["a", "b", "c"]}, 3, None),  # CVAT
        ({"everything": ["a", "b"]}, 2, None),
        ({"train": ["a", "b"], "val": []}, 2, None),
        ({"train": [], "default": ["a"]}, 1, None),
    ],
)
def test_lists_of_tools(tmp_path: Path, lists: dict[str, list[str]], train: int, val: int | None) -> None:
    root = official(tmp_path, **lists)
    assert len(read(root).boxes) == train
    if val is None:
        assert not has_val(root)
    else:
        assert len(read(root, "val").boxes) == val


def test_note_names_an_unusual_list(tmp_path: Path) -> None:
    assert "default.txt" in read(official(tmp_path / "1", default=["a"])).note
    assert "test.txt" in read(official(tmp_path / "2", train=["a"], test=["b"]), "val").note
    assert (
        "default.txt is not used"
        in read(official(tmp_path / "3", train=["a"], val=["b"], default=["c"])).note
    )


@pytest.mark.parametrize("images", ["JPEGImages", "images", ".", "Annotations"])
def test_folder_without_lists_is_a_training_split(tmp_path: Path, images: str) -> None:
    for name in ("a", "my photo.v1.final", "ümläut"):
        put(tmp_path, f"Annotations/{name}.xml", f"{images}/{name}.jpg")
    found = read(tmp_path)
    assert found.names == ["a.jpg", "my photo.v1.final.jpg", "ümläut.jpg"]
    assert [box for _, _, box in found.boxes] == [EDGES] * 3
    assert found.note
    assert not has_val(tmp_path)


@pytest.mark.parametrize("val", ["valid", "val", "validation", "test", "Val", "val2017"])
@pytest.mark.parametrize("layout", ["{split}/{name}", "{split}/{kind}/{name}", "{kind}/{split}/{name}"])
def test_folders_of_splits(tmp_path: Path, val: str, layout: str) -> None:
    for split, name in (("train", "a"), ("train", "b"), (val, "c")):
        xml, image = (layout.format(split=split, name=name, kind=kind) for kind in ("Annotations", "images"))
        put(tmp_path, f"{xml}.xml", f"{image}.jpg")
    assert read(tmp_path).names == ["a.jpg", "b.jpg"]
    assert read(tmp_path, "val").names == ["c.jpg"]
    assert val.lower().rstrip("0123456789") in read(tmp_path).note


def test_test_folder_is_no_validation_split_beside_another(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        put(tmp_path, f"{split}/{split}.xml", f"{split}/{split}.jpg")
    assert read(tmp_path, "val").names == ["valid.jpg"]


def test_folder_that_is_named_train_without_another_split(tmp_path: Path) -> None:
    for vehicle in ("car", "train"):
        put(tmp_path, f"{vehicle}/{vehicle}1.xml", f"{vehicle}/{vehicle}1.jpg")
    assert read(tmp_path).names == ["car1.jpg", "train1.jpg"]


def test_several_folders(tmp_path: Path) -> None:
    put(tmp_path, "batch1/deep/a.xml", "batch1/deep/a.jpg")
    put(tmp_path, "batch2/xml/b.xml", "batch2/img/b.jpg")
    put(tmp_path, "Annotations/sub/c.xml", "JPEGImages/sub/c.jpg")
    assert sorted(read(tmp_path).names) == ["a.jpg", "b.jpg", "c.jpg"]


def test_several_years(tmp_path: Path) -> None:
    official(tmp_path / "VOC2007", trainval=["1", "2"], test=["3"])
    official(tmp_path / "VOC2012", train=["1", "4"], val=["5"])
    root = str(tmp_path)
    assert [file.removeprefix(root) for file in read(tmp_path).files] == [
        f"/VOC{year}/JPEGImages/{name}.jpg" for year, name in ((2007, 1), (2007, 2), (2012, 1), (2012, 4))
    ]
    assert read(tmp_path, "val").names == ["3.jpg", "5.jpg"]


@pytest.mark.parametrize(
    "entry",
    [
        "a b.v1",
        "A B.v1",
        "a b.v1.jpg",
        "a b.v1.xml",
        "a b.v1  1",
        "a b.v1 -1",
        "JPEGImages/a b.v1.jpg",
        "./JPEGImages/a b.v1.jpg",
        "/home/me/set/JPEGImages/a b.v1.jpg",
        r"C:\set\JPEGImages\a b.v1.jpg",
    ],
)
def test_entries_of_lists(tmp_path: Path, entry: str) -> None:
    put(tmp_path, "Annotations/a b.v1.xml", "JPEGImages/a b.v1.jpg")
    put(tmp_path, "Annotations/a.xml", "JPEGImages/a.jpg")
    write_text(tmp_path / "ImageSets/Main/train.txt", f"{entry}\r\n\r\n", "utf-8-sig")
    found = read(tmp_path)
    assert found.names == ["a b.v1.jpg"]
    assert not found.samples


def test_entries_with_two_paths(tmp_path: Path) -> None:
    put(tmp_path, "Annotations/a.xml", "JPEGImages/a.jpg")
    write_text(tmp_path / "trainval.txt", "./JPEGImages/a.jpg ./Annotations/a.xml\n")
    assert read(tmp_path).names == ["a.jpg"]


@pytest.mark.parametrize("name", ["test.txt", "classes.txt", "README.roboflow.txt"])
def test_text_file_that_is_no_list_of_a_training_split(tmp_path: Path, name: str) -> None:
    for image in ("a", "b"):
        put(tmp_path, f"{image}.xml", f"{image}.jpg")
    write_text(tmp_path / name, "a\n")
    assert read(tmp_path).names == ["a.jpg", "b.jpg"]


def test_entries_in_sub_folders(tmp_path: Path) -> None:
    for folder in ("", "x/", "y/"):
        put(tmp_path, f"Annotations/{folder}1.xml", f"JPEGImages/{folder}1.jpg")
    write_text(tmp_path / "ImageSets/Main/train.txt", "y/1\n1\n1\n")
    assert [Path(file).parent.name for file in read(tmp_path).files] == ["y", "JPEGImages"]


def test_entry_without_annotation_file(tmp_path: Path) -> None:
    root = official(tmp_path, train=["a", "b"], val=["c"])
    (root / "Annotations/b.xml").unlink()
    found = read(root)
    assert found.names == ["a.jpg"]
    assert found.samples["invalid_annotation"] == ["ImageSets/Main/train.txt:2: 'b' has no annotation file"]


# Images


@pytest.mark.parametrize("name", ["a.JPG", "a.PNG", "a.jpeg", "A.jpg", "a.bmp"])
def test_suffix_and_case_of_images(tmp_path: Path, name: str) -> None:
    put(tmp_path, "a.xml", name)
    assert read(tmp_path).names == [name]


def test_name_of_the_annotation_file_comes_first(tmp_path: Path) -> None:
    write_image(tmp_path / "b.jpg")
    put(tmp_path, "a.xml", "a.jpg", more="<filename>b.jpg</filename>")
    assert read(tmp_path).names == ["a.jpg"]


@pytest.mark.parametrize(
    "more",
    [
        "<filename>b.jpg</filename>",
        "<filename>b</filename>",
        "<filename> b.png</filename>",
        "<path>/old/b.jpg</path>",
        r"<filename>x.jpg</filename><path>C:\old\b.jpg</path>",
    ],
)
def test_name_in_the_annotation_file(tmp_path: Path, more: str) -> None:
    put(tmp_path, "a.xml", "images/b.jpg", more=more)
    assert read(tmp_path).names == ["b.jpg"]


def test_same_names_in_several_folders(tmp_path: Path) -> None:
    for name in ("x", "y"):
        put(tmp_path, f"Annotations/{name}/1.xml", f"JPEGImages/{name}/1.jpg", xml_object(name))
        put(tmp_path, f"{name}/1.xml", f"{name}/1.jpg", xml_object(name))
    found = read(tmp_path)
    assert [Path(file).parent.name for file in found.files] == ["x", "y", "x", "y"]
    assert len(set(found.files)) == 4
    assert [name for _, name, _ in found.boxes] == ["x", "y", "x", "y"]


def test_image_of_another_annotation_file_is_not_taken(tmp_path: Path) -> None:
    put(tmp_path, "batch1/1.xml", None, xml_object("one"))
    put(tmp_path, "batch2/1.xml", "batch2/1.jpg", xml_object("two"))
    put(tmp_path, "batch2/2.xml", None, more="<filename>1.jpg</filename>")  # copied
    first, second, third = map(Path, read(tmp_path).files)
    assert second == tmp_path / "batch2/1.jpg"
    assert not first.exists()
    assert third == second.with_name("2.jpg")


def test_entry_of_a_list_means_a_file_of_its_own_folder(tmp_path: Path) -> None:
    for folder, names in (("a", ["1", "2"]), ("b", ["1"])):
        official(tmp_path / folder, train=names)
    (tmp_path / "b/Annotations/1.xml").unlink()
    found = read(tmp_path)
    assert found.names == ["1.jpg", "2.jpg"]
    assert found.samples["invalid_annotation"] == ["b/ImageSets/Main/train.txt:1: '1' has no annotation file"]


def test_drawn_masks_are_not_images(tmp_path: Path) -> None:
    for folder in ("SegmentationClass", "SegmentationObject", "AnnotationsVisualization", "thumbnails"):
        write_image(tmp_path / folder / "a.png")
    put(tmp_path, "Annotations/a.xml", "JPEGImages/a.jpg")
    assert read(tmp_path).names == ["a.jpg"]


def test_ambiguous_images_are_reported(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    put(tmp_path, "a.xml", "a.jpg")
    found = read(tmp_path)
    assert not found.files
    assert found.samples["invalid_annotation"] == ["a.xml: it may mean a.jpg or a.png"]
    put(tmp_path, "a.xml", None, more="<filename>a.png</filename>")
    assert read(tmp_path).names == ["a.png"]


def test_missing_image_keeps_its_name(tmp_path: Path) -> None:
    put(tmp_path, "Annotations/a.xml", None, more="<filename>photo.png</filename>")
    put(tmp_path, "Annotations/b.xml", None)
    assert read(tmp_path).names == ["photo.png", "b.jpg"]


def test_images_without_annotation_file_are_left_out(tmp_path: Path) -> None:
    write_image(tmp_path / "b.jpg")
    put(tmp_path, "a.xml", "a.jpg")
    assert read(tmp_path).names == ["a.jpg"]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("<size><width>40</width><height>20.0</height><depth>3</depth></size>", (40, 20)),
        ("<size><width>0</width><height>0</height></size>", (None, None)),
        ("<size><width>wide</width></size>", (None, None)),
        ("", (None, None)),
    ],
)
def test_size(tmp_path: Path, text: str, size: tuple[float | None, float | None]) -> None:
    (image,) = one_box(tmp_path, more=text).coco["images"]
    assert (image["width"], image["height"]) == size


# Objects


@pytest.mark.parametrize(
    ("database", "listed", "box"),
    [
        ("", True, OFFICIAL),
        ("The VOC2007 Database", True, OFFICIAL),
        ("Unknown", True, EDGES),  # labelImg and CVAT
        ("", False, EDGES),
        ("The VOC2012 Database", False, OFFICIAL),
        ("roboflow.com", False, EDGES),
    ],
)
def test_first_pixel(tmp_path: Path, database: str, listed: bool, box: list[float]) -> None:
    official(tmp_path, train=["a"], **({"val": ["a"]} if listed else {}))
    put(tmp_path, "Annotations/a.xml", None, more=f"<source><database>{database}</database></source>")
    assert read(tmp_path).boxes == [("a.jpg", "cat", box)]


def test_box_of_the_whole_image(tmp_path: Path) -> None:
    official(tmp_path, train=["a"], val=["a"])
    objects = [xml_object(box=box) for box in ((1, 1, 40, 20), (0, 0, 40, 20), (5, 5, 5, 5))]
    put(tmp_path, "Annotations/a.xml", None, *objects)
    assert [box for _, _, box in read(tmp_path).boxes] == [[0, 0, 40, 20], [0, 0, 40, 20], [4, 4, 1, 1]]


def test_numbers_as_tools_write_them(tmp_path: Path) -> None:
    boxes = [("10.5", " 2.25\n", "2e1", "14.0"), (0, 0, 3, 3)]
    assert [box for _, _, box in one_box(tmp_path, *(xml_object(box=box) for box in boxes)).boxes] == [
        [10.5, 2.25, 9.5, 11.75],
        [0, 0, 3, 3],
    ]


@pytest.mark.parametrize(
    ("text", "ignored"),
    [("0", 0), ("1", 1), (" 1 ", 1), ("true", 1), ("True", 1), ("false", 0), ("Unspecified", 0), ("", 0)],
)
def test_difficult_objects_are_ignored(tmp_path: Path, text: str, ignored: int) -> None:
    found = one_box(tmp_path, xml_object(more=f"<difficult>{text}</difficult>"), xml_object())
    assert [a["ignore"] for a in found.coco["annotations"]] == [ignored, 0]


def test_class_names_are_stripped_and_sorted(tmp_path: Path) -> None:
    found = one_box(tmp_path, xml_object(" dog\n"), xml_object("ant"), xml_object("dog"))
    assert [category["name"] for category in found.coco["categories"]] == ["ant", "dog"]
    assert [name for _, name, _ in found.boxes] == ["dog", "ant", "dog"]


def test_image_without_objects(tmp_path: Path) -> None:
    write_text(tmp_path / "a.xml", "<annotation/>")
    put(tmp_path, "b.xml", "b.jpg")
    write_image(tmp_path / "a.jpg")
    found = read(tmp_path)
    assert (found.names, len(found.boxes)) == (["a.jpg", "b.jpg"], 1)


def test_polygons_of_roboflow(tmp_path: Path) -> None:
    polygon = "<polygon><x1>1.5</x1><y1>2</y1><x2>9</x2><y2>2</y2><y3>8</y3><x3>9</x3></polygon>"
    found = one_box(tmp_path, xml_object(more=polygon), xml_object(box=None, more=polygon), xml_object())
    masks = [a.get("segmentation") for a in found.coco["annotations"]]
    assert masks == [[[1.5, 2, 9, 2, 9, 8]], [[1.5, 2, 9, 2, 9, 8]], None]
    assert [box for _, _, box in found.boxes] == [EDGES, [1.5, 2, 7.5, 6], EDGES]


def test_polygons_of_labelme_and_deleted_objects(tmp_path: Path) -> None:
    points = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in ((1, 2), (9, 2), (9, 8)))
    polygon = f"<polygon><username>me</username>{points}</polygon>"
    deleted = xml_object(more="<deleted>1</deleted>")
    found = one_box(tmp_path, xml_object(box=None, more=polygon), deleted)
    assert [a["segmentation"] for a in found.coco["annotations"]] == [[[1, 2, 9, 2, 9, 8]]]


def test_polygon_that_is_not_of_numbers(tmp_path: Path) -> None:
    polygon = "<polygon><x1>1</x1><y1>2</y1><x2>9</x2></polygon>"
    found = one_box(tmp_path, xml_object(more=polygon), xml_object(box=None, more=polygon))
    assert found.boxes == [("a.jpg", "cat", EDGES)]
    assert [sample.split(":")[0] for sample in found.samples["invalid_mask"]] == ["a.xml object 1"]
    assert [sample.split(":")[0] for sample in found.samples["invalid_annotation"]] == ["a.xml object 2"]


def rotated(angle: float) -> str:
    values = {"cx": 20, "cy": 10, "w": 8, "h": 4, "angle": angle}
    return f"<robndbox>{''.join(f'<{k}>{v}</{k}>' for k, v in values.items())}</robndbox>"


def test_oriented_boxes_of_rolabelimg(tmp_path: Path) -> None:
    half_right, corner = math.pi / 4, 4 * math.sqrt(0.5)
    found = one_box(
        tmp_path,
        xml_object(box=None, more=rotated(math.pi / 2)),
        xml_object(box=None, more=rotated(half_right)),
        xml_object(),
    )
    upright, turned, _ = found.coco["annotations"]
    assert upright["bbox"] == pytest.approx([18, 6, 4, 8])
    # clockwise as seen: the left upper corner of the box moves to the right and up
    assert turned["segmentation"][0][:2] == pytest.approx([20 - corner / 2, 10 - 1.5 * corner])
    assert turned["bbox"] == pytest.approx([20 - 1.5 * corner, 10 - 1.5 * corner, 3 * corner, 3 * corner])
    assert found.samples["oriented_box"] == ["a.xml"]


def test_oriented_boxes_of_dior(tmp_path: Path) -> None:
    names = ("left_top", "right_top", "right_bottom", "left_bottom")
    corners = zip(names, ((5, 1), (9, 5), (5, 9), (1, 5)), strict=True)
    texts = "".join(f"<x_{n}>{x}</x_{n}><y_{n}>{y}</y_{n}>" for n, (x, y) in corners)
    found = one_box(tmp_path, xml_object(box=None, more=f"<robndbox>{texts}</robndbox>"))
    (annotation,) = found.coco["annotations"]
    assert annotation["segmentation"] == [[5, 1, 9, 5, 5, 9, 1, 5]]
    assert annotation["bbox"] == [1, 1, 8, 8]


@pytest.mark.parametrize("degrees", [0, 90, 360, 450])
def test_rotation_of_cvat(tmp_path: Path, degrees: int) -> None:
    more = f"<attributes><attribute><name>rotation</name><value>{degrees}.0</value></attribute></attributes>"
    found = one_box(tmp_path, xml_object(box=(10, 8, 18, 12), more=more))
    assert found.boxes[0][2] == ([12, 6, 4, 8] if degrees % 360 else [10, 8, 8, 4])
    assert ("oriented_box" in found.samples) == bool(degrees % 360)


@pytest.mark.parametrize(
    ("objects", "facts"),
    [
        (xml_object("  "), "no name"),
        ("<object/>", "no name"),
        (xml_object(box=None), "cat .*bndbox"),
        (xml_object(box=("a", 1, 2, 2)), "bndbox .*'xmin': 'a'"),
        (xml_object(box=("nan", 1, 2, 2)), "bndbox"),
        (xml_object(box=(1, 1, "inf", 2)), "bndbox"),
        (xml_object(box=(1, 1, 2)), "'ymax': None"),
        (xml_object(box=(5, 1, 4, 2)), "xmin <= xmax"),
        (xml_object(box=(1, 5, 4, 2)), "ymin <= ymax"),
        (xml_object(box=None, more=rotated(45)), "45.*radians"),
    ],
)
def test_invalid_objects_are_all_reported(tmp_path: Path, objects: str, facts: str) -> None:
    found = one_box(tmp_path, objects, xml_object(), objects)
    assert found.boxes == [("a.jpg", "cat", EDGES)]
    first, second = found.samples["invalid_annotation"]
    assert first.startswith("a.xml object 1: ")
    assert second.startswith("a.xml object 3: ")
    assert re.search(facts, first)


# Files


@pytest.mark.parametrize(
    ("encoding", "declared"),
    [
        ("utf-8-sig", None),
        ("utf-8-sig", "utf-8"),
        ("utf-16", "utf-16"),
        ("utf-16", None),
        ("latin-1", "iso-8859-1"),
        ("gbk", "gbk"),
        ("gb2312", "GB2312"),
        ("utf-8", "utf-16"),  # .NET declares what it does not write
    ],
)
def test_encodings(tmp_path: Path, encoding: str, declared: str | None) -> None:
    name = "猫" if encoding.startswith(("gb", "utf")) else "häuser"
    declaration = f"<?xml version='1.0' encoding='{declared}'?>\n" if declared else ""
    write_text(tmp_path / "a.xml", declaration + xml_text(xml_object(name)), encoding)
    write_image(tmp_path / "a.jpg")
    assert read(tmp_path).boxes == [("a.jpg", name, EDGES)]


def test_blanks_before_the_declaration(tmp_path: Path) -> None:
    write_text(tmp_path / "a.xml", f"\n <?xml version='1.0'?>{xml_text()}")
    write_image(tmp_path / "a.jpg")
    assert len(read(tmp_path).boxes) == 1


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        (b"", "no element"),
        (b"<annotation><object>", "no element|mismatched|unclosed"),
        (b"not XML", "syntax"),
        (b"\xff\xfe\x00", ""),
        (b"<annotation>\xff</annotation>", "not well-formed"),
        (b"<annotations><image/></annotations>", "<annotations>"),
        (b"<?xml version='1.0' encoding='klingon'?><annotation>", ""),
    ],
)
def test_broken_files_are_reported_and_their_images_left_out(
    tmp_path: Path, content: bytes, facts: str
) -> None:
    for name in ("a", "b", "c"):
        put(tmp_path, f"{name}.xml", f"{name}.jpg")
    for name in ("a", "b"):
        (tmp_path / f"{name}.xml").write_bytes(content)
    found = read(tmp_path)
    assert found.names == ["c.jpg"]
    assert [sample[:7] for sample in found.samples["invalid_annotation"]] == ["a.xml: ", "b.xml: "]
    assert all("\n" not in sample for sample in found.samples["invalid_annotation"])


def test_annotations_name_their_file(tmp_path: Path) -> None:
    put(tmp_path, "Annotations/a.xml", "a.jpg", xml_object(), xml_object())
    sources = [a["source"] for a in read(tmp_path).coco["annotations"]]
    assert sources == ["Annotations/a.xml object 1", "Annotations/a.xml object 2"]


def test_source_depends_on_annotation_files_and_lists(tmp_path: Path) -> None:
    root = official(tmp_path, train=["a"], val=["b"])
    source = FORMAT.open(root, "train", "data.root")
    assert source is not None
    assert [file.relative_to(root).as_posix() for file in source.files] == [
        "ImageSets/Main/train.txt",
        "Annotations/a.xml",
    ]


def test_folder_that_is_not_of_this_format(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.root=x: .*XML"):
        FORMAT.open(tmp_path / "x", "train", "data.root=x")
    write_image(tmp_path / "a.jpg")
    with pytest.raises(ConfigError, match=r"data\.root: .*xml"):
        FORMAT.open(tmp_path, "train", "data.root")


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("a.xml", xml_text(), True),
        ("deep/below/a.xml", f"<?xml version='1.0'?>\n<annotation verified='yes'>{xml_object()}", True),
        ("annotations.xml", "<?xml version='1.0'?><annotations><image/></annotations>", False),
        ("a.json", "{}", False),
        ("a.xml", "", False),
        ("page.xml", "<PcGts><annotation/></PcGts>", False),
    ],
)
def test_recognition(tmp_path: Path, file: str, text: str, expected: bool) -> None:
    write_text(tmp_path / file, text)
    assert FORMAT.recognize(tmp_path) is expected
    assert not FORMAT.recognize(tmp_path / file)
    assert not FORMAT.recognize(tmp_path / "missing")


TEXT = st.text("<>/&abjectnoimx0123456789.-\"' ", max_size=40)


@given(st.lists(TEXT | st.just(xml_object()), max_size=3), st.binary(max_size=20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_any_content_is_read_or_reported(tmp_path: Path, parts: list[str], noise: bytes) -> None:
    write_image(tmp_path / "a.jpg")
    write_image(tmp_path / "b.jpg")
    write_text(tmp_path / "a.xml", f"<annotation>{''.join(parts)}</annotation>")
    (tmp_path / "b.xml").write_bytes(noise)
    found = read(tmp_path)
    assert all(math.isfinite(v) for _, _, box in found.boxes for v in box)
    assert any("b.xml" in sample for sample in found.samples["invalid_annotation"])
