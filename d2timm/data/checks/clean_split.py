"""A split in the cache whose annotations are checked: a COCO file, and what is known beside them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...utils.files import atomic_write
from ...utils.json_file import encode_json, parse_json, read_json
from ..coco_columns import open_columns
from ..columns import Columns
from .findings import Findings

__all__ = ["CleanSplit", "is_whole", "read_about", "write_split"]


@dataclass(frozen=True)
class CleanSplit:
    """A split whose annotations are checked and cleaned.

    Attributes:
        file: the COCO file in the cache, without what cannot be used.
        label: the setting that selects the annotations and its value, for messages.
        note: how the split was found or made; "" if the user has named it.
    """

    file: Path
    label: str
    note: str = ""

    @property
    def columns(self) -> Columns:
        """The annotations, whose images have absolute file names."""
        return open_columns(self.file)

    @property
    def coco(self) -> dict[str, Any]:
        """The content of the file, parsed at each call."""
        content: dict[str, Any] = read_json(self.file)
        return content

    @property
    def about(self) -> Mapping[str, Any]:
        """What is known beside the annotations.

        ``categories`` in the order of the class indices, ``findings``, ``folder`` of the images, and
        ``files``, the absolute paths of all images that the annotations list.
        """
        return read_about(self.file)

    @property
    def findings(self) -> Findings:
        """What was found while the split was read."""
        return Findings.from_dict(self.about["findings"])


def write_split(file: Path, coco: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Write the annotations of a split, and what is known beside them.

    Raises:
        ConfigError: the cache cannot be written.
    """
    encoded = encode_json(coco)
    about = {**about, "categories": coco["categories"], "size": len(encoded)}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        for path, content in ((file, encoded), (_about_file(file), encode_json(about))):
            with atomic_write(path) as partial:
                partial.write_bytes(content)
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be written ({error.strerror}): set D2TIMM_CACHE to a folder that can be written"
        ) from None


def _about_file(file: Path) -> Path:
    return file.with_name(f"about-{file.name}")


def read_about(file: Path) -> Mapping[str, Any]:
    """What is known about a file that ``write_split`` has written, beside the annotations.

    Raises:
        OSError, ConfigError: nothing is known, or it is damaged.
    """
    about = _about_file(file)
    return _read(about, about.stat().st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _read(file: Path, mtime_ns: int) -> Mapping[str, Any]:
    content: Mapping[str, Any] = parse_json(file.read_bytes(), str(file))
    return content


def is_whole(file: Path) -> bool:
    """Whether a file and what is known about it are there, and as long as they were written."""
    try:
        return bool(file.stat().st_size == read_about(file)["size"])
    except (OSError, ConfigError, LookupError, TypeError):
        return False
