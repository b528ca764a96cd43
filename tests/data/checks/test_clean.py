"""The clean COCO file of a split: its content, its cache, and the classes of several splits."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.reading import write_image

from d2timm import ConfigError
from d2timm.data.checks import clean as module
from d2timm.data.checks.clean import clean, divide
from d2timm.data.checks.clean_split import CleanSplit
from d2timm.data.checks.partition import Part
from d2timm.data.formats.base import Source

Coco = dict[str, Any]

LARGE = 10**6
SIZE = {"width": 40, "height": 20}
READ: list[str] = []  # names of files that were read


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("D2TIMM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def content(images: int = 2, classes: str = "ab", **keypoints: list[str]) -> Coco:
    """Images ``1.png``, … with an object of each class; class ids are 10, 20, …"""
    ids = range(1, images + 1)
    return {
        "images": [{"id": i, "file_name": f"{i}.png", **SIZE} for i in ids],
        "annotations": [
            {"id": 10 * i + c, "image_id": i, "category_id": 10 * c, "bbox": [c, 2, 5, 5]}
            for i in ids
            for c in range(1, len(classes) + 1)
        ],
        "categories": [{"id": 10 * i, "name": name, **keypoints} for i, name in enumerate(classes, start=1)],
    }


@pytest.fixture
def source(tmp_path: Path) -> Callable[..., Source]:
    """``source(coco)``: annotations of the images in a folder; each reading of them is counted."""
    for number in range(1, 5):
        write_image(tmp_path / "images" / f"{number}.png")

    def make(coco: Coco | None = None, name: str = "a.json", **more: Any) -> Source:
        file = tmp_path / name
        if coco is not None:
            file.write_text(json.dumps(coco))

        def read(reading: Any) -> Coco:
            READ.append(name)
            result: Coco = json.loads(file.read_text())
            return result

        return Source(f"data.train_json={name}", (file,), read, tmp_path / "images", **more)

    READ.clear()
    return make


def test_content_of_the_file(source: Callable[..., Source], tmp_path: Path) -> None:
    split = clean(source(content(1)), LARGE)
    image = str(tmp_path / "images" / "1.png")
    assert split.coco["images"] == [{"id": 1, "file_name": image, **SIZE}]
    assert split.coco["categories"] == content()["categories"]
    first = {"id": 1, "image_id": 1, "category_id": 10, "bbox": [1, 2, 5, 5], "area": 25, "iscrowd": 0}
    assert split.coco["annotations"][0] == first
    assert [a["id"] for a in split.coco["annotations"]] == [1, 2]
    assert (split.about["folder"], split.about["files"]) == (str(tmp_path / "images"), [image])
    assert set(split.findings.counts) == {"rare_category"}
    assert (split.label, split.note) == ("data.train_json=a.json", "")


def test_findings_do_not_change_the_file(source: Callable[..., Source]) -> None:
    split = clean(source(content(1)), LARGE)
    split.findings.add("missing_image", "x")
    assert "missing_image" not in split.findings.counts


def test_ids_that_are_numbered_anew_are_kept(source: Callable[..., Source]) -> None:
    coco = content(1)
    coco["images"][0]["id"] = coco["annotations"][0]["image_id"] = coco["annotations"][1]["image_id"] = "x"
    (image,) = clean(source(coco), LARGE).coco["images"]
    assert (image["id"], image["original_id"]) == (1, "x")


# The cache


def test_unchanged_files_are_read_once(source: Callable[..., Source]) -> None:
    first = clean(source(content()), LARGE)
    assert clean(source(), LARGE) == first
    assert READ == ["a.json"]


@pytest.mark.parametrize(
    "settings",
    [{"max_pixels": LARGE + 1}, {"more": {"settings": ("x",)}}, {"categories": content()["categories"]}],
)
def test_settings_make_another_file(source: Callable[..., Source], settings: dict[str, Any]) -> None:
    first = clean(source(content()), LARGE)
    other = source(**settings.pop("more", {}))
    assert clean(other, **{"max_pixels": LARGE, **settings}).file != first.file
    assert len(READ) == 2


def test_changed_annotations_are_read_again(source: Callable[..., Source], tmp_path: Path) -> None:
    files = {clean(source(content()), LARGE).file}
    time = (tmp_path / "a.json").stat().st_mtime_ns
    os.utime(tmp_path / "a.json", ns=(time, time + 1))
    files.add(clean(source(), LARGE).file)
    (tmp_path / "a.json").write_text(json.dumps(content(1)))
    os.utime(tmp_path / "a.json", ns=(time, time))
    files.add(clean(source(), LARGE).file)
    assert len(files) == 3


def test_version_and_plugins_make_another_file(
    source: Callable[..., Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {clean(source(content()), LARGE).file}
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    files.add(clean(source(), LARGE).file)
    monkeypatch.setattr(module, "pillow_state", lambda: "another")
    files.add(clean(source(), LARGE).file)
    assert len(files) == 3


@pytest.mark.parametrize("state", ["missing", "text", "other size"])
def test_image_that_is_repaired_is_used(source: Callable[..., Source], tmp_path: Path, state: str) -> None:
    file = tmp_path / "images" / "1.png"
    if state == "other size":
        write_image(file, (9, 9))
    elif state == "text":
        file.write_text("text")
    else:
        file.unlink()
    first = clean(source(content(3)), LARGE)
    assert len(first.coco["images"]) == 2
    assert str(file) in first.about["files"]
    write_image(file)
    assert len(clean(source(), LARGE).coco["images"]) == 3


def test_missing_image_that_comes_to_another_place_is_used(
    source: Callable[..., Source], tmp_path: Path
) -> None:
    file = tmp_path / "images" / "1.png"
    file.unlink()
    assert len(clean(source(content(3)), LARGE).coco["images"]) == 2
    write_image(tmp_path / "images" / "deep" / "1.png")
    split = clean(source(), LARGE)
    assert len(split.coco["images"]) == 3
    assert split.findings.samples["moved_image"] == [f"1.png: {tmp_path / 'images' / 'deep' / '1.png'}"]


def test_image_that_breaks_is_left_out(source: Callable[..., Source], tmp_path: Path) -> None:
    clean(source(content(3)), LARGE)
    (tmp_path / "images" / "1.png").write_text("text")
    split = clean(source(), LARGE)
    assert len(split.coco["images"]) == 2
    assert split.findings.counts["unreadable_image"] == 1


@pytest.mark.parametrize("damaged", ["", "{", "{}", "[]", '{"findings": {}, "files": 5, "state": ""}'])
def test_damaged_file_is_replaced(source: Callable[..., Source], damaged: str) -> None:
    split = clean(source(content()), LARGE)
    split.file.write_text(damaged)
    assert len(clean(source(), LARGE).coco["images"]) == 2


def test_error_leaves_no_file(source: Callable[..., Source], cache: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.train_json=a\.json is not in COCO format"):
        clean(source({"images": []}), LARGE)
    assert not cache.exists()


def test_cache_that_cannot_be_written(
    source: Callable[..., Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("D2TIMM_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ConfigError, match=r"cannot be written \(Not a directory\): set D2TIMM_CACHE"):
        clean(source(content()), LARGE)


# Whether a split can be used


def test_rest_of_a_split_is_judged(source: Callable[..., Source]) -> None:
    def findings(coco: Coco) -> dict[str, list[str]]:
        return clean(source(coco), LARGE).findings.samples

    assert findings({**content(), "annotations": []})["no_objects"] == ["0 are listed"]
    crowds = content(1)
    for annotation in crowds["annotations"]:
        annotation["iscrowd"] = 1
    assert findings(crowds)["no_objects"] == ["2 are listed, of which 2 are crowds"]
    missing = content(3)
    for image in missing["images"][:2]:
        image["file_name"] = "missing.png"
    assert findings(missing)["mostly_bad_images"] == ["2 of 3"]
    shared = content(4)
    for image in shared["images"]:
        image["id"] = 1
    assert findings(shared)["no_images"] == ["4 are listed"]
    empty = content(2)
    empty["annotations"] = empty["annotations"][2:]
    assert len(findings(empty)["empty_image"]) == 1


def test_classes_with_few_objects(source: Callable[..., Source]) -> None:
    coco = content(1)
    coco["annotations"] = [{**coco["annotations"][0], "id": i} for i in range(9)]
    samples = clean(source(coco), LARGE).findings.samples
    assert (samples["rare_category"], samples["unused_category"]) == (["a: 9"], ["b"])
    coco["annotations"].append(coco["annotations"][0])
    assert "rare_category" not in clean(source(coco), LARGE).findings.samples
    trained = content()["categories"]
    assert "rare_category" not in clean(source(content()), LARGE, trained).findings.samples


# The classes of training


def trained(source: Callable[..., Source], *names: str, **more: Any) -> tuple[list[str], CleanSplit]:
    """The class of each object of a split, if the training split has classes of these names."""
    categories = [{"id": i, "name": name, **more} for i, name in enumerate(names, start=1)]
    split = clean(source(content(1, "abc")), LARGE, categories)
    assert split.coco["categories"] == categories
    return [names[a["category_id"] - 1] for a in split.coco["annotations"]], split


def test_classes_are_matched_by_name(source: Callable[..., Source]) -> None:
    assert trained(source, "c", "b", "a")[0] == ["a", "b", "c"]
    assert trained(source, "a", "b", "c", "d")[0] == ["a", "b", "c"]


def test_objects_of_other_classes_are_left_out(source: Callable[..., Source]) -> None:
    names, split = trained(source, "c", "d", "a")
    assert names == ["a", "c"]
    assert split.findings.samples["untrained_class"] == ["b in 1.png"]


def test_no_class_in_common(source: Callable[..., Source]) -> None:
    names, split = trained(source, "x")
    assert names == []
    assert split.findings.samples["other_classes"] == ["a, b, c; in training x"]


@pytest.mark.parametrize(
    ("own", "names", "matched"),
    [
        (["a", "a"], ["a (id 10)", "a (id 20)"], ["a (id 10)", "a (id 20)"]),
        (["a", "a"], ["a"], ["a", "a"]),
        (["b", "a"], ["a (id 10)", "a (id 20)", "b"], ["b", "a (id 20)"]),
    ],
)
def test_names_that_classes_share(
    source: Callable[..., Source], own: list[str], names: list[str], matched: list[str]
) -> None:
    coco = content(1)
    for category, name in zip(coco["categories"], own, strict=True):
        category["name"] = name
    categories = [{"id": i, "name": name} for i, name in enumerate(names)]
    split = clean(source(coco), LARGE, categories)
    assert [names[a["category_id"]] for a in split.coco["annotations"]] == matched


@pytest.mark.parametrize(
    ("own", "other"), [(None, False), (["x", "y"], False), (["y", "x"], True), (["x"], True), ([], False)]
)
def test_keypoints_of_training(source: Callable[..., Source], own: list[str] | None, other: bool) -> None:
    coco = content(1, "a", **({} if own is None else {"keypoints": own}))
    coco["annotations"][0]["keypoints"] = [2, 3, 2, 4, 5, 2]
    categories = [{"id": 1, "name": "a", "keypoints": ["x", "y"]}]
    split = clean(source(coco), LARGE, categories)
    (annotation,) = split.coco["annotations"]
    assert (annotation["keypoints"], annotation["num_keypoints"]) == ([2, 3, 2, 4, 5, 2], 2)
    assert ("other_keypoints" in split.findings.counts) == other


def test_file_that_a_run_reads_does_not_change(source: Callable[..., Source], tmp_path: Path) -> None:
    first = clean(source(content()), LARGE)
    before = first.file.read_bytes()
    (tmp_path / "images" / "1.png").write_bytes(b"broken")
    second = clean(source(), LARGE)
    assert (len(first.coco["images"]), len(second.coco["images"])) == (2, 1)
    assert first.file.read_bytes() == before
    assert clean(source(), LARGE) == second
    assert len(READ) == 2


# Parts


def test_parts_of_a_split(source: Callable[..., Source], cache: Path) -> None:
    whole = clean(source(content(4), note="found"), LARGE)
    left, held_out = (divide(whole, Part(0.25, 0, held)) for held in (False, True))
    assert [len(part.coco["images"]) for part in (left, held_out)] == [3, 1]
    assert left.findings == whole.findings
    assert held_out.findings.counts == {}
    assert left.about["files"] == held_out.about["files"] == whole.about["files"]
    assert (left.note, held_out.note) == ("found", "25% of the images, held out by data.val_share")
    assert divide(whole, Part(0.25, 0, True)) == held_out
    assert len({divide(whole, Part(0.25, seed, True)).file for seed in (0, 1, 2)}) == 3
    assert [len([*cache.glob(name)]) for name in ("coco-*.json", "part-*.json")] == [1, 6]


def test_part_is_made_again_with_its_split(source: Callable[..., Source], tmp_path: Path) -> None:
    files = set()
    for size in ((40, 20), (30, 20)):
        write_image(tmp_path / "images" / "1.png", size)
        whole = clean(source(content(4)), LARGE)
        files |= {divide(clean(source(), LARGE), Part(0.5, 0, held)).file for held in (False, True)}
    assert whole.findings.counts["other_size"] == 1
    assert len(files) == 4
