"""The check of a dataset before training: what a run would find, and a look across its splits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.coco_edits import Edit

from d2timm import ConfigError
from d2timm.data import catalog
from d2timm.engine.data_check import DataCheck

RECIPE = "faster_rcnn_timm.py"
Check = Callable[..., DataCheck]


@pytest.fixture
def check(small_coco: Any, tiny: Callable[..., Any], tmp_path: Path) -> Check:
    """``check(edit, *overrides)``: the check of a copy of the small dataset with an edited training file."""
    root = tmp_path / "set"
    for split in ("train", "val"):
        shutil.copytree(getattr(small_coco, f"{split}_images"), root / split)

    def apply(
        edit: Edit = lambda coco: None, *overrides: str, recipe: str = RECIPE, **options: Any
    ) -> DataCheck:
        coco = json.loads(small_coco.train_json.read_text())
        edit(coco)
        (root / "train.json").write_text(json.dumps(coco))
        files = [f"data.train_json={root / 'train.json'}", f"data.train_images={root / 'train'}"]
        catalog.forget()
        cfg = tiny(recipe, tmp_path, *files, f"data.val_images={root / 'val'}", *overrides)
        return DataCheck(cfg, **options)

    return apply


def test_dataset_without_faults(check: Check) -> None:
    checked = check()
    assert checked.stops == []
    assert set(checked.content["splits"]) == {"train", "val"}
    train = checked.content["splits"]["train"]
    assert {key: value for key, value in train.items() if key not in ("classes", "findings")} == {
        "images": 6,
        "images with objects": 6,
        "objects": 18,
        "objects with masks": 18,
        "objects with keypoints": 0,
        "most objects in an image": 5,
    }
    assert sum(train["classes"].values()) == 18
    assert list(train["classes"]) == ["triangle", "star", "circle", "square"]
    assert json.loads(json.dumps(checked.content)) == checked.content


def test_table(check: Check) -> None:
    text = str(check())
    assert text.splitlines()[0].startswith("train: data.train_json=")
    assert text.splitlines()[-1] == "Nothing would stop training."
    assert "Training would stop" not in text
    assert "classes with fewer than 10 objects" in text


def test_samples_that_cannot_be_used(check: Check) -> None:
    def damage(coco: Any) -> None:
        coco["images"][0]["file_name"] = "missing.png"
        coco["annotations"][-1]["iscrowd"] = "x"

    checked = check(damage)
    assert checked.stops == []
    findings = checked.content["splits"]["train"]["findings"]
    assert findings["missing_image"]["samples"] == ["missing.png"]
    assert findings["missing_image"]["severity"] == "skipped"
    assert findings["invalid_annotation"]["count"] == 1
    assert "missing.png" in str(checked)
    stopped = check(damage, "data.on_error=stop")
    assert len(stopped.stops) == 1
    assert "missing.png" in stopped.stops[0]
    assert str(stopped).splitlines()[-1] == f"error: {stopped.stops[0]}"


def test_dataset_that_cannot_be_used(check: Check) -> None:
    checked = check(lambda coco: coco.update(annotations=[]))
    assert "no usable objects" in checked.stops[0]
    assert "Training would stop" in str(checked)
    masks = check(
        lambda coco: [a.pop("segmentation") for a in coco["annotations"]], recipe="mask_rcnn_timm.py"
    )
    assert "no usable segmentation" in masks.stops[0]


def test_crowded_images(check: Check) -> None:
    checked = check(lambda coco: None, "data.settings.custom.detections_per_image=4")
    samples = checked.content["splits"]["train"]["findings"]["crowded_image"]["samples"]
    assert [sample.partition(": ")[2] for sample in samples] == ["5 objects"] * len(samples)
    assert "crowded_image" not in check().content["splits"]["train"]["findings"]


def test_objects_that_are_small_beside_the_anchors(check: Check) -> None:
    def shrink(coco: Any) -> None:
        for annotation in coco["annotations"]:
            annotation["bbox"] = [0, 0, 15.5, 15.5]
        coco["annotations"][0]["bbox"] = [10, 10, 4, 4]

    # images of 64 to 96 pixels are resized to at most 64, and the smallest anchor has 32
    samples = check(shrink).content["splits"]["train"]["findings"]["tiny_object"]["samples"]
    assert samples[0] == "4 pixels in train/0.png"
    assert set(samples[1:]) == {f"16 pixels in train/{i}.png" for i in range(6)}

    def grow(coco: Any) -> None:
        for annotation in coco["annotations"]:
            annotation["bbox"] = [0, 0, 30, 30]

    assert "tiny_object" not in check(grow).content["splits"]["train"]["findings"]


def test_files_without_annotations(check: Check, tmp_path: Path) -> None:
    shutil.copy(tmp_path / "set" / "train" / "0.png", tmp_path / "set" / "train" / "new.png")
    findings = check().content["splits"]["train"]["findings"]
    assert findings["unlabelled_file"]["samples"] == ["train/new.png"]


def test_broken_images_are_not_unlabelled(check: Check, tmp_path: Path) -> None:
    (tmp_path / "set" / "train" / "0.png").write_text("text")
    findings = check().content["splits"]["train"]["findings"]
    assert findings["unreadable_image"]["count"] == 1
    assert "unlabelled_file" not in findings


def test_equal_images_in_both_splits(check: Check, tmp_path: Path) -> None:
    shutil.copy(tmp_path / "set" / "train" / "3.png", tmp_path / "set" / "val" / "1.png")  # both 64x64
    findings = check().content["splits"]["val"]["findings"]
    assert "val/1.png and train/3.png" in findings["near_duplicate"]["samples"]
    assert "near_duplicate" not in check(duplicates=False).content["splits"]["val"]["findings"]


def test_training_set_alone(check: Check) -> None:
    checked = check(lambda coco: None, "data.val_json=null", "data.val_images=null")
    assert set(checked.content["splits"]) == {"train"}
    assert checked.stops == []
    held_out = check(lambda coco: None, "data.val_json=null", "data.val_images=null", "data.val_share=0.34")
    assert [split["images"] for split in held_out.content["splits"].values()] == [4, 2]
    assert "held out by data.val_share" in str(held_out)


def test_file_that_cannot_be_read(check: Check, tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    file.write_text("{")
    with pytest.raises(ConfigError, match=r"bad\.json is not JSON"):
        check(lambda coco: None, f"data.val_json={file}")


def test_published_dataset_without_coco_files(tiny: Callable[..., Any], tmp_path: Path) -> None:
    paths = [f"data.{key}=null" for key in catalog.PATHS]
    cfg = tiny(RECIPE, tmp_path, *paths, "data.name=shapes")
    with pytest.raises(ConfigError, match=r"data\.name=shapes: only a user's own data and COCO's"):
        DataCheck(cfg)
