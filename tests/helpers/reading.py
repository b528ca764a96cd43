"""Read a folder of annotations as the common check of a dataset does, without the check itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from d2timm.data.checks.findings import Findings
from d2timm.data.checks.headers import Header, read_header
from d2timm.data.formats.base import FolderFormat

SIZE = (40, 20)  # of images, in pixels


@dataclass
class PlainReading:
    """A ``Reading`` without a cache."""

    findings: Findings = field(default_factory=Findings)

    def headers(self, files: Sequence[Path]) -> dict[Path, Header]:
        return {file: read_header(file) for file in files}


@dataclass
class ReadSplit:
    """The content of a split and what was found.

    Attributes:
        coco: the content as a COCO file has it.
        samples: kind of finding -> samples.
        note: how the split was found.
    """

    coco: dict[str, Any]
    samples: dict[str, list[str]]
    note: str

    @property
    def boxes(self) -> list[tuple[str, str, list[float]]]:
        """(file name, class, box) of each object."""
        files = {image["id"]: Path(image["file_name"]).name for image in self.coco["images"]}
        names = {category["id"]: category["name"] for category in self.coco["categories"]}
        return [
            (files[a["image_id"]], names[a["category_id"]], [round(v, 6) for v in a["bbox"]])
            for a in self.coco["annotations"]
        ]

    @property
    def files(self) -> list[str]:
        """Paths of the images."""
        return [image["file_name"] for image in self.coco["images"]]

    @property
    def names(self) -> list[str]:
        """Names of the image files."""
        return [Path(file).name for file in self.files]


def read_split(declared: FolderFormat, root: Path, split: str = "train") -> ReadSplit:
    """Read a split, which must exist."""
    source = declared.open(root, split, f"data.root={root}")
    assert source is not None, f"{root} has no split {split}"
    assert source.images == Path("/")
    reading = PlainReading()
    return ReadSplit(source.read(reading), reading.findings.samples, source.note)


def write_image(file: Path, size: tuple[int, int] = SIZE, **options: Any) -> Path:
    """Write a black image and the folders that it needs."""
    file.parent.mkdir(parents=True, exist_ok=True)
    kind = "PNG" if file.suffix.lower() == ".png" else "JPEG"
    Image.new("RGB", size).save(file, kind, **options)
    return file


def write_text(file: Path, text: str, encoding: str = "utf-8") -> Path:
    """Write a text file and the folders that it needs."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode(encoding))
    return file
