"""Images as pixels: the same reading for training, evaluation and prediction; this module needs no torch."""

from __future__ import annotations

import logging
import os
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import ConfigError
from .deep_tiff import DeepTiff, is_misread
from .depth import to_bytes
from .once import Once
from .pillow import BROKEN, MAX_PIXELS, has_several_images, open_image, orientation_of, reason_of

__all__ = ["Picture", "pixels_of_pil", "read_draft", "read_image"]

logger = logging.getLogger(__name__)

#: (H, W, C), values 0 to 255
Picture: TypeAlias = NDArray[np.uint8]

COLOURS = ("RGB", "BGR")
STRIP = 2**24  # pixels that are converted at a time, so that a large image takes little further memory
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
TURNED = (5, 6, 7, 8)  # orientations of images that are stored with rows as columns
# Tags of TIFF files, and their values
BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339
WHITE_IS_ZERO, UNSIGNED, SIGNED = 0, 1, 2

_several_images = Once()


def read_image(file: str | os.PathLike[str], image_format: str, max_pixels: int = MAX_PIXELS) -> NDArray[Any]:
    """Read an image file as detectron2 does: EXIF orientation is applied, transparency is dropped.

    Colour profiles are not applied. Images of more than 8 bits, which detectron2 would clip at 255, are
    scaled to 8 bits by the rule of ``utils.depth.to_bytes``; colours of 16 bits lose their lower 8 bits. If a
    file has several images, the first is read, which is logged once.

    Args:
        file: a path to a file in any format that Pillow reads, or a URL that detectron2 reads.
        image_format: a mode of Pillow, or ``BGR`` or ``YUV-BT.601``.
        max_pixels: files of larger images are not read.

    Returns:
        (H, W, C), values 0 to 255.

    Raises:
        ConfigError: the file does not exist, is not an image, is truncated or too large.
    """
    return _read(file, image_format, max_pixels, None)[0]


def read_draft(
    file: str | os.PathLike[str], image_format: str, max_pixels: int, short_edge: int
) -> tuple[NDArray[Any], tuple[int, int]]:
    """Read an image that will be scaled down: of a large JPEG only as much as that takes.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if its short edge then has as many pixels as are needed;
    an image of 12 megapixels takes half of the time. Each pixel is the mean of those that it stands for,
    up to rounding, which is a little sharper than the filter that otherwise scales the image.

    Args:
        file: as for ``read_image``.
        image_format: as for ``read_image``.
        max_pixels: as for ``read_image``.
        short_edge: pixels of the short edge that are needed, >= 1.

    Returns:
        (pixels, (height, width) of the whole image).

    Raises:
        ConfigError: as ``read_image``.
    """
    return _read(file, image_format, max_pixels, short_edge)


def _read(
    file: str | os.PathLike[str], image_format: str, max_pixels: int, short_edge: int | None
) -> tuple[NDArray[Any], tuple[int, int]]:
    path = _local(os.fspath(file))
    try:
        with open_image(path) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise ConfigError(
                    f"{file}: {width}x{height} pixels are more than data.max_pixels={max_pixels}: use "
                    f"data.max_pixels={width * height}, or d2timm predict --max-pixels {width * height}"
                )
            if has_several_images(image) and _several_images():
                logger.warning(
                    "%s: only the first image of the file is read; further files like it are not logged", file
                )
            if short_edge:
                image.draft(None, (short_edge, short_edge))
            if image.size != (width, height):
                size = (width, height) if orientation_of(image) in TURNED else (height, width)
                return pixels_of_pil(image, image_format, str(file)), size
            pixels = _whole(path, image, image_format, str(file))
            return pixels, pixels.shape[:2]
    except ConfigError:
        raise  # it is one of BROKEN, as a ValueError
    except BROKEN as error:
        raise ConfigError(f"{file}: cannot be read as an image: {reason_of(error, path)}") from None
    except MemoryError:
        raise ConfigError(f"{file}: there is not enough memory to read the image") from None


def _whole(path: str, image: Image.Image, image_format: str, name: str) -> NDArray[Any]:
    if image_format in COLOURS and image.format == "JPEG" and orientation_of(image) == 1:
        from .jpeg import decode  # it needs torch

        if (pixels := decode(path, image)) is not None:
            return pixels[..., ::-1] if image_format == "BGR" else pixels
    return pixels_of_pil(DeepTiff(path) if is_misread(image) else image, image_format, name)


def pixels_of_pil(image: Image.Image, image_format: str, name: str = "an image") -> NDArray[Any]:
    """Return the pixels of a PIL image, as ``read_image`` returns those of a file.

    Args:
        image: its pixels may not be loaded yet.
        image_format: as in ``read_image``.
        name: for the log.
    """
    image.load()  # this turns TIFF files upright, which then have no orientation any more
    orientation = orientation_of(image)
    image = _displayable(image, name)
    if orientation in UPRIGHT:
        image = image.transpose(UPRIGHT[orientation])
    if image_format == "YUV-BT.601":
        from detectron2.data.detection_utils import convert_PIL_to_numpy  # it needs torch

        return convert_PIL_to_numpy(image, image_format)  # type: ignore[no-any-return]
    pixels = _converted(image, "RGB" if image_format == "BGR" else image_format)
    return pixels[..., ::-1] if image_format == "BGR" else pixels


def _local(path: str) -> str:
    if "://" not in path:
        return path
    from detectron2.utils.file_io import PathManager  # it needs torch

    return PathManager.get_local_path(path)  # type: ignore[no-any-return]


def _displayable(image: Image.Image, name: str) -> Image.Image:
    """The image in a mode of 8 bits that Pillow converts to any other."""
    tags: Any = getattr(image, "tag_v2", {})
    if image.mode.startswith(("I", "F")) or (image.mode == "L" and tags.get(SAMPLE_FORMAT) == (SIGNED,)):
        values, white = _numbers(image, tags)
        scaled = to_bytes(values, white, name)
        return Image.fromarray(255 - scaled if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else scaled)
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA")  # Pillow warns about converting such images to RGB directly
    intermediate = {"La": "LA", "LAB": "RGB"}.get(image.mode)
    return image.convert(intermediate) if intermediate else image


def _numbers(image: Image.Image, tags: Any) -> tuple[NDArray[Any], float | None]:
    """The numbers (H, W) of a deep image, and the number that stands for white if its format defines it."""
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        return values, 2.0 ** (tags.get(BITS) or (16,))[0] - 1
    if image.mode == "I" and image.format in ("PNG", "PPM"):  # of 16 bits
        return values, 65535.0
    if image.mode == "I" and tags.get(SAMPLE_FORMAT, (UNSIGNED,)) == (UNSIGNED,) and tags:
        return values.view(np.uint32), None
    return (values.view(np.int8) if image.mode == "L" else values), None


def _converted(image: Image.Image, mode: str) -> Picture:
    """(H, W, C) in a mode of Pillow. Large images are converted in strips."""
    width, height = image.size
    rows = max(STRIP // max(width, 1), 1)
    if rows >= height:
        pixels: Picture = np.asarray(image.convert(mode))
        return pixels[..., None] if mode == "L" else pixels
    strips = ((top, image.crop((0, top, width, min(top + rows, height)))) for top in range(0, height, rows))
    pixels = np.empty((height, width, Image.getmodebands(mode)), np.uint8)
    for top, strip in strips:
        pixels[top : top + strip.height] = _converted(strip, mode)
    return pixels
