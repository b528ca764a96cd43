"""A user's own dataset: the splits that keys of the ``data`` node name, find or make."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.data_nodes import data_node
from helpers.reading import write_image

from d2timm import ConfigError
from d2timm.data import own
from d2timm.data.catalog import get_dataset
from d2timm.data.datasets.coco import CocoDataset, CocoKeypointsDataset, CustomDataset
from d2timm.data.datasets.shapes_dataset import ShapesDataset

Data = dict[str, Any]


#: Keys of a node ``data`` that selects a user's own files
SELECTED = {"name": "custom", "settings": {"custom": None}}


def dataset(data: Data, name: str = "custom") -> CustomDataset:
    return own.own_dataset(data, name)


def images_of(data: Data, split: str) -> list[str]:
    return sorted(Path(image["file_name"]).name for image in dataset(data).split(split).coco["images"])


def test_named_files(data: Data) -> None:
    custom = dataset(data)
    assert custom.splits() == ("train", "val")
    assert (len(images_of(data, "train")), len(images_of(data, "val"))) == (6, 3)
    assert custom.split("val").label == f"data.val_json={data['val_json']}"
    assert custom.note("val") == ""
    assert custom.annotated_tasks == ("bbox", "segm", "keypoints")


@pytest.mark.parametrize(("missing", "left"), [("val", "train"), ("train", "val")])
def test_single_split(data: Data, missing: str, left: str) -> None:
    data |= {f"{missing}_json": None, f"{missing}_images": None}
    custom = dataset(data)
    assert custom.splits() == (left,)
    assert len(custom.classes()) == 4
    with pytest.raises(
        ConfigError, match=rf"^data\.name=custom has no {missing} split: set data\.{missing}_json"
    ):
        custom.split(missing)


def test_no_files() -> None:
    custom = dataset(data_node())
    assert custom.splits() == ()
    for use in (custom.classes, lambda: own.checkable(custom)):
        with pytest.raises(ConfigError, match=r"^data\.name=custom has no train split: set data\.train_json"):
            use()


@pytest.mark.parametrize("key", ["train_json", "train_images", "val_json", "val_images"])
def test_half_of_the_keys(data: Data, key: str) -> None:
    custom = dataset({**data, key: None})
    for use in (lambda: custom.split(key.partition("_")[0]), lambda: own.checkable(custom)):
        with pytest.raises(ConfigError, match=rf"^data\.{key} must be set"):
            use()


@pytest.mark.parametrize("missing", ["train_json", "train_images"])
def test_validation_without_the_training_files(data: Data, missing: str) -> None:
    """A detector can be evaluated where it has not been trained."""
    custom = dataset({**data, missing: "missing"})
    assert custom.splits() == ("val",)
    assert len(custom.classes()) == 4
    for use in (lambda: custom.split("train"), lambda: own.checkable(custom)):
        with pytest.raises(ConfigError, match=rf"^data\.{missing}=missing: no such"):
            use()


@pytest.mark.parametrize("missing", ["val_json", "val_images"])
def test_missing_validation_files(data: Data, missing: str) -> None:
    with pytest.raises(ConfigError, match=rf"^data\.{missing}=missing: no such"):
        dataset({**data, missing: "missing"}).splits()


@pytest.mark.parametrize("form", [str, Path, lambda path: [str(path)], lambda path: (path,)])
def test_forms_of_paths(data: Data, form: Callable[[str], Any]) -> None:
    node = {**data, **{key: form(data[key]) for key in own.PATHS}}
    assert len(images_of(node, "train")) == 6


def test_names_that_are_numbers(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "2024").symlink_to(data["train_images"])
    (tmp_path / "1.5").symlink_to(data["train_json"])
    monkeypatch.chdir(tmp_path)
    assert len(images_of({**data, "train_images": 2024, "train_json": 1.5}, "train")) == 6


def test_home_folder(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path(data["train_images"]).parent))
    assert len(images_of({**data, "train_images": "~/train"}, "train")) == 6


# A share that is held out


@pytest.fixture
def alone(data: Data) -> Data:
    """A training set without a validation set."""
    return {**data, "val_json": None, "val_images": None}


def test_held_out_share(alone: Data) -> None:
    node = {**alone, "val_share": 0.34}
    assert dataset(node).splits() == ("train", "val")
    train, val = (images_of(node, split) for split in ("train", "val"))
    assert (len(train), len(val)) == (4, 2)
    assert sorted([*train, *val]) == images_of(alone, "train")
    assert dataset(node).note("val") == "34% of the images, held out by data.val_share"
    assert dataset(node).note("train") == ""


def test_seed_of_the_share(alone: Data) -> None:
    chosen = {tuple(images_of({**alone, "val_share": 0.34, "val_seed": seed}, "val")) for seed in range(6)}
    assert len(chosen) > 2
    assert images_of({**alone, "val_share": 0.34}, "val") in map(list, chosen)


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, "0.2", True, math.nan])
def test_share_out_of_range(alone: Data, share: Any) -> None:
    with pytest.raises(
        ConfigError, match=rf"^data\.val_share={share}: must be a number > 0 and < 1, or null$"
    ):
        get_dataset({**SELECTED, **alone, "val_share": share})


@pytest.mark.parametrize("keys", [{}, {"train_json": None, "train_images": None}])
def test_share_beside_a_validation_set(data: Data, keys: Data) -> None:
    with pytest.raises(
        ConfigError, match=r"^data\.val_share=0\.2: .* validation split already, data\.val_json="
    ):
        dataset({**data, **keys, "val_share": 0.2}).splits()


# Other keys


@pytest.mark.parametrize("value", ["ignore", "", None, True])
def test_unknown_policy(data: Data, value: Any) -> None:
    with pytest.raises(
        ConfigError, match=rf"^data\.on_error={value if value != '' else repr(value)}: must be skip or stop$"
    ):
        get_dataset({**SELECTED, **data, "on_error": value})


@pytest.mark.parametrize("value", [0, -5, "9", None, math.nan])
def test_number_of_pixels_that_is_none(data: Data, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^data\.max_pixels={value}: "):
        get_dataset({**SELECTED, **data, "max_pixels": value})


@pytest.mark.parametrize("number", [int, float])  # 1e6 is a float
def test_larger_images_are_left_out(data: Data, number: type) -> None:
    custom = dataset({**data, "max_pixels": number(64 * 64)})
    assert custom.findings("train").counts["too_large_image"] == 5
    assert len(images_of({**data, "max_pixels": 64 * 64}, "train")) == 1


# Folders of tools


@pytest.fixture
def yolo(tmp_path: Path) -> Data:
    """A YOLO dataset with one image in the training split only."""
    write_image(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.1 0.1")
    (tmp_path / "data.yaml").write_text("{names: [x, y], train: .}")
    return data_node(name="yolo", root=str(tmp_path))


def test_folder(yolo: Data) -> None:
    own.forget_own()
    custom = dataset(yolo, "yolo")
    assert (custom.name, custom.splits(), custom.classes()) == ("yolo", ("train",), ["x", "y"])
    assert own.name_of_root({**yolo, "name": "auto"}) == "yolo"


@pytest.mark.parametrize("name", ["yolo", "voc_folder", "coco_folder"])
def test_folder_without_root(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^data\.name={name} needs data\.root"):
        dataset(data_node(name=name), name).splits()


def test_files_are_looked_at_once_per_run(yolo: Data) -> None:
    assert dataset(yolo, "yolo").classes() == ["x", "y"]
    Path(yolo["root"], "data.yaml").write_text("{names: [x, y, z], train: .}")
    assert dataset(yolo, "yolo").classes() == ["x", "y"]
    own.forget_own()
    assert dataset(yolo, "yolo").classes() == ["x", "y", "z"]


# Published datasets


def test_published_dataset_can_be_checked(
    small_coco: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.loads(small_coco.train_json.read_text())
    content["images"][0]["file_name"] = "missing.png"
    for split in ("train", "val"):
        root = tmp_path / "coco"
        (root / f"{split}2017").parent.mkdir(exist_ok=True)
        (root / f"{split}2017").symlink_to(small_coco.train_images)
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    checked = own.checkable(CocoDataset())
    assert (checked.name, checked.splits()) == ("coco_2017", ("train", "val"))
    assert checked.findings("train").samples["missing_image"] == ["missing.png"]
    assert own.checkable(checked) is checked
    with pytest.raises(
        ConfigError, match=r"data\.name=coco_2017_keypoints: .*person_keypoints_val2017\.json"
    ):
        own.checkable(CocoKeypointsDataset()).splits()
    with pytest.raises(
        ConfigError, match=r"^data\.name=shapes: only a user's own data and COCO's can be checked$"
    ):
        own.checkable(ShapesDataset())
