"""``inference/samples.json``: a few validation images as thumbnails, with their objects and detections.

All coordinates are in pixels of the thumbnail.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
from PIL import Image

from ..errors import ConfigError
from ..utils.files import atomic_write
from ..utils.text import one_line

__all__ = ["FILE", "SIDE", "Sample", "Samples", "Shape"]

FILE = Path("inference", "samples.json")
SIDE = 480  # longest side of a thumbnail, in pixels
LARGEST = 16 * 2**20  # bytes of a file that is read; those of a run have at most about 1 MiB


@dataclass(frozen=True)
class Shape:
    """An object or a detection.

    Attributes:
        label: index of its class.
        box: x0, y0, x1, y1.
        score: of a detection, 0 to 1; None for an object of the annotations.
        outlines: polygons x, y, x, y, … of its mask; empty without a mask.
    """

    label: int
    box: tuple[float, float, float, float]
    score: float | None = None
    outlines: list[list[float]] = field(default_factory=list)


@dataclass(frozen=True)
class Sample:
    """An image.

    Attributes:
        name: of its file.
        width: of the thumbnail.
        height: of the thumbnail.
        jpeg: the thumbnail.
        objects: the annotations.
        detections: of the run, the highest scores first.
    """

    name: str
    width: int
    height: int
    jpeg: bytes
    objects: list[Shape]
    detections: list[Shape]


@dataclass(frozen=True)
class Samples:
    """The images of a run.

    Attributes:
        classes: names of the classes.
        images: in the order of the validation set.
    """

    classes: list[str]
    images: list[Sample]

    @classmethod
    def read(cls, folder: Path) -> Samples | None:
        """Read the samples of a run folder; None if it has none.

        Images and shapes that a page cannot show are left out.

        Raises:
            ConfigError: the file cannot be read, or no run wrote it.
        """
        file = folder / FILE
        try:
            if file.stat().st_size > LARGEST:
                raise ConfigError(f"{file}: larger than {LARGEST} bytes")
            samples = msgspec.json.decode(file.read_bytes(), type=cls)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError, RecursionError, UnicodeError) as error:
            raise ConfigError(f"{file}: {one_line(error)}") from None
        images = [_checked(image, len(samples.classes)) for image in samples.images if _is_thumbnail(image)]
        return replace(samples, images=images)

    def write(self, folder: Path) -> None:
        """Write the samples to a run folder."""
        file = folder / FILE
        file.parent.mkdir(exist_ok=True)
        with atomic_write(file) as partial:
            partial.write_bytes(msgspec.json.encode(self))


def _is_thumbnail(image: Sample) -> bool:
    """Whether the bytes of an image are a JPEG of the size that the image has, which is small."""
    try:
        with Image.open(io.BytesIO(image.jpeg), formats=["JPEG"]) as opened:
            return opened.size == (image.width, image.height) and max(opened.size) <= SIDE
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def _checked(image: Sample, classes: int) -> Sample:
    """The image without shapes of classes that do not exist."""

    def shown(shapes: list[Shape]) -> list[Shape]:
        return [shape for shape in shapes if 0 <= shape.label < classes]

    return replace(image, objects=shown(image.objects), detections=shown(image.detections))
