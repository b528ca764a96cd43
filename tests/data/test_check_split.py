"""``catalog.check_split``: files are rejected with a clear message, or can be trained and evaluated on."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.coco_edits import FIRST, Edit, drop, put
from helpers.data_nodes import data_node
from helpers.errors import error_message
from helpers.evaluation import as_detections, process
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from d2timm import ConfigError
from d2timm.config.build import build_on_meta, check_classes, instantiate
from d2timm.data import catalog

Data = dict[str, Any]

BOXES = ["bbox"]
MASKS = ["bbox", "segm"]
NUMBER = itertools.count()


# What is rejected


@pytest.mark.parametrize(
    ("name", "tasks", "facts"),
    [
        ("coco_2017", ["bbox", "keypoints"], "keypoints, .*data.name=shapes or coco_2017_keypoints"),
        ("coco_2017", ["sem_seg"], "sem_seg, .*data.name=shapes or coco_2017_panoptic or cityscapes$"),
        ("pascal_voc", MASKS, "segm, .*data.name=shapes or coco_2017 or "),
        ("lvis_v1", ["bbox", "sem_seg", "panoptic_seg"], "sem_seg, panoptic_seg, "),
        ("open_images", MASKS, "segm, .*another detector or ROI heads"),
        ("cvat", ["bbox", "keypoints"], "keypoints, .*another detector or ROI heads"),
    ],
)
def test_missing_annotations_for_a_task(name: str, tasks: list[str], facts: str, tmp_path: Path) -> None:
    root = str(tmp_path) if name in ("open_images", "cvat") else None
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
    with pytest.raises(
        ConfigError, match=r"has no val split: .*data\.val_json and data\.val_images, or data\.val_share"
    ):
        catalog.check_split({**data, "val_json": None, "val_images": None}, "val", MASKS)
    with pytest.raises(ConfigError, match=r"data\.train_images must be set"):
        catalog.check_split({**data, "train_images": None}, "train", MASKS)


@pytest.mark.parametrize(
    ("edit", "split", "facts"),
    [
        (
            put("annotations", "image_id", 5),
            "train",
            "no usable objects .*: 18 are listed; annotations of images that",
        ),
        (
            put("images", "file_name", "x.png"),
            "val",
            r"no usable images .*: 3 are listed; .* that do not exist .*x\.png",
        ),
        (
            drop("annotations", "segmentation"),
            "train",
            "has boxes but no usable segmentation: use roi_heads=box",
        ),
        (put("annotations", "iscrowd", 1), "val", "no usable objects .*, of which [0-9]+ are crowds"),
        (
            lambda coco: [c.update(name=f"x{c['id']}") for c in coco["categories"]],
            "val",
            "no class in common",
        ),
    ],
)
def test_error_names_the_setting_of_the_file(
    edited: Callable[..., Data], edit: Edit, split: str, facts: str
) -> None:
    data = edited(edit, split)
    with pytest.raises(ConfigError, match=rf"^data\.{split}_json=.*{split}\.json:? {facts}") as caught:
        catalog.check_split(data, split, MASKS)
    assert "\n" not in str(caught.value)


def test_keypoints_are_only_needed_for_keypoints(data: Data) -> None:
    catalog.check_split(data, "train", BOXES)
    with pytest.raises(
        ConfigError, match=r"^data\.train_json=.*same list of names 'keypoints' in every category"
    ):
        catalog.check_split(data, "train", ["bbox", "keypoints"])


@pytest.mark.parametrize(
    ("edit", "tasks", "facts"),
    [
        (
            put("images", "file_name", "missing.png", FIRST),
            BOXES,
            r"images that do not exist .*: missing\.png;",
        ),
        (put("annotations", "bbox", [0, 0, 0, 0], FIRST), BOXES, None),
        (
            put("annotations", "segmentation", [[1, 2]], FIRST),
            MASKS,
            r"masks that cover no pixel .*annotation 1 of 0\.png",
        ),
        (put("annotations", "segmentation", [[1, 2]], FIRST), BOXES, None),
        (put("annotations", "iscrowd", "x", FIRST), BOXES, "annotations that cannot be read"),
    ],
)
def test_policy_for_bad_samples(
    edited: Callable[..., Data], edit: Edit, tasks: list[str], facts: str | None
) -> None:
    data = edited(edit, "train")
    assert catalog.check_split({**data, "on_error": "skip"}, "train", tasks).startswith("custom train: ")
    error = error_message(catalog.check_split, {**data, "on_error": "stop"}, "train", tasks)
    if facts is None:
        assert error is None
    else:
        assert error is not None
        assert re.search(f"{facts}.*data.on_error=skip leaves them out$", error)


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
        pytest.param(drop("images", "height"), id="images without height"),
        pytest.param(drop("annotations", "id"), id="objects without id"),
        pytest.param(put("annotations", "iscrowd", 1, FIRST), id="crowd"),
        pytest.param(put("annotations", "image_id", 999, FIRST), id="unknown image"),
        pytest.param(drop("annotations", "segmentation", FIRST), id="object without mask"),
        pytest.param(drop("annotations", "segmentation", slice(1, None)), id="one mask"),
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
    coco = {split: catalog.get_dataset(data).split(split).coco for split in ("train", "val")}  # type: ignore[attr-defined]
    assert sum(map(len, examples)) == sum(not a["iscrowd"] for a in coco["train"]["annotations"])
    assert all(instances.has("gt_masks") for instances in examples if len(instances))

    (evaluator,) = instantiate(cfg.dataloader.evaluator)
    evaluator.reset()
    assert sum(len(batch) for batch in instantiate(cfg.dataloader.test)) == len(coco["val"]["images"])
    results = process(evaluator, coco["val"], as_detections(coco["val"], MASKS))
    assert {task: metrics["AP"] for task, metrics in results.items()} == pytest.approx(
        {"bbox": 100, "segm": 100}
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
