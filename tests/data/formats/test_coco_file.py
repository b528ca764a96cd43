"""COCO annotation files: reading one, merging several, and their classes and keypoints."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.coco_edits import ALL, FIRST, Edit, drop, put
from helpers.reading import PlainReading, write_image

from d2timm import ConfigError
from d2timm.data.formats import coco_file

LABEL = "data.train_json"

Coco = dict[str, Any]
Files = tuple[list[Path], list[Path]]


def content(prefix: str, ids: tuple[int, int], first_image: int) -> Coco:
    """Two images with three objects of two classes."""
    category_ids = (ids[1], ids[0], ids[1])
    return {
        "images": [
            {"id": first_image + i, "file_name": f"{prefix}{i}.png", "height": 20, "width": 40}
            for i in (0, 1)
        ],
        "annotations": [
            {
                "id": i + 1,
                "image_id": first_image + i // 2,
                "category_id": category_id,
                "bbox": [i, 1, 5, 5],
                "note": f"{prefix}{i}",
            }
            for i, category_id in enumerate(category_ids)
        ],
        "categories": [{"id": i, "name": name} for i, name in zip(ids, ("cat", "dog"), strict=True)],
    }


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., Files]:
    """Write two files with overlapping ids, edit the second; return them and their image folders."""

    def apply(edit: Edit = lambda coco: None) -> Files:
        contents = [content("a", (3, 8), 1), content("b", (7, 90), 2)]
        for letter in "ab":
            for number in (0, 1):
                write_image(tmp_path / letter / f"{letter}{number}.png")
        edit(contents[1])
        paths, folders = ([tmp_path / f"{name}{end}" for name in "ab"] for end in (".json", ""))
        for file, coco in zip(paths, contents, strict=True):
            file.write_text(json.dumps(coco))
        return paths, folders

    return apply


# One file


def test_single_file(files: Callable[..., Files]) -> None:
    paths, folders = files()
    source = coco_file.source(paths[:1], folders[:1], LABEL)
    assert (source.label, source.files, source.images) == (f"{LABEL}={paths[0]}", (paths[0],), folders[0])
    assert source.read(PlainReading()) == content("a", (3, 8), 1)


def test_key_of_other_readers_is_removed(files: Callable[..., Files]) -> None:
    paths, folders = files(put("annotations", "source", "manual"))
    read = coco_file.source(paths[1:], folders[1:], LABEL).read(PlainReading())
    assert read == content("b", (7, 90), 2)


@pytest.mark.parametrize("raw", [[], None, 7, {"annotations": None}, {"annotations": [None, 7, []]}])
def test_other_json_is_read_for_the_check(files: Callable[..., Files], raw: Any) -> None:
    paths, folders = files()
    paths[0].write_text(json.dumps(raw))
    assert coco_file.source(paths[:1], folders[:1], LABEL).read(PlainReading()) == raw


def test_missing_files_and_folders(files: Callable[..., Files]) -> None:
    paths, folders = files()
    with pytest.raises(ConfigError, match=rf"^{LABEL}: 2 annotation files but 1 image folders$"):
        coco_file.source(paths, folders[:1], LABEL)
    with pytest.raises(ConfigError, match=r"^data\.train_images=.*/a\.json: no such folder$"):
        coco_file.source(paths, [folders[0], paths[0]], LABEL)
    with pytest.raises(ConfigError, match=rf"^{LABEL}=.*/b: no such file$"):
        coco_file.source([paths[0], folders[1]], folders, LABEL)


def test_images_and_categories_with_the_ids_of_the_file(tmp_path: Path) -> None:
    coco = content("a", (8, 3), 1)
    put("images", "id", "x", FIRST)(coco)
    (tmp_path / "a.json").write_text(json.dumps(coco))
    read = coco_file.read_coco(tmp_path / "a.json")
    assert [(image["id"], image["file_name"]) for image in read["images"]] == [("x", "a0.png"), (2, "a1.png")]
    assert [(c["id"], c["name"]) for c in read["categories"]] == [(3, "dog"), (8, "cat")]
    (tmp_path / "a.json").write_text('{"images": [], "annotations": []}')
    with pytest.raises(ConfigError, match=r"a\.json is not in COCO format: it has no list 'categories'"):
        coco_file.read_coco(tmp_path / "a.json")


# Several files


def merged(files: Files) -> tuple[Coco, dict[str, list[str]]]:
    source, reading = coco_file.source(*files, LABEL), PlainReading()
    assert (source.label, source.files, source.images) == (LABEL, tuple(files[0]), Path("/"))
    return source.read(reading), reading.findings.samples


def objects(coco: Coco) -> list[tuple[str, str, int]]:
    """(note, image, category id) of each object."""
    names = {image["id"]: Path(image["file_name"]).name for image in coco["images"]}
    return [(a["note"], names[a["image_id"]], a["category_id"]) for a in coco["annotations"]]


def test_merged_file_has_all_images_and_objects(files: Callable[..., Files]) -> None:
    paths, folders = files()
    coco, samples = merged((paths, folders))
    assert coco["categories"] == [{"id": 3, "name": "cat"}, {"id": 8, "name": "dog"}]
    assert [image["id"] for image in coco["images"]] == [1, 2, 3, 4]
    names = [image["file_name"] for image in coco["images"]]
    assert names == [str(folder / f"{folder.name}{i}.png") for folder in folders for i in (0, 1)]
    assert objects(coco) == [
        *(("a0", "a0.png", 8), ("a1", "a0.png", 3), ("a2", "a1.png", 8)),
        *(("b0", "b0.png", 8), ("b1", "b0.png", 3), ("b2", "b1.png", 8)),
    ]
    assert samples == {}


def test_merged_objects_have_the_names_of_their_file(files: Callable[..., Files]) -> None:
    coco, _ = merged(files())
    assert [a["source"] for a in coco["annotations"]][2:4] == [
        "annotation 3 of a1.png in a.json",
        "annotation 1 of b0.png in b.json",
    ]


def test_categories_are_matched_in_the_order_of_their_ids(files: Callable[..., Files]) -> None:
    coco, _ = merged(files(lambda coco: coco["categories"].reverse()))
    assert ("b1", "b0.png", 3) in objects(coco)


def test_file_without_objects_contributes_its_images(files: Callable[..., Files]) -> None:
    coco, _ = merged(files(lambda coco: coco.update(annotations=[])))
    assert (len(coco["images"]), len(coco["annotations"])) == (4, 3)


def test_what_is_wrong_in_one_of_several_files(files: Callable[..., Files]) -> None:
    def damage(coco: Coco) -> None:
        put("annotations", "image_id", 99, FIRST)(coco)
        put("annotations", "category_id", 99, slice(1, 2))(coco)
        put("images", "id", "x", slice(1, 2))(coco)
        put("annotations", "image_id", "x", slice(2, 3))(coco)

    coco, samples = merged(files(damage))
    assert objects(coco)[3:] == [("b2", "b1.png", 8)]
    assert samples == {
        "odd_ids": ["'x' of b1.png"],
        "unknown_image": ["annotation 1 of image 99"],
        "unknown_category": ["annotation 2 of image 2: 99"],
    }


def test_images_of_several_files_are_found_by_their_names(files: Callable[..., Files]) -> None:
    paths, folders = files(put("images", "file_name", "C:\\set\\b0.png", FIRST))
    coco, samples = merged((paths, folders))
    assert coco["images"][2]["file_name"] == str(folders[1] / "b0.png")
    assert samples == {"moved_image": [f"C:\\set\\b0.png: {folders[1] / 'b0.png'}"]}


@pytest.mark.parametrize(
    ("edit", "facts"),
    [
        (
            put("categories", "name", "cow", FIRST),
            r"=.*b\.json: 'name' .*\['cow', 'dog'\].* \['cat', 'dog'\] in .*a\.json",
        ),
        (lambda coco: coco["categories"].pop(), r"=.*b\.json: 'name' .*\['cat'\].* \['cat', 'dog'\]"),
        (put("categories", "keypoints", ["x"], ALL), r"=.*b\.json: 'keypoints' .*\[\['x'\], "),
        (lambda coco: coco.pop("images"), r"=.*b\.json is not in COCO format: it has no list 'images'"),
    ],
)
def test_files_that_cannot_be_merged(files: Callable[..., Files], edit: Edit, facts: str) -> None:
    with pytest.raises(ConfigError, match=f"^{LABEL}{facts}"):
        merged(files(edit))


# Classes and keypoints


@pytest.fixture
def coco() -> Coco:
    """Two classes with two keypoints each."""
    return {
        "categories": [{"id": i, "name": name, "keypoints": ["a", "b"]} for i, name in ((9, "x"), (2, "y"))]
    }


def test_categories_are_sorted_by_id(coco: Coco) -> None:
    assert coco_file.categories(coco) == ["y", "x"]


def test_keypoints_that_all_categories_share(coco: Coco) -> None:
    assert coco_file.keypoint_names(coco, LABEL) == ["a", "b"]


@pytest.mark.parametrize(
    ("edit", "category"),
    [
        (drop("categories", "keypoints"), None),
        (put("categories", "keypoints", []), None),
        (put("categories", "keypoints", "ab"), None),
        (put("categories", "keypoints", [1, 2]), None),
        (lambda coco: coco.update(categories=[]), None),
        (put("categories", "keypoints", ["a"], slice(1, None)), "'y'"),
        (drop("categories", "keypoints", slice(1, None)), "'y'"),
    ],
)
def test_missing_or_differing_keypoints(coco: Coco, edit: Edit, category: str | None) -> None:
    edit(coco)
    with pytest.raises(ConfigError, match=rf"^{LABEL}: .*'keypoints'.*{category or ''}.*roi_heads=box"):
        coco_file.keypoint_names(coco, LABEL)
