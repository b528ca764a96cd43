"""Annotations from the cache are those that detectron2 reads, and a file is parsed once."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from detectron2.data.datasets import load_coco_json
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d2timm import ConfigError
from d2timm.data import array_cache, coco_columns
from d2timm.data.coco_columns import open_columns
from d2timm.data.entries import ColumnEntries

Coco = dict[str, Any]

TRIANGLE = [1, 2, 11.25, 2.5, 6, 7.01]
RUNS = {"size": [20, 40], "counts": [100, 600, 100]}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("D2TIMM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """``write(annotation, …)``: a COCO file with these annotations, whose ids are given."""

    def make(*annotations: Coco, **content: Any) -> Path:
        file = tmp_path / "a.json"
        coco = {
            "images": [
                {"id": i, "file_name": f"{i}.jpg", "height": 20 + i, "width": 40, "license": 1}
                for i in (7, 3, 5)
            ],
            "categories": [{"id": 9, "name": "b", "extra": [1]}, {"id": 4, "name": "a"}],
            "annotations": [{"id": 100 - number, **a} for number, a in enumerate(annotations)],
        }
        file.write_text(json.dumps({**coco, **content}))
        return file

    return make


def thing(image_id: int = 3, category_id: int = 4, **more: Any) -> Coco:
    return {"image_id": image_id, "category_id": category_id, "bbox": [1, 2.5, 10.25, 5], **more}


def expected(file: Path) -> list[Coco]:
    """What detectron2 reads."""
    MetadataCatalog.pop("expected", None)
    dicts: list[Coco] = load_coco_json(str(file), "/images", "expected")
    return dicts


def read(file: Path) -> ColumnEntries:
    return ColumnEntries(open_columns(file), "/images")


@pytest.mark.parametrize(
    "annotations",
    [
        [],
        [thing(5), thing(3, 9), thing(5, 9), thing(3)],
        [thing(iscrowd=1, area=3, segmentation=RUNS), thing(iscrowd=0)],
        [thing(segmentation={"size": [20, 40], "counts": "T3h0X2"}), thing(segmentation=RUNS)],
        [thing(segmentation=[TRIANGLE, [1, 2, 3, 4], [*TRIANGLE, 1], [*TRIANGLE, 0.1, 0.3]])],
        [thing(segmentation=[[1, 2, 3, 4]]), thing(), thing(segmentation=[])],
        [thing(keypoints=[1, 2, 2, 3.5, 4, 1, 0, 0, 0]), thing(), thing(keypoints=[])],
        [thing(bbox=[1e9, -1.005, 1 / 3, 1e-9], segmentation=[[-0.0, 1e300, 0.1 + 0.2, 2**31, 5, 6]])],
        [thing(ignore=0, iscrowd=False, track="ä", attributes={"a": [1]})],
        [thing(8), thing()],
    ],
    ids=str,
)
def test_content_is_that_of_detectron2(write: Callable[..., Path], annotations: list[Coco]) -> None:
    file = write(*annotations)
    for _ in ("parsed", "mapped"):
        assert list(read(file)) == expected(file)


def test_categories_are_in_the_order_of_their_ids(write: Callable[..., Path]) -> None:
    assert open_columns(write()).categories == [{"id": 4, "name": "a"}, {"id": 9, "name": "b", "extra": [1]}]


NUMBERS = st.one_of(
    st.integers(-(2**40), 2**40),
    st.floats(allow_nan=False, allow_infinity=False),
    st.decimals(-999, 999, places=2),
).map(lambda number: number if isinstance(number, int) else float(number))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.builds(
            lambda image, category, box, mask, points, crowd: thing(
                image, category, bbox=box, segmentation=mask, keypoints=points, iscrowd=crowd
            ),
            st.sampled_from([3, 5, 7]),
            st.sampled_from([4, 9]),
            st.lists(NUMBERS, min_size=4, max_size=4),
            st.lists(st.lists(NUMBERS, max_size=9), max_size=3),
            st.lists(st.tuples(NUMBERS, NUMBERS, st.integers(0, 2)), max_size=3).map(
                lambda points: [value for point in points for value in point]
            ),
            st.integers(0, 1),
        ),
        max_size=8,
    )
)
def test_any_numbers(write: Callable[..., Path], annotations: list[Coco]) -> None:
    file = write(*annotations)
    os.utime(file, ns=(hash(str(annotations)) % 10**9, hash(str(annotations)) % 10**9))
    assert list(read(file)) == expected(file)


@pytest.mark.parametrize("text", ['"caption": NaN', '"caption": "\\ud800"', '"caption": 1e999'])
def test_json_that_only_python_reads(write: Callable[..., Path], text: str) -> None:
    file = write(thing(segmentation=[TRIANGLE]))
    file.write_text(file.read_text()[:-1] + f", {text}}}")
    assert list(read(file)) == expected(file)


@pytest.mark.parametrize("name", ["\udcff.jpg", "ü.jpg"])
def test_any_file_name(write: Callable[..., Path], name: str) -> None:
    file = write(images=[{"id": 1, "file_name": name, "height": 2, "width": 3}])
    assert read(file)[0]["file_name"] == f"/images/{name}"


@pytest.mark.parametrize(
    "broken",
    [
        {"annotations": [thing(id=1), thing(id=1)]},
        {"annotations": [thing(id=1, category_id=5)]},
        {"annotations": [thing(id=1, ignore=1)]},
        {"annotations": [thing(id=1, bbox=[])]},
        {"annotations": [thing(id=1, bbox=["1", 2, 3, 4])]},
        {"annotations": [thing(id="x")]},
        {"annotations": None},
        {"images": [{"id": 1}]},
    ],
    ids=str,
)
def test_file_that_is_not_of_the_format(write: Callable[..., Path], cache: Path, broken: Coco) -> None:
    with pytest.raises((ValueError, LookupError)):
        open_columns(write(**broken))
    assert not list(cache.glob("*"))


def test_columns(write: Callable[..., Path]) -> None:
    points = [1, 2, 2, 3, 4, 0]
    columns = open_columns(
        write(
            thing(5, 9, segmentation=[TRIANGLE], keypoints=points),
            thing(7, iscrowd=1, segmentation=RUNS),
            thing(5),
        )
    )
    assert columns.image_ids.tolist() == [3, 5, 7]
    assert (columns.heights.tolist(), columns.widths.tolist()) == ([23, 25, 27], [40, 40, 40])
    assert columns.images_of_objects.tolist() == [1, 1, 2]
    assert columns.classes.tolist() == [1, 0, 0]
    assert columns.crowds.tolist() == [False, False, True]
    assert columns.has_mask.tolist() == [True, False, True]
    assert columns.visible.tolist() == [1, 0, 0]
    assert columns.boxes.tolist() == [[1, 2.5, 10.25, 5]] * 3


# The cache


def count_readings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    readings: list[str] = []
    original = coco_columns._read
    monkeypatch.setattr(
        coco_columns, "_read", lambda file, lvis: (readings.append(file.name), original(file, lvis))[1]
    )
    return readings


def test_unchanged_file_is_parsed_once(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    readings = count_readings(monkeypatch)
    file = write(thing())
    first, second = read(file), read(file)
    assert list(first) == list(second)
    assert readings == ["a.json"]


def test_changed_file_is_parsed_again(write: Callable[..., Path]) -> None:
    first = read(write(thing()))
    second = read(write(thing(), thing()))
    assert (len(first[0]["annotations"]), len(second[0]["annotations"])) == (1, 2)


def test_damaged_cache_is_replaced(write: Callable[..., Path], cache: Path) -> None:
    file = write(thing(segmentation=[TRIANGLE]))
    intact = list(read(file))
    (cached,) = cache.glob("columns-*")
    for damaged in (b"", b"x" * 100, cached.read_bytes()[:-1]):
        cached.write_bytes(damaged)
        assert list(read(file)) == intact


def test_cache_that_cannot_be_written(write: Callable[..., Path], cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(ConfigError, match="D2TIMM_CACHE"):
        read(write())


def test_other_processes_map_the_file(write: Callable[..., Path]) -> None:
    entries = read(write(thing(segmentation=[TRIANGLE] * 50)))
    assert len(pickle.dumps(entries)) < 1000 + 8 * len(entries)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(list, (entries,)) == list(entries)


def test_cache_is_private_to_nobody(write: Callable[..., Path], cache: Path) -> None:
    read(write())
    (cached,) = cache.glob("columns-*")
    plain = cache / "plain"
    plain.touch()
    assert cached.stat().st_mode == plain.stat().st_mode


def test_lvis(write: Callable[..., Path]) -> None:
    images = [{"id": i, "coco_url": f"http://x/val2017/{i}.jpg", "height": 2, "width": 3} for i in (7, 3)]
    entries = ColumnEntries(open_columns(write(thing(3), images=images), lvis=True), "/coco")
    assert [entry["file_name"] for entry in entries] == ["/coco/val2017/7.jpg", "/coco/val2017/3.jpg"]
    assert "iscrowd" not in entries[1]["annotations"][0]


def test_time_of_the_key(write: Callable[..., Path]) -> None:
    """A file of the same size is read again as well."""
    file = write(thing(3))
    assert len(read(file)[0]["annotations"]) == 1
    state = array_cache.file_state(file)
    file.write_text(file.read_text().replace('"image_id": 3', '"image_id": 5'))
    os.utime(file, ns=(state[0] + 1, state[0] + 1))
    assert np.array_equal([len(entry["annotations"]) for entry in read(file)], [0, 1, 0])
