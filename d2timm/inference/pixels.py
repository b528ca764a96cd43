"""Images in every form that a caller may have, as pixels."""

from __future__ import annotations

import os
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..errors import ConfigError
from ..utils.images import Picture, pixels_of_pil, read_image
from ..utils.pillow import BROKEN, MAX_PIXELS
from ..utils.text import one_line

__all__ = ["ImageLike", "pixels_of"]

#: A file; a PIL image; (H, W, 3) RGB, (H, W, 4) RGBA or (H, W) grey bytes; a tensor (3 or 1, H, W) of bytes
ImageLike: TypeAlias = str | os.PathLike[str] | Image.Image | Picture | Tensor


def pixels_of(image: ImageLike, image_format: str, max_pixels: int = MAX_PIXELS) -> NDArray[Any]:
    """Return the pixels of an image given in any form, as ``read_image`` returns those of a file.

    Args:
        image: a file; a PIL image; an array of bytes, (H, W, 3) RGB, (H, W, 4) RGBA or (H, W) grey; a
            tensor of bytes, (3, H, W) RGB or (1, H, W) grey.
        image_format: as in ``read_image``.
        max_pixels: files of larger images are not read.

    Returns:
        (H, W, C), values 0 to 255.

    Raises:
        ConfigError: the image has another type, dtype or shape, or cannot be read.
    """
    if isinstance(image, str | os.PathLike):
        return read_image(image, image_format, max_pixels)
    if isinstance(image, Tensor):
        image = _array_of(image)
    if isinstance(image, np.ndarray):
        image = _pil_of(image)
    if not isinstance(image, Image.Image):
        raise ConfigError(
            f"{type(image).__name__} is not an image: use a path, a PIL image, bytes (H, W, 3) or (3, H, W)"
        )
    try:
        return pixels_of_pil(image, image_format)
    except BROKEN as error:  # Pillow reads the pixels only now
        raise ConfigError(f"the PIL image cannot be read: {one_line(error)}") from None


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
