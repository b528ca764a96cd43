"""COCO annotation files: one, or several that are merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...utils.json_file import read_json
from ..checks.finder import Finder
from ..checks.findings import Findings
from ..checks.structure import Structure, name_of
from .base import Reading, Source

__all__ = ["categories", "keypoint_names", "read_coco", "source"]

BOX_HEADS = "use roi_heads=box or lazy_configs/faster_rcnn_timm.py"  # or keypoints


def source(jsons: Sequence[Path], images: Sequence[Path], label: str) -> Source:
    """The annotations of a split in one COCO file, or in several with the same classes.

    Args:
        jsons: the files.
        images: the image folder of each file.
        label: the setting that selects the files, for error messages.

    Raises:
        ConfigError: a file or folder is missing, or their numbers differ.
    """
    if len(jsons) != len(images):
        raise ConfigError(f"{label}: {len(jsons)} annotation files but {len(images)} image folders")
    for file, folder in zip(jsons, images, strict=True):
        if not file.is_file():
            raise ConfigError(f"{label}={file}: no such file")
        if not folder.is_dir():
            raise ConfigError(f"{label.replace('json', 'images')}={folder}: no such folder")
    if len(jsons) == 1:
        (file,), (folder,) = jsons, images
        return Source(f"{label}={file}", (file,), lambda reading: _content(file), folder.absolute())
    pairs = list(zip(jsons, images, strict=True))
    folders = tuple(str(folder.absolute()) for folder in images)
    return Source(label, tuple(jsons), lambda reading: _merge(pairs, label, reading), settings=folders)


def read_coco(file: Path) -> dict[str, Any]:
    """Images and categories of a COCO file, with the ids that it has, which may be of any kind.

    Raises:
        ConfigError: the file cannot be read, or is not in COCO's format.
    """
    structure = Structure(read_json(file), str(file), Findings())
    return {
        key: [{**entry, "id": entry.get("original_id", entry["id"])} for entry in entries]
        for key, entries in (("images", structure.images), ("categories", structure.categories))
    }


def categories(coco: Mapping[str, Any]) -> list[str]:
    """Names of the categories, in the order of their ids."""
    return [category["name"] for category in sorted(coco["categories"], key=lambda c: c["id"])]


def keypoint_names(coco: Mapping[str, Any], label: str) -> list[str]:
    """Names of the keypoints, which must be the same in all categories.

    Args:
        coco: the content of a file.
        label: the name of the file in error messages.

    Raises:
        ConfigError: a category has no keypoints, or others than the first category.
    """
    first: Any = coco["categories"][0].get("keypoints") if coco["categories"] else None
    differing = [c["name"] for c in coco["categories"] if c.get("keypoints") != first]
    if differing or not first or not isinstance(first, list) or not all(isinstance(n, str) for n in first):
        problem = f"{differing[0]!r} has others or none" if differing else "there are none"
        raise ConfigError(
            f"{label}: a keypoint head needs the same list of names 'keypoints' in every category, but "
            f"{problem}: {BOX_HEADS}"
        )
    return [*first]


def _merge(pairs: Sequence[tuple[Path, Path]], label: str, reading: Reading) -> dict[str, Any]:
    """The content of several files; their classes are matched by name."""
    parts = [_structure(file, f"{label}={file}", reading.findings) for file, _ in pairs]
    reference = parts[0].categories
    merged: dict[str, Any] = {"images": [], "annotations": [], "categories": reference}
    for (file, folder), part in zip(pairs, parts, strict=True):
        _compare(part.categories, reference, f"{label}={file}", pairs[0][0])
        ids = {own["id"]: same["id"] for own, same in zip(part.categories, reference, strict=True)}
        first = len(merged["images"]) + 1
        found = Finder(folder).find_all([image["file_name"] for image in part.images])
        for number, (image, (path, moved)) in enumerate(zip(part.images, found, strict=True), start=first):
            merged["images"].append({**image, "id": number, "file_name": str(path.absolute())})
            if moved:
                reading.findings.add("moved_image", f"{image['file_name']}: {path}")
        for annotation, index in part.annotations:
            own = {"id": None, "image_id": first + index, "category_id": ids[annotation["category_id"]]}
            own["source"] = f"{name_of(annotation, part.images[index]['file_name'])} in {file.name}"
            merged["annotations"].append({**annotation, **own})
    return merged


def _structure(file: Path, label: str, findings: Findings) -> Structure:
    return Structure(_content(file), label, findings)


def _content(file: Path) -> Any:
    """The content of a file without the key that readers of other formats name annotations by."""
    content = read_json(file)
    annotations = content.get("annotations") if isinstance(content, dict) else None
    for annotation in annotations if isinstance(annotations, list) else ():
        if isinstance(annotation, dict):
            annotation.pop("source", None)
    return content


def _compare(
    own: Sequence[Mapping[str, Any]], shared: Sequence[Mapping[str, Any]], label: str, first: Path
) -> None:
    """Raise ConfigError unless two files have the same classes in the order of their ids."""
    for field in ("name", "keypoints"):
        values, expected = ([category.get(field) for category in side] for side in (own, shared))
        if values != expected:
            raise ConfigError(f"{label}: {field!r} of its categories is {values}, but {expected} in {first}")
