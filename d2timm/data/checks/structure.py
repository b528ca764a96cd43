"""The lists of a COCO file with ids of any kind, as lists with integer ids that refer to each other."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from ...errors import ConfigError
from .findings import Findings
from .values import Ids, as_number, is_plain_id

__all__ = ["Structure"]

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
        categories: entries with an integer ``id`` and a ``name``, in the order of the class indices.
        annotations: pairs of (annotation, index of its image), of listed images and categories only, whose
            ``category_id`` is that of a category.

    Raises:
        ConfigError: the content is not that of a COCO file.
    """

    def __init__(self, raw: Any, label: str, findings: Findings) -> None:
        lists = {key: _list_of(raw, key, label) for key in ("images", "annotations", "categories")}
        self.categories = _categories(lists["categories"], findings)
        category_ids = Ids([category.get("original_id", category["id"]) for category in self.categories])
        known, positions = _images(lists["images"], findings)
        self.images = [known[i] for i in sorted(set(positions)) if i >= 0]
        renumbered = {old: new for new, old in enumerate(i for i in sorted(set(positions)) if i >= 0)}
        keys = Ids([image.get("original_id", image["id"]) for image in known])
        self.annotations: list[tuple[Entry, int]] = []
        ids: Counter[Hashable] = Counter()
        for annotation in lists["annotations"]:
            image, category = keys.find(annotation.get("image_id")), None
            if image is None:
                findings.add("unknown_image", name_of(annotation))
            elif image not in renumbered:
                findings.add("ambiguous_image", name_of(annotation))
            elif (category := category_ids.find(annotation.get("category_id"))) is None:
                findings.add("unknown_category", f"{name_of(annotation)}: {annotation.get('category_id')!r}")
            else:
                entry = {**annotation, "category_id": self.categories[category]["id"]}
                self.annotations.append((entry, renumbered[image]))
            ids[repr(annotation.get("id"))] += 1
        ids.pop("None", None)
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
    wrong = next((entry for entry in entries if not isinstance(entry, dict)), None)
    if wrong is not None:
        raise ConfigError(f"{label} is not in COCO format: {key!r} contains {json.dumps(wrong)[:50]}")
    return entries


def _categories(entries: Sequence[Entry], findings: Findings) -> list[Entry]:
    """The categories in the order of their ids, or of the file if ids are not numbers."""
    named = [{**entry, "name": _category_name(entry)} for entry in entries if _is_key(entry.get("id"))]
    unique: dict[Hashable, Entry] = {}
    for entry in named:
        if unique.setdefault(entry["id"], entry)["name"] != entry["name"]:
            findings.add("ambiguous_category", f"{entry['id']!r}: {entry['name']}")
    ordered = list(unique.values())
    numbers = [as_number(entry["id"]) for entry in ordered]
    if None not in numbers:
        ordered = [ordered[i] for i in sorted(range(len(ordered)), key=lambda i: numbers[i] or 0)]
    count = Counter(entry["name"] for entry in ordered)
    for entry in ordered:
        if count[entry["name"]] > 1:
            findings.add("same_name", f"{entry['name']} (id {entry['id']})")
            entry["name"] = f"{entry['name']} (id {entry['id']})"
    return _numbered(ordered, "categories", findings)


def _category_name(entry: Entry) -> str:
    name = entry.get("name")
    return str(entry["id"]) if name is None or name == "" else str(name)


def _images(entries: Sequence[Entry], findings: Findings) -> tuple[list[Entry], list[int]]:
    """All images with different ids, and the indices of those whose file is known."""
    unique: dict[Hashable, Entry] = {}
    ambiguous: set[Hashable] = set()
    for entry in entries:
        name, number = entry.get("file_name"), entry.get("id")
        if not _is_key(number) or name in (None, "") or isinstance(name, (list, dict)):
            findings.add("invalid_image", f"id {number!r}, file_name {name!r}")
            continue
        entry = {**entry, "file_name": str(name)}
        if unique.setdefault(number, entry)["file_name"] != entry["file_name"]:
            ambiguous.add(number)
            findings.add("ambiguous_image", f"{entry['file_name']}: id {number!r}")
    ordered = list(unique.values())
    used = [i for i, entry in enumerate(ordered) if entry["id"] not in ambiguous]
    return _numbered(ordered, "images", findings), used


def _numbered(entries: list[Entry], key: str, findings: Findings) -> list[Entry]:
    ids = [entry["id"] for entry in entries]
    odd = [value for value in ids if not is_plain_id(value)]
    if not odd:
        return entries
    findings.add("odd_ids", *(f"{value!r} in {key}" for value in odd))
    return [{**entry, "id": i, "original_id": entry["id"]} for i, entry in enumerate(entries, start=1)]


def _is_key(value: Any) -> bool:
    return value is not None and not isinstance(value, (list, dict))


def summary_of(values: Iterable[str], limit: int = 5) -> str:
    """The first few values, separated by commas."""
    values = list(values)
    return ", ".join(values[:limit]) + (", …" if len(values) > limit else "")
