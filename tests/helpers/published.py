"""Small datasets of drawn images, in the folders and formats in which the real datasets are published.

Each function writes one dataset and returns its ground truth, with which tests compare what is read.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import yaml
from conftest import CATEGORY_IDS, _draw
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES, COCO_PERSON_KEYPOINT_NAMES
from detectron2.data.datasets.lvis_v1_categories import LVIS_CATEGORIES
from detectron2.data.datasets.lvis_v1_category_image_count import LVIS_CATEGORY_IMAGE_COUNT
from detectron2.data.datasets.pascal_voc import CLASS_NAMES
from pycocotools import mask as coco_mask

from d2timm.data.datasets.shapes import CLASSES, draw_image

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels
Objects = dict[str, list[tuple[str, Box]]]  # file name -> class and box of each object
GroundTruth = dict[str, Objects]  # by split

SIDES = [(64, 96), (80, 64), (96, 96), (64, 64), (72, 88), (96, 72), (80, 80), (88, 64)]  # height, width
COUNTS = {"train": 6, "val": 4}
#: The classes of a dataset that circles, triangles, squares and stars represent
COCO_IDS = (1, 90, 13, 24)
LVIS_IDS = (13, 1, 2, 1203)  # rare, common and frequent
CITYSCAPES = ("person", "bicycle", "car", "train")
SKY, GRASS = 187, 193  # ids of COCO's panoptic categories
CROWD: Box = (2, 3, 17, 13)


class Drawn(NamedTuple):
    """An image and its objects, from bottom to top."""

    number: int
    pixels: np.ndarray[Any, Any]  # (H, W, 3) BGR
    objects: list[dict[str, Any]]  # kind (an index of CLASSES), bbox (XYWH), area, segmentation

    def mask(self, obj: Mapping[str, Any]) -> np.ndarray[Any, Any]:
        """The mask of an object, (H, W), 0 or 1."""
        height, width = self.pixels.shape[:2]
        rles = coco_mask.frPyObjects(obj["segmentation"], height, width)
        return np.asarray(coco_mask.decode(coco_mask.merge(rles)))


def draw(split: str, count: int = 0) -> list[Drawn]:
    """The images of a split: ``COUNTS[split]`` of them, or another number."""
    content = _draw(split, SIDES[: count or COUNTS[split]])
    drawn = [Drawn(image["id"], image["pixels"], []) for image in content["images"]]
    for annotation in content["annotations"]:
        obj = {key: annotation[key] for key in ("bbox", "area", "segmentation")}
        kind = CATEGORY_IDS.index(annotation["category_id"])
        drawn[annotation["image_id"] - drawn[0].number].objects.append({"kind": kind, **obj})
    return drawn


def corners(box: Sequence[float]) -> Box:
    """The corners of a box in COCO's format."""
    x, y, width, height = box
    return x, y, x + width, y + height


# COCO


def coco(root: Path) -> GroundTruth:
    """COCO 2017: objects and panoptic maps; one object is a crowd, encoded as run lengths."""
    names = {c["id"]: c["name"] for c in COCO_CATEGORIES}
    things = [{"id": c["id"], "name": c["name"]} for c in COCO_CATEGORIES if c["isthing"]]
    kinds = [{key: c[key] for key in ("id", "name", "isthing")} for c in COCO_CATEGORIES]
    ground_truth: GroundTruth = {}
    for split in COUNTS:
        drawn = draw(split)
        images = [_coco_image(root, f"{split}2017", picture) for picture in drawn]
        annotations = _coco_annotations(drawn, COCO_IDS)
        annotations.append(_crowd(drawn[0], len(annotations) + 1))
        _write(root, f"coco/annotations/instances_{split}2017.json", images, annotations, things)
        maps = [_panoptic(root, f"panoptic_{split}2017", picture) for picture in drawn]
        _write(root, f"coco/annotations/panoptic_{split}2017.json", images, maps, kinds)
        ground_truth[split] = _objects(drawn, images, [names[i] for i in COCO_IDS])
    return ground_truth


def coco_keypoints(root: Path) -> GroundTruth:
    """The people of COCO 2017; some have no keypoints, and some keypoints are not labelled."""
    person = {"id": 1, "name": "person", "keypoints": list(COCO_PERSON_KEYPOINT_NAMES), "skeleton": [[1, 2]]}
    ground_truth: GroundTruth = {}
    for split in COUNTS:
        drawn = draw(split)
        images = [_coco_image(root, f"{split}2017", picture) for picture in drawn]
        annotations = _coco_annotations(drawn, (1, 1, 1, 1))
        for annotation in annotations:
            points = [] if annotation["id"] % 5 == 0 else _points(annotation["segmentation"][0])
            annotation["keypoints"] = points or [0] * 51
            annotation["num_keypoints"] = sum(v > 0 for v in points[2::3])
        crowd = _crowd(drawn[0], len(annotations) + 1)
        annotations.append({**crowd, "keypoints": [0] * 51, "num_keypoints": 0})
        _write(root, f"coco/annotations/person_keypoints_{split}2017.json", images, annotations, [person])
        ground_truth[split] = _objects(drawn, images, ["person"] * 4)
    return ground_truth


def _coco_image(root: Path, folder: str, picture: Drawn) -> dict[str, Any]:
    name = f"{picture.number:012}.jpg"
    _save(root / "coco" / folder / name, picture.pixels)
    height, width = picture.pixels.shape[:2]
    return {"id": picture.number, "file_name": name, "height": height, "width": width}


def _coco_annotations(drawn: Sequence[Drawn], ids: Sequence[int]) -> list[dict[str, Any]]:
    pairs = [(picture, obj) for picture in drawn for obj in picture.objects]
    return [
        {
            "id": number,
            "image_id": picture.number,
            "category_id": ids[obj["kind"]],
            "iscrowd": 0,
            **{key: obj[key] for key in ("bbox", "area", "segmentation")},
        }
        for number, (picture, obj) in enumerate(pairs, start=1)
    ]


def _crowd(picture: Drawn, number: int) -> dict[str, Any]:
    height, width = picture.pixels.shape[:2]
    x0, y0, x1, y1 = map(int, CROWD)
    mask = np.zeros((height, width), int)
    mask[y0:y1, x0:x1] = 1
    flat = mask.ravel("F")
    edges = [0, *(np.nonzero(np.diff(flat))[0] + 1).tolist(), flat.size]
    return {
        "id": number,
        "image_id": picture.number,
        "category_id": 1,
        "iscrowd": 1,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": (x1 - x0) * (y1 - y0),
        "segmentation": {"size": [height, width], "counts": np.diff(edges).tolist()},
    }


def _points(polygon: Sequence[float]) -> list[float]:
    """17 keypoints along an outline, in integer pixels like COCO's; some are hidden, the last is missing."""
    outline = np.reshape(polygon, (-1, 2))
    places = np.linspace(0, len(outline) - 1, 16).astype(int)
    seen = cycle((2, 2, 1))
    points = [[*np.floor(outline[place]).tolist(), next(seen)] for place in places]
    return [value for point in [*points, [0, 0, 0]] for value in point]


def _panoptic(root: Path, folder: str, picture: Drawn) -> dict[str, Any]:
    """Sky to the left and grass to the right of the objects; the bottom rows are not annotated."""
    height, width = picture.pixels.shape[:2]
    kinds = [SKY, GRASS, *(COCO_IDS[obj["kind"]] for obj in picture.objects)]
    numbers = np.random.default_rng(picture.number).choice(2**24 - 1, len(kinds) + 1, replace=False) + 1
    segments = np.zeros((height, width), np.int64)
    segments[:-4, : width // 2] = numbers[0]
    segments[:-4, width // 2 :] = numbers[1]
    for number, obj in zip(numbers[2:], picture.objects, strict=False):
        segments[picture.mask(obj) == 1] = number
    x0, y0, x1, y1 = map(int, CROWD)
    segments[y0:y1, x0:x1] = numbers[-1]
    name = f"{picture.number:012}.png"
    colours = np.stack([segments >> 16, segments >> 8 & 255, segments & 255], axis=-1)  # BGR
    _save(root / "coco" / folder / name, colours.astype(np.uint8))
    info = [
        {
            "id": int(number),
            "category_id": kind,
            "iscrowd": int(number == numbers[-1]),
            "area": int((segments == number).sum()),
        }
        for number, kind in zip(numbers, [*kinds, COCO_IDS[0]], strict=True)
        if (segments == number).any()
    ]
    return {"image_id": picture.number, "file_name": name, "segments_info": info}


# LVIS


def lvis(root: Path) -> GroundTruth:
    """LVIS v1, whose validation images come from both splits of COCO; it also lists absent classes."""
    counts = {c["id"]: c["image_count"] for c in LVIS_CATEGORY_IMAGE_COUNT}
    categories = [
        {**c, "image_count": counts[c["id"]], "instance_count": 2 * counts[c["id"]]} for c in LVIS_CATEGORIES
    ]
    names = {c["id"]: c["name"] for c in LVIS_CATEGORIES}
    ground_truth: GroundTruth = {}
    for split in COUNTS:
        drawn = draw(split)
        folders = ["train2017" if split == "train" or i % 2 else "val2017" for i in range(len(drawn))]
        images = [_coco_image(root, f, picture) for f, picture in zip(folders, drawn, strict=True)]
        for image, folder in zip(images, folders, strict=True):
            image["coco_url"] = f"http://images.cocodataset.org/{folder}/{image['file_name']}"
            image["neg_category_ids"], image["not_exhaustive_category_ids"] = [3, 7], [LVIS_IDS[1]]
        annotations = _coco_annotations(drawn, LVIS_IDS)
        for annotation in annotations:
            del annotation["iscrowd"]
        ground_truth[split] = _objects(drawn, images, [names[i] for i in LVIS_IDS])
        for image in images:
            del image["file_name"]
        _write(root, f"lvis/lvis_v1_{split}.json", images, annotations, categories)
    return ground_truth


# Cityscapes


def cityscapes(root: Path) -> GroundTruth:
    """Cityscapes' fine annotations; its own scripts make the maps."""
    from cityscapesscripts.helpers.annotation import Annotation
    from cityscapesscripts.preparation.json2instanceImg import createInstanceImage
    from cityscapesscripts.preparation.json2labelImg import createLabelImage

    ground_truth: GroundTruth = {}
    for split, city in (("train", "aachen"), ("val", "lindau")):
        folder = root / "cityscapes" / "gtFine" / split / city
        folder.mkdir(parents=True)
        ground_truth[split] = {}
        for picture in draw(split):
            height, width = picture.pixels.shape[:2]
            stem = f"{city}_{picture.number:06}_000019"
            image = root / "cityscapes" / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png"
            _save(image, picture.pixels)
            shapes = list(_outlines(picture))
            objects = [*_surroundings(height, width), *shapes]
            content = {"imgHeight": height, "imgWidth": width, "objects": objects}
            file = folder / f"{stem}_gtFine_polygons.json"
            file.write_text(json.dumps(content))
            read = Annotation()
            read.fromJsonFile(str(file))
            createLabelImage(read, "ids").save(folder / f"{stem}_gtFine_labelIds.png")
            instances = np.asarray(createInstanceImage(read, "ids"))
            _save(folder / f"{stem}_gtFine_instanceIds.png", instances.astype(np.uint16))
            ground_truth[split][image.name] = [
                # the last row and column belong to the object
                (shape["label"], (*np.min(shape["polygon"], axis=0), *(np.max(shape["polygon"], axis=0) + 1)))
                for shape in shapes
            ]
    return ground_truth


def _surroundings(height: int, width: int) -> Iterator[dict[str, Any]]:
    """Stuff, a group of objects without separate annotations, and regions that are not evaluated."""
    places = {
        "road": (0, 0, width, height),
        "sky": (0, 0, width, height // 2),
        "cargroup": CROWD,
        "ego vehicle": (0, height - 3, width, height),
        "license plate": (width - 4, 0, width, 2),
    }
    for label, (x0, y0, x1, y1) in places.items():
        yield {"label": label, "polygon": [[x0, y0], [x1 - 1, y0], [x1 - 1, y1 - 1], [x0, y1 - 1]]}


def _outlines(picture: Drawn) -> Iterator[dict[str, Any]]:
    for obj in picture.objects:
        outline = np.reshape(max(obj["segmentation"], key=len), (-1, 2)) - 0.5  # centres of pixels
        label = CITYSCAPES[obj["kind"]]
        yield {"label": label, "polygon": np.rint(outline).astype(int).clip(0).tolist()}


# Pascal VOC


def voc(root: Path) -> GroundTruth:
    """Pascal VOC 2007 and 2012; each of the 20 classes is in the test set of 2007."""
    test = _voc(root / "VOC2007", "test", draw("val", 8), CLASS_NAMES)
    early = _voc(root / "VOC2007", "trainval", draw("train")[:3], CLASS_NAMES, first=2000)
    late = _voc(root / "VOC2012", "trainval", draw("train")[3:], CLASS_NAMES, prefix="2008_")
    return {"train": early | late, "val": test}


def voc_folder(root: Path) -> GroundTruth:
    """A folder in the layout of Pascal VOC, with the classes of shapes."""
    return {split: _voc(root, split, draw(split), CLASSES, prefix=f"{split}_") for split in COUNTS}


def _voc(
    root: Path, part: str, drawn: Sequence[Drawn], names: Sequence[str], prefix: str = "", first: int = 0
) -> Objects:
    """Objects with the given classes in turn, or with their own classes if ``names`` is ``CLASSES``."""
    turn = cycle(names)
    objects: Objects = {}
    for picture in drawn:
        stem = f"{prefix}{first + picture.number:06}"
        height, width = picture.pixels.shape[:2]
        _save(root / "JPEGImages" / f"{stem}.jpg", picture.pixels)
        page = ET.Element("annotation")
        _add(page, {"folder": root.name, "filename": f"{stem}.jpg", "segmented": 0})
        _add(ET.SubElement(page, "size"), {"width": width, "height": height, "depth": 3})
        for obj in picture.objects:
            name = CLASSES[obj["kind"]] if names is CLASSES else next(turn)
            x0, y0, x1, y1 = (round(v) for v in corners(obj["bbox"]))
            element = ET.SubElement(page, "object")
            marks = {"pose": "Unspecified", "truncated": 0, "occluded": 0, "difficult": 0}
            _add(element, {"name": name, **marks})
            # pixels start at 1, and the last one belongs to the object
            box = {"xmin": x0 + 1, "ymin": y0 + 1, "xmax": x1, "ymax": y1}
            _add(ET.SubElement(element, "bndbox"), box)
            objects.setdefault(f"{stem}.jpg", []).append((name, (x0, y0, x1, y1)))
            if name == "person":
                piece = ET.SubElement(element, "part")
                _add(piece, {"name": "head"})
                _add(ET.SubElement(piece, "bndbox"), box)
        (root / "Annotations").mkdir(exist_ok=True)
        ET.ElementTree(page).write(root / "Annotations" / f"{stem}.xml")
    listed = root / "ImageSets" / "Main" / f"{part}.txt"
    listed.parent.mkdir(parents=True, exist_ok=True)
    listed.write_text("".join(f"{Path(name).stem}\n" for name in objects))
    return objects


def _add(element: ET.Element, texts: Mapping[str, Any]) -> None:
    for tag, text in texts.items():
        ET.SubElement(element, tag).text = str(text)


def shapes(root: Path) -> GroundTruth:
    """The embedded dataset, which is drawn at first use."""
    return {
        split: {
            f"{number:06}.png": [
                (shape.category, corners(shape.bbox)) for shape in draw_image(split, number - 1)[1]
            ]
            for number in range(1, count + 1)
        }
        for split, count in COUNTS.items()
    }


# Custom datasets


def yolo(root: Path, polygons: bool = False, named: bool = False) -> GroundTruth:
    """A YOLO folder: boxes or polygons, and class names in a list or by their indices."""
    ground_truth: GroundTruth = {}
    for split in COUNTS:
        ground_truth[split] = {}
        for picture in draw(split):
            height, width = picture.pixels.shape[:2]
            name = f"{picture.number}.png"
            _save(root / "images" / split / name, picture.pixels)
            lines = []
            for obj in picture.objects:
                outline = np.reshape(max(obj["segmentation"], key=len), (-1, 2))
                x0, y0, x1, y1 = (
                    (*outline.min(axis=0), *outline.max(axis=0)) if polygons else corners(obj["bbox"])
                )
                box = [(x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height]
                fractions = (outline / (width, height)).ravel() if polygons else box
                lines.append(" ".join([str(obj["kind"]), *(f"{fraction:.6f}" for fraction in fractions)]))
                ground_truth[split].setdefault(name, []).append((CLASSES[obj["kind"]], (x0, y0, x1, y1)))
            labels = root / "labels" / split / f"{picture.number}.txt"
            labels.parent.mkdir(parents=True, exist_ok=True)
            labels.write_text("\n".join(lines))
    names = dict(enumerate(CLASSES)) if named else list(CLASSES)
    content = {
        "path": ".",
        **{split: f"images/{split}" for split in COUNTS},
        "nc": len(CLASSES),
        "names": names,
    }
    (root / "data.yaml").write_text(yaml.safe_dump(content))
    return ground_truth


def several(root: Path) -> GroundTruth:
    """Two COCO files and image folders per split, with different image and category ids."""
    ground_truth: GroundTruth = {split: {} for split in COUNTS}
    for split in COUNTS:
        drawn = draw(split)
        for part, ids in (("a", (1, 2, 3, 4)), ("b", (5, 9, 20, 31))):
            half = drawn[::2] if part == "a" else drawn[1::2]
            images = []
            for picture in half:
                name = f"{part}{picture.number}.png"
                _save(root / part / split / name, picture.pixels)
                height, width = picture.pixels.shape[:2]
                images.append({"id": picture.number, "file_name": name, "height": height, "width": width})
            categories = [{"id": i, "name": name} for i, name in zip(ids, CLASSES, strict=True)]
            annotations = _coco_annotations(half, ids)
            _write(root, f"{part}/{split}.json", images, annotations, categories)
            ground_truth[split] |= _objects(half, images, CLASSES)
    return ground_truth


def _objects(drawn: Sequence[Drawn], images: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Objects:
    return {
        image["file_name"]: [(names[obj["kind"]], corners(obj["bbox"])) for obj in picture.objects]
        for image, picture in zip(images, drawn, strict=True)
    }


def _write(root: Path, file: str, images: Any, annotations: Any, categories: Any) -> None:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / file).write_text(json.dumps(content))


def _save(file: Path, pixels: np.ndarray[Any, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), pixels)
