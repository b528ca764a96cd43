"""Small datasets of drawn images, in the files that annotation tools export.

Each function writes one dataset and returns its ground truth, with which tests compare what is read. Every
object is one polygon, or its box where a format has boxes only.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from helpers.published import COUNTS, Box, GroundTruth, draw

from d2timm.data.datasets.shapes import CLASSES

VALIDATION = {"train": "train", "val": "validation"}  # names of the splits in Open Images


class Shape(NamedTuple):
    """An annotated object."""

    label: str
    outline: list[list[float]]  # (x, y) in pixels

    @property
    def box(self) -> Box:
        """The corners of the smallest box around the outline."""
        (x0, y0), (x1, y1) = np.min(self.outline, axis=0), np.max(self.outline, axis=0)
        return float(x0), float(y0), float(x1), float(y1)


class Picture(NamedTuple):
    """An image on disk and its objects."""

    file: Path
    width: int
    height: int
    shapes: list[Shape]


def pictures(root: Path, ground_truth: GroundTruth, split: str, folder: str) -> Iterator[Picture]:
    """Write the images of a split into a folder, and add their objects to the ground truth."""
    for drawn in draw(split):
        file = root / folder / f"{drawn.number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(file), drawn.pixels)
        outlines = [np.reshape(max(o["segmentation"], key=len), (-1, 2)).tolist() for o in drawn.objects]
        shapes = [Shape(CLASSES[o["kind"]], line) for o, line in zip(drawn.objects, outlines, strict=True)]
        ground_truth.setdefault(split, {})[file.name] = [(shape.label, shape.box) for shape in shapes]
        height, width = drawn.pixels.shape[:2]
        yield Picture(file, width, height, shapes)


def labelme(root: Path) -> GroundTruth:
    """A JSON file beside each image."""
    ground_truth: GroundTruth = {}
    for split in COUNTS:
        for picture in pictures(root, ground_truth, split, split):
            common: dict[str, Any] = {"group_id": None, "shape_type": "polygon", "flags": {}}
            shapes = [{"label": s.label, "points": s.outline, **common} for s in picture.shapes]
            size = {"imageHeight": picture.height, "imageWidth": picture.width}
            content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": picture.file.name}
            _write(picture.file.with_suffix(".json"), {**content, "imageData": None, **size})
    return ground_truth


def via(root: Path) -> GroundTruth:
    """A JSON export for each split."""
    ground_truth: GroundTruth = {}
    for split in COUNTS:
        content = {}
        for picture in pictures(root, ground_truth, split, split):
            regions = []
            for shape in picture.shapes:
                xs, ys = zip(*shape.outline, strict=True)
                outline = {"name": "polygon", "all_points_x": xs, "all_points_y": ys}
                regions.append({"shape_attributes": outline, "region_attributes": {"kind": shape.label}})
            name, size = picture.file.name, picture.file.stat().st_size
            content[f"{name}{size}"] = {"filename": name, "size": size, "regions": regions}
        _write(root / split / "via_region_data.json", content)
    return ground_truth


def cvat(root: Path) -> GroundTruth:
    """One XML file of a project with two subsets."""
    ground_truth: GroundTruth = {}
    page = ET.Element("annotations")
    ET.SubElement(page, "version").text = "1.1"
    labels = ET.SubElement(ET.SubElement(ET.SubElement(page, "meta"), "project"), "labels")
    for name in CLASSES:
        ET.SubElement(ET.SubElement(labels, "label"), "name").text = name
    for split, subset in (("train", "Train"), ("val", "Validation")):
        for picture in pictures(root, ground_truth, split, f"images/{subset}"):
            image = ET.SubElement(page, "image", id="0", name=picture.file.name, subset=subset)
            image.attrib |= {"width": str(picture.width), "height": str(picture.height)}
            for shape in picture.shapes:
                points = ";".join(f"{x},{y}" for x, y in shape.outline)
                ET.SubElement(image, "polygon", label=shape.label, points=points, z_order="0")
    ET.ElementTree(page).write(root / "annotations.xml")
    return ground_truth


def label_studio(root: Path) -> GroundTruth:
    """A JSON export for each split, in percent of the images."""
    ground_truth: GroundTruth = {}
    for split in COUNTS:
        tasks = []
        for picture in pictures(root, ground_truth, split, "images"):
            size = {"original_width": picture.width, "original_height": picture.height, "image_rotation": 0}
            percent = 100 / np.array([picture.width, picture.height])
            results = [
                {
                    **size,
                    "type": "polygonlabels",
                    "value": {
                        "points": (np.array(s.outline) * percent).tolist(),
                        "polygonlabels": [s.label],
                    },
                }
                for s in picture.shapes
            ]
            image = f"/data/upload/1/1a2b3c4d-{picture.file.name}"
            annotations = [{"id": 1, "result": results, "was_cancelled": False}]
            tasks.append({"id": 1, "annotations": annotations, "data": {"image": image}})
        _write(root / f"{split}.json", tasks)
    return ground_truth


def supervisely(root: Path) -> GroundTruth:
    """A project with a dataset for each split."""
    ground_truth: GroundTruth = {}
    _write(root / "meta.json", {"classes": [{"title": name, "shape": "polygon"} for name in CLASSES]})
    for split in COUNTS:
        for picture in pictures(root, ground_truth, split, f"{split}/img"):
            objects = [
                {
                    "classTitle": shape.label,
                    "geometryType": "polygon",
                    "points": {"exterior": shape.outline, "interior": []},
                }
                for shape in picture.shapes
            ]
            content = {"size": {"height": picture.height, "width": picture.width}, "objects": objects}
            _write(root / split / "ann" / f"{picture.file.name}.json", content)
    return ground_truth


def dota(root: Path) -> GroundTruth:
    """Boxes as four corners, in a text file for each image."""
    ground_truth: GroundTruth = {}
    for split in COUNTS:
        for picture in pictures(root, ground_truth, split, f"{split}/images"):
            lines = [
                f"{x0} {y0} {x1} {y0} {x1} {y1} {x0} {y1} {label} 0"
                for label, (x0, y0, x1, y1) in ground_truth[split][picture.file.name]
            ]
            file = root / split / "labelTxt" / f"{picture.file.stem}.txt"
            file.parent.mkdir(exist_ok=True)
            file.write_text("\n".join(["imagesource:drawn", "gsd:1", *lines]))
    return ground_truth


def open_images(root: Path) -> GroundTruth:
    """CSV files with boxes in fractions of the images, and the names of the classes."""
    ground_truth: GroundTruth = {}
    codes = {name: f"/m/{number:02}" for number, name in enumerate(CLASSES)}
    text = "".join(f"{code},{name}\n" for name, code in codes.items())
    (root / "class-descriptions-boxable.csv").write_text(text)
    for split, name in VALIDATION.items():
        lines = ["ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsGroupOf"]
        for picture in pictures(root, ground_truth, split, name):
            for label, (x0, y0, x1, y1) in ground_truth[split][picture.file.name]:
                sides = (x0 / picture.width, x1 / picture.width, y0 / picture.height, y1 / picture.height)
                values = ",".join(f"{side:.6f}" for side in sides)
                lines.append(f"{picture.file.stem},xclick,{codes[label]},1,{values},0")
        (root / f"{name}-annotations-bbox.csv").write_text("\n".join(lines))
    return ground_truth


def coco_folder(root: Path) -> GroundTruth:
    """A COCO file beside the images of each split, as Roboflow writes it."""
    ground_truth: GroundTruth = {}
    categories = [{"id": 0, "name": "things", "supercategory": "none"}]
    categories += [{"id": i, "name": name} for i, name in enumerate(CLASSES, start=1)]
    for split, folder in (("train", "train"), ("val", "valid")):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for picture in pictures(root, ground_truth, split, folder):
            size = {"width": picture.width, "height": picture.height}
            images.append({"id": len(images), "file_name": picture.file.name, **size})
            for shape in picture.shapes:
                x0, y0, x1, y1 = shape.box
                annotations.append(
                    {
                        "id": len(annotations),
                        "image_id": images[-1]["id"],
                        "category_id": CLASSES.index(shape.label) + 1,
                        "bbox": [x0, y0, x1 - x0, y1 - y0],
                        "segmentation": [np.ravel(shape.outline).tolist()],
                        "iscrowd": 0,
                    }
                )
        content = {"images": images, "annotations": annotations, "categories": categories}
        _write(root / folder / "_annotations.coco.json", content)
    return ground_truth


def _write(file: Path, content: Mapping[str, Any] | list[Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
