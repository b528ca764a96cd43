"""Images as pixels: the same reading for training, evaluation and prediction."""

from __future__ import annotations

import os
from typing import Any, TypeAlias

import numpy as np
import torch
from detectron2.data import detection_utils
from detectron2.utils.file_io import PathManager
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..errors import ConfigError

__all__ = ["ImageLike", "Picture", "pixels_of", "read_image"]

#: (H, W, C), values 0 to 255
Picture: TypeAlias = NDArray[np.uint8]
#: A file; a PIL image; (H, W, 3) RGB, (H, W, 4) RGBA or (H, W) grey bytes; a tensor (3 or 1, H, W) of bytes
ImageLike: TypeAlias = str | os.PathLike[str] | Image.Image | Picture | Tensor

# Everything that Pillow raises for broken files and for files that are not images
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def read_image(file: str | os.PathLike[str], image_format: str) -> NDArray[Any]:
    """Read an image file as detectron2 does: EXIF orientation is applied, transparency is dropped.

    Grey images of 16 bits, which detectron2 would clip at 255, are scaled to 8 bits. If a file has several
    images, the first is read.

    Args:
        file: a path to a file in any format that Pillow reads.
        image_format: a mode of Pillow, or ``BGR`` or ``YUV-BT.601``.

    Returns:
        (H, W, C), values 0 to 255.

    Raises:
        ConfigError: the file does not exist, is not an image or is truncated.
    """
    try:
        with PathManager.open(os.fspath(file), "rb") as opened:
            return _convert(Image.open(opened), image_format)
    except UnidentifiedImageError:
        raise ConfigError(f"{file}: cannot be read as an image: Pillow does not know its format") from None
    except _BROKEN as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ConfigError(f"{file}: cannot be read as an image: {reason}") from None


def pixels_of(image: ImageLike, image_format: str) -> NDArray[Any]:
    """Return the pixels of an image given in any form, as ``read_image`` returns those of a file.

    Args:
        image: a file; a PIL image; an array of bytes, (H, W, 3) RGB, (H, W, 4) RGBA or (H, W) grey; a
            tensor of bytes, (3, H, W) RGB or (1, H, W) grey.
        image_format: as in ``read_image``.

    Returns:
        (H, W, C), values 0 to 255.

    Raises:
        ConfigError: the image has another type, dtype or shape, or cannot be read.
    """
    if isinstance(image, str | os.PathLike):
        return read_image(image, image_format)
    if isinstance(image, Tensor):
        image = _array_of(image)
    if isinstance(image, np.ndarray):
        image = _pil_of(image)
    if not isinstance(image, Image.Image):
        raise ConfigError(
            f"{type(image).__name__} is not an image: use a path, a PIL image, bytes (H, W, 3) or (3, H, W)"
        )
    try:
        return _convert(image, image_format)
    except _BROKEN as error:  # Pillow reads the pixels only now
        raise ConfigError(f"the PIL image cannot be read: {error}") from None


def _array_of(image: Tensor) -> Picture:
    """(C, H, W) -> (H, W, C)."""
    if image.dtype != torch.uint8 or image.dim() != 3 or image.shape[0] not in (1, 3, 4):
        raise ConfigError(
            f"a tensor {tuple(image.shape)} of {image.dtype} is not an image: use bytes (3, H, W), RGB, such "
            "as (255 * x).round().to(torch.uint8)"
        )
    array: Picture = image.permute(1, 2, 0).cpu().numpy()
    return array


def _pil_of(image: Picture) -> Image.Image:
    shape = image.shape[:2] if image.shape[2:] == (1,) else image.shape
    if image.dtype != np.uint8 or len(shape) not in (2, 3) or shape[2:] not in ((), (3,), (4,)):
        raise ConfigError(
            f"an array {image.shape} of {image.dtype} is not an image: use bytes (H, W, 3), RGB"
        )
    if not image.size:
        raise ConfigError(f"an array {image.shape} has no pixels")
    return Image.fromarray(np.ascontiguousarray(image.reshape(shape)))


def _convert(image: Image.Image, image_format: str) -> NDArray[Any]:
    image = detection_utils._apply_exif_orientation(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns about converting such images to RGB directly
    pixels: NDArray[Any] = detection_utils.convert_PIL_to_numpy(image, image_format)
    return pixels
