"""Find the annotation files of VOC's lists, and the images of annotation files, by their names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import PurePath
from typing import Any

from ...utils.pillow import image_suffixes
from .layout import name_key, path_parts

__all__ = ["find_image", "find_xml", "index_files", "index_images"]

IMAGE_FOLDERS = ("jpegimages", "images")


def index_files(files: Iterable[PurePath]) -> Mapping[str, list[PurePath]]:
    """Name without suffix, and with it, as ``name_key`` writes them -> files."""
    index: dict[str, list[PurePath]] = defaultdict(list)
    for file in files:
        index[name_key(file.stem)].append(file)
        index[name_key(file.name)].append(file)
    return index


def index_images(files: Iterable[PurePath]) -> Mapping[str, list[PurePath]]:
    """As ``index_files``; drawn masks, which VOC keeps beside images, count only without another image."""
    groups: dict[bool, list[PurePath]] = {True: [], False: []}
    for file in files:
        groups[any(map(_is_drawn, file.parts[:-1]))].append(file)
    return {**index_files(groups[True]), **index_files(groups[False])}


def find_xml(line: str, base: PurePath, index: Mapping[str, list[PurePath]]) -> PurePath:
    """The annotation file of an entry of a list.

    Args:
        line: the name of an image without suffix, as in VOC, or with suffix, or its path; there may be a
            second column, but names may contain blanks as well.
        base: the folder that contains ``ImageSets``.
        index: annotation files by their names.

    Raises:
        ValueError: there is none, or there are several.
    """
    for text in dict.fromkeys((line, line.rsplit(None, 1)[0], line.split()[0])):
        *folders, name = path_parts(text) or ("",)
        stem, suffix = PurePath(name).stem, PurePath(name).suffix.lower()
        names = [name, stem] if suffix == ".xml" or suffix in image_suffixes() else [name]
        for key in map(name_key, names):
            candidates = [file for file in index.get(key, ()) if file.parts[: len(base.parts)] == base.parts]
            if candidates:
                return _only(candidates, partial(_rank_xml, (*base.parts, *folders)))
    raise ValueError(f"{line!r} has no annotation file")


def find_image(
    xml: PurePath,
    names: Sequence[str],
    images: Mapping[str, list[PurePath]],
    xmls: Mapping[str, list[PurePath]],
) -> PurePath:
    """The image of an annotation file: of the same name, or else of the name that the file contains.

    Among several, an image in the most similar folder is taken, such as ``JPEGImages/b/1.jpg`` for
    ``Annotations/b/1.xml``.

    Args:
        xml: the annotation file.
        names: names of the image in the annotation file.
        images: all images by their names.
        xmls: all annotation files by their names; an image that is nearer to another one of the same name
            belongs to that.

    Returns:
        The image; the path where it should be if it does not exist.

    Raises:
        ValueError: there are several that are equally likely.
    """
    folder = xml.parts[:-1]
    written = [parts[-1] for name in names if (parts := path_parts(name))]
    for name in (xml.stem, *written, *(PurePath(name).stem for name in written)):
        candidates = images.get(name_key(name), ())
        distances = [_distance(file.parts[:-1], folder) for file in candidates]
        least = min(distances, default=0)
        nearest = [file for file, d in zip(candidates, distances, strict=True) if d == least]
        if not nearest:
            continue
        image = _only(nearest, partial(_rank_image, xml, written))
        near = least if name_key(image.stem) == name_key(xml.stem) else least + 1
        rivals = xmls.get(name_key(image.stem), ()) if near else ()
        if all(_distance(image.parts[:-1], rival.parts[:-1]) >= near for rival in rivals):
            return image
    absent = [name for name in written if name_key(name) not in images]
    return xml.with_name(absent[0] if absent else f"{xml.stem}.jpg")


def _rank_xml(folders: Sequence[str], file: PurePath) -> tuple[int, int]:
    """How likely a list means an annotation file by a name in these folders."""
    return _common_end(file.parts[:-1], folders), -len(file.parts)


def _rank_image(xml: PurePath, names: Sequence[str], file: PurePath) -> tuple[bool, bool, bool]:
    """How likely an image belongs to an annotation file that contains these names."""
    return (
        file.name in names,
        any(part.lower() in IMAGE_FOLDERS for part in file.parts[:-1]),
        file.stem == xml.stem,
    )


def _only(candidates: Sequence[PurePath], rank: Callable[[PurePath], Any]) -> PurePath:
    """The candidate of the highest rank.

    Raises:
        ValueError: several have it.
    """
    unique = list(dict.fromkeys(candidates))
    best = max(map(rank, unique))
    chosen = [file for file in unique if rank(file) == best]
    if len(chosen) > 1:
        raise ValueError(f"it may mean {' or '.join(map(str, chosen))}")
    return chosen[0]


@cache  # a set of videos has the same names in hundreds of folders
def _distance(folders: tuple[str, ...], others: tuple[str, ...]) -> int:
    """Number of folders in which two paths differ, between equal ones at their beginning and their end."""
    begin = _common_end(folders[::-1], others[::-1])
    equal = min(begin + _common_end(folders, others), len(folders), len(others))
    return max(len(folders), len(others)) - equal


def _common_end(folders: Sequence[str], others: Sequence[str]) -> int:
    """Number of equal folders at the end of two paths."""
    count = 0
    for a, b in zip(reversed(folders), reversed(others), strict=False):
        if a.lower() != b.lower():
            break
        count += 1
    return count


def _is_drawn(folder: str) -> bool:
    """Whether a folder contains drawn masks: VOC's SegmentationClass, labelme's AnnotationsVisualization."""
    return folder.lower().startswith("segmentation") or folder.lower().endswith("visualization")
