"""What sets have in common: detectron2's catalogues, classes of pixels, keypoints in a mirror."""

from __future__ import annotations

from typing import Any

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.builtin_meta import COCO_PERSON_KEYPOINT_FLIP_MAP, COCO_PERSON_KEYPOINT_NAMES
from hypothesis import given
from hypothesis import strategies as st

from d2timm import ConfigError
from d2timm.data.datasets.base import THINGS, LabelledDataset, forget, mirrored, register
from d2timm.data.datasets.coco import CocoDataset, CocoPanoptic, ShapesDataset


@pytest.mark.parametrize(
    ("names", "places"),
    [
        (["left", "right"], [1, 0]),
        (["nose", "right_eye", "left_eye", "left_ear"], [0, 2, 1, 3]),  # an ear alone keeps its place
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
def test_left_and_right_change_places(names: list[str], places: list[int]) -> None:
    assert mirrored(names) == places


def test_people_are_mirrored_as_detectron2_does() -> None:
    pairs = dict(COCO_PERSON_KEYPOINT_FLIP_MAP)
    pairs |= {right: left for left, right in pairs.items()}
    names = list(COCO_PERSON_KEYPOINT_NAMES)
    assert [names[place] for place in mirrored(names)] == [pairs.get(name, name) for name in names]


@given(st.lists(st.text("lr_ leftighT", max_size=8), unique_by=str.lower, max_size=5))
def test_a_mirror_of_a_mirror_is_what_was(names: list[str]) -> None:
    places = mirrored(names)
    assert [places[place] for place in places] == list(range(len(names)))


def test_a_split_is_registered_once_until_it_is_forgotten() -> None:
    loads: list[Any] = []
    for _ in range(2):
        name = register("a test's set", lambda: loads, thing_classes=["a"])
    assert DatasetCatalog.get(name) is loads
    assert MetadataCatalog.get(name).thing_classes == ["a"]
    forget()
    assert name not in DatasetCatalog
    register(name, lambda: loads, thing_classes=["b"])
    assert MetadataCatalog.get(name).thing_classes == ["b"]
    forget()


def test_sets_that_others_registered_are_not_forgotten() -> None:
    there = set(DatasetCatalog)
    register("a test's set", list)
    forget()
    assert set(DatasetCatalog) <= there
    assert "coco_2017_val" in DatasetCatalog


def test_a_panoptic_detector_has_one_class_of_pixels_for_all_objects() -> None:
    everything = ["bbox", "segm", "sem_seg", "panoptic_seg"]
    assert ShapesDataset().semantic_classes(everything) == [THINGS, "background"]
    assert ShapesDataset().semantic_classes(["sem_seg"]) == [*ShapesDataset().classes(), "background"]
    assert len(CocoPanoptic().semantic_classes(everything)) == 54
    assert len(CocoPanoptic().semantic_classes(["sem_seg"])) == 133
    assert CocoDataset().stuff() == CocoDataset().keypoints() == []


TASKS = [["bbox", "segm"], ["sem_seg"], ["bbox", "segm", "sem_seg", "panoptic_seg"], ["bbox", "keypoints"]]


@pytest.mark.parametrize("tasks", TASKS, ids="-".join)
def test_labelled_set_has_the_names_of_the_set(tasks: list[str]) -> None:
    whole = ShapesDataset()
    labelled = LabelledDataset("shapes", whole.labels(tasks))
    assert labelled.labels(tasks) == whole.labels(tasks)
    if "keypoints" in tasks:
        assert labelled.keypoints() == whole.keypoints()
    metadata = MetadataCatalog.get(labelled.register("val", tasks))
    assert metadata.thing_classes == whole.classes()
    if "sem_seg" in tasks:
        assert labelled.semantic_classes(tasks) == whole.semantic_classes(tasks)
        assert metadata.stuff_classes == whole.semantic_classes(tasks)
    with pytest.raises(ConfigError, match="it has no images"):
        labelled.check("val", tasks)
