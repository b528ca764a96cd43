"""Every declared dataset and format is complete: it can be selected, has settings and is documented."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from d2timm import get_config
from d2timm.config.lazy import load
from d2timm.data.catalog import PUBLISHED
from d2timm.data.formats import FolderFormat, folder_formats
from d2timm.utils.files import resource_folder

NODES = resource_folder("lazy_configs") / "common" / "data"
CHOICES = Path(__file__).parents[3] / "docs" / "choices.md"
TASKS = {"bbox", "segm", "keypoints", "sem_seg", "panoptic_seg"}


@pytest.fixture(scope="module")
def settings() -> Any:
    """The node ``data.settings`` of a composed config."""
    return get_config("mask_rcnn_timm.py").data.settings


def test_formats_of_the_package_are_declared() -> None:
    tools = {"labelme", "label_studio", "via", "cvat", "supervisely"}
    assert {"yolo", "voc_folder", "coco_folder", "open_images", "dota", *tools} <= set(folder_formats())


@pytest.mark.parametrize("name", folder_formats())
def test_declaration_of_a_format(name: str) -> None:
    declared = folder_formats()[name]
    assert isinstance(declared, FolderFormat)
    assert declared.name == name
    assert declared.tasks
    assert set(declared.tasks) <= TASKS
    assert name not in PUBLISHED


@pytest.mark.parametrize("name", [*PUBLISHED, *folder_formats()])
def test_dataset_has_a_node_file(name: str) -> None:
    file = NODES / f"{name}.py"
    assert file.is_file(), f"{file} is needed to select data={name}"
    assert load(file).data.name == name


@pytest.mark.parametrize("name", [*PUBLISHED, *folder_formats()])
def test_dataset_has_settings(name: str, settings: Any) -> None:
    assert name in settings, f"data.settings in {NODES / 'auto.py'} needs an entry {name}"
    assert set(settings[name]) == set(settings["custom"])


@pytest.mark.parametrize("name", [*PUBLISHED, *folder_formats()])
def test_dataset_is_documented(name: str) -> None:
    rows = [line for line in CHOICES.read_text().splitlines() if line.startswith(f"| `{name}` |")]
    assert len(rows) == 1, f"{CHOICES} needs one row for {name}"
