"""The dataset that a ``data`` node selects, and its content."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from helpers.data_nodes import data_node
from PIL import Image

from d2timm import ConfigError
from d2timm.data import catalog
from d2timm.data.datasets.shapes import CLASSES
from d2timm.data.paths import default_dataset

Data = dict[str, Any]

BOXES = ["bbox"]
MASKS = ["bbox", "segm"]


def shift_category_ids(coco: Data) -> None:
    for category in coco["categories"]:
        category["id"] += 1000
    for annotation in coco["annotations"]:
        annotation["category_id"] += 1000


@pytest.fixture
def coco_2017(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_coco: Any) -> Path:
    """A folder with the files of COCO 2017, without their content."""
    root = tmp_path / "coco"
    for split in ("train", "val"):
        (root / f"{split}2017").mkdir(parents=True)
        file = root / "annotations" / f"instances_{split}2017.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(small_coco.train_json.read_text())
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return root


# The name of the dataset


def test_shapes_is_the_default_without_coco() -> None:
    assert default_dataset() == "shapes"
    assert catalog.resolve_name(data_node()) == "shapes"
    assert catalog.class_names(data_node()) == list(CLASSES)


def test_coco_is_the_default_if_it_is_installed(coco_2017: Path) -> None:
    assert default_dataset() == "coco_2017"
    assert catalog.resolve_name(data_node()) == "coco_2017"
    assert catalog.num_classes(data_node()) == 80
    assert catalog.get_dataset(data_node()).files("val").images == coco_2017 / "val2017"
    assert catalog.check_split(data_node(), "train", MASKS).startswith("coco_2017 train: ")


def test_coco_is_not_the_default_if_a_split_is_missing(coco_2017: Path) -> None:
    (coco_2017 / "annotations" / "instances_train2017.json").unlink()
    assert default_dataset() == "shapes"


@pytest.mark.parametrize("name", ["shapes", "coco_2017", "custom"])
def test_named_dataset_is_never_replaced(name: str, coco_2017: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert catalog.resolve_name(data_node(name=name)) == name
    monkeypatch.setenv("DETECTRON2_DATASETS", str(coco_2017 / "nothing"))
    assert catalog.resolve_name(data_node(name=name)) == name


def test_custom_files_are_never_replaced(data: Data, coco_2017: Path) -> None:
    assert catalog.resolve_name(data) == "custom"
    assert catalog.resolve_name({**data, "name": "custom"}) == "custom"
    assert catalog.resolve_name(data_node(val_json="x.json")) == "custom"


@pytest.mark.parametrize(
    ("values", "facts"),
    [
        ({"name": "coco"}, "data.name='coco'.*coco_2017"),
        ({"name": "Shapes"}, "data.name='Shapes'.*shapes"),
        ({"name": "voc"}, "data.name='voc'.*auto, coco_2017, .*, shapes, voc_folder, yolo$"),
        ({"name": "shapes", "val_json": "x"}, "data.name='shapes'.*data.val_json.*leave one out"),
        ({"name": "coco_2017", "train_images": "x"}, "data.name='coco_2017'.*data.train_images"),
        ({"name": "yolo", "root": "x", "val_json": "y"}, "data.root.*data.val_json.*leave one out"),
        ({"root": "missing"}, "data.root=.*missing: no such file or folder"),
        (
            {"name": "shapes", "root": "x"},
            "data.root requires data.name=.*yolo or auto, not 'shapes'",
        ),
    ],
)
def test_invalid_selection(values: dict[str, str], facts: str) -> None:
    with pytest.raises(ConfigError, match=facts):
        catalog.resolve_name(data_node(**values))


# Custom files


def test_check_describes_the_small_dataset(data: Data) -> None:
    for split, images in {"train": 6, "val": 3}.items():
        summary = catalog.check_split(data, split, MASKS)
        assert summary.startswith(f"custom {split}: {images} images, ")
        assert summary.endswith(" objects, 4 classes")


def test_category_ids_with_gaps_become_contiguous_class_indices(data: Data) -> None:
    coco = json.loads(Path(data["train_json"]).read_text())
    ids = sorted(category["id"] for category in coco["categories"])
    assert ids != list(range(ids[0], ids[0] + 4)), "the test needs gaps"
    names = {category["id"]: category["name"] for category in coco["categories"]}
    in_file = {
        (image["file_name"], names[a["category_id"]], tuple(a["bbox"]))
        for image in coco["images"]
        for a in coco["annotations"]
        if a["image_id"] == image["id"]
    }

    classes = catalog.class_names(data)
    assert classes == [names[i] for i in ids]
    loaded = {
        (Path(entry["file_name"]).name, classes[a["category_id"]], tuple(a["bbox"]))
        for entry in catalog.dataset_dicts(data, "train")
        for a in entry["annotations"]
    }
    assert loaded == in_file
    metadata = MetadataCatalog.get(catalog.dataset_name(data, "train"))
    assert metadata.thing_classes == classes
    assert metadata.thing_dataset_id_to_contiguous_id == {i: n for n, i in enumerate(ids)}


def test_dataset_is_registered_once_and_other_files_under_another_name(
    data: Data, edited: Callable[..., Data]
) -> None:
    other = edited(lambda coco: coco["images"].pop())
    names = [catalog.dataset_name(d, "val") for d in (data, data, other)]
    assert names[0] == names[1] != names[2]
    assert set(names) <= set(DatasetCatalog)
    assert len(catalog.dataset_dicts(other, "val")) == len(catalog.dataset_dicts(data, "val")) - 1


def test_images_without_objects_are_left_out_in_training_only(edited: Callable[..., Data]) -> None:
    def empty_first(coco: Data) -> None:
        first = coco["images"][0]["id"]
        coco["annotations"] = [a for a in coco["annotations"] if a["image_id"] != first]

    data = edited(empty_first)
    assert len(catalog.dataset_dicts(data, "train")) == 5
    assert len(catalog.dataset_dicts(data, "val")) == 3


def test_changed_file_is_read_again_by_the_next_run(edited: Callable[..., Data]) -> None:
    data = edited(lambda coco: None)
    assert catalog.num_classes(data) == 4
    file = Path(data["train_json"])
    coco = json.loads(file.read_text())
    coco["categories"].append({"id": 99, "name": "new"})
    file.write_text(json.dumps(coco) + "\n" * 5)
    assert catalog.num_classes(data) == 4
    catalog.forget()
    assert catalog.class_names(data)[-1] == "new"


def test_home_directory_in_a_path(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Path(data["train_json"]).parent
    monkeypatch.setenv("HOME", str(home))
    paths = {key: f"~/{Path(data[key]).name}" for key in catalog.PATHS}
    assert catalog.check_split({**data, **paths}, "train", MASKS).startswith("custom train: 6 images")


def test_several_files_are_merged(data: Data, edited: Callable[..., Data]) -> None:
    other = edited(shift_category_ids, "train")
    both = {key: [data[key], other[key]] for key in ("train_json", "train_images")}
    assert catalog.check_split({**data, **both}, "train", MASKS).startswith("custom train: 12 images, ")
    dicts = catalog.dataset_dicts({**data, **both}, "train")
    halves = [
        sorted((a["category_id"], a["bbox"]) for entry in half for a in entry["annotations"])
        for half in (dicts[:6], dicts[6:])
    ]
    assert halves[0] == halves[1]
    assert all(Path(entry["file_name"]).is_file() for entry in dicts)
    uneven = {**data, **both, "train_images": data["train_images"]}
    with pytest.raises(ConfigError, match=r"^data\.train_json: 2 .* 1 "):
        catalog.check_split(uneven, "train", MASKS)


def test_validation_uses_the_class_indices_of_training_whatever_the_category_ids(
    edited: Callable[..., Data],
) -> None:
    data = edited(shift_category_ids, "val")
    catalog.check_split(data, "val", MASKS)
    classes = {a["category_id"] for entry in catalog.dataset_dicts(data, "val") for a in entry["annotations"]}
    assert classes <= {0, 1, 2, 3}


# Splits, and what was found in them


def test_splits_of_datasets(data: Data) -> None:
    assert catalog.splits_of(data) == ("train", "val")
    assert catalog.splits_of({**data, "val_json": None, "val_images": None}) == ("train",)
    assert catalog.splits_of({**data, "train_json": None, "train_images": None}) == ("val",)
    assert catalog.splits_of(data_node(name="shapes")) == ("train", "val")


def test_findings_and_notes_of_splits(edited: Callable[..., Data]) -> None:
    data = edited(lambda coco: coco["images"][0].update(file_name="missing.png"), "train")
    assert catalog.findings_of(data, "train").samples["missing_image"] == ["missing.png"]
    assert "missing_image" not in catalog.findings_of(data, "val").counts
    assert catalog.note_of(data, "val") == ""
    alone = {**data, "val_json": None, "val_images": None, "val_share": 0.4}
    assert catalog.note_of(alone, "val") == "40% of the images, held out by data.val_share"
    for name in ("shapes", "coco_2017"):
        assert catalog.findings_of(data_node(name=name), "val").counts == {}
        assert catalog.note_of(data_node(name=name), "val") == ""


def test_validation_without_training_defines_the_classes(data: Data) -> None:
    data |= {"train_json": None, "train_images": None}
    assert catalog.num_classes(data) == 4
    assert len(catalog.dataset_dicts(data, "val")) == 3


def test_keypoints_of_a_user(edited: Callable[..., Data]) -> None:
    def add_keypoints(coco: Data) -> None:
        for category in coco["categories"]:
            category["keypoints"] = ["left", "right"]
        coco["annotations"][0]["keypoints"] = [5, 6, 2, 7, 8, 1]

    data = {**edited(add_keypoints), "tasks": ["bbox", "keypoints"]}
    assert catalog.keypoint_names(data) == ["left", "right"]
    assert catalog.num_keypoints(data) == 2
    (entry,) = catalog.dataset_dicts(data, "train")  # all other images have no keypoints
    assert entry["annotations"][0]["keypoints"] == [5.5, 6.5, 2, 7.5, 8.5, 1]
    assert len(catalog.dataset_dicts(data, "val")) == 3


# Folders in other formats


@pytest.fixture
def yolo(tmp_path: Path) -> Data:
    """The node of a YOLO dataset with one image, a box and a polygon in both splits."""
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n1 0 0 1 0 1 1")
    (tmp_path / "data.yaml").write_text("{names: [x, y], train: ., val: .}")
    return data_node(name="yolo", root=str(tmp_path))


def test_folder_in_another_format(yolo: Data) -> None:
    assert catalog.resolve_name(yolo) == "yolo"
    assert catalog.class_names(yolo) == ["x", "y"]
    for split in ("train", "val"):
        assert catalog.check_split(yolo, split, BOXES) == f"yolo {split}: 1 images, 2 objects, 2 classes"
    (entry,) = catalog.dataset_dicts(yolo, "train")
    assert entry["file_name"] == str(Path(yolo["root"], "a.png"))
    assert [a["bbox"] for a in entry["annotations"]] == [pytest.approx([18, 9, 4, 2]), [0, 0, 40, 20]]
    assert ["segmentation" in a for a in entry["annotations"]] == [False, True]
    assert catalog.check_split(yolo, "train", MASKS) == "yolo train: 1 images, 2 objects, 2 classes"
    with pytest.raises(ConfigError, match=r"^data\.name=yolo data\.root=.*'keypoints' in every category"):
        catalog.check_split(yolo, "train", ["bbox", "keypoints"])


def test_format_is_recognized(yolo: Data) -> None:
    assert catalog.resolve_name({**yolo, "name": "auto"}) == "yolo"
    assert catalog.class_names({**yolo, "name": "auto"}) == ["x", "y"]


def test_folder_is_read_once_per_run(yolo: Data) -> None:
    assert catalog.num_classes(yolo) == 2
    Path(yolo["root"], "data.yaml").write_text("{names: [x, y, z], train: ., val: .}")
    assert catalog.num_classes(yolo) == 2
    catalog.forget()
    assert catalog.num_classes(yolo) == 3


def test_relative_and_home_paths_name_the_same_folder(yolo: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(yolo["root"])
    monkeypatch.setenv("HOME", str(root.parent))
    monkeypatch.chdir(root.parent)
    contents = [
        list(catalog.dataset_dicts({**yolo, "root": path}, "train"))
        for path in (str(root), root.name, f"~/{root.name}")
    ]
    assert contents[0] == contents[1] == contents[2]
    assert contents[1][0]["file_name"] == str(root / "a.png")


@pytest.mark.parametrize("name", ["yolo", "voc_folder"])
def test_folder_format_without_root(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^data\.name={name} needs data\.root"):
        catalog.class_names(data_node(name=name))


# Tasks


def test_numbers_of_classes_depend_on_the_dataset_and_the_tasks() -> None:
    panoptic = ["bbox", "segm", "sem_seg", "panoptic_seg"]
    assert catalog.num_semantic_classes(data_node(name="shapes", tasks=panoptic)) == 2
    assert catalog.num_semantic_classes(data_node(name="shapes", tasks=["sem_seg"])) == 5
    assert catalog.keypoint_names(data_node(name="shapes", tasks=["bbox"])) == []
    assert len(catalog.keypoint_names(data_node(name="shapes", tasks=["bbox", "keypoints"]))) == 5
    assert catalog.num_keypoints(data_node(name="coco_2017_keypoints")) == 17
