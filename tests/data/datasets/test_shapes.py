"""The embedded data set: the same in every run, true annotations, a cache whole or absent."""

import errno
import json
import multiprocessing
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from d2timm.data.datasets import shapes
from d2timm.data.datasets import shapes_dataset as shapes_files
from d2timm.data.datasets.panoptic import read_segments
from d2timm.errors import ConfigError

FEW = {"train": 3, "val": 2}
FILES = 2 * sum(FEW.values()) + 4  # pictures and panoptic maps, and what they show in two files a split


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A set of 30 + 10 pictures, enough to meet every class and multi-part shapes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "COUNTS", {"train": 30, "val": 10})
        path = tmp_path_factory.mktemp("shapes") / "set"
        shapes_files.write_shapes(path)
        yield path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, in which a set is made in a moment."""
    monkeypatch.setenv("D2TIMM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shapes, "COUNTS", FEW)
    return tmp_path / "cache"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`: its relative path and its bytes."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def refuse(root: Path) -> None:
    """A stand-in for `write_shapes` where nothing may be written."""
    raise AssertionError(f"{root} was written again")


def test_same_picture_in_every_call() -> None:
    first, first_shapes = shapes.draw_image("train", 5)
    again, again_shapes = shapes.draw_image("train", 5)
    assert first.shape == (shapes.SIZE, shapes.SIZE, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert first_shapes == again_shapes
    for split, index in (("train", 6), ("val", 5)):
        assert not np.array_equal(first, shapes.draw_image(split, index)[0])


def test_same_files_and_picture_independent_of_count(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, "COUNTS", FEW)
    shapes_files.write_shapes(tmp_path / "a")
    shapes_files.write_shapes(tmp_path / "b")
    files = contents(tmp_path / "a")
    assert files == contents(tmp_path / "b")
    assert len(files) == FILES
    pictures = {name: data for name, data in files.items() if name.endswith(".png")}
    assert pictures.items() <= contents(root).items()


def test_file_shows_the_picture_drawn(root: Path) -> None:
    read = cv2.imread(str(root / "val" / "000002.png"))
    assert read is not None
    assert np.array_equal(read[..., ::-1], shapes.draw_image("val", 1)[0])


@pytest.mark.parametrize("split", ["train", "val"])
def test_annotations_agree_with_their_masks(root: Path, split: str) -> None:
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
            # A sharp tip ends between pixel centres, so its mask is up to 1.5 pixels shorter.
            differences = np.subtract((left, top, left + width, top + height), (x, y, x + w, y + h))
            assert abs(differences).max() <= 1.5
        # Parts that are visible do not overlap, but for pixels that a border crosses.
        assert (np.sum(masks, axis=0) > 1).sum() <= 0.02 * np.sum(masks)
    assert np.abs(errors).max() < 0.05
    assert np.abs(np.mean(errors)) < 0.015


@pytest.mark.parametrize("split", ["train", "val"])
def test_panoptic_maps_agree_with_masks(root: Path, split: str) -> None:
    coco = COCO(root / "annotations" / f"instances_{split}.json")
    content = json.loads((root / "annotations" / f"panoptic_{split}.json").read_text())
    kinds = {kind["id"]: kind for kind in content["categories"]}
    assert [kind["name"] for kind in kinds.values()] == [*shapes.CLASSES, shapes.BACKGROUND]
    assert [kind["isthing"] for kind in kinds.values()] == [1] * len(shapes.CLASSES) + [0]
    assert {entry["image_id"] for entry in content["annotations"]} == set(coco.imgs)
    for entry in content["annotations"]:
        numbers = read_segments(str(root / f"panoptic_{split}" / entry["file_name"]))
        annotations = coco.imgToAnns[entry["image_id"]]
        masks = [coco.annToMask(annotation) == 1 for annotation in annotations]
        background, *things = entry["segments_info"]
        assert kinds[background["category_id"]]["name"] == shapes.BACKGROUND
        assert np.array_equal(numbers == background["id"], ~np.any(masks, axis=0))
        assert [thing["category_id"] for thing in things] == [a["category_id"] for a in annotations]
        above = np.zeros_like(masks[0])
        for thing, mask in reversed(list(zip(things, masks, strict=True))):
            assert np.array_equal(numbers == thing["id"], mask & ~above)
            above |= mask
        for segment in entry["segments_info"]:
            assert segment["area"] == (numbers == segment["id"]).sum() > 0


def test_keypoints_are_the_outermost_points_and_the_centre(root: Path) -> None:
    coco = COCO(root / "annotations" / "instances_train.json")
    assert all(tuple(category["keypoints"]) == shapes.KEYPOINTS for category in coco.cats.values())
    seen = []
    for annotation in coco.anns.values():
        points = np.reshape(annotation["keypoints"], (-1, 3))
        assert annotation["num_keypoints"] == len(points) == len(shapes.KEYPOINTS)
        # from the centre of the first pixel to its corner, where boxes count from
        (top, right, bottom, left, centre), seen_here = points[:, :2] + 0.5, points[:, 2]
        seen.extend(seen_here)
        assert left[0] < centre[0] < right[0]
        assert top[1] < centre[1] < bottom[1]
        x, y, w, h = annotation["bbox"]
        # what is visible may be smaller than the shape, where an outermost point is hidden
        whole = (left[0], top[1], right[0], bottom[1])
        for point, box, shown in zip(whole, (x, y, x + w, y + h), seen_here[[3, 0, 1, 2]], strict=True):
            assert shown == 1 or abs(point - box) <= 0.75  # a sharp tip is left out of the polygon
    assert {1, 2} == set(seen)
    assert np.mean(np.equal(seen, 2)) > 0.8


def test_annotations_fit_the_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """On black, without noise, what is not black is a shape."""
    black = np.zeros((shapes.SIZE, shapes.SIZE, 3), np.float32)
    monkeypatch.setattr(shapes, "_background", lambda rng: black.copy())
    monkeypatch.setattr(shapes, "PIXEL_NOISE", 0)
    for index in range(20):
        picture, drawn = shapes.draw_image("train", index)
        polygons = [list(polygon) for shape in drawn for polygon in shape.polygons]
        parts = coco_mask.frPyObjects(polygons, shapes.SIZE, shapes.SIZE)
        union = coco_mask.decode(coco_mask.merge(parts))
        inside = np.asarray(cv2.erode(union, np.ones((3, 3)))) == 1
        outside = np.asarray(cv2.dilate(union, np.ones((3, 3)))) == 0
        ink = picture.max(axis=2) > 0
        assert ink[inside].all()
        assert ink[outside].sum() <= 2, "no more than a faint pixel at a sharp tip"


def test_shapes_hide_little_of_each_other() -> None:
    hidden = []
    for index in range(40):
        layers = shapes._arrange(np.random.default_rng(index))
        above = np.zeros_like(layers[0].whole)
        for layer in reversed(layers):
            hidden.append(1 - (layer.whole & ~above).sum() / layer.whole.sum())
            above |= layer.whole
    assert max(hidden) <= 0.36
    assert np.mean(np.array(hidden) > 0.1) > 0.1, "the limit was never needed"


def test_polygons_run_along_the_edges_of_fine_pixels() -> None:
    mask = np.zeros((shapes.SIZE * shapes.SUPERSAMPLE,) * 2, np.uint8)
    mask[41:80, 101:300] = 255  # x from 25.25 to 75, y from 10.25 to 20
    shape = shapes._describe("square", mask)
    assert shape is not None
    corners = {(25.25, 10.25), (75.0, 10.25), (75.0, 20.0), (25.25, 20.0)}
    assert {tuple(xy) for xy in np.reshape(shape.polygons, (-1, 2)).tolist()} == corners
    assert shape.bbox == (25.25, 10.25, 49.75, 9.75)
    assert shape.area == 49.75 * 9.75


@pytest.mark.parametrize(("radius", "fits"), [(3, True), (30, False)])
def test_only_what_polygons_can_describe(radius: int, fits: bool) -> None:
    mask = np.zeros((shapes.SIZE * shapes.SUPERSAMPLE,) * 2, np.uint8)
    cv2.circle(mask, (300, 300), 100, (255,), cv2.FILLED)
    cv2.circle(mask, (300, 300), radius, (0,), cv2.FILLED)
    assert (shapes._describe("circle", mask) is not None) == fits


def test_unknown_split() -> None:
    with pytest.raises(ConfigError, match="no split 'test': use one of train, val"):
        shapes.draw_image("test", 0)


def test_cache_is_made_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = shapes_files.shapes_root()
    assert [path.name for path in cache.iterdir()] == [root.name]
    assert len(contents(root)) == FILES
    monkeypatch.setattr(shapes_files, "write_shapes", refuse)
    assert shapes_files.shapes_root() == root


def test_other_constants_are_another_folder(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {shapes_files.shapes_root()}
    for name, value in {"VERSION": 0, "COUNTS": {"train": 1, "val": 1}, "SEED": 1}.items():
        monkeypatch.setattr(shapes, name, value)
        folders.add(shapes_files.shapes_root())
    assert len(folders) == 4


def test_cache_folder_without_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "COUNTS", FEW)
    monkeypatch.delenv("D2TIMM_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert shapes_files.shapes_root().parent == tmp_path / "xdg" / "d2timm"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert shapes_files.shapes_root().parent == tmp_path / ".cache" / "d2timm"


def test_half_made_set_is_never_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / ".shapes-killed" / "set" / "train").mkdir(parents=True)
    draw = shapes.draw_image

    def stop(split: str, index: int) -> object:
        if index == 1:
            raise KeyboardInterrupt
        return draw(split, index)

    with monkeypatch.context() as patch:
        patch.setattr(shapes, "draw_image", stop)
        with pytest.raises(KeyboardInterrupt):
            shapes_files.shapes_root()
    assert [path.name for path in cache.iterdir()] == [".shapes-killed"]
    assert len(contents(shapes_files.shapes_root())) == FILES


def make_together(cache: Path, barrier: Barrier) -> None:
    """Makes the set in another process, all processes being done before any puts it in place."""
    write = shapes_files.write_shapes

    def write_and_wait(root: Path) -> None:
        write(root)
        barrier.wait(timeout=60)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D2TIMM_CACHE", str(cache))
        patch.setattr(shapes, "COUNTS", FEW)
        patch.setattr(shapes_files, "write_shapes", write_and_wait)
        assert len(contents(shapes_files.shapes_root())) == FILES


def test_two_processes_at_once(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    processes = [context.Process(target=make_together, args=(cache, barrier)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    shapes_files.write_shapes(tmp_path / "direct")
    monkeypatch.setattr(shapes_files, "write_shapes", refuse)
    root = shapes_files.shapes_root()
    assert [path.name for path in cache.iterdir()] == [root.name]
    assert contents(root) == contents(tmp_path / "direct")


def test_cache_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "file" / "cache"
    folder.parent.write_text("not a folder")
    monkeypatch.setenv("D2TIMM_CACHE", str(folder))
    with pytest.raises(ConfigError) as caught:
        shapes_files.shapes_root()
    message = str(caught.value)
    assert str(folder) in message
    assert "set D2TIMM_CACHE to a folder that can be written" in message
    assert "\n" not in message


def test_full_disk(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ConfigError, match="No space left on device"):
        shapes_files.shapes_root()
    assert not list(cache.iterdir())
