"""Clean a split: read its annotations, check everything, and write a COCO file that any program can use.

    source -> raw content -> ids -> images -> objects -> classes -> COCO file and findings in the cache

Training and evaluation read the file in the cache: integer ids, sizes of the images as they are shown, boxes
with an area, masks and keypoints only where they are valid. When a source file or an image changes, another
file is made, so that runs in progress still read the same. What a start needs beside the annotations lies in
a small file of its own, ``about-….json``.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...utils.files import cache_root
from ...utils.json_file import without_collector
from ...utils.pillow import pillow_state
from ..formats.base import Source
from .clean_split import CleanSplit, is_whole, read_about, write_split
from .finder import Finder, is_within
from .findings import Findings
from .headers import Header, file_state, read_headers
from .images import CheckedImage, check_images
from .objects import check_objects, find_other_conventions
from .partition import Part, select
from .structure import Structure, name_with_id, summary_of

__all__ = ["clean", "divide"]

VERSION = 3  # increase it when the same files are read differently
RARE = 10  # objects of a class, with which a detector hardly learns anything


@dataclass
class _Reading:
    """What a reader of annotations is given (``formats.base.Reading``)."""

    findings: Findings = field(default_factory=Findings)

    def headers(self, files: Sequence[Path]) -> dict[Path, Header]:
        return read_headers(files)


def clean(
    source: Source,
    max_pixels: int,
    categories: Sequence[Mapping[str, Any]] | None = None,
    within: Sequence[Path] | None = None,
) -> CleanSplit:
    """Check a split and write it as a COCO file in the cache, unless it is there.

    Args:
        source: the annotations.
        max_pixels: images with more pixels cannot be used.
        categories: those of the training split, whose classes all splits share; None: this is it.
        within: images in other folders are not read, because whoever wrote the annotations may be a stranger;
            None: all are read.

    Raises:
        ConfigError: the annotations cannot be read at all, or the cache cannot be written.
    """
    settings = (
        VERSION,
        pillow_state(),
        source.images.absolute(),
        source.settings,
        max_pixels,
        categories,
        within,
    )
    digest = hashlib.sha256(json.dumps([str(setting) for setting in settings]).encode())
    for file in source.files:
        digest.update(f"{file.absolute()} {file_state(file)}\n".encode())
    name = f"coco-{digest.hexdigest()[:16]}"
    latest = _latest(name)
    if latest is not None and _is_current(latest):
        return CleanSplit(latest, source.label, source.note)
    with without_collector():
        coco, about = _clean(source, max_pixels, categories, within)
    file = cache_root() / f"{name}-{about['state'][:16]}.json"
    write_split(file, coco, about)
    return CleanSplit(file, source.label, source.note)


def divide(whole: CleanSplit, part: Part) -> CleanSplit:
    """Write a part of a split and the rest as COCO files in the cache, unless the part is there.

    Args:
        whole: all images; what was found in them belongs to the part that is not held out.
        part: the part.
    """
    file = _part_file(whole, part)
    if not is_whole(file):
        with without_collector():
            coco = whole.coco
            for held_out in (part.held_out, not part.held_out):
                other = replace(part, held_out=held_out)
                findings = {} if held_out else whole.about["findings"]
                write_split(
                    _part_file(whole, other), select(coco, other), {**whole.about, "findings": findings}
                )
    note = f"{part.share:.0%} of the images, held out by data.val_share" if part.held_out else whole.note
    return CleanSplit(file, whole.label, note)


def _part_file(whole: CleanSplit, part: Part) -> Path:
    digest = hashlib.sha256(f"{part} {whole.file.name}".encode()).hexdigest()[:16]
    return whole.file.with_name(f"part-{digest}.json")


def _latest(name: str) -> Path | None:
    """The latest file of this name with any state of its images."""
    files = cache_root().glob(f"{name}-*.json")
    return max(files, key=lambda file: file.stat().st_mtime_ns, default=None)


def _is_current(file: Path) -> bool:
    """Whether no image has changed, and none is missing that may be somewhere by now."""
    try:
        if not is_whole(file):
            return False
        about = read_about(file)
        return "missing_image" not in about["findings"] and about["state"] == _state_of(about["files"])
    except (LookupError, TypeError):  # what is known about the file is damaged
        return False


def _state_of(files: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for name in files:
        digest.update(f"{name} {file_state(name)}\n".encode(errors="surrogatepass"))
    return digest.hexdigest()


def _clean(
    source: Source,
    max_pixels: int,
    categories: Sequence[Mapping[str, Any]] | None,
    within: Sequence[Path] | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The content of the clean COCO file, and what is known beside it."""
    reading = _Reading()
    findings = reading.findings
    structure = Structure(source.read(reading), source.label, findings)
    of_image: dict[int, list[Mapping[str, Any]]] = {}
    for annotation, index in structure.annotations:
        of_image.setdefault(index, []).append(annotation)
    found = Finder(source.images).find_all([image["file_name"] for image in structure.images])
    outside = {file for file, _ in found if within is not None and not is_within(file, within)}
    images = check_images(structure.images, found, of_image, max_pixels, findings, outside)
    find_other_conventions(structure.annotations, images, findings)
    shared = structure.categories if categories is None else [dict(category) for category in categories]
    annotations = check_objects(structure.annotations, images, _num_keypoints(shared), findings)
    if categories is not None:
        annotations = _match_classes(annotations, structure.categories, categories, images, findings)
    entries = [_image_entry(structure.images[index], image) for index, image in sorted(images.items())]
    objects = [
        {**annotation, "id": number, "image_id": structure.images[index]["id"]}
        for number, (annotation, index) in enumerate(annotations, start=1)
    ]
    coco = {"images": entries, "annotations": objects, "categories": shared}
    _judge(structure, coco, findings)
    files = [str(file.absolute()) for file, _ in found if file not in outside]
    _count_classes(coco, findings, reference=categories is None)
    return coco, {
        "findings": findings.as_dict(),
        "folder": str(source.images.absolute()),
        "files": files,
        "state": _state_of(files),
    }


def _image_entry(entry: Mapping[str, Any], image: CheckedImage) -> dict[str, Any]:
    width, height = image.turn.shown
    kept = {key: entry[key] for key in ("id", "original_id") if key in entry}
    return {**kept, "file_name": str(image.file.absolute()), "width": width, "height": height}


def _num_keypoints(categories: Sequence[Mapping[str, Any]]) -> int:
    """The number of keypoints of an object, if all classes have the same."""
    counts = {len(names) if isinstance(names := c.get("keypoints"), list) else 0 for c in categories}
    return counts.pop() if len(counts) == 1 else 0


def _match_classes(
    annotations: Sequence[tuple[dict[str, Any], int]],
    own: Sequence[Mapping[str, Any]],
    shared: Sequence[Mapping[str, Any]],
    images: Mapping[int, CheckedImage],
    findings: Findings,
) -> list[tuple[dict[str, Any], int]]:
    """Give annotations the category ids of the training split, by the names of the classes."""
    by_name = {category["name"]: category for category in shared}
    same = [(category, _trained(category, by_name)) for category in own]
    ids = {category["id"]: trained["id"] if trained else None for category, trained in same}
    findings.add("other_keypoints", *(c["name"] for c, trained in same if trained and _differ(c, trained)))
    if ids and not any(new is not None for new in ids.values()):
        names = summary_of(str(category["name"]) for category in own)
        findings.add("other_classes", f"{names}; in training {summary_of(map(str, by_name))}")
    matched = []
    for annotation, index in annotations:
        if (new := ids[annotation["category_id"]]) is None:
            name = next(category["name"] for category in own if category["id"] == annotation["category_id"])
            findings.add("untrained_class", f"{name} in {images[index].name}")
        else:
            matched.append(({**annotation, "category_id": new}, index))
    return matched


def _trained(category: Mapping[str, Any], by_name: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The class of the training split that a class stands for; one split may have several of its name."""
    names = (category["name"], category.get("shared_name", ""), name_with_id(category))
    return next((by_name[name] for name in names if name in by_name), None)


def _differ(category: Mapping[str, Any], trained: Mapping[str, Any]) -> bool:
    """Whether two classes of the same name have different keypoints; the second list may be left out."""
    keypoints = category.get("keypoints")
    return bool(keypoints) and keypoints != trained.get("keypoints")


def _judge(structure: Structure, coco: Mapping[str, Any], findings: Findings) -> None:
    """Decide whether the rest of a split, without what was left out, can be used."""
    listed, usable, objects = structure.listed_images, len(coco["images"]), coco["annotations"]
    if not usable:
        findings.add("no_images", f"{listed} are listed")
    elif usable < listed / 2:
        findings.add("mostly_bad_images", f"{listed - usable} of {listed}")
    if usable and all(annotation["iscrowd"] for annotation in objects):
        crowds = f", of which {len(objects)} are crowds" if objects else ""
        findings.add("no_objects", f"{structure.listed_annotations} are listed{crowds}")
    used = {annotation["image_id"] for annotation in objects if not annotation["iscrowd"]}
    findings.add("empty_image", *(i["file_name"] for i in coco["images"] if i["id"] not in used))


def _count_classes(coco: Mapping[str, Any], findings: Findings, reference: bool) -> None:
    """Report classes without objects, or with few of them in the training split."""
    counts = Counter(a["category_id"] for a in coco["annotations"] if not a["iscrowd"])
    for category in coco["categories"]:
        count = counts[category["id"]]
        if not count:
            findings.add("unused_category", category["name"])
        elif count < RARE and reference:
            findings.add("rare_category", f"{category['name']}: {count}")
