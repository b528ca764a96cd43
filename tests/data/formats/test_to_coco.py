"""Conversion to COCO files in the cache, and merging of several COCO files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.coco_edits import ALL, FIRST, Edit, drop, put
from PIL import Image

from d2timm import ConfigError
from d2timm.data.formats import to_coco

LABEL = "data.train_json"

Coco = dict[str, Any]
Files = tuple[list[Path], list[Path]]


def part(prefix: str, ids: tuple[int, int], first_image: int) -> Coco:
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
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Files]:
    """Write two files with overlapping ids, edit the second; return them and their image folders."""
    monkeypatch.setenv("D2TIMM_CACHE", str(tmp_path / "cache"))

    def apply(edit: Edit = lambda coco: None) -> Files:
        contents = [part("a", (3, 8), 1), part("b", (7, 90), 2)]
        edit(contents[1])
        files, folders = ([tmp_path / f"{name}{end}" for name in "ab"] for end in (".json", ""))
        for file, coco in zip(files, contents, strict=True):
            file.write_text(json.dumps(coco))
        return files, folders

    return apply


def merged(files: Files) -> Coco:
    split = to_coco.merge(*files, LABEL)
    assert split.images == Path("/")
    coco: Coco = json.loads(split.json.read_text())
    return coco


def test_merged_file_has_all_images_and_objects(parts: Callable[..., Files]) -> None:
    files, folders = parts()
    coco = merged((files, folders))
    assert coco["categories"] == [{"id": 3, "name": "cat"}, {"id": 8, "name": "dog"}]
    assert [image["id"] for image in coco["images"]] == [1, 2, 3, 4]
    paths = {image["id"]: image["file_name"] for image in coco["images"]}
    assert list(paths.values()) == [str(f / f"{f.name}{i}.png") for f in folders for i in (0, 1)]
    assert [a["id"] for a in coco["annotations"]] == list(range(1, 7))
    objects = [(a["note"], Path(paths[a["image_id"]]).name, a["category_id"]) for a in coco["annotations"]]
    assert objects == [
        *(("a0", "a0.png", 8), ("a1", "a0.png", 3), ("a2", "a1.png", 8)),
        *(("b0", "b0.png", 8), ("b1", "b0.png", 3), ("b2", "b1.png", 8)),
    ]


def test_categories_are_matched_in_the_order_of_their_ids(parts: Callable[..., Files]) -> None:
    coco = merged(parts(lambda coco: coco["categories"].reverse()))
    assert {a["note"]: a["category_id"] for a in coco["annotations"]}["b1"] == 3


def test_file_without_objects_contributes_its_images(parts: Callable[..., Files]) -> None:
    coco = merged(parts(lambda coco: coco.update(annotations=[])))
    assert (len(coco["images"]), len(coco["annotations"])) == (4, 3)


def test_objects_of_unknown_images_are_left_out(parts: Callable[..., Files]) -> None:
    assert len(merged(parts(put("annotations", "image_id", 99, FIRST)))["annotations"]) == 5


@pytest.mark.parametrize(
    ("edit", "facts"),
    [
        (
            put("categories", "name", "cow", FIRST),
            r"b\.json: 'name' .*\['cow', 'dog'\].* \['cat', 'dog'\] in .*a\.json",
        ),
        (lambda coco: coco["categories"].pop(), r"b\.json: 'name' .*\['cat'\].* \['cat', 'dog'\]"),
        (
            put("categories", "keypoints", ["x"], ALL),
            r"b\.json: 'keypoints' .*\[\['x'\], ",
        ),
        (
            put("annotations", "category_id", 3, FIRST),
            r"b\.json: .* 1 .*category_id 3.* 7, 90",
        ),
        (
            drop("images", "height", FIRST),
            r"b\.json .*'images' has no 'height'",
        ),
    ],
)
def test_files_that_cannot_be_merged(parts: Callable[..., Files], edit: Edit, facts: str) -> None:
    files = parts(edit)
    with pytest.raises(ConfigError, match=facts):
        to_coco.merge(*files, LABEL)


def test_numbers_of_files_and_folders_that_differ(parts: Callable[..., Files]) -> None:
    files, folders = parts()
    with pytest.raises(ConfigError, match=rf"^{LABEL}: 2 .* 1 "):
        to_coco.merge(files, folders[:1], LABEL)
    files[1].unlink()
    with pytest.raises(ConfigError, match=rf"^{LABEL}: .*b\.json: no such file$"):
        to_coco.merge(files, folders, LABEL)


# The cache


def test_content_is_built_once_per_settings_and_files(parts: Callable[..., Files]) -> None:
    files, folders = parts()
    calls: list[int] = []

    def build() -> Coco:
        calls.append(1)
        return {"call": len(calls)}

    first = to_coco.cached_coco_file(["names"], files, build)
    assert to_coco.cached_coco_file(["names"], files, build) == first
    assert json.loads(first.read_text()) == {"call": 1}
    others = [
        to_coco.cached_coco_file(["other names"], files, build),
        to_coco.cached_coco_file(["names"], files[:1], build),
        to_coco.cached_coco_file(["names"], files[::-1], build),
        to_coco.cached_coco_file(["names"], [*files, folders[0] / "missing"], build),
    ]
    assert len({first, *others}) == len(calls) == 5


def test_content_is_rebuilt_when_a_file_changes(parts: Callable[..., Files]) -> None:
    (file, _), _ = parts()
    cached = {to_coco.cached_coco_file((), [file], dict)}
    time = file.stat().st_mtime_ns
    for change in (
        lambda: os.utime(file, ns=(time, time + 1)),
        lambda: (file.write_text("{}"), os.utime(file, ns=(time, time))),
        file.unlink,
    ):
        change()
        cached.add(to_coco.cached_coco_file((), [file], dict))
    assert len(cached) == 4


def test_content_of_another_version_is_rebuilt(
    parts: Callable[..., Files], monkeypatch: pytest.MonkeyPatch
) -> None:
    files, _ = parts()
    old = to_coco.cached_coco_file((), files, lambda: {"old": 1})
    monkeypatch.setattr(to_coco, "VERSION", to_coco.VERSION + 1)
    assert json.loads(to_coco.cached_coco_file((), files, dict).read_text()) == {}
    assert json.loads(old.read_text()) == {"old": 1}


def test_error_leaves_nothing_in_the_cache(parts: Callable[..., Files], tmp_path: Path) -> None:
    files = parts(put("annotations", "category_id", 3, FIRST))
    with pytest.raises(ConfigError):
        to_coco.merge(*files, LABEL)
    assert not (tmp_path / "cache").exists()


def test_cache_that_cannot_be_written(
    parts: Callable[..., Files], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("D2TIMM_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ConfigError, match=r"Not a directory.*D2TIMM_CACHE"):
        to_coco.merge(*parts(), LABEL)


# Images and objects


@pytest.mark.parametrize("orientation", range(9))
def test_size_matches_the_image_as_detectron2_reads_it(tmp_path: Path, orientation: int) -> None:
    from detectron2.data import detection_utils

    exif = Image.Exif()
    exif[to_coco.EXIF_ORIENTATION] = orientation
    file = tmp_path / "a.jpg"
    Image.new("RGB", (40, 20)).save(file, exif=exif)
    (image,) = to_coco.build_coco([(file, file)], [], lambda labels, size: [])["images"]
    assert (image["height"], image["width"]) == detection_utils.read_image(str(file)).shape[:2]


def test_reader_receives_labels_and_size(tmp_path: Path) -> None:
    file, labels = tmp_path / "a.png", tmp_path / "a.txt"
    Image.new("RGB", (40, 20)).save(file)
    read = {
        (labels, (40, 20)): [to_coco.to_annotation(1, [1, 2, 3, 4]), to_coco.to_annotation(0, [5, 5, 1, 1])]
    }
    coco = to_coco.build_coco([(file, labels)], ["x", "y"], lambda *arguments: read[arguments])
    first = {"category_id": 2, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0, "id": 1, "image_id": 1}
    assert coco["annotations"][0] == first
    assert [a["category_id"] for a in coco["annotations"]] == [2, 1]
