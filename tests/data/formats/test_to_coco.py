"""Several COCO files as one, and what is kept in the cache."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.coco_edits import ALL, FIRST, Change, drop, put
from PIL import Image

from d2timm import ConfigError
from d2timm.data.formats import to_coco as convert

TOLD = "data.train_json"

Coco = dict[str, Any]
Files = tuple[list[Path], list[Path]]


def part(prefix: str, ids: tuple[int, int], first_image: int) -> Coco:
    """Two images with three objects of two classes."""
    kinds = (ids[1], ids[0], ids[1])
    return {
        "images": [
            {"id": first_image + i, "file_name": f"{prefix}{i}.png", "height": 20, "width": 40}
            for i in (0, 1)
        ],
        "annotations": [
            {
                "id": i + 1,
                "image_id": first_image + i // 2,
                "category_id": kind,
                "bbox": [i, 1, 5, 5],
                "note": f"{prefix}{i}",
            }
            for i, kind in enumerate(kinds)
        ],
        "categories": [{"id": i, "name": name} for i, name in zip(ids, ("cat", "dog"), strict=True)],
    }


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Files]:
    """Write two files, whose ids overlap and differ, the second edited; gives them and their folders."""
    monkeypatch.setenv("D2TIMM_CACHE", str(tmp_path / "cache"))

    def apply(edit: Change = lambda coco: None) -> Files:
        contents = [part("a", (3, 8), 1), part("b", (7, 90), 2)]
        edit(contents[1])
        files, folders = ([tmp_path / f"{name}{end}" for name in "ab"] for end in (".json", ""))
        for file, coco in zip(files, contents, strict=True):
            file.write_text(json.dumps(coco))
        return files, folders

    return apply


def merged(files: Files) -> Coco:
    split = convert.merge(*files, TOLD)
    assert split.images == Path("/")
    coco: Coco = json.loads(split.json.read_text())
    return coco


def test_merged_files_have_all_images_and_objects(parts: Callable[..., Files]) -> None:
    files, folders = parts()
    coco = merged((files, folders))
    assert coco["categories"] == [{"id": 3, "name": "cat"}, {"id": 8, "name": "dog"}]
    assert [image["id"] for image in coco["images"]] == [1, 2, 3, 4]
    places = {image["id"]: image["file_name"] for image in coco["images"]}
    assert list(places.values()) == [str(f / f"{f.name}{i}.png") for f in folders for i in (0, 1)]
    assert [a["id"] for a in coco["annotations"]] == list(range(1, 7))
    told = [(a["note"], Path(places[a["image_id"]]).name, a["category_id"]) for a in coco["annotations"]]
    assert told == [
        *(("a0", "a0.png", 8), ("a1", "a0.png", 3), ("a2", "a1.png", 8)),
        *(("b0", "b0.png", 8), ("b1", "b0.png", 3), ("b2", "b1.png", 8)),
    ]


def test_categories_are_in_the_order_of_their_ids(parts: Callable[..., Files]) -> None:
    coco = merged(parts(lambda coco: coco["categories"].reverse()))
    assert {a["note"]: a["category_id"] for a in coco["annotations"]}["b1"] == 3


def test_file_without_objects_gives_its_images(parts: Callable[..., Files]) -> None:
    coco = merged(parts(lambda coco: coco.update(annotations=[])))
    assert (len(coco["images"]), len(coco["annotations"])) == (4, 3)


def test_objects_of_no_image_are_left_out(parts: Callable[..., Files]) -> None:
    assert len(merged(parts(put("annotations", "image_id", 99, FIRST)))["annotations"]) == 5


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            put("categories", "name", "cow", FIRST),
            r"b\.json: 'name' of its categories are \['cow', 'dog'\], in .*a\.json \['cat', 'dog'\]",
        ),
        (lambda coco: coco["categories"].pop(), r"b\.json: 'name' of its categories are \['cat'\], in"),
        (
            put("categories", "keypoints", ["x"], ALL),
            r"'keypoints' of its categories are \[\['x'\], ",
        ),
        (
            put("annotations", "category_id", 3, FIRST),
            r"b\.json: the annotation of id 1 has category_id 3, which is none of its categories, 7, 90",
        ),
        (
            drop("images", "height", FIRST),
            r"b\.json is not in COCO format: an entry of 'images' has no 'height'",
        ),
    ],
)
def test_files_that_do_not_go_together(parts: Callable[..., Files], edit: Change, message: str) -> None:
    files = parts(edit)
    with pytest.raises(ConfigError, match=message):
        convert.merge(*files, TOLD)


def test_files_and_folders_that_do_not_pair_up(parts: Callable[..., Files]) -> None:
    files, folders = parts()
    with pytest.raises(ConfigError, match=f"^{TOLD}: 2 files of annotations and 1 folders of images$"):
        convert.merge(files, folders[:1], TOLD)
    files[1].unlink()
    with pytest.raises(ConfigError, match=rf"^{TOLD}: .*b\.json: no such file$"):
        convert.merge(files, folders, TOLD)


# The cache


def test_content_is_made_once_for_what_it_is_made_of(parts: Callable[..., Files]) -> None:
    files, folders = parts()
    calls: list[int] = []

    def make() -> Coco:
        calls.append(1)
        return {"made": len(calls)}

    first = convert.keep(["names"], files, make)
    assert convert.keep(["names"], files, make) == first
    assert json.loads(first.read_text()) == {"made": 1}
    others = [
        convert.keep(["other names"], files, make),
        convert.keep(["names"], files[:1], make),
        convert.keep(["names"], files[::-1], make),
        convert.keep(["names"], [*files, folders[0] / "nothing"], make),
    ]
    assert len({first, *others}) == len(calls) == 5


def test_content_is_made_anew_when_a_file_changes(parts: Callable[..., Files]) -> None:
    (file, _), _ = parts()
    kept = {convert.keep((), [file], dict)}
    time = file.stat().st_mtime_ns
    for change in (
        lambda: os.utime(file, ns=(time, time + 1)),
        lambda: (file.write_text("{}"), os.utime(file, ns=(time, time))),
        file.unlink,
    ):
        change()
        kept.add(convert.keep((), [file], dict))
    assert len(kept) == 4


def test_content_of_another_version_is_not_used(
    parts: Callable[..., Files], monkeypatch: pytest.MonkeyPatch
) -> None:
    files, _ = parts()
    old = convert.keep((), files, lambda: {"old": 1})
    monkeypatch.setattr(convert, "VERSION", convert.VERSION + 1)
    assert json.loads(convert.keep((), files, dict).read_text()) == {}
    assert json.loads(old.read_text()) == {"old": 1}


def test_mistake_leaves_nothing_in_the_cache(parts: Callable[..., Files], tmp_path: Path) -> None:
    files = parts(put("annotations", "category_id", 3, FIRST))
    with pytest.raises(ConfigError):
        convert.merge(*files, TOLD)
    assert not (tmp_path / "cache").exists()


def test_cache_that_cannot_be_written(
    parts: Callable[..., Files], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("D2TIMM_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(
        ConfigError, match=r"cannot be written \(Not a directory\): set D2TIMM_CACHE to a folder"
    ):
        convert.merge(*parts(), TOLD)


# Images and objects


@pytest.mark.parametrize("orientation", range(9))
def test_size_is_that_of_the_image_as_it_is_read(tmp_path: Path, orientation: int) -> None:
    from detectron2.data import detection_utils

    exif = Image.Exif()
    exif[convert.EXIF_ORIENTATION] = orientation
    file = tmp_path / "a.jpg"
    Image.new("RGB", (40, 20)).save(file, exif=exif)
    (image,) = convert.to_coco([(file, file)], [], lambda labels, size: [])["images"]
    assert (image["height"], image["width"]) == detection_utils.read_image(str(file)).shape[:2]


def test_reader_is_given_labels_and_size(tmp_path: Path) -> None:
    file, labels = tmp_path / "a.png", tmp_path / "a.txt"
    Image.new("RGB", (40, 20)).save(file)
    read = {(labels, (40, 20)): [convert.to_object(1, [1, 2, 3, 4]), convert.to_object(0, [5, 5, 1, 1])]}
    coco = convert.to_coco([(file, labels)], ["x", "y"], lambda *given: read[given])
    first = {"category_id": 2, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0, "id": 1, "image_id": 1}
    assert coco["annotations"][0] == first
    assert [a["category_id"] for a in coco["annotations"]] == [2, 1]
