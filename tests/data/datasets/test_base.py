"""The interface of datasets: registration with detectron2, pixel classes, flipped keypoints, labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.builtin_meta import COCO_PERSON_KEYPOINT_FLIP_MAP, COCO_PERSON_KEYPOINT_NAMES
from helpers import published
from hypothesis import given
from hypothesis import strategies as st

from d2timm import ConfigError, get_config
from d2timm.config.overrides import apply_overrides
from d2timm.data import catalog
from d2timm.data.datasets.base import THINGS, LabelledDataset, flip_indices, forget, register
from d2timm.data.datasets.coco import CocoDataset, CocoPanopticDataset
from d2timm.data.datasets.shapes_dataset import ShapesDataset


@pytest.mark.parametrize(
    ("names", "indices"),
    [
        (["left", "right"], [1, 0]),
        (
            ["nose", "right_eye", "left_eye", "left_ear"],
            [0, 2, 1, 3],
        ),  # without right_ear, left_ear keeps its index
        (["Left Eye", "Right Eye"], [1, 0]),
        (["leftEye", "rightEye"], [1, 0]),
        (["L_Eye", "R_Eye", "L_F_Paw", "R_F_Paw"], [1, 0, 3, 2]),
        (["l-eye", "r-eye", "tail"], [1, 0, 2]),
        (["front_left", "front_right", "rear_right", "rear_left"], [1, 0, 3, 2]),
        (["lower", "rower", "cleft"], [0, 1, 2]),
        (["top", "right", "bottom", "left", "centre"], [0, 3, 2, 1, 4]),
        ([], []),
    ],
)
def test_left_and_right_keypoints_swap(names: list[str], indices: list[int]) -> None:
    assert flip_indices(names) == indices


def test_flip_indices_of_people_match_detectron2() -> None:
    pairs = dict(COCO_PERSON_KEYPOINT_FLIP_MAP)
    pairs |= {right: left for left, right in pairs.items()}
    names = list(COCO_PERSON_KEYPOINT_NAMES)
    assert [names[index] for index in flip_indices(names)] == [pairs.get(name, name) for name in names]


@given(st.lists(st.text("lr_ leftighT", max_size=8), unique_by=str.lower, max_size=5))
def test_two_flips_are_the_identity(names: list[str]) -> None:
    indices = flip_indices(names)
    assert [indices[index] for index in indices] == list(range(len(names)))


def test_split_is_registered_once_until_it_is_forgotten() -> None:
    loads: list[Any] = []
    for _ in range(2):
        name = register("test_dataset", lambda: loads, thing_classes=["a"])
    assert DatasetCatalog.get(name) is loads
    assert MetadataCatalog.get(name).thing_classes == ["a"]
    forget()
    assert name not in DatasetCatalog
    register(name, lambda: loads, thing_classes=["b"])
    assert MetadataCatalog.get(name).thing_classes == ["b"]
    forget()


@pytest.mark.parametrize(
    "error", [KeyError("images"), ValueError("Expecting value"), ParseError("no element")]
)
def test_damaged_files_are_an_error_of_one_line(error: Exception) -> None:
    def load() -> list[dict[str, Any]]:
        raise error

    register("published:/some/file.json", load)
    try:
        with pytest.raises(ConfigError, match=rf"^published:/some/file\.json: .*{type(error).__name__}"):
            DatasetCatalog.get("published:/some/file.json")
    finally:
        forget()


@pytest.mark.parametrize(
    ("write", "recipe", "name", "file"),
    [
        (published.coco, "mask_rcnn_timm.py", "coco_2017", "coco/annotations/instances_train2017.json"),
        (
            published.coco,
            "panoptic_fpn_timm.py",
            "coco_2017_panoptic",
            "coco/annotations/panoptic_train2017.json",
        ),
        (published.lvis, "mask_rcnn_timm.py", "lvis_v1", "lvis/lvis_v1_train.json"),
        (published.voc, "faster_rcnn_timm.py", "pascal_voc", "VOC2007/Annotations/*.xml"),
    ],
)
@pytest.mark.parametrize("damage", [b"", b"{}", b'[{"a": ', b"\xff" * 99, b"[" * 10**5])
def test_damaged_published_dataset(
    write: Callable[[Path], Any],
    recipe: str,
    name: str,
    file: str,
    damage: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    data = apply_overrides(get_config(recipe), [f"data.name={name}"]).data
    for damaged in tmp_path.glob(file):
        damaged.write_bytes(damage)
    try:
        with pytest.raises(ConfigError) as caught:
            DatasetCatalog.get(catalog.dataset_name(data, "train"))
        assert "\n" not in str(caught.value)
    finally:
        catalog.forget()


def test_datasets_registered_elsewhere_are_not_forgotten() -> None:
    before = set(DatasetCatalog)
    register("test_dataset", list)
    forget()
    assert set(DatasetCatalog) <= before
    assert "coco_2017_val" in DatasetCatalog


def test_panoptic_detector_has_one_pixel_class_for_all_objects() -> None:
    panoptic = ["bbox", "segm", "sem_seg", "panoptic_seg"]
    assert ShapesDataset().semantic_classes(panoptic) == [THINGS, "background"]
    assert ShapesDataset().semantic_classes(["sem_seg"]) == [*ShapesDataset().classes(), "background"]
    assert len(CocoPanopticDataset().semantic_classes(panoptic)) == 54
    assert len(CocoPanopticDataset().semantic_classes(["sem_seg"])) == 133
    assert CocoDataset().stuff() == CocoDataset().keypoints() == []


TASKS = [["bbox", "segm"], ["sem_seg"], ["bbox", "segm", "sem_seg", "panoptic_seg"], ["bbox", "keypoints"]]


@pytest.mark.parametrize("tasks", TASKS, ids="-".join)
def test_labelled_dataset_has_the_names_of_the_original(tasks: list[str]) -> None:
    original = ShapesDataset()
    labelled = LabelledDataset("shapes", original.labels(tasks))
    assert labelled.labels(tasks) == original.labels(tasks)
    if "keypoints" in tasks:
        assert labelled.keypoints() == original.keypoints()
    metadata = MetadataCatalog.get(labelled.register("val", tasks))
    assert metadata.thing_classes == original.classes()
    if "sem_seg" in tasks:
        assert labelled.semantic_classes(tasks) == original.semantic_classes(tasks)
        assert metadata.stuff_classes == original.semantic_classes(tasks)
    with pytest.raises(ConfigError, match=r"data\.labels"):
        labelled.check("val", tasks)
