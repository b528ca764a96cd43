"""Images as a sequence: the same from lists and from columns, and what is selected and counted."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.data.build import filter_images_with_few_keypoints, filter_images_with_only_crowd_annotations
from detectron2.data.samplers import RepeatFactorTrainingSampler

from d2timm.data.coco_columns import open_columns
from d2timm.data.entries import ColumnEntries, Entries, ListEntries, as_entries
from d2timm.data.sampling import repeat_factors
from d2timm.data.selection import log_class_counts, with_annotations

IMAGES = 12


@pytest.fixture(params=["list", "columns"])
def entries(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Entries:
    """Images with 0 to 3 objects of 4 classes, some of them crowds or without keypoints."""
    monkeypatch.setenv("D2TIMM_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    annotations: list[dict[str, Any]] = [
        {
            "image_id": image,
            "category_id": int(rng.integers(1, 5)),
            "bbox": [1, 2, 3, 4],
            "iscrowd": int(rng.random() < 0.5),
            "keypoints": [1, 1, int(rng.integers(0, 2)), 0, 0, 0],
        }
        for image in range(IMAGES)
        for _ in range(rng.integers(0, 4))
    ]
    coco = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 20, "width": 15 + i} for i in range(IMAGES)],
        "annotations": [{"id": i, **a} for i, a in enumerate(annotations)],
        "categories": [{"id": i, "name": "abcd"[i - 1]} for i in range(1, 5)],
    }
    (tmp_path / "a.json").write_text(json.dumps(coco))
    columns = ColumnEntries(open_columns(tmp_path / "a.json"), "/images")
    return columns if request.param == "columns" else ListEntries(list(columns))


def test_sequence(entries: Entries) -> None:
    everything = list(entries)
    assert len(everything) == len(entries) == IMAGES
    assert entries[-1] == everything[-1]
    assert entries[np.int64(3)] == everything[3]
    assert list(entries[2:9:3]) == everything[2:9:3]
    assert list(entries.select(np.array([5, 1]))) == [everything[5], everything[1]]
    assert list(entries[::-1][1:3]) == everything[::-1][1:3]
    for place in (IMAGES, -IMAGES - 1):
        with pytest.raises(IndexError):
            entries[place]
    entries[0]["file_name"] = "changed"
    assert list(entries) == everything


def test_columns_are_those_of_the_dicts(entries: Entries) -> None:
    for selected in (entries, entries[3:], entries[::-2], entries[:0] if len(entries[:0]) else entries[:1]):
        objects = selected.objects()
        things = [(place, a) for place, entry in enumerate(selected) for a in entry["annotations"]]
        assert objects.images.tolist() == [place for place, _ in things]
        assert objects.classes.tolist() == [a["category_id"] for _, a in things]
        assert objects.crowds.tolist() == [a["iscrowd"] == 1 for _, a in things]
        assert objects.visible.tolist() == [sum(v > 0 for v in a["keypoints"][2::3]) for _, a in things]
        assert selected.widths.tolist() == [entry["width"] for entry in selected]
        assert selected.heights.tolist() == [entry["height"] for entry in selected]


def test_selection_is_that_of_detectron2(entries: Entries) -> None:
    usable = filter_images_with_only_crowd_annotations(list(entries))
    assert 0 < len(usable) < IMAGES
    assert list(with_annotations(entries)) == usable
    labelled = filter_images_with_few_keypoints(usable, 1)
    assert 0 < len(labelled) < len(usable)
    assert list(with_annotations(entries, keypoints=True)) == labelled


@pytest.mark.parametrize("threshold", [0.001, 0.3, 0.9])
def test_repeat_factors_are_those_of_detectron2(entries: Entries, threshold: float) -> None:
    expected = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(list(entries), threshold)
    assert repeat_factors(entries, threshold).equal(expected)


def test_counts_of_classes(entries: Entries, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log_class_counts(entries, ["a", "b", "c", "d"])
    count = sum(not a["iscrowd"] for entry in entries for a in entry["annotations"])
    assert not caplog.text or f"| {count} " in caplog.text  # the table is logged once in a process


def test_any_images() -> None:
    assert as_entries([{"file_name": "a"}])[0] == {"file_name": "a"}
    entries = as_entries(iter([{"height": 2, "width": 3}]))
    assert as_entries(entries) is entries
    assert not entries.has_objects
