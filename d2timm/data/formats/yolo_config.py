r"""The files that declare a YOLO dataset: its classes, and the images of each split.

data.yaml (Ultralytics, Roboflow, CVAT)    names, train, val, path, kpt_shape
obj.data (darknet, CVAT)                   names, train, valid
classes.txt (labelImg), obj.names, …       the classes only: splits are lists or folders
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ...errors import ConfigError
from ...utils.text import one_line
from .layout import exists, locate, path_parts, read_text, text_lines
from .splits import SPLIT_NAMES
from .yolo_labels import Keypoints

__all__ = ["Declaration", "find_declaration", "is_dataset", "read_declaration"]

YAML_SUFFIXES = (".yaml", ".yml")
YAML_NAMES = ("data.yaml", "data.yml")
#: Lists of class names, one per line: labelImg and Label Studio; darknet and CVAT; Roboflow's Darknet export
CLASS_LISTS = ("classes.txt", "obj.names", "_darknet.labels", "predefined_classes.txt")
DATASET = re.compile(r"(?ims)(?=.*^[ \t]*[\"']?(names|nc)[\"']?[ \t]*:)(?=.*^[ \t]*[\"']?train[\"']?[ \t]*:)")
#: A path in double quotes, where YAML would read Windows' \t as a tab
QUOTED_PATH = re.compile(r'(?im)^(\s*(?:path|train|val|valid|validation|test)\s*:\s*|\s*-\s*)"([^"\n]*)"')
BACKSLASH = re.compile(r"\\+(?!x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8})")
FOLDERS = 100  # in which declarations are searched, at most
NOTHING = frozenset({"", "~", "null", "none"})


@dataclass(frozen=True)
class Declaration:
    """A dataset, as its files declare it.

    Attributes:
        file: the file that declares it.
        names: names of the classes.
        classes: class number in the labels -> index of the name.
        sources: split name in lower case -> folders of images, lists of images and images; None if the files
            do not declare the splits.
        path: the folder that these are relative to, as written.
        bases: the folders that they may be relative to, the likeliest first.
        keypoints: the keypoints of every object, if it is a dataset of poses.
    """

    file: Path
    names: tuple[str, ...]
    classes: Mapping[int, int]
    sources: Mapping[str, Sequence[str]] | None
    path: str
    bases: tuple[Path, ...]
    keypoints: Keypoints | None = None

    def entries(self, split: str) -> list[tuple[str, Sequence[str]]]:
        """The keys of a split and what they contain, the likeliest first; empty ones are left out."""
        sources = self.sources or {}
        return [(name, sources[name]) for name in SPLIT_NAMES[split] if sources.get(name)]


def find_declaration(root: Path) -> list[Path]:
    """The files that may declare the dataset in a folder, all of the likeliest kind; [] if there are none."""
    if root.is_file():
        return [root]
    children = _folders(root)
    for places in ([root], children, [folder for child in children[:FOLDERS] for folder in _folders(child)]):
        files = [file for place in places for file in _files(place)]
        yamls = [file for file in files if file.suffix.lower() in YAML_SUFFIXES and is_dataset(file)]
        usual = [file for file in yamls if file.stem.lower() in ("data", "dataset", root.name.lower())]
        lists = [file for file in files if file.name.lower() in CLASS_LISTS]
        kinds = (usual[:1], yamls, [file for file in files if file.name.lower() == "obj.data"], lists)
        if found := next(filter(None, kinds), None):
            return found
    return []


def read_declaration(root: Path, label: str) -> Declaration:
    """Read the declaration of a dataset.

    Args:
        root: its folder, or the file.
        label: the setting and its value, for error messages.

    Raises:
        ConfigError: there is none, there are several, or it is broken.
    """
    # a data.yaml that lacks something is an error, not a folder without one
    files = find_declaration(root) or [file for file in _files(root) if file.name.lower() in YAML_NAMES]
    if not files:
        if not exists(root):
            raise ConfigError(f"{label}: no such file or folder")
        raise ConfigError(
            f"{label}: no data.yaml, and no list of the class names ({', '.join(CLASS_LISTS[:3])}): add one"
        )
    file = files[0]
    at = label if file == root else f"{label}: {file.name}"
    if file.name.lower() in CLASS_LISTS:
        names = _longest_list(files, label)
        return Declaration(file, names, _numbered(names), _lists_beside(root), "", (root,))
    if len(files) > 1:
        found = ", ".join(str(file.relative_to(root)) for file in files)
        raise ConfigError(f"{label}: several files declare a dataset: {found}: set data.root to one of them")
    if file.suffix.lower() in YAML_SUFFIXES:
        return _read_yaml(file, at)
    return _read_darknet(file, at)


# YAML


def _read_yaml(file: Path, label: str) -> Declaration:
    content = _load(file, label)
    names, classes = _classes(content, label)
    base = content.get("path")
    if base is not None and not isinstance(base, str):
        raise ConfigError(f"{label}: path: {base!r} is not a folder")
    sources = {}
    for key in (name for names_of_split in SPLIT_NAMES.values() for name in names_of_split):
        value = content.get(key)
        entries = value if isinstance(value, list) else [value] if value is not None else []
        if not all(isinstance(entry, str) for entry in entries):
            allowed = "a folder of images, a text file of their paths, or a list of these"
            raise ConfigError(f"{label}: {key}: {value!r} is not {allowed}")
        sources[key] = [entry for entry in entries if entry.lower() not in NOTHING]
    path = base or ""
    keypoints = _keypoints(content, label)
    return Declaration(file, names, classes, sources, path, _bases(file.parent, path), keypoints)


def _load(file: Path, label: str) -> dict[str, Any]:
    """The content, with keys in lower case and all scalars as text, so that a class ``no`` is not False."""
    try:
        text = yaml.reader.Reader.NON_PRINTABLE.sub("", read_text(file))
        content = yaml.load(QUOTED_PATH.sub(_with_slashes, text), Loader=yaml.BaseLoader)
    except OSError as error:
        raise ConfigError(f"{label}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{label}: not YAML: {one_line(error)}") from None
    if not isinstance(content, Mapping):
        raise ConfigError(f"{label}: not a YOLO dataset, which has the keys names, train and val")
    lowered = {str(key).lower(): value for key, value in content.items()}
    return {k: v for k, v in lowered.items() if not (isinstance(v, str) and v.lower() in NOTHING)}


def _with_slashes(match: re.Match[str]) -> str:
    return f'{match[1]}"{BACKSLASH.sub("/", match[2])}"'


def _classes(content: Mapping[str, Any], label: str) -> tuple[tuple[str, ...], dict[int, int]]:
    """Names of the classes, and class number -> index of the name."""
    names, count = content.get("names"), content.get("nc")
    if names is None and isinstance(count, str) and re.fullmatch(r"0*[1-9]\d{0,4}(\.0*)?", count):
        names = [f"class_{i}" for i in range(int(float(count)))]  # as Ultralytics names them
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return tuple(names), _numbered(names)
    if isinstance(names, Mapping) and names and all(isinstance(name, str) for name in names.values()):
        numbers = {key: int(key) for key in names if str(key).strip().isdecimal()}
        if len(set(numbers.values())) == len(names):
            ordered = sorted(numbers, key=lambda key: numbers[key])
            return tuple(names[key] for key in ordered), {numbers[key]: i for i, key in enumerate(ordered)}
    allowed = "a list of the class names, or a mapping from class numbers to them"
    raise ConfigError(f"{label}: names: {names!r} is not {allowed}")


def _numbered(names: Sequence[str]) -> dict[int, int]:
    return {i: i for i in range(len(names))}


def _keypoints(content: Mapping[str, Any], label: str) -> Keypoints | None:
    """Names and number of the keypoints; None if it is not a dataset of poses."""
    shape = content.get("kpt_shape")
    if shape is None:
        return None
    numbers = [int(v) for v in shape if str(v).isdecimal()] if isinstance(shape, list) else []
    if len(numbers) != 2 or numbers[0] < 1 or numbers[1] not in (2, 3):
        raise ConfigError(f"{label}: kpt_shape: {shape!r} is not [number of keypoints, 2 or 3]")
    names = content.get("kpt_names")
    # a list for each class; detectors have the same keypoints for all
    lists = list(names.values()) if isinstance(names, Mapping) else [names]
    first = lists[0] if lists else None
    if not isinstance(first, list) or len(first) != numbers[0] or any(other != first for other in lists):
        first = [f"point_{i}" for i in range(numbers[0])]
    return Keypoints(tuple(map(str, first)), numbers[1])


def _bases(folder: Path, path: str) -> tuple[Path, ...]:
    """The folders that paths may be relative to: ``path``, where it exists or ends, and the YAML's folder."""
    candidates = [folder / path, Path.cwd() / path] if path else []
    candidates += [folder.joinpath(*path_parts(path)[start:]) for start in range(len(path_parts(path)))]
    return tuple(dict.fromkeys([base for base in candidates if exists(base)] + [folder]))


# Darknet and labelImg


def _read_darknet(file: Path, label: str) -> Declaration:
    """``key = value`` lines, with paths that are relative to any folder above."""
    try:
        pairs = [line.partition("=")[::2] for _, line in text_lines(file)]
    except OSError as error:
        raise ConfigError(f"{label}: {error.strerror}") from None
    content = {key.strip().lower(): value.strip() for key, value in pairs}
    bases = (file.parent,)
    name_file = locate(content.get("names") or "obj.names", bases)
    if name_file is None or not name_file.is_file():
        raise ConfigError(f"{label}: names: {content.get('names')!r}: no such file; it lists the class names")
    names = _names_in(name_file, label)
    sources = {key: [content[key]] for split in SPLIT_NAMES.values() for key in split if content.get(key)}
    return Declaration(file, names, _numbered(names), sources, "", bases)


def _longest_list(files: Iterable[Path], label: str) -> tuple[str, ...]:
    """The class names of several lists, of which all must begin equally, as tools append new classes."""
    lists = {file: _names_in(file, label) for file in files}
    longest = max(lists.values(), key=len)
    other = next((file for file, names in lists.items() if longest[: len(names)] != names), None)
    if other is not None:
        raise ConfigError(
            f"{label}: {other} has other classes than the lists in other folders, so that class numbers have "
            "several meanings: convert the folders one by one"
        )
    return longest


def _names_in(file: Path, label: str) -> tuple[str, ...]:
    try:
        names = tuple(line for _, line in text_lines(file))
    except OSError as error:
        raise ConfigError(f"{label}: {file}: {error.strerror}") from None
    if not names:
        raise ConfigError(f"{label}: {file} is empty; it lists the class names, one per line")
    return names


def _lists_beside(root: Path) -> dict[str, list[str]] | None:
    """Lists of images such as train.txt in a folder."""
    names = [name for split in SPLIT_NAMES.values() for name in split]
    lists = {name: [f"{name}.txt"] for name in names if (root / f"{name}.txt").is_file()}
    return lists if "train" in lists else None


# Search


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []


def _files(folder: Path) -> list[Path]:
    """The files of a folder whose names are those of declarations."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if _may_declare(entry.name) and entry.is_file()]
    except OSError:
        return []
    return [folder / name for name in sorted(names)]


def _may_declare(name: str) -> bool:
    lower = name.lower()
    usual = lower.endswith(YAML_SUFFIXES) or lower in (*CLASS_LISTS, "obj.data")
    return usual and not name.startswith(".")


def is_dataset(file: Path) -> bool:
    """Whether a YAML file declares classes and a training split."""
    try:
        return bool(DATASET.match(read_text(file)))
    except OSError:
        return False
