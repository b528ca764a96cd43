"""The mapper's output: annotations follow the pixels, and boxes fit the masks after a crop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import hydra
import numpy as np
import pytest
import torch
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, BoxMode, PolygonMasks
from numpy.typing import NDArray
from omegaconf import OmegaConf
from pycocotools import mask as coco_mask

from d2timm import ConfigError
from d2timm.config.build import instantiate
from d2timm.config.groups import read_nodes
from d2timm.config.lazy import get_config, load, to_plain
from d2timm.data.mapper import Mapper, check_augmentations, largest_size
from d2timm.sweep.hydra_groups import store_groups
from d2timm.utils.files import resource_folder

HEIGHT, WIDTH = 40, 60
BOX = (12, 8, 32, 28)  # around an L: a bar on the left, and one at the bottom
L_SHAPE = [12, 8, 18, 8, 18, 22, 32, 22, 32, 28, 12, 28]
POINTS = ["left_end", "right_end", "corner"]

Entry = dict[str, Any]


def bitmap() -> NDArray[np.uint8]:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[8:28, 12:18] = mask[22:28, 12:32] = 1
    return mask


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    """An image with one object, whose pixels are white, and annotations for every task."""
    image, segments = (np.zeros((HEIGHT, WIDTH, 3), np.uint8) for _ in range(2))
    image[bitmap() == 1] = 255
    segments[..., 2] = bitmap()  # red in OpenCV's channel order
    for name, pixels in (("image", image), ("segments", segments)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), pixels)
    annotation = {
        "bbox": list(BOX),
        "bbox_mode": BoxMode.XYXY_ABS,
        "category_id": 3,
        "segmentation": [list(L_SHAPE)],
        "keypoints": [15, 8, 2, 32, 25, 2, 15, 25, 1],
        "iscrowd": 0,
    }
    return {
        "file_name": str(tmp_path / "image.png"),
        "image_id": 1,
        "height": HEIGHT,
        "width": WIDTH,
        "annotations": [annotation],
        "pan_seg_file_name": str(tmp_path / "segments.png"),
        "sem_seg_file_name": str(tmp_path / "segments.png"),
        "segments_info": [{"id": 1, "label": 7, "category_id": 3, "isthing": True, "iscrowd": 0}],
    }


def mapper(*augmentations: T.Augmentation | T.Transform, **more: Any) -> Mapper:
    defaults: dict[str, Any] = {
        "is_train": True,
        "tasks": ["bbox", "segm", "keypoints", "sem_seg"],
        "image_format": "RGB",
        "keypoint_names": POINTS,
    }
    return Mapper(augmentations=augmentations, **{**defaults, **more})


def assert_consistent(example: Entry) -> None:
    """Assert that mask, box and pixel classes match the white pixels."""
    white = example["image"][0] > 160  # a crop is padded with 128
    assert len(example["instances"]) == 1
    masks = example["instances"].gt_masks
    if isinstance(masks, PolygonMasks):
        rles = coco_mask.frPyObjects(masks.polygons[0], *white.shape)
        mask = torch.as_tensor(coco_mask.decode(coco_mask.merge(rles))).bool()
    else:
        mask = masks.tensor[0]
    assert (mask == white).float().mean() > 0.99
    assert (mask & white).sum() / (mask | white).sum() > 0.9
    rows, columns = torch.nonzero(white.any(1)), torch.nonzero(white.any(0))
    tight = [float(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]
    assert example["instances"].gt_boxes.tensor[0].tolist() == pytest.approx(tight, abs=1.01)
    classes = example["sem_seg"]
    assert ((classes == 7) == white).float().mean() > 0.99
    assert set(classes.unique().tolist()) <= {7, 255}


SEGMENTATIONS = {
    "polygons": lambda: [list(L_SHAPE)],
    "run lengths": lambda: coco_mask.encode(np.asfortranarray(bitmap())),
}


@pytest.mark.parametrize("form", SEGMENTATIONS)
@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
@pytest.mark.parametrize(
    "augmentations",
    [
        pytest.param([], id="none"),
        pytest.param([T.HFlipTransform(WIDTH)], id="flip"),
        pytest.param([T.ResizeTransform(HEIGHT, WIDTH, 80, 90)], id="resize"),
        pytest.param([T.CropTransform(16, 4, 30, 30)], id="crop"),
        pytest.param([T.CropTransform(20, 0, 30, 30), T.HFlipTransform(30)], id="crop and flip"),
        pytest.param([T.FixedSizeCrop((64, 64))], id="pad"),
        pytest.param([T.FixedSizeCrop((32, 80))], id="crop and pad"),
    ],
)
def test_annotations_follow_the_pixels(
    entry: Entry, augmentations: Sequence[Any], mask_format: str, form: str
) -> None:
    np.random.seed(0)
    entry["annotations"][0]["segmentation"] = SEGMENTATIONS[form]()
    example = mapper(*augmentations, instance_mask_format=mask_format)(entry)
    assert_consistent(example)
    polygons = mask_format == "polygon" and form == "polygons"
    assert isinstance(example["instances"].gt_masks, PolygonMasks if polygons else BitMasks)


def test_boxes_fit_the_cropped_masks(entry: Entry) -> None:
    crop = T.CropTransform(20, 0, 40, HEIGHT)  # contains only the bar at the bottom
    (box,) = mapper(crop)(entry)["instances"].gt_boxes.tensor.tolist()
    assert box == pytest.approx([0, 22, 12, 28])
    (box,) = mapper(crop, tasks=["bbox"])(entry)["instances"].gt_boxes.tensor.tolist()
    assert box == pytest.approx([0, 8, 12, 28]), "clipped, because there are no masks"


def test_tight_boxes_false_clips_boxes(entry: Entry) -> None:
    crop = T.CropTransform(20, 0, 40, HEIGHT)
    tight, clipped = (mapper(crop, tight_boxes=tight)(entry)["instances"] for tight in (True, False))
    (without_masks,) = mapper(crop, tasks=["bbox"])(entry)["instances"].gt_boxes
    (box,) = clipped.gt_boxes.tensor
    assert torch.equal(box, without_masks)
    assert not torch.equal(box, tight.gt_boxes.tensor[0])
    assert len(clipped.gt_masks) == 1


def test_objects_outside_a_crop_are_removed(entry: Entry) -> None:
    for tasks in (["bbox"], ["bbox", "segm"], ["bbox", "keypoints"]):
        for x, y in ((0, 0), (20, 0)):  # outside the box; inside the box but outside the mask
            example = mapper(T.CropTransform(x, y, 10, 7 if x == 0 else 20), tasks=tasks)(entry)
            removed = x == 0 or "segm" in tasks
            assert len(example["instances"]) == (0 if removed else 1)
            assert example["instances"].image_size == tuple(example["image"].shape[1:])


def test_image_without_objects(entry: Entry) -> None:
    entry["annotations"] = []
    example = mapper(T.FixedSizeCrop((32, 32)))(entry)
    assert len(example["instances"]) == 0
    assert example["instances"].gt_boxes.tensor.shape == (0, 4)


def test_keypoints_follow_the_pixels(entry: Entry) -> None:
    def points(*augmentations: Any) -> list[Any]:
        return mapper(*augmentations)(entry)["instances"].gt_keypoints.tensor[0].tolist()

    assert points() == [[15, 8, 2], [32, 25, 2], [15, 25, 1]]
    assert points(T.HFlipTransform(WIDTH)) == [[28, 25, 2], [45, 8, 2], [45, 25, 1]], (
        "left and right are swapped"
    )
    assert points(T.HFlipTransform(WIDTH), T.HFlipTransform(WIDTH)) == points()
    assert points(T.CropTransform(14, 10, 40, 30)) == [[0, 0, 0], [18, 15, 2], [1, 15, 1]]


@pytest.mark.parametrize(
    ("resize", "size"),
    [
        ({"short_edge_length": 800, "max_size": 1333}, (800, 1333)),
        ({"short_edge_length": [600, 800], "max_size": 1333}, (800, 1333)),
        ({"short_edge_length": 0, "max_size": 1333}, (480, 640)),
        ({"horizontal": True}, (480, 640)),
        (None, (480, 640)),
    ],
)
def test_size_of_evaluated_images(resize: Any, size: tuple[int, int]) -> None:
    assert largest_size(OmegaConf.create({"augmentations": [resize] if resize else []})) == size


def test_size_is_a_usual_one_for_a_mapper_of_another_kind() -> None:
    assert largest_size(OmegaConf.create({"_target_": "builtins.dict"})) == (480, 640)


def test_augmentations_are_tried() -> None:
    target = {"_target_": "detectron2.data.transforms.ResizeShortestEdge", "sample_style": "choice"}
    check_augmentations(OmegaConf.create({}), "a")
    check_augmentations(OmegaConf.create({"augmentations": [{**target, "short_edge_length": [9]}]}), "a")
    with pytest.raises(ConfigError, match=r"^a\.augmentations cannot transform an image of 640x480 pixels: "):
        check_augmentations(OmegaConf.create({"augmentations": [{**target, "short_edge_length": []}]}), "a")


@pytest.mark.parametrize("partial_masks", [False, True])
def test_objects_without_needed_annotations(entry: Entry, partial_masks: bool) -> None:
    complete = entry["annotations"][0]
    only_box = {key: value for key, value in complete.items() if key not in ("segmentation", "keypoints")}
    crowd, empty = {**complete, "iscrowd": 1}, {**complete, "bbox": [1, 1, 1, 9]}
    entry["annotations"] = [only_box, crowd, complete, empty]
    masks = 2 if partial_masks else 1
    for tasks, count in ((["bbox"], 2), (["bbox", "segm"], masks), (["bbox", "keypoints"], 2)):
        instances = mapper(tasks=tasks, partial_masks=partial_masks)(entry)["instances"]
        assert len(instances) == count
        assert instances.has("gt_masks") == ("segm" in tasks)
        assert instances.has("gt_keypoints") == ("keypoints" in tasks)


@pytest.mark.parametrize("form", SEGMENTATIONS)
@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_objects_without_masks_are_kept_for_the_box_head(entry: Entry, mask_format: str, form: str) -> None:
    entry["annotations"][0]["segmentation"] = SEGMENTATIONS[form]()
    complete = entry["annotations"][0]
    only_box = {**complete, "bbox": [20, 2, 50, 38], "segmentation": []}
    entry["annotations"] = [only_box, complete]
    crop = T.CropTransform(20, 0, 40, HEIGHT)  # contains only the bar at the bottom of the mask
    make = partial(mapper, tasks=["bbox", "segm"], instance_mask_format=mask_format, partial_masks=True)
    instances = make(crop)(entry)["instances"]
    assert instances.gt_has_mask.tolist() == instances.gt_masks.nonempty().tolist() == [False, True]
    boxes = instances.gt_boxes.tensor.tolist()
    assert boxes[0] == pytest.approx([0, 2, 30, 38]), "clipped"
    assert boxes[1] == pytest.approx([0, 22, 12, 28]), "fitted to the mask"
    alone = make(crop)({**entry, "annotations": [complete]})["instances"]
    assert torch.equal(alone.gt_boxes.tensor[0], instances.gt_boxes.tensor[1])
    outside = make(T.CropTransform(20, 0, 40, 20))(entry)["instances"]  # the mask lies below, its box not
    assert outside.gt_has_mask.tolist() == [False]
    nothing = make(crop)({**entry, "annotations": [only_box]})["instances"]
    assert nothing.gt_has_mask.tolist() == [False]
    assert len(nothing.gt_masks) == 1
    assert len(make(crop)({**entry, "annotations": []})["instances"]) == 0


def test_objects_without_keypoints_have_invisible_ones(entry: Entry) -> None:
    complete = entry["annotations"][0]
    entry["annotations"] = [{**complete, "keypoints": []}, complete]
    points = mapper(T.HFlipTransform(WIDTH))(entry)["instances"].gt_keypoints.tensor
    assert points[0].tolist() == [[0, 0, 0]] * 3
    assert points[1, :, 2].tolist() == [2, 2, 1]


def test_size_limit(entry: Entry) -> None:
    assert mapper(max_pixels=HEIGHT * WIDTH)(entry)["image"].shape == (3, HEIGHT, WIDTH)
    with pytest.raises(ConfigError, match="max_pixels=2399"):
        mapper(max_pixels=HEIGHT * WIDTH - 1)(entry)


def test_entry_is_not_changed(entry: Entry) -> None:
    before = repr(entry)
    mapper(T.HFlipTransform(WIDTH), T.CropTransform(20, 0, 30, 30))(entry)
    assert repr(entry) == before


def test_unneeded_annotations_are_not_read(entry: Entry) -> None:
    entry["pan_seg_file_name"] = entry["sem_seg_file_name"] = "missing.png"
    assert "sem_seg" not in mapper(tasks=["bbox"])(entry)
    entry["annotations"][0].update(segmentation="broken", keypoints="broken")
    example = mapper(is_train=False)(entry)
    assert {"instances", "sem_seg", "annotations"}.isdisjoint(example)
    assert example["image"].shape == (3, HEIGHT, WIDTH)
    assert (example["height"], example["width"]) == (HEIGHT, WIDTH), "the size of the results"


def test_image_format_determines_the_channel_order(entry: Entry) -> None:
    cv2.imwrite(entry["file_name"], np.full((HEIGHT, WIDTH, 3), (0, 0, 200), np.uint8))  # red
    for image_format, channel in (("RGB", 0), ("BGR", 2)):
        image = mapper(tasks=[], image_format=image_format)(entry)["image"]
        assert image.amax((1, 2)).tolist() == [200 if i == channel else 0 for i in range(3)]


# The options of the group `augmentation`


GROUP = resource_folder("lazy_configs") / "common" / "augmentation"
OPTIONS = sorted(path.stem for path in GROUP.glob("*.py"))
MASKS = {
    "mask_rcnn_timm.py": {"gt_masks"},
    "faster_rcnn_timm.py": set(),
}


def jitter(cfg: Any) -> None:
    """Select large-scale jitter in a config."""
    cfg.dataloader.train.mapper.augmentations = load(GROUP / "lsj.py").augmentation


@pytest.mark.parametrize("recipe", MASKS)
def test_large_scale_jitter_makes_square_images(
    recipe: str, tiny: Callable[..., Any], tmp_path: Path
) -> None:
    cfg = tiny(recipe, tmp_path, "data.settings.custom.crop_size=96")
    jitter(cfg)
    mapped, dataset = (instantiate(cfg.dataloader.train[key]) for key in ("mapper", "dataset"))
    np.random.seed(0)
    padded = set()
    for entry in [*dataset] * 10:
        example = mapped(entry)
        instances, boxes = example["instances"], example["instances"].gt_boxes
        assert tuple(example["image"].shape[1:]) == instances.image_size == (96, 96)
        assert bool(boxes.nonempty().all())
        assert len(boxes) == 0 or (boxes.tensor.min() >= 0 and boxes.tensor.max() <= 96)
        assert len(boxes) == 0 or {"gt_masks"} & set(instances.get_fields()) == MASKS[recipe]
        padded.add(bool((example["image"][:, -1, -1] == 128).all()))
    assert padded == {True, False}, "some images are smaller than the crop, others are not"


def test_large_scale_jitter_for_every_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d2timm.data.datasets.shapes.COUNTS", {"train": 6, "val": 1})
    cfg = get_config("mask_rcnn_timm.py")
    cfg.data.update(name="shapes", tasks=["bbox", "segm", "keypoints", "sem_seg", "panoptic_seg"])
    jitter(cfg)
    mapped, dataset = (instantiate(cfg.dataloader.train[key]) for key in ("mapper", "dataset"))
    np.random.seed(0)
    for entry in [*dataset] * 5:
        example = mapped(entry)
        classes, masks = example["sem_seg"], example["instances"].gt_masks
        object_masks = [
            coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, 160, 160)))
            for polygons in masks.polygons
        ]
        assert classes.shape == (160, 160)
        agreed = (classes == 0).numpy() == np.any(object_masks, axis=0)
        assert agreed.mean() > 0.97, "class 0 stands for all objects"
        pad = (example["image"] == 128).all(0)
        assert ((classes == 255) == pad).float().mean() > 0.99
        points = example["instances"].gt_keypoints.tensor
        inside = points[points[..., 2] > 0][:, :2]
        assert inside.numel() == 0 or (inside.min() >= 0 and inside.max() <= 160)


def test_resize_crop_resizes_half_of_the_images_only(tiny: Callable[..., Any], tmp_path: Path) -> None:
    """The other half is cropped before; every short side is one of the configured lengths."""
    cfg = tiny("mask_rcnn_timm.py", tmp_path, "data.settings.custom.train_short_edges=[48,64]")
    cfg.dataloader.train.mapper.augmentations = load(GROUP / "resize_crop.py").augmentation
    augmentations = T.AugmentationList(instantiate(cfg.dataloader.train.mapper.augmentations))
    np.random.seed(0)
    cropped = []
    for _ in range(60):
        aug_input = T.AugInput(np.zeros((300, 300, 3), np.uint8))
        transforms = augmentations(aug_input).transforms
        crops = [t for t in transforms if isinstance(t, T.CropTransform)]
        assert all(384 <= side <= 600 for t in crops for side in (t.h, t.w))
        size = aug_input.image.shape[:2]
        assert min(size) in (48, 64) or max(size) == 64
        cropped.append(bool(crops))
    assert 20 < sum(cropped) < 40


def test_unpadded_jitter_flips_first(tiny: Callable[..., Any], tmp_path: Path) -> None:
    cfg = tiny("mask_rcnn_timm.py", tmp_path, "data.settings.custom.crop_size=96")
    cfg.dataloader.train.mapper.augmentations = load(GROUP / "lsj_unpadded.py").augmentation
    augmentations = instantiate(cfg.dataloader.train.mapper.augmentations)
    assert [type(augmentation) for augmentation in augmentations] == [
        T.RandomFlip,
        T.ResizeScale,
        T.FixedSizeCrop,
    ]
    np.random.seed(0)
    sides = []
    for _ in range(20):
        aug_input = T.AugInput(np.zeros((60, 90, 3), np.uint8))
        T.AugmentationList(augmentations)(aug_input)
        sides.append(aug_input.image.shape[:2])
    assert max(map(max, sides)) == 96
    assert min(map(min, sides)) < 96, "smaller images are not padded"


def test_hydra_composes_every_option() -> None:
    store_groups(read_nodes())
    assert {"flip", "lsj"} <= set(OPTIONS)
    with hydra.initialize_config_dir(str(resource_folder("conf")), version_base="1.3"):
        for option in OPTIONS:
            composed = hydra.compose("config", [f"augmentation={option}"])
            node = load(GROUP / f"{option}.py")
            assert (
                to_plain(composed)["dataloader"]["train"]["mapper"]["augmentations"]
                == to_plain(node)["augmentation"]
            )


# Drafts of large JPEGs


@pytest.fixture
def large(entry: Entry, tmp_path: Path) -> Entry:
    """The same image and annotations as a JPEG of five times the size."""
    size = (WIDTH * 5, HEIGHT * 5)
    for name, suffix in (("image", "jpg"), ("segments", "png")):
        pixels = cv2.imread(str(tmp_path / f"{name}.png"))
        enlarged = cv2.resize(pixels, size, interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(tmp_path / f"large_{name}.{suffix}"), enlarged)
    annotation = dict(entry["annotations"][0])
    for key in ("bbox", "keypoints"):
        annotation[key] = [5 * value for value in annotation[key]]
    annotation["keypoints"][2::3] = [2, 2, 1]
    annotation["segmentation"] = [[5 * value for value in L_SHAPE]]
    segments = str(tmp_path / "large_segments.png")
    files = {"file_name": str(tmp_path / "large_image.jpg"), "pan_seg_file_name": segments}
    return {**entry, **files, "annotations": [annotation], "height": size[1], "width": size[0]}


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_draft_of_a_jpeg_fits_its_annotations(large: Entry, flip: float) -> None:
    augmentations = [T.ResizeShortestEdge([HEIGHT, 2 * HEIGHT], 1000, "choice"), T.RandomFlip(flip)]
    examples = [mapper(*augmentations, draft_jpegs=draft) for draft in (True, False)]
    assert [each.short_edge for each in examples] == [2 * HEIGHT, 0]
    image, draft = examples[0]._read(dict(large))
    assert image.shape == (100, 150, 3), "a half, which has the 80 rows that are needed"
    assert [(t.h, t.w, t.new_h, t.new_w) for t in draft] == [(200, 300, 100, 150)]
    np.random.seed(0)
    of_draft = examples[0](large)
    np.random.seed(0)
    whole = examples[1](large)
    assert_consistent(of_draft)
    assert of_draft["image"].shape == whole["image"].shape
    assert (of_draft["image"].float() - whole["image"].float()).abs().mean() < 6
    boxes = [each["instances"].gt_boxes.tensor for each in (of_draft, whole)]
    torch.testing.assert_close(*boxes, atol=1e-3, rtol=1e-4)
    points = [each["instances"].gt_keypoints.tensor for each in (of_draft, whole)]
    torch.testing.assert_close(*points, atol=1e-3, rtol=1e-4)
    assert (of_draft["height"], of_draft["width"]) == (large["height"], large["width"])


def test_image_of_half_the_annotated_size_is_no_draft(large: Entry) -> None:
    wrong = {**large, "height": 2 * large["height"], "width": 2 * large["width"]}
    with pytest.raises(detection_utils.SizeMismatchError):
        mapper(T.ResizeShortestEdge([HEIGHT], 1000, "choice"), draft_jpegs=True)(wrong)


@pytest.mark.parametrize("augmentations", [[], [T.RandomCrop("absolute", (30, 30))]])
def test_image_that_is_not_scaled_down_first_is_read_whole(large: Entry, augmentations: list[Any]) -> None:
    assert mapper(*augmentations, draft_jpegs=True).short_edge == 0
