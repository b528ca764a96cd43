"""Decode ordinary JPEG files by torchvision: the pixels of Pillow, with fewer copies of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

__all__ = ["decode"]

END = b"\xff\xd9"  # of a JPEG that is complete


def decode(file: str | Path, image: Image.Image) -> NDArray[np.uint8] | None:
    """Decode a JPEG of 8-bit RGB or grey pixels, without turning it upright.

    Args:
        file: the file.
        image: the file as Pillow has opened it; its pixels need not be loaded.

    Returns:
        (H, W, 3) RGB; None if the file is of another kind or damaged, so that Pillow should read it.
    """
    if image.format != "JPEG" or image.mode not in ("RGB", "L"):
        return None
    content = Path(file).read_bytes()
    if not content.endswith(END):
        return None
    try:
        pixels = decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.RGB)
    except RuntimeError:  # Pillow knows better what is wrong
        return None
    width, height = image.size
    return pixels.permute(1, 2, 0).numpy() if pixels.shape == (3, height, width) else None
