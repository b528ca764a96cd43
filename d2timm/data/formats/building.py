"""Parts that readers of folders share: building the content of a COCO file, lists of images, text files."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from ...errors import ConfigError
from ...utils.pillow import image_suffixes

__all__ = ["Annotation", "Sample", "build_coco", "images_below", "read_lines", "to_annotation"]

#: As in COCO, without ids, and with ``category``: the name of the class, or its index from 0
Annotation: TypeAlias = dict[str, Any]
#: An image, its (width, height) if the annotations say it, and its annotations
Sample: TypeAlias = tuple[Path, tuple[float, float] | None, Iterable[Annotation]]


def build_coco(
    samples: Iterable[Sample], names: Sequence[str] | None = None, keypoints: Sequence[str] = ()
) -> dict[str, Any]:
    """Build the content of a COCO file.

    Args:
        samples: the images with their annotations.
        names: names of the classes, if annotations have class indices; None: annotations have class names,
            and the classes are all that occur, in alphabetical order.
        keypoints: names of the keypoints of every class.
    """
    images: list[dict[str, Any]] = []
    annotations: list[Annotation] = []
    for image_id, (file, size, objects) in enumerate(samples, start=1):
        width, height = size or (None, None)
        images.append({"id": image_id, "file_name": str(file.absolute()), "width": width, "height": height})
        annotations += ({**annotation, "image_id": image_id} for annotation in objects)
    if names is None:
        names = sorted({annotation["category"] for annotation in annotations})
        indices: Any = {name: index for index, name in enumerate(names)}
    else:
        indices = range(len(names))
    for number, annotation in enumerate(annotations, start=1):
        annotation.update(id=number, category_id=indices[annotation.pop("category")] + 1)
    more = {"keypoints": list(keypoints)} if keypoints else {}
    categories = [{"id": i, "name": name, **more} for i, name in enumerate(names, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def to_annotation(category: int | str, box: Sequence[float], **more: Any) -> Annotation:
    """An annotation for ``build_coco``.

    Args:
        category: name of the class, or its index from 0.
        box: (left, top, width, height) in pixels.
        more: further fields of COCO, such as ``segmentation``, ``keypoints`` and ``iscrowd``; ``ignore`` of
            objects that are neither learnt nor scored; ``source``, the place of the annotation, such as
            ``a.txt:3``, which findings name it by.
    """
    return {"category": category, "bbox": list(box), "iscrowd": 0, **more}


def images_below(folder: Path, recursive: bool = True) -> list[Path]:
    """The images in a folder, in alphabetical order; hidden files are skipped and links are followed."""
    pattern = "**/*" if recursive else "*"
    names = glob.iglob(pattern, root_dir=folder, recursive=True)
    return sorted(folder / name for name in names if Path(name).suffix.lower() in image_suffixes())


def read_lines(file: Path) -> list[tuple[int, str]]:
    """The lines of a text file that are not blank, each with its line number from 1.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        text = file.read_text("utf-8-sig")  # some editors begin a file with a byte order mark
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read as text: {error}") from None
    return [(i, line.strip()) for i, line in enumerate(text.splitlines(), start=1) if line.strip()]
