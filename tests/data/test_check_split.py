"""``catalog.check_split``: files are rejected with a clear message, or can be trained and evaluated on."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.structures import Boxes, Instances
from helpers.coco_edits import FIRST, Edit, drop, put
from helpers.data_nodes import data_node
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from d2timm import ConfigError
from d2timm.config.build import build_on_meta, check_classes, instantiate
from d2timm.data import catalog

Data = dict[str, Any]

BOXES = ["bbox"]
MASKS = ["bbox", "segm"]
NUMBER = itertools.count()


def error_message(function: Callable[..., Any], *arguments: Any) -> str | None:
    """The message of the ConfigError that a call raises, or None."""
    try:
        function(*arguments)
    except ConfigError as error:
        return str(error)
    return None


# What is rejected


@pytest.mark.parametrize(
    ("name", "tasks", "facts"),
    [
        ("coco_2017", ["bbox", "keypoints"], "keypoints, .*data.name=shapes or coco_2017_keypoints"),
        ("coco_2017", ["sem_seg"], "sem_seg, .*data.name=shapes or coco_2017_panoptic or cityscapes$"),
        ("pascal_voc", MASKS, "segm, .*data.name=shapes or coco_2017 or "),
        ("lvis_v1", ["bbox", "sem_seg", "panoptic_seg"], "sem_seg, panoptic_seg, "),
        ("voc_folder", MASKS, "segm, .*another detector or ROI heads"),
    ],
)
def test_missing_annotations_for_a_task(name: str, tasks: list[str], facts: str, tmp_path: Path) -> None:
    root = str(tmp_path) if name == "voc_folder" else None
    data = {**data_node(name=name, root=root), "settings": {name: None}}
    with pytest.raises(ConfigError, match=rf"^data\.name={name} .* {facts}"):
        catalog.check_split(data, "train", tasks)


def test_named_dataset_that_is_not_installed() -> None:
    with pytest.raises(ConfigError, match=r"data\.name=coco_2017: .*instances_train2017\.json: no such file"):
        catalog.check_split(data_node(name="coco_2017"), "train", MASKS)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(
    ("kind", "facts"),
    [
        ("json", r"data\.{}_json=.*nothing: no such file"),
        ("images", r"data\.{}_images=.*nothing: no such folder"),
    ],
)
def test_missing_file_or_folder(data: Data, split: str, kind: str, facts: str) -> None:
    data[f"{split}_{kind}"] = str(Path(data["train_json"]).parent / "nothing")
    with pytest.raises(ConfigError, match=facts.format(split)):
        catalog.check_split(data, split, MASKS)


def test_paths_that_are_not_set(data: Data) -> None:
    with pytest.raises(ConfigError, match=r"data\.val_json and data\.val_images must be set"):
        catalog.check_split({**data, "val_json": None, "val_images": None}, "val", MASKS)
    with pytest.raises(ConfigError, match=r"data\.train_images must be set"):
        catalog.check_split({**data, "train_images": None}, "train", MASKS)


def test_error_names_the_setting_of_the_file(edited: Callable[..., Data]) -> None:
    data = edited(put("annotations", "image_id", 5), "train")
    with pytest.raises(ConfigError, match=r"^data\.train_json=.*train\.json: no usable annotations"):
        catalog.check_split(data, "train", MASKS)
    data = edited(put("images", "file_name", "missing.png", FIRST), "val")
    with pytest.raises(ConfigError, match=r"^data\.val_images=.*: 1 of 3 images of val\.json .*missing\.png"):
        catalog.check_split(data, "val", MASKS)


def test_categories_that_differ(edited: Callable[..., Data]) -> None:
    data = edited(put("categories", "name", "wheel", slice(1)), "val")
    with pytest.raises(ConfigError, match=r"^data\.val_json=.*wheel.*training split"):
        catalog.check_split(data, "val", MASKS)


def test_more_classes_than_the_head(tiny: Callable[..., Any], tmp_path: Path) -> None:
    cfg = tiny("faster_rcnn_timm.py", tmp_path, "model.roi_heads.num_classes=3")
    with pytest.raises(ConfigError, match=r"4 classes .*model\.roi_heads\.num_classes=3"):
        check_classes(cfg.data, build_on_meta(cfg))
    cfg.model.roi_heads.num_classes = 5
    check_classes(cfg.data, build_on_meta(cfg))


# What is accepted


def test_validation_alone_needs_no_training_files(data: Data) -> None:
    data.update(train_json=None, train_images=None)
    assert catalog.check_split(data, "val", MASKS).startswith("custom val: 3 images")


def test_boxes_need_no_masks(edited: Callable[..., Data]) -> None:
    data = edited(drop("annotations", "segmentation"))
    assert catalog.check_split(data, "train", BOXES).startswith("custom train: 6 images")


def test_order_of_categories_does_not_matter(edited: Callable[..., Data]) -> None:
    data = edited(lambda coco: coco["categories"].reverse(), "val")
    assert catalog.check_split(data, "val", MASKS).endswith("4 classes")


@pytest.mark.parametrize("recipe", ["faster_rcnn_timm.py", "mask_rcnn_timm.py"])
def test_masks_are_read_only_for_detectors_with_masks(
    recipe: str, tiny: Callable[..., Any], tmp_path: Path
) -> None:
    loader = tiny(recipe, tmp_path).dataloader.train
    mapper = instantiate(loader.mapper)
    example = mapper(instantiate(loader.dataset)[0])
    assert example["instances"].has("gt_masks") == ("mask" in recipe)
    assert example["image"].shape[-1] <= 64


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(drop("images", "height", FIRST), id="image without height"),
        pytest.param(drop("images", "width"), id="images without width"),
        pytest.param(drop("annotations", "id"), id="objects without id"),
        pytest.param(put("annotations", "id", 1, slice(2)), id="two objects with one id"),
        pytest.param(drop("annotations", "area"), id="objects without area"),
        pytest.param(drop("annotations", "iscrowd"), id="objects without iscrowd"),
        pytest.param(put("annotations", "iscrowd", 1, FIRST), id="crowd"),
        pytest.param(drop("annotations", "bbox", FIRST), id="object without box"),
        pytest.param(put("annotations", "bbox", [], FIRST), id="empty box"),
        pytest.param(put("annotations", "bbox", [5, 5, 0, 9], FIRST), id="box without width"),
        pytest.param(put("annotations", "category_id", 999, FIRST), id="unknown category"),
        pytest.param(put("annotations", "image_id", 999, FIRST), id="unknown image"),
        pytest.param(drop("annotations", "segmentation", FIRST), id="object without mask"),
        pytest.param(drop("annotations", "segmentation", slice(1, None)), id="one mask"),
        pytest.param(put("annotations", "segmentation", [], FIRST), id="empty mask"),
        pytest.param(put("annotations", "segmentation", [[1, 2, 3, 4]], FIRST), id="mask of two points"),
        pytest.param(lambda coco: coco.update(info={}, licenses=[]), id="information"),
    ],
)
def test_file_is_rejected_or_can_be_trained_and_evaluated_on(
    edit: Edit, edited: Callable[..., Data], tiny: Callable[..., Any], tmp_path: Path
) -> None:
    data = edited(edit)
    errors = [error_message(catalog.check_split, data, split, MASKS) for split in ("train", "val")]
    if any(errors):
        assert all("\n" not in text for text in errors if text)
        return
    cfg = tiny("mask_rcnn_timm.py", tmp_path, *(f"data.{key}={data[key]}" for key in catalog.PATHS))
    mapper = instantiate(cfg.dataloader.train.mapper)
    examples = [mapper(entry)["instances"] for entry in instantiate(cfg.dataloader.train.dataset)]
    assert any(len(instances) for instances in examples)
    assert all(instances.has("gt_masks") for instances in examples if len(instances))

    (evaluator,) = instantiate(cfg.dataloader.evaluator)
    evaluator.reset()
    for (entry,) in instantiate(cfg.dataloader.test):
        evaluator.process([entry], [{"instances": full_image_detection(entry["height"], entry["width"])}])
    assert set(evaluator.evaluate()) == {"bbox", "segm"}


def full_image_detection(height: int, width: int) -> Instances:
    return Instances(
        (height, width),
        pred_boxes=Boxes(torch.tensor([[0.0, 0.0, width, height]])),
        pred_masks=torch.ones(1, height, width, dtype=torch.bool),
        pred_classes=torch.tensor([0]),
        scores=torch.tensor([0.9]),
    )


# Random content


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 3)
    | st.floats(allow_nan=True)
    | st.text("ab/.\0", max_size=3),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "name"]), children, max_size=2)
    ),
    max_leaves=4,
)


def entries(*fields: str) -> st.SearchStrategy[list[Any]]:
    """A list with the fields of a COCO file, but any values."""
    return st.lists(st.fixed_dictionaries(dict.fromkeys(fields, JSON)) | JSON, max_size=2)


ALMOST_COCO = st.fixed_dictionaries(
    {
        "images": entries("id", "file_name", "height", "width"),
        "annotations": entries("id", "image_id", "category_id", "bbox", "segmentation"),
        "categories": entries("id", "name"),
    }
)
IMAGE = {"id": 1, "file_name": "a", "height": 64, "width": 64}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(JSON | ALMOST_COCO)
@example({"images": [{**IMAGE, "id": []}], "annotations": [], "categories": []})
@example({"images": [{**IMAGE, "file_name": 1}], "annotations": [], "categories": []})
@example(
    {"images": [IMAGE], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": "b", "name": "b"}]}
)
@example(
    {
        "images": [IMAGE],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, "1", 2]}],
        "categories": [{"id": 1, "name": "a"}],
    }
)
@example(
    {
        "images": [IMAGE],
        "annotations": [{"id": 1, "image_id": [], "category_id": 1, "bbox": [0, 0, 1, 2]}],
        "categories": [{"id": 1, "name": "a"}],
    }
)
def test_any_json_is_a_dataset_or_a_config_error(tmp_path: Path, coco: Any) -> None:
    file = tmp_path / f"{next(NUMBER)}.json"
    file.write_text(json.dumps(coco))
    data = data_node(train_json=str(file), train_images=str(tmp_path))
    check_error = error_message(catalog.check_split, data, "train", BOXES)
    names_error = error_message(catalog.class_names, data)
    assert "\n" not in f"{check_error}{names_error}"
    if names_error is None:
        assert all(isinstance(name, str) for name in catalog.class_names(data))
