"""The lists of a COCO file with ids of any kind, as lists with integer ids that refer to each other."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from ...errors import ConfigError
from ...utils.text import printable
from .findings import Findings
from .values import Ids, as_number, is_plain_id

__all__ = ["Structure", "name_of", "name_with_id", "summary_of"]

Entry = dict[str, Any]


class Structure:
    """Images, categories and annotations of a COCO file, connected.

    Ids stay as they are if all of a list are plain integers; otherwise the list is numbered from 1, and each
    entry keeps its own as ``original_id``.

    Args:
        raw: the content of the file.
        label: the name of the file in error messages.
        findings: receives entries that cannot be used.

    Attributes:
        images: entries with an integer ``id`` and a ``file_name``.
        categories: entries with an integer ``id`` and a ``name``, in the order of the class indices; the name
            has the id in it if others have the same, which is then the ``shared_name``.
        annotations: pairs of (annotation, index of its image), of listed images and categories only, whose
            ``category_id`` is that of a category.
        listed_images: number of images, including those that cannot be used.
        listed_annotations: number of annotations.

    Raises:
        ConfigError: the content is not that of a COCO file.
    """

    def __init__(self, raw: Any, label: str, findings: Findings) -> None:
        lists = {key: _list_of(raw, key, label) for key in ("images", "annotations", "categories")}
        category_ids, self.categories = _numbered(_categories(lists["categories"], findings), findings)
        files = _files(lists["images"], findings)
        single = {place: entries[0] for place, entries in enumerate(files.values()) if len(entries) == 1}
        _, self.images = _numbered(list(single.values()), findings)
        self.listed_images = len(self.images) + sum(
            findings.counts.get(kind, 0) for kind in ("invalid_image", "ambiguous_image")
        )
        self.listed_annotations = len(lists["annotations"])
        self.annotations: list[tuple[Entry, int]] = []
        images, categories = Ids(list(files)), Ids(category_ids)
        indices = {place: index for index, place in enumerate(single)}
        for annotation in lists["annotations"]:
            image = images.find(annotation.get("image_id"))
            category = categories.find(annotation.get("category_id"))
            if image is None:
                findings.add("unknown_image", name_of(annotation))
            elif image not in indices:
                continue  # it is left out with its image
            elif category is None:
                findings.add("unknown_category", f"{name_of(annotation)}: {annotation.get('category_id')!r}")
            else:
                entry = {**annotation, "category_id": self.categories[category]["id"]}
                self.annotations.append((entry, indices[image]))
        ids = Counter(repr(annotation["id"]) for annotation in lists["annotations"] if "id" in annotation)
        del ids["None"]
        findings.add("duplicate_ids", *(f"annotation {value}" for value, count in ids.items() if count > 1))


def name_of(annotation: Mapping[str, Any], image: str = "") -> str:
    """The name of an annotation in findings: where the reader found it, or its id and image."""
    if source := annotation.get("source"):
        return str(source)
    place = image or f"image {annotation.get('image_id')!r}"
    return f"annotation {annotation.get('id')!r} of {place}"


def _list_of(raw: Any, key: str, label: str) -> list[Entry]:
    entries = raw.get(key) if isinstance(raw, dict) else None
    if not isinstance(entries, list):
        raise ConfigError(f"{label} is not in COCO format: it has no list {key!r}")
    if wrong := [entry for entry in entries if not isinstance(entry, dict)]:
        raise ConfigError(f"{label} is not in COCO format: {key!r} contains {json.dumps(wrong[0])[:50]}")
    return entries


def _categories(entries: Sequence[Entry], findings: Findings) -> list[Entry]:
    """The categories in the order of their ids, or of the file if ids are not numbers."""
    unique: dict[Hashable, Entry] = {}
    for entry in entries:
        if not _is_key(entry.get("id")):
            findings.add("invalid_category", f"id {entry.get('id')!r}, name {entry.get('name')!r}")
            continue
        named = {**entry, "name": _category_name(entry)}
        if unique.setdefault(entry["id"], named)["name"] != named["name"]:
            findings.add("ambiguous_category", f"{entry['id']!r}: {named['name']}")
    ordered = list(unique.values())
    numbers = [as_number(entry["id"]) for entry in ordered]
    if None not in numbers:
        ordered = [ordered[i] for i in sorted(range(len(ordered)), key=lambda i: numbers[i] or 0)]
    count = Counter(entry["name"] for entry in ordered)
    for entry in ordered:
        if count[entry["name"]] > 1:
            entry["shared_name"], entry["name"] = entry["name"], name_with_id(entry)
            findings.add("same_name", entry["name"])
    return ordered


def name_with_id(category: Mapping[str, Any]) -> str:
    """The name of a category that is not the only one of its name."""
    return f"{category['name']} (id {category.get('original_id', category['id'])})"


def _category_name(entry: Entry) -> str:
    name = entry.get("name")
    return printable(str(entry["id"] if name is None or name == "" else name))


def _files(entries: Sequence[Entry], findings: Findings) -> dict[Hashable, list[Entry]]:
    """Map each id to its images: one, unless several files have the same id or the image is invalid."""
    files: dict[Hashable, dict[str, Entry]] = {}
    for entry in entries:
        name, number = entry.get("file_name"), entry.get("id")
        if _is_key(number):
            files.setdefault(number, {})  # its annotations are left out with it, if it is invalid
        if not _is_key(number) or name in (None, "") or isinstance(name, (list, dict)):
            findings.add("invalid_image", f"id {number!r}, file_name {name!r}")
        else:
            files.setdefault(number, {}).setdefault(str(name), {**entry, "file_name": str(name)})
    for number, by_name in files.items():
        if len(by_name) > 1:
            findings.add("ambiguous_image", *(f"{name}: id {number!r}" for name in by_name))
    return {number: list(by_name.values()) for number, by_name in files.items()}


def _numbered(entries: Sequence[Entry], findings: Findings) -> tuple[list[Any], list[Entry]]:
    """The ids of entries, and the entries with integer ids."""
    ids = [entry["id"] for entry in entries]
    plain = [{key: value for key, value in entry.items() if key != "original_id"} for entry in entries]
    if all(map(is_plain_id, ids)):
        return ids, plain
    odd = (f"{entry['id']!r} of {entry.get('file_name', entry.get('name'))}" for entry in entries)
    findings.add("odd_ids", *(name for name, value in zip(odd, ids, strict=True) if not is_plain_id(value)))
    return ids, [{**entry, "id": i, "original_id": entry["id"]} for i, entry in enumerate(plain, start=1)]


def _is_key(value: Any) -> bool:
    return value is not None and not isinstance(value, (list, dict))


def summary_of(values: Iterable[str], limit: int = 5) -> str:
    """The first few values, separated by commas."""
    values = list(values)
    return ", ".join(values[:limit]) + (", …" if len(values) > limit else "")
