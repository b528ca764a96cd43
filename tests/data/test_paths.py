"""The default dataset and the paths of published datasets, which follow the environment at each call."""

from __future__ import annotations

from pathlib import Path

import pytest

from d2timm.data.paths import COCO, SPLITS, coco_2017, default_dataset


def put_annotations(root: Path, *splits: str) -> None:
    folder = root / "coco" / "annotations"
    folder.mkdir(parents=True)
    for split in splits:
        (folder / f"instances_{split}2017.json").touch()


@pytest.mark.parametrize(
    ("splits", "name"),
    [((), "shapes"), (("train",), "shapes"), (("val",), "shapes"), (SPLITS, COCO)],
)
def test_coco_is_the_default_if_both_splits_exist(
    splits: tuple[str, ...], name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    assert default_dataset() == "shapes"
    put_annotations(tmp_path, *splits)
    assert default_dataset() == name


def test_datasets_are_in_the_working_directory_by_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DETECTRON2_DATASETS")
    monkeypatch.chdir(tmp_path)
    put_annotations(tmp_path / "datasets", *SPLITS)
    assert default_dataset() == COCO


def test_paths_follow_detectron2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DETECTRON2_DATASETS", "~/sets")
    split = coco_2017("val")
    assert split.json == Path("/home/me/sets/coco/annotations/instances_val2017.json")
    assert split.images == Path("/home/me/sets/coco/val2017")
