"""The embedded dataset: reproducible files, correct annotations, and a cache that is complete or empty."""

from __future__ import annotations

import errno
import json
import multiprocessing
import socket
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from d2timm.data.datasets import shapes, shapes_dataset
from d2timm.data.datasets.panoptic import read_segments
from d2timm.errors import ConfigError

FEW = {"train": 3, "val": 2}
FILES = 2 * sum(FEW.values()) + 4  # images and panoptic maps, and two annotation files per split


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A dataset of 30 + 10 images, which include every class and shapes with several parts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "COUNTS", {"train": 30, "val": 10})
        path = tmp_path_factory.mktemp("shapes") / "set"
        shapes_dataset.write_shapes(path)
        yield path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a dataset so small that it is quickly drawn."""
    monkeypatch.setenv("D2TIMM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shapes, "COUNTS", FEW)
    return tmp_path / "cache"


def contents(folder: Path) -> dict[str, bytes]:
    """Map the relative path of every file below `folder` to its bytes."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def refuse(root: Path) -> None:
    """A replacement of `write_shapes` where nothing may be written."""
    raise AssertionError(f"{root} was written again")


def test_files_are_reproducible_and_images_independent_of_the_count(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, "COUNTS", FEW)
    shapes_dataset.write_shapes(tmp_path / "a")
    shapes_dataset.write_shapes(tmp_path / "b")
    files = contents(tmp_path / "a")
    assert files == contents(tmp_path / "b")
    assert len(files) == FILES
    pngs = {name: data for name, data in files.items() if name.endswith(".png")}
    assert pngs.items() <= contents(root).items()


def test_file_contains_the_drawn_image(root: Path) -> None:
    read = cv2.imread(str(root / "val" / "000002.png"))
    assert read is not None
    assert np.array_equal(read[..., ::-1], shapes.draw_image("val", 1)[0])


@pytest.mark.parametrize("split", ["train", "val"])
def test_annotations_match_their_masks(root: Path, split: str) -> None:
    coco = COCO(root / "annotations" / f"instances_{split}.json")
    assert {category["name"] for category in coco.cats.values()} == set(shapes.CLASSES)
    assert {annotation["category_id"] for annotation in coco.anns.values()} == set(coco.cats)
    errors = []
    for image in coco.imgs.values():
        annotations = coco.imgToAnns[image["id"]]
        assert 2 <= len(annotations) <= 5
        masks = [coco.annToMask(annotation) for annotation in annotations]
        assert masks[0].shape == (image["height"], image["width"])
        for annotation, mask in zip(annotations, masks, strict=True):
            errors.append(mask.sum() / annotation["area"] - 1)
            x, y, w, h = annotation["bbox"]
            points = np.concatenate([np.reshape(p, (-1, 2)) for p in annotation["segmentation"]])
            assert (*points.min(axis=0), *points.max(axis=0)) == (x, y, x + w, y + h)
            assert min(x, y) >= 0
            assert max(x + w, y + h) <= shapes.SIZE
            left, top, width, height = cv2.boundingRect(mask)
            # a sharp tip ends between pixel centres, so that its mask is up to 1.5 pixels shorter
            differences = np.subtract((left, top, left + width, top + height), (x, y, x + w, y + h))
            assert abs(differences).max() <= 1.5
        # visible parts only overlap in pixels on a border
        assert (np.sum(masks, axis=0) > 1).sum() <= 0.02 * np.sum(masks)
    assert np.abs(errors).max() < 0.05
    assert np.abs(np.mean(errors)) < 0.015


@pytest.mark.parametrize("split", ["train", "val"])
def test_panoptic_maps_match_the_masks(root: Path, split: str) -> None:
    coco = COCO(root / "annotations" / f"instances_{split}.json")
    content = json.loads((root / "annotations" / f"panoptic_{split}.json").read_text())
    categories = {category["id"]: category for category in content["categories"]}
    assert [category["name"] for category in categories.values()] == [*shapes.CLASSES, shapes.BACKGROUND]
    assert [category["isthing"] for category in categories.values()] == [1] * len(shapes.CLASSES) + [0]
    assert {entry["image_id"] for entry in content["annotations"]} == set(coco.imgs)
    for entry in content["annotations"]:
        ids = read_segments(str(root / f"panoptic_{split}" / entry["file_name"]))
        annotations = coco.imgToAnns[entry["image_id"]]
        masks = [coco.annToMask(annotation) == 1 for annotation in annotations]
        background, *things = entry["segments_info"]
        assert categories[background["category_id"]]["name"] == shapes.BACKGROUND
        assert np.array_equal(ids == background["id"], ~np.any(masks, axis=0))
        assert [thing["category_id"] for thing in things] == [a["category_id"] for a in annotations]
        above = np.zeros_like(masks[0])
        for thing, mask in reversed(list(zip(things, masks, strict=True))):
            assert np.array_equal(ids == thing["id"], mask & ~above)
            above |= mask
        for segment in entry["segments_info"]:
            assert segment["area"] == (ids == segment["id"]).sum() > 0


def test_keypoints_are_the_extreme_points_and_the_centre(root: Path) -> None:
    coco = COCO(root / "annotations" / "instances_train.json")
    assert all(tuple(category["keypoints"]) == shapes.KEYPOINTS for category in coco.cats.values())
    visibilities = []
    for annotation in coco.anns.values():
        points = np.reshape(annotation["keypoints"], (-1, 3))
        assert annotation["num_keypoints"] == len(points) == len(shapes.KEYPOINTS)
        # keypoints are 0 at the centre of the first pixel, boxes at its corner
        (top, right, bottom, left, centre), visibility = points[:, :2] + 0.5, points[:, 2]
        visibilities.extend(visibility)
        assert left[0] < centre[0] < right[0]
        assert top[1] < centre[1] < bottom[1]
        x, y, w, h = annotation["bbox"]
        # the box surrounds the visible part, which is smaller than the shape if an extreme point is occluded
        extremes = (left[0], top[1], right[0], bottom[1])
        for point, side, v in zip(extremes, (x, y, x + w, y + h), visibility[[3, 0, 1, 2]], strict=True):
            assert v == 1 or abs(point - side) <= 0.75  # the polygon leaves out a sharp tip
    assert {1, 2} == set(visibilities)
    assert np.mean(np.equal(visibilities, 2)) > 0.8


def test_dataset_is_written_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = shapes_dataset.shapes_root()
    assert [path.name for path in cache.iterdir()] == [root.name]
    assert len(contents(root)) == FILES
    monkeypatch.setattr(shapes_dataset, "write_shapes", refuse)
    assert shapes_dataset.shapes_root() == root


def test_other_constants_lead_to_another_folder(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {shapes_dataset.shapes_root()}
    for name, value in {"VERSION": 0, "COUNTS": {"train": 1, "val": 1}, "SEED": 1}.items():
        monkeypatch.setattr(shapes, name, value)
        folders.add(shapes_dataset.shapes_root())
    assert len(folders) == 4


def test_default_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "COUNTS", FEW)
    monkeypatch.delenv("D2TIMM_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert shapes_dataset.shapes_root().parent == tmp_path / "xdg" / "d2timm"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert shapes_dataset.shapes_root().parent == tmp_path / ".cache" / "d2timm"


def test_incomplete_dataset_is_never_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = f".shapes-{shapes_dataset._fingerprint()}.999999999@{socket.gethostname()}"
    (cache / ended / "train").mkdir(parents=True)
    draw = shapes.draw_image

    def stop(split: str, index: int) -> object:
        if index == 1:
            raise KeyboardInterrupt
        return draw(split, index)

    with monkeypatch.context() as patch:
        patch.setattr(shapes, "draw_image", stop)
        with pytest.raises(KeyboardInterrupt):
            shapes_dataset.shapes_root()
    assert list(cache.iterdir()) == [], "nothing is left of this process and of one that was killed"
    assert len(contents(shapes_dataset.shapes_root())) == FILES


def write_together(cache: Path, barrier: Barrier) -> None:
    """Write the dataset, and wait until all processes have written it before any moves it into place."""
    write = shapes_dataset.write_shapes

    def write_and_wait(root: Path) -> None:
        write(root)
        barrier.wait(timeout=60)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D2TIMM_CACHE", str(cache))
        patch.setattr(shapes, "COUNTS", FEW)
        patch.setattr(shapes_dataset, "write_shapes", write_and_wait)
        assert len(contents(shapes_dataset.shapes_root())) == FILES


def test_two_processes_write_at_once(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    processes = [context.Process(target=write_together, args=(cache, barrier)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    shapes_dataset.write_shapes(tmp_path / "direct")
    monkeypatch.setattr(shapes_dataset, "write_shapes", refuse)
    root = shapes_dataset.shapes_root()
    assert [path.name for path in cache.iterdir()] == [root.name]
    assert contents(root) == contents(tmp_path / "direct")


def test_cache_that_cannot_be_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "file" / "cache"
    folder.parent.write_text("not a folder")
    monkeypatch.setenv("D2TIMM_CACHE", str(folder))
    with pytest.raises(ConfigError) as caught:
        shapes_dataset.shapes_root()
    message = str(caught.value)
    assert str(folder) in message
    assert "D2TIMM_CACHE" in message
    assert "\n" not in message


def test_full_disk(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ConfigError, match="No space left on device"):
        shapes_dataset.shapes_root()
    assert not list(cache.iterdir())
