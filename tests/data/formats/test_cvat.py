"""CVAT's XML files: shapes, masks, subsets of a project, frames of a video."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.reading import ReadSplit, read_split, write_image, write_text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from d2timm import ConfigError
from d2timm.data.formats.cvat import FORMAT

LABELS = """<labels>
  <label><name>truck</name><color>#00ff00</color><type>any</type><attributes></attributes></label>
  <label><name>car</name><attributes></attributes></label>
  <label><name>good frame</name><type>tag</type></label>
  <label><name>person</name><type>skeleton</type><svg>&lt;line/&gt;</svg></label>
  <label><name>nose</name><type>points</type><parent>person</parent></label>
</labels>"""
BOX = (
    '<box label="car" source="manual" occluded="0" xtl="10.0" ytl="5.0" xbr="20.00" ybr="15.00" z_order="0"/>'
)
RLE = '<mask label="car" occluded="0" rle="1, 2, 2, 1" left="10" top="5" width="3" height="2" z_order="0"/>'


def image(*shapes: str, name: str = "a.jpg", **attributes: str) -> str:
    more = " ".join(f'{key}="{value}"' for key, value in attributes.items())
    return f'<image id="0" name="{name}" width="40" height="20" {more}>{"".join(shapes)}</image>'


def xml(*images: str, scope: str = "task", labels: str = LABELS) -> str:
    meta = f"<meta><{scope}><id>5</id><size>1</size>{labels}</{scope}><dumped>2024-01-01</dumped></meta>"
    head = '<?xml version="1.0" encoding="utf-8"?>'
    return f"{head}<annotations><version>1.1</version>{meta}{''.join(images)}</annotations>"


def read(root: Path, *shapes: str) -> ReadSplit:
    write_image(root / "images" / "a.jpg")
    write_text(root / "annotations.xml", xml(image(*shapes)))
    return read_split(FORMAT, root)


def test_boxes_and_polygons(tmp_path: Path) -> None:
    found = read(tmp_path, BOX, '<polygon label="truck" points="1.00,2.00;11.00,2.00;6.50,7.00"/>')
    assert found.boxes == [("a.jpg", "car", [10, 5, 10, 10]), ("a.jpg", "truck", [1, 2, 10, 5])]
    assert found.coco["annotations"][1]["segmentation"] == [[1, 2, 11, 2, 6.5, 7]]
    assert found.coco["annotations"][1]["source"] == "annotations.xml: a.jpg: polygon 2"
    assert found.files == [str(tmp_path / "images" / "a.jpg")]
    (entry,) = found.coco["images"]
    assert (entry["width"], entry["height"]) == (40, 20)
    assert not found.samples


@pytest.mark.parametrize("scope", ["task", "project", "job"])
def test_declared_labels_are_classes_in_their_order(tmp_path: Path, scope: str) -> None:
    write_text(tmp_path / "annotations.xml", xml(image(BOX, BOX.replace("car", "boat")), scope=scope))
    found = read_split(FORMAT, tmp_path)
    assert [category["name"] for category in found.coco["categories"]] == ["truck", "car", "boat"]


def test_turned_boxes_and_ellipses(tmp_path: Path) -> None:
    turned = BOX.replace("<box", '<box rotation="90.0"').replace('ybr="15.00"', 'ybr="9.00"')
    ellipse = '<ellipse label="car" cx="20" cy="10" rx="8" ry="2" rotation="90" z_order="0"/>'
    found = read(tmp_path, turned, ellipse)
    assert [box for _, _, box in found.boxes] == [[13, 2, 4, 10], [18, 2, 4, 16]]
    assert {kind: len(samples) for kind, samples in found.samples.items()} == {
        "oriented_box": 1,
        "converted_shape": 1,
    }


def test_mask_is_run_lengths_of_its_part_of_the_image(tmp_path: Path) -> None:
    (annotation,) = read(tmp_path, RLE).coco["annotations"]
    assert annotation["bbox"] == [11, 5, 2, 2]
    array = coco_mask.decode(coco_mask.frPyObjects(annotation["segmentation"], 20, 40))
    assert array[5:7, 10:13].tolist() == [[0, 1, 1], [0, 0, 1]]
    assert array.sum() == 3


def test_groups_of_polygons_and_masks_are_one_object(tmp_path: Path) -> None:
    polygon = '<polygon label="car" points="1,2;11,2;6,7" group_id="{}"/>'
    parts = (RLE.replace("<mask", '<mask group_id="3"'), polygon.format(3), polygon.format(0))
    found = read(tmp_path, *parts, *(BOX.replace("<box", '<box group_id="3"') for _ in range(2)))
    assert [box for _, _, box in found.boxes] == [[1, 2, 12, 5], [1, 2, 10, 5], *[[10, 5, 10, 10]] * 2]


def test_other_shapes_are_counted(tmp_path: Path) -> None:
    skeleton = '<skeleton label="person"><points label="nose" points="1,2" outside="0"/></skeleton>'
    lines = ('<polyline label="car" points="1,2;3,4"/>', '<points label="car" points="1,2"/>')
    found = read(tmp_path, *lines, skeleton, '<tag label="good frame"/>', '<cuboid label="car"/>', BOX)
    assert len(found.boxes) == 1
    assert len(found.samples["ignored_shape"]) == 5


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (BOX.replace('label="car"', 'label=""'), "no class"),
        (BOX.replace('label="car"', ""), "no class"),
        (BOX.replace('xtl="10.0"', 'xtl="left"'), "'left' is not a coordinate"),
        (BOX.replace('xtl="10.0"', ""), "None is not a coordinate"),
        ('<polygon label="car" points="1,2;3"/>', "not a point"),
        ('<polygon label="car" points=""/>', "0 corners"),
        (RLE.replace("1, 2, 2, 1", "1, 2"), "3 pixels, and its box 3x2"),
        (RLE.replace("1, 2, 2, 1", "one"), "not a list of numbers"),
        (RLE.replace('left="10"', 'left="60"'), "without pixels"),
        ('<blob label="car"/>', "'blob'"),
    ],
)
def test_broken_shapes_are_reported(tmp_path: Path, broken: str, reason: str) -> None:
    found = read(tmp_path, broken, BOX)
    assert len(found.boxes) == 1
    (sample,) = found.samples["invalid_annotation"]
    assert sample.startswith("annotations.xml: a.jpg: ")
    assert reason in sample


def test_subsets_of_a_project_are_splits(tmp_path: Path) -> None:
    subsets = ("Train", "Validation", "Test")
    for subset in subsets:
        write_image(tmp_path / "images" / subset / "a.jpg")
    text = xml(*(image(BOX, subset=subset, task_id="3") for subset in subsets), scope="project")
    write_text(tmp_path / "annotations.xml", text)
    for split, subset in (("train", "Train"), ("val", "Validation")):
        found = read_split(FORMAT, tmp_path, split)
        assert found.files == [str(tmp_path / "images" / subset / "a.jpg")]
        assert "Train and Validation" in found.note


def test_subsets_that_are_no_splits_are_for_training(tmp_path: Path) -> None:
    text = xml(*(image(BOX, name=f"{name}.jpg", subset=name) for name in ("Train", "More")))
    write_text(tmp_path / "annotations.xml", text)
    assert len(read_split(FORMAT, tmp_path).boxes) == 2
    assert FORMAT.open(tmp_path, "val", "data.root") is None


def test_splits_are_files_or_folders(tmp_path: Path) -> None:
    for first, second in (("train.xml", "val.xml"), ("train/annotations.xml", "test/annotations.xml")):
        root = tmp_path / first.replace("/", "-")
        write_text(root / first, xml(image(BOX)))
        write_text(root / second, xml(image(BOX, BOX)))
        assert len(read_split(FORMAT, root).boxes) == 1
        assert len(read_split(FORMAT, root, "val").boxes) == 2


def test_image_names_with_folders(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "one" / "a.jpg")
    write_image(tmp_path / "images" / "two" / "a.jpg")
    write_text(tmp_path / "annotations.xml", xml(image(BOX, name="two/a.jpg"), image(name="one/a.jpg")))
    assert [Path(file).parent.name for file in read_split(FORMAT, tmp_path).files] == ["two", "one"]


TRACK = """<track id="0" label="car" source="manual">
  <box frame="0" keyframe="1" outside="0" xtl="1" ytl="2" xbr="11" ybr="7"/>
  <box frame="2" keyframe="1" outside="0" xtl="2" ytl="2" xbr="11" ybr="7"/>
  <box frame="3" keyframe="1" outside="1" xtl="2" ytl="2" xbr="11" ybr="7"/>
</track>"""


def test_frames_of_a_video(tmp_path: Path) -> None:
    for frame in (0, 1, 3):
        write_image(tmp_path / "images" / f"frame_{frame:06d}.PNG")
    write_text(tmp_path / "annotations.xml", xml(TRACK))
    found = read_split(FORMAT, tmp_path)
    assert found.names == ["frame_000000.PNG", "frame_000001.PNG", "frame_000003.PNG"]
    assert found.boxes == [("frame_000000.PNG", "car", [1, 2, 10, 5])]
    assert found.samples["missing_image"] == ["annotations.xml: frame 2"]


def test_video_without_frames_is_refused(tmp_path: Path) -> None:
    write_text(tmp_path / "annotations.xml", xml(TRACK))
    with pytest.raises(ConfigError, match=r"tracks.*CVAT for images 1\.1"):
        read_split(FORMAT, tmp_path)


def test_broken_files_are_reported(tmp_path: Path) -> None:
    write_text(tmp_path / "a.xml", xml(image(BOX)))
    write_text(tmp_path / "b.xml", "<annotations><image>")
    found = read_split(FORMAT, tmp_path)
    assert len(found.boxes) == 1
    assert "b.xml is not XML" in found.samples["invalid_annotation"][0]
    (tmp_path / "a.xml").unlink()
    with pytest.raises(ConfigError, match=r"b\.xml is not XML"):
        read_split(FORMAT, tmp_path)


def test_only_cvat_is_recognized(tmp_path: Path) -> None:
    assert not FORMAT.recognize(tmp_path)
    write_text(tmp_path / "voc.xml", "<annotation><object/></annotation>")
    assert not FORMAT.recognize(tmp_path)
    with pytest.raises(ConfigError, match="<annotations>"):
        read_split(FORMAT, tmp_path)
    file = write_text(tmp_path / "deep" / "annotations.xml", xml(image(BOX)))
    assert FORMAT.recognize(tmp_path)
    assert FORMAT.recognize(file)
    assert len(read_split(FORMAT, file).boxes) == 1


@given(st.integers(0, 400), st.integers(0, 30), st.text("<>/\"'=&;,0129 abx", max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80, deadline=None)
def test_any_text_is_read_or_a_config_error(tmp_path: Path, start: int, length: int, text: str) -> None:
    whole = xml(image(BOX, RLE, '<polygon label="car" points="1,2;11,2;6,7"/>'), labels="")
    begin = whole.index("<image") + start
    write_text(tmp_path / "annotations.xml", whole[:begin] + text + whole[begin + length :])
    try:
        found = read_split(FORMAT, tmp_path)
    except ConfigError:
        return
    assert all(len(annotation["bbox"]) == 4 for annotation in found.coco["annotations"])
