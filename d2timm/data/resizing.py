"""How images are resized for a detector: by torch, which takes a third of Pillow's time."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.data import transforms as T
from fvcore.transforms.transform import Transform
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

__all__ = ["AugInput", "resize", "to_tensor"]


class AugInput(T.AugInput):
    """detectron2's input of augmentations, with images of bytes resized by ``resize``.

    Everything that resizes images for a detector uses it: training, evaluation, prediction and test-time
    augmentation. ``d2timm.export.preprocess`` has the same arithmetic.
    """

    def transform(self, tfm: Transform) -> None:
        """Transform the image, and what belongs to it, in place."""
        if type(tfm) is T.ResizeTransform:
            tfm = _Resize(tfm.h, tfm.w, tfm.new_h, tfm.new_w, tfm.interp)
        super().transform(tfm)


class _Resize(T.ResizeTransform):
    """Resizes images by ``resize``, and all else as its base class."""

    def apply_image(self, img: NDArray[Any], interp: int | None = None) -> NDArray[Any]:
        """(h, w, C) -> (new_h, new_w, C)."""
        method = self.interp if interp is None else interp
        known = img.dtype == np.uint8 and img.ndim == 3 and img.shape[2] in (1, 3)
        valid = img.shape[:2] == (self.h, self.w) and min(self.new_h, self.new_w) > 0
        if not (known and valid and method == Image.Resampling.BILINEAR):
            return super().apply_image(img, interp)  # type: ignore[no-any-return]
        reverse = img.strides[2] < 0  # BGR as a view of RGB
        resized = resize(_view(img[..., ::-1] if reverse else img), (self.new_h, self.new_w))
        pixels: NDArray[Any] = resized.permute(1, 2, 0).numpy()
        return pixels[..., ::-1] if reverse else pixels


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize an image: bilinear, with a filter that widens when it shrinks, as Pillow does.

    torch rounds the weights of the filter to 16 bits, Pillow to 32. In a photograph, a few of 1000 pixels
    differ, by 1.

    Args:
        image: (C, H, W) uint8.
        size: (height, width), each >= 1.

    Returns:
        (C, height, width) uint8.
    """
    # a batch of one whose strides say that channels are last, where they are: torch is twice as fast then
    span = max(length * stride for length, stride in zip(image.shape, image.stride(), strict=True))
    batch = image.as_strided((1, *image.shape), (span, *image.stride()))
    return F.interpolate(batch, size, mode="bilinear", align_corners=False, antialias=True)[0]


def to_tensor(image: NDArray[Any]) -> Tensor:
    """Convert pixels (H, W, C) to a contiguous tensor (C, H, W); fast for views that mirror an image."""
    mirrored = [axis for axis, stride in enumerate(image.strides) if stride < 0]
    upright = image[tuple(slice(None, None, -1 if axis in mirrored else 1) for axis in range(image.ndim))]
    tensor = _view(upright).contiguous()
    return tensor.flip([(axis + 1) % 3 for axis in mirrored]) if mirrored else tensor


def _view(image: NDArray[Any]) -> Tensor:
    """(H, W, C) -> (C, H, W), which shares its memory if torch supports that."""
    if not image.flags.writeable or min(image.strides, default=0) < 0:
        image = image.copy()
    return torch.from_numpy(image).permute(2, 0, 1)
