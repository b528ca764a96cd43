"""Samples of data sets: a handful of drawn pictures in the folders and formats in which sets are published.

Each function writes one set and gives what it has drawn, so that tests can tell what must be read.
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
Truth = dict[str, dict[str, list[tuple[str, Box]]]]  # split -> file name -> class and box of each object

SIDES = [(64, 96), (80, 64), (96, 96), (64, 64), (72, 88), (96, 72), (80, 80), (88, 64)]  # height, width
COUNTS = {"train": 6, "val": 4}
#: The classes of a set that stand for circles, triangles, squares and stars
COCO_IDS = (1, 90, 13, 24)
LVIS_IDS = (13, 1, 2, 1203)  # rare, common and frequent
CITYSCAPES = ("person", "bicycle", "car", "train")
SKY, GRASS = 187, 193  # of COCO's panoptic classes
CROWD: Box = (2, 3, 17, 13)


class Drawn(NamedTuple):
    """A picture and its objects, from the lowest to the topmost."""

    number: int
    pixels: np.ndarray[Any, Any]  # (H, W, 3) BGR
    objects: list[dict[str, Any]]  # kind (a number of CLASSES), bbox (XYWH), area, segmentation

    def mask(self, thing: Mapping[str, Any]) -> np.ndarray[Any, Any]:
        """(H, W) of an object; 0 or 1."""
        height, width = self.pixels.shape[:2]
        rles = coco_mask.frPyObjects(thing["segmentation"], height, width)
        return np.asarray(coco_mask.decode(coco_mask.merge(rles)))


def draw(split: str, count: int = 0) -> list[Drawn]:
    """Pictures of a split; as many as ``COUNTS`` says, or more."""
    content = _draw(split, SIDES[: count or COUNTS[split]])
    drawn = [Drawn(image["id"], image["pixels"], []) for image in content["images"]]
    for found in content["annotations"]:
        thing = {key: found[key] for key in ("bbox", "area", "segmentation")}
        kind = CATEGORY_IDS.index(found["category_id"])
        drawn[found["image_id"] - drawn[0].number].objects.append({"kind": kind, **thing})
    return drawn


def corners(box: Sequence[float]) -> Box:
    """A box of COCO's by its corners."""
    x, y, width, height = box
    return x, y, x + width, y + height


# COCO


def coco(root: Path) -> Truth:
    """COCO 2017: objects and panoptic maps; one of the objects is a crowd, told by run lengths."""
    names = {c["id"]: c["name"] for c in COCO_CATEGORIES}
    things = [{"id": c["id"], "name": c["name"]} for c in COCO_CATEGORIES if c["isthing"]]
    kinds = [{key: c[key] for key in ("id", "name", "isthing")} for c in COCO_CATEGORIES]
    truth: Truth = {}
    for split in COUNTS:
        drawn = draw(split)
        images = [_coco_image(root, f"{split}2017", picture) for picture in drawn]
        annotations = _coco_annotations(drawn, COCO_IDS)
        annotations.append(_crowd(drawn[0], len(annotations) + 1))
        _write(root, f"coco/annotations/instances_{split}2017.json", images, annotations, things)
        maps = [_panoptic(root, f"panoptic_{split}2017", picture) for picture in drawn]
        _write(root, f"coco/annotations/panoptic_{split}2017.json", images, maps, kinds)
        truth[split] = _told(drawn, images, [names[i] for i in COCO_IDS])
    return truth


def coco_keypoints(root: Path) -> Truth:
    """People of COCO 2017; not everyone has keypoints, and not every keypoint can be told."""
    person = {"id": 1, "name": "person", "keypoints": list(COCO_PERSON_KEYPOINT_NAMES), "skeleton": [[1, 2]]}
    truth: Truth = {}
    for split in COUNTS:
        drawn = draw(split)
        images = [_coco_image(root, f"{split}2017", picture) for picture in drawn]
        annotations = _coco_annotations(drawn, (1, 1, 1, 1))
        for found in annotations:
            points = [] if found["id"] % 5 == 0 else _points(found["segmentation"][0])
            found["keypoints"] = points or [0] * 51
            found["num_keypoints"] = sum(v > 0 for v in points[2::3])
        crowd = _crowd(drawn[0], len(annotations) + 1)
        annotations.append({**crowd, "keypoints": [0] * 51, "num_keypoints": 0})
        _write(root, f"coco/annotations/person_keypoints_{split}2017.json", images, annotations, [person])
        truth[split] = _told(drawn, images, ["person"] * 4)
    return truth


def _coco_image(root: Path, folder: str, picture: Drawn) -> dict[str, Any]:
    name = f"{picture.number:012}.jpg"
    _save(root / "coco" / folder / name, picture.pixels)
    height, width = picture.pixels.shape[:2]
    return {"id": picture.number, "file_name": name, "height": height, "width": width}


def _coco_annotations(drawn: Sequence[Drawn], ids: Sequence[int]) -> list[dict[str, Any]]:
    things = [(picture, thing) for picture in drawn for thing in picture.objects]
    return [
        {
            "id": number,
            "image_id": picture.number,
            "category_id": ids[thing["kind"]],
            "iscrowd": 0,
            **{key: thing[key] for key in ("bbox", "area", "segmentation")},
        }
        for number, (picture, thing) in enumerate(things, start=1)
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
    """17 keypoints along an outline: in whole pixels as COCO's, some hidden and the last not there."""
    outline = np.reshape(polygon, (-1, 2))
    places = np.linspace(0, len(outline) - 1, 16).astype(int)
    seen = cycle((2, 2, 1))
    points = [[*np.floor(outline[place]).tolist(), next(seen)] for place in places]
    return [value for point in [*points, [0, 0, 0]] for value in point]


def _panoptic(root: Path, folder: str, picture: Drawn) -> dict[str, Any]:
    """Sky left and grass right of the objects, below them nothing that anyone has told."""
    height, width = picture.pixels.shape[:2]
    kinds = [SKY, GRASS, *(COCO_IDS[thing["kind"]] for thing in picture.objects)]
    numbers = np.random.default_rng(picture.number).choice(2**24 - 1, len(kinds) + 1, replace=False) + 1
    segments = np.zeros((height, width), np.int64)
    segments[:-4, : width // 2] = numbers[0]
    segments[:-4, width // 2 :] = numbers[1]
    for number, thing in zip(numbers[2:], picture.objects, strict=False):
        segments[picture.mask(thing) == 1] = number
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


def lvis(root: Path) -> Truth:
    """LVIS v1, whose validation images are of both splits of COCO; it also tells which classes are absent."""
    counts = {c["id"]: c["image_count"] for c in LVIS_CATEGORY_IMAGE_COUNT}
    categories = [
        {**c, "image_count": counts[c["id"]], "instance_count": 2 * counts[c["id"]]} for c in LVIS_CATEGORIES
    ]
    names = {c["id"]: c["name"] for c in LVIS_CATEGORIES}
    truth: Truth = {}
    for split in COUNTS:
        drawn = draw(split)
        folders = ["train2017" if split == "train" or i % 2 else "val2017" for i in range(len(drawn))]
        images = [_coco_image(root, f, picture) for f, picture in zip(folders, drawn, strict=True)]
        for image, folder in zip(images, folders, strict=True):
            image["coco_url"] = f"http://images.cocodataset.org/{folder}/{image['file_name']}"
            image["neg_category_ids"], image["not_exhaustive_category_ids"] = [3, 7], [LVIS_IDS[1]]
        annotations = _coco_annotations(drawn, LVIS_IDS)
        for found in annotations:
            del found["iscrowd"]
        truth[split] = _told(drawn, images, [names[i] for i in LVIS_IDS])
        for image in images:
            del image["file_name"]
        _write(root, f"lvis/lvis_v1_{split}.json", images, annotations, categories)
    return truth


# Cityscapes


def cityscapes(root: Path) -> Truth:
    """Cityscapes' fine annotations, whose maps are made by its own scripts."""
    from cityscapesscripts.helpers.annotation import Annotation
    from cityscapesscripts.preparation.json2instanceImg import createInstanceImage
    from cityscapesscripts.preparation.json2labelImg import createLabelImage

    truth: Truth = {}
    for split, city in (("train", "aachen"), ("val", "lindau")):
        folder = root / "cityscapes" / "gtFine" / split / city
        folder.mkdir(parents=True)
        truth[split] = {}
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
            truth[split][image.name] = [
                # the last pixels belong to the object
                (shape["label"], (*np.min(shape["polygon"], axis=0), *(np.max(shape["polygon"], axis=0) + 1)))
                for shape in shapes
            ]
    return truth


def _surroundings(height: int, width: int) -> Iterator[dict[str, Any]]:
    """What is no object, a group of objects that nobody told apart, and what nobody evaluates."""
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
    for thing in picture.objects:
        outline = np.reshape(max(thing["segmentation"], key=len), (-1, 2)) - 0.5  # centres of pixels
        label = CITYSCAPES[thing["kind"]]
        yield {"label": label, "polygon": np.rint(outline).astype(int).clip(0).tolist()}


# Pascal VOC


def voc(root: Path) -> Truth:
    """Pascal VOC 2007 and 2012; each of the 20 classes is in the test set of 2007."""
    test = _voc(root / "VOC2007", "test", draw("val", 8), CLASS_NAMES)
    early = _voc(root / "VOC2007", "trainval", draw("train")[:3], CLASS_NAMES, first=2000)
    late = _voc(root / "VOC2012", "trainval", draw("train")[3:], CLASS_NAMES, prefix="2008_")
    return {"train": early | late, "val": test}


def voc_folder(root: Path) -> Truth:
    """A folder in the layout of Pascal VOC, of the classes of shapes."""
    return {split: _voc(root, split, draw(split), CLASSES, prefix=f"{split}_") for split in COUNTS}


def _voc(
    root: Path, part: str, drawn: Sequence[Drawn], names: Sequence[str], prefix: str = "", first: int = 0
) -> dict[str, list[tuple[str, Box]]]:
    """Objects in turn of the given classes, or by their own where there are four; one is difficult."""
    turn = cycle(names)
    told: dict[str, list[tuple[str, Box]]] = {}
    for picture in drawn:
        stem = f"{prefix}{first + picture.number:06}"
        height, width = picture.pixels.shape[:2]
        _save(root / "JPEGImages" / f"{stem}.jpg", picture.pixels)
        page = ET.Element("annotation")
        _add(page, {"folder": root.name, "filename": f"{stem}.jpg", "segmented": 0})
        _add(ET.SubElement(page, "size"), {"width": width, "height": height, "depth": 3})
        for thing in picture.objects:
            name = CLASSES[thing["kind"]] if names is CLASSES else next(turn)
            x0, y0, x1, y1 = (round(v) for v in corners(thing["bbox"]))
            element = ET.SubElement(page, "object")
            marks = {"pose": "Unspecified", "truncated": 0, "occluded": 0, "difficult": 0}
            _add(element, {"name": name, **marks})
            # pixels count from 1, and the last is one of the object's
            box = {"xmin": x0 + 1, "ymin": y0 + 1, "xmax": x1, "ymax": y1}
            _add(ET.SubElement(element, "bndbox"), box)
            told.setdefault(f"{stem}.jpg", []).append((name, (x0, y0, x1, y1)))
            if name == "person":
                piece = ET.SubElement(element, "part")
                _add(piece, {"name": "head"})
                _add(ET.SubElement(piece, "bndbox"), box)
        (root / "Annotations").mkdir(exist_ok=True)
        ET.ElementTree(page).write(root / "Annotations" / f"{stem}.xml")
    listed = root / "ImageSets" / "Main" / f"{part}.txt"
    listed.parent.mkdir(parents=True, exist_ok=True)
    listed.write_text("".join(f"{Path(name).stem}\n" for name in told))
    return told


def _add(element: ET.Element, texts: Mapping[str, Any]) -> None:
    for tag, text in texts.items():
        ET.SubElement(element, tag).text = str(text)


def shapes(root: Path) -> Truth:
    """The embedded set, which is drawn when it is asked for."""
    return {
        split: {
            f"{number:06}.png": [
                (shape.category, corners(shape.bbox)) for shape in draw_image(split, number - 1)[1]
            ]
            for number in range(1, count + 1)
        }
        for split, count in COUNTS.items()
    }


# A user's own


def yolo(root: Path, polygons: bool = False, named: bool = False) -> Truth:
    """A folder of YOLO's: boxes or polygons, and classes in a list or by their numbers."""
    truth: Truth = {}
    for split in COUNTS:
        truth[split] = {}
        for picture in draw(split):
            height, width = picture.pixels.shape[:2]
            name = f"{picture.number}.png"
            _save(root / "images" / split / name, picture.pixels)
            lines = []
            for thing in picture.objects:
                outline = np.reshape(max(thing["segmentation"], key=len), (-1, 2))
                x0, y0, x1, y1 = (
                    (*outline.min(axis=0), *outline.max(axis=0)) if polygons else corners(thing["bbox"])
                )
                box = [(x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height]
                shares = (outline / (width, height)).ravel() if polygons else box
                lines.append(" ".join([str(thing["kind"]), *(f"{share:.6f}" for share in shares)]))
                truth[split].setdefault(name, []).append((CLASSES[thing["kind"]], (x0, y0, x1, y1)))
            labels = root / "labels" / split / f"{picture.number}.txt"
            labels.parent.mkdir(parents=True, exist_ok=True)
            labels.write_text("\n".join(lines))
    names = dict(enumerate(CLASSES)) if named else list(CLASSES)
    told = {"path": ".", **{split: f"images/{split}" for split in COUNTS}, "nc": len(CLASSES), "names": names}
    (root / "data.yaml").write_text(yaml.safe_dump(told))
    return truth


def several(root: Path) -> Truth:
    """COCO files of two folders a split, whose images and classes have other ids in each."""
    truth: Truth = {split: {} for split in COUNTS}
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
            truth[split] |= _told(half, images, CLASSES)
    return truth


def _told(
    drawn: Sequence[Drawn], images: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> dict[str, list[tuple[str, Box]]]:
    return {
        image["file_name"]: [(names[thing["kind"]], corners(thing["bbox"])) for thing in picture.objects]
        for image, picture in zip(images, drawn, strict=True)
    }


def _write(root: Path, file: str, images: Any, annotations: Any, categories: Any) -> None:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / file).write_text(json.dumps(content))


def _save(file: Path, pixels: np.ndarray[Any, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), pixels)
