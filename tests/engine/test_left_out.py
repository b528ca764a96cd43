"""The splits of a run in its log, and samples that are left out in its record and in ``skipped.json``."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.reading import write_image
from omegaconf import OmegaConf

from d2timm import ConfigError
from d2timm.data import Mapper, catalog
from d2timm.data.loader import build_test_loader
from d2timm.engine import left_out
from d2timm.engine.left_out import add_bad_samples, describe_split, has_validation, list_left_out
from d2timm.runs.record import Record

RECIPE = "faster_rcnn_timm.py"
ALONE = ["data.val_json=null", "data.val_images=null"]


@pytest.fixture
def damaged(small_coco: Any, tmp_path: Path) -> list[str]:
    """Overrides that select a training file in which two images and an object cannot be used."""
    coco = json.loads(small_coco.train_json.read_text())
    for image in coco["images"][:2]:
        image["file_name"] = f"missing{image['id']}.png"
    coco["annotations"][-1]["bbox"] = [0, 0, 0, 0]
    del coco["annotations"][-1]["segmentation"]
    coco["annotations"][-2]["segmentation"] = [[1, 2]]
    file = tmp_path / "damaged.json"
    file.write_text(json.dumps(coco))
    return [f"data.train_json={file}"]


@pytest.fixture
def record() -> Record:
    """The record of a new run."""
    return Record()


def listed(folder: Path) -> Any:
    return json.loads((folder / left_out.FILE).read_text())


def test_splits_are_described(tiny: Callable[..., Any], damaged: list[str], tmp_path: Path) -> None:
    cfg = tiny(RECIPE, tmp_path, *damaged)
    first, *lines = describe_split(cfg, "train")
    assert first == "custom train: 4 images, 12 objects, 4 classes"
    assert lines[0] == "  images that do not exist (left out): 2, missing100.png; missing101.png"
    assert all(line.startswith("  ") and "\n" not in line for line in lines)
    assert not any("masks that cover no pixel" in line for line in lines), "the detector has no masks"
    masks = tiny("mask_rcnn_timm.py", tmp_path, *damaged)
    assert any("masks that cover no pixel" in line for line in describe_split(masks, "train"))
    assert describe_split(cfg, "val")[0] == catalog.check_split(cfg.data, "val", ["bbox"])


def test_objects_beyond_the_limits_of_the_detector(tiny: Callable[..., Any], tmp_path: Path) -> None:
    assert not any("detections" in line for line in describe_split(tiny(RECIPE, tmp_path), "train"))
    cfg = tiny(RECIPE, tmp_path, "data.settings.custom.detections_per_image=4")
    (line,) = [line for line in describe_split(cfg, "train") if "more objects than detections" in line]
    assert re.search(r"\b\d\.png: 5 objects", line)


def test_note_on_how_a_split_was_made(tiny: Callable[..., Any], tmp_path: Path) -> None:
    cfg = tiny(RECIPE, tmp_path, *ALONE, "data.val_share=0.34")
    assert describe_split(cfg, "val")[0].endswith("4 classes (34% of the images, held out by data.val_share)")


def test_split_that_cannot_be_used(tiny: Callable[..., Any], damaged: list[str], tmp_path: Path) -> None:
    cfg = tiny(RECIPE, tmp_path, *damaged, "data.on_error=stop")
    with pytest.raises(ConfigError, match=r"missing100\.png; missing101\.png; .*data\.on_error=skip"):
        describe_split(cfg, "train")


@pytest.mark.parametrize(
    ("overrides", "expected"), [([], True), (ALONE, False), ([*ALONE, "data.val_share=0.5"], True)]
)
def test_validation_set(
    tiny: Callable[..., Any], tmp_path: Path, overrides: list[str], expected: bool
) -> None:
    assert has_validation(tiny(RECIPE, tmp_path, *overrides)) is expected
    assert has_validation(OmegaConf.create({"model": {}}))


def test_samples_that_are_left_out(
    tiny: Callable[..., Any],
    damaged: list[str],
    tmp_path: Path,
    record: Record,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        list_left_out(tiny(RECIPE, tmp_path, *damaged), tmp_path, record)
    assert record.skipped == {"train": {"missing_image": 2, "empty_box": 1}}
    entries = listed(tmp_path)
    assert list(entries) == ["train"]
    assert entries["train"]["missing_image"]["samples"] == ["missing100.png", "missing101.png"]
    assert entries["train"]["empty_box"]["samples"][0].endswith("of 5.png: bbox is [0, 0, 0, 0]")
    messages = [message.getMessage() for message in caplog.records]
    assert any(message.startswith("custom train: 4 images") for message in messages)
    assert any(message.startswith("custom val: 3 images") for message in messages)
    assert not any(message.startswith(left_out.NO_VALIDATION) for message in messages)


def test_masks_count_for_detectors_with_masks(
    tiny: Callable[..., Any], damaged: list[str], tmp_path: Path, record: Record
) -> None:
    list_left_out(tiny("mask_rcnn_timm.py", tmp_path, *damaged), tmp_path, record)
    assert record.skipped == {"train": {"missing_image": 2, "empty_box": 1, "degenerate_polygon": 1}}


def test_nothing_is_left_out(tiny: Callable[..., Any], tmp_path: Path, record: Record) -> None:
    list_left_out(tiny(RECIPE, tmp_path), tmp_path, record)
    assert record.skipped == {}
    assert not (tmp_path / left_out.FILE).exists()
    list_left_out(OmegaConf.create({"model": {}}), tmp_path, record)
    assert record.skipped == {}


def test_run_without_a_validation_set_says_so(
    tiny: Callable[..., Any], tmp_path: Path, record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    list_left_out(tiny(RECIPE, tmp_path, *ALONE), tmp_path, record)
    (warning,) = [message.getMessage() for message in caplog.records if message.levelno == logging.WARNING]
    assert warning == f"{left_out.NO_VALIDATION}."
    assert "data.val_share=0.2" in warning


def test_images_that_break_during_the_run(
    tiny: Callable[..., Any], damaged: list[str], tmp_path: Path, record: Record
) -> None:
    list_left_out(tiny(RECIPE, tmp_path, *damaged), tmp_path, record)
    files = [write_image(tmp_path / f"{name}.png") for name in "ab"]
    files[1].write_text("text")
    entries = [{"file_name": str(file), "width": 40, "height": 20} for file in files]
    for split in ("train", "val", "val"):
        loader = build_test_loader(entries, Mapper(False, ["bbox"], [], "RGB"), on_error="skip")
        assert len([*loader]) == 1
        add_bad_samples(record, tmp_path, split, loader)
    assert record.skipped == {
        "train": {"missing_image": 2, "empty_box": 1, "broken_image": 1},
        "val": {"broken_image": 1},
    }
    assert listed(tmp_path)["val"]["broken_image"]["samples"][0].startswith(f"{files[1]}: cannot be read")
    assert set(listed(tmp_path)["train"]) == {"missing_image", "empty_box", "broken_image"}


@pytest.mark.parametrize("content", ["", "[" * 10**5, "[1]", '{"train": 3}', "\xff"])
def test_damaged_list_is_written_anew(
    content: str, tmp_path: Path, record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / left_out.FILE).write_text(content)
    (tmp_path / "a.png").write_text("text")
    entries = [{"file_name": str(tmp_path / "a.png"), "width": 40, "height": 20}]
    loader = build_test_loader(entries, Mapper(False, ["bbox"], [], "RGB"), on_error="skip")
    assert not [*loader]
    add_bad_samples(record, tmp_path, "val", loader)
    assert listed(tmp_path)["val"]["broken_image"]["samples"]
    assert "written anew" in caplog.text


def test_loader_without_bad_samples_changes_nothing(tmp_path: Path, record: Record) -> None:
    add_bad_samples(record, tmp_path, "val", [])
    assert (record.skipped, (tmp_path / left_out.FILE).exists()) == ({}, False)
