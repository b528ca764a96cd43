"""VGG Image Annotator: projects, JSON and CSV exports, shapes, and the attribute with the class."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.mutations import assert_only_config_errors, mutated
from helpers.reading import read_split, write_image, write_text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d2timm import ConfigError
from d2timm.data.formats.via import FORMAT

RECT = {"name": "rect", "x": 10, "y": 5, "width": 10, "height": 8}
POLYGON = {"name": "polygon", "all_points_x": [1, 11, 6], "all_points_y": [2, 2, 7]}


def region(shape: Any, **attributes: Any) -> dict[str, Any]:
    return {"shape_attributes": shape, "region_attributes": attributes}


def entries(*regions: Any, name: str = "a.jpg") -> dict[str, Any]:
    """The content of a JSON export: a key of name and size in bytes for each image."""
    return {f"{name}633": {"filename": name, "size": 633, "regions": list(regions), "file_attributes": {}}}


def project(images: Mapping[str, Any], **attributes: Any) -> dict[str, Any]:
    """The content of a project of VIA 2."""
    return {
        "_via_settings": {"ui": {}, "core": {"buffer_size": 18}, "project": {"name": "set"}},
        "_via_img_metadata": images,
        "_via_attributes": {"region": attributes, "file": {}},
        "_via_data_format_version": "2.0.10",
        "_via_image_id_list": list(images),
    }


def attribute(kind: str, **options: str) -> dict[str, Any]:
    return {"type": kind, "description": "", "options": options, "default_options": {}}


def write(root: Path, content: Any, name: str = "via.json", image: str | None = "a.jpg") -> Path:
    if image:
        write_image(root / image)
    write_text(root / name, json.dumps(content))
    return root


def test_shapes(tmp_path: Path) -> None:
    found = read_split(
        FORMAT,
        write(
            tmp_path,
            entries(
                region(RECT, kind="cat"),
                region(POLYGON, kind="dog"),
                region({"name": "circle", "cx": 20, "cy": 10, "r": 5}, kind="dog"),
                region({"name": "ellipse", "cx": 20, "cy": 10, "rx": 8, "ry": 2, "theta": 0}, kind="dog"),
                region({**POLYGON, "name": "polyline"}, kind="dog"),
                region({"name": "point", "cx": 3, "cy": 4}, kind="cat"),
            ),
        ),
    )
    assert found.boxes == [
        ("a.jpg", "cat", [10, 5, 10, 8]),
        ("a.jpg", "dog", [1, 2, 10, 5]),
        ("a.jpg", "dog", [15, 5, 10, 10]),
        ("a.jpg", "dog", [12, 8, 16, 4]),
        ("a.jpg", "dog", [1, 2, 10, 5]),
    ]
    assert [("segmentation" in a) for a in found.coco["annotations"]] == [False, True, True, True, True]
    assert found.coco["annotations"][1]["segmentation"] == [[1, 2, 11, 2, 6, 7]]
    assert len(found.samples["converted_shape"]) == 3
    assert found.samples["ignored_shape"] == ["via.json: a.jpg: region 6: 'point'"]


def test_theta_is_in_radians(tmp_path: Path) -> None:
    turned = {"name": "ellipse", "cx": 20, "cy": 10, "rx": 8, "ry": 2, "theta": 1.5707963267948966}
    ((_, _, box),) = read_split(FORMAT, write(tmp_path, entries(region(turned, kind="cat")))).boxes
    assert box == pytest.approx([18, 2, 4, 16])


def test_project_has_its_classes_in_order(tmp_path: Path) -> None:
    options = attribute("dropdown", z="zebra", c="", a="ant")
    content = project(entries(region(RECT, animal="a"), region(RECT, animal="c")), animal=options)
    found = read_split(FORMAT, write(tmp_path, content))
    assert [category["name"] for category in found.coco["categories"]] == ["zebra", "c", "ant"]
    assert [name for _, name, _ in found.boxes] == ["ant", "c"]


def test_regions_of_version_1_are_a_mapping(tmp_path: Path) -> None:
    content = entries()
    content["a.jpg633"]["regions"] = {"0": region(RECT, kind="cat"), "1": region(POLYGON, kind="dog")}
    assert [name for _, name, _ in read_split(FORMAT, write(tmp_path, content)).boxes] == ["cat", "dog"]


def rows(*regions: tuple[Any, Any], name: str = "a.jpg") -> list[list[Any]]:
    count = len(regions)
    texts = [[json.dumps(value) for value in region] for region in regions]
    return [[name, 633, "{}", count, i, *text] for i, text in enumerate(texts)] or [
        [name, 633, "{}", 0, 0, "{}", "{}"]
    ]


@pytest.mark.parametrize("first", ["filename", "#filename"])
def test_csv_export(tmp_path: Path, first: str) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    header = "file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
    writer.writerow([first, *header.split(",")])
    writer.writerows(rows((RECT, {"kind": "a \"big\" cat, 'grey'"}), (POLYGON, {"kind": "dog"})))
    writer.writerows(rows(name="b.jpg"))
    writer.writerow(["a.jpg", 633, "{}", 1, 0, "{", "{}"])
    writer.writerow(["", 633, "{}", 1, 0, "{}", "{}"])
    for name in ("a.jpg", "b.jpg"):
        write_image(tmp_path / name)
    write_text(tmp_path / "via.csv", text.getvalue())
    assert FORMAT.recognize(tmp_path)
    found = read_split(FORMAT, tmp_path)
    assert [name for _, name, _ in found.boxes] == ["a \"big\" cat, 'grey'", "dog"]
    assert found.names == ["a.jpg", "b.jpg"]
    assert [sample.split(": ")[0] for sample in found.samples["invalid_annotation"]] == [
        "via.csv:5",
        "via.csv:6",
    ]


@pytest.mark.parametrize(
    ("declared", "attributes", "name"),
    [
        ({}, {"anything": "cat"}, "cat"),
        ({"class": attribute("text"), "note": attribute("text")}, {"class": "cat", "note": ""}, "cat"),
        ({"note": attribute("text"), "a": attribute("radio", cat="")}, {"note": "x", "a": "cat"}, "cat"),
        ({}, {"Label": "cat", "quality": "good"}, "cat"),
        ({}, {"type": "x", "name": "cat"}, "cat"),
        ({"a": attribute("checkbox", cat="Cat", dog="")}, {"a": {"cat": True, "dog": False}}, "Cat"),
        ({}, {"number": 3}, "3"),
    ],
)
def test_attribute_with_the_class(
    tmp_path: Path, declared: dict[str, Any], attributes: dict[str, Any], name: str
) -> None:
    content = project(entries(region(RECT, **attributes)), **declared)
    assert [found for _, found, _ in read_split(FORMAT, write(tmp_path, content)).boxes] == [name]


@pytest.mark.parametrize(
    "declared", [{}, {"size": attribute("dropdown", s=""), "colour": attribute("radio", red="")}]
)
def test_ambiguous_attributes_are_named(tmp_path: Path, declared: dict[str, Any]) -> None:
    content = project(entries(region(RECT, size="s", colour="red")), **declared)
    with pytest.raises(ConfigError, match=r"^data.root=.* size, colour.*'class'"):
        read_split(FORMAT, write(tmp_path, content))


def test_regions_without_attributes_are_one_class(tmp_path: Path) -> None:
    found = read_split(FORMAT, write(tmp_path, entries(region(RECT), region(POLYGON))))
    assert [name for _, name, _ in found.boxes] == ["object", "object"]
    assert found.samples == {"no_classes": ["via.json"]}


def test_second_value_of_a_checkbox_is_reported(tmp_path: Path) -> None:
    found = read_split(FORMAT, write(tmp_path, entries(region(RECT, kind={"cat": True, "dog": True}))))
    assert [name for _, name, _ in found.boxes] == ["cat"]
    assert found.samples["further_class"] == ["via.json: a.jpg: region 1: dog"]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (region(RECT), "no class"),
        (region(RECT, kind=""), "no class"),
        (region(RECT, kind={}), "no class"),
        (region({**RECT, "x": None}, kind="cat"), "None is not a coordinate"),
        (region({**RECT, "width": -3}, kind="cat"), "-3 is not a coordinate"),
        (region({**POLYGON, "all_points_y": [1]}, kind="cat"), "same length"),
        (region({"name": "cube"}, kind="cat"), "'cube'"),
        (region("rect", kind="cat"), "shape_attributes is 'rect'"),
        (None, "None"),
    ],
)
def test_broken_regions_are_reported(tmp_path: Path, broken: Any, reason: str) -> None:
    found = read_split(FORMAT, write(tmp_path, entries(broken, region(RECT, kind="cat"))))
    assert len(found.boxes) == 1
    (sample,) = found.samples["invalid_annotation"]
    assert sample.startswith("via.json: a.jpg: region 1: ")
    assert reason in sample


def test_exports_of_the_same_project_are_read_once(tmp_path: Path) -> None:
    images = entries(region(RECT, kind="cat"), region(POLYGON, kind="dog"))
    write(tmp_path, images)
    write(tmp_path, project(images, kind=attribute("text")), "project.json")
    write_text(tmp_path / "export.csv", "filename,region_shape_attributes,region_attributes\n")
    found = read_split(FORMAT, tmp_path)
    assert len(found.boxes) == 2
    assert not found.samples


def test_different_files_about_an_image_are_joined(tmp_path: Path) -> None:
    write(tmp_path, entries(region(RECT, kind="cat")))
    found = read_split(FORMAT, write(tmp_path, entries(region(POLYGON, kind="dog")), "other.json"))
    assert len(found.boxes) == 2
    assert len(found.samples["several_files"]) == 1


def test_splits_are_sub_folders(tmp_path: Path) -> None:
    for split, name in (("train", "cat"), ("val", "dog")):
        content = entries(region(RECT, kind=name))
        write(tmp_path, content, f"{split}/via_region_data.json", f"{split}/a.jpg")
    assert [(Path(f).parent.name) for f in read_split(FORMAT, tmp_path).files] == ["train"]
    assert [name for _, name, _ in read_split(FORMAT, tmp_path, "val").boxes] == ["dog"]


def test_images_are_found_below_the_folder(tmp_path: Path) -> None:
    content = {**entries(name="https://host/set/a%20b.jpg"), **entries(name="C:\\set\\c.jpg")}
    for name in ("images/a b.jpg", "images/deep/c.jpg"):
        write_image(tmp_path / name)
    found = read_split(FORMAT, write(tmp_path, content, image=None))
    assert found.files == [str(tmp_path / "images/a b.jpg"), str(tmp_path / "images/deep/c.jpg")]


def test_folder_of_another_format(tmp_path: Path) -> None:
    assert not FORMAT.recognize(tmp_path)
    with pytest.raises(ConfigError, match="VGG Image Annotator"):
        read_split(FORMAT, tmp_path)
    assert FORMAT.open(tmp_path, "val", "data.root") is None


VALID = project(
    entries(region(RECT, kind="cat"), region(POLYGON, kind={"dog": True}), region({"name": "point"})),
    kind=attribute("dropdown", cat="", dog="Dog"),
)


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_any_content_is_read_or_a_config_error(tmp_path: Path, data: st.DataObject) -> None:
    write(tmp_path, data.draw(mutated(VALID)))
    assert_only_config_errors(FORMAT, tmp_path)
