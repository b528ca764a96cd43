"""A plug-in of Pillow for TIFF files of many bits: colours of 32 bits or of floats, grey of 64 bits.

Pillow itself has no modes for them, and misreads colours of 16 bits in separate planes. Their values are
scaled to 8 bits like those of all other images.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, TiffImagePlugin
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from .depth import to_bytes

__all__ = ["MAGIC", "DeepTiff", "is_misread", "register"]

#: First bytes of TIFF and BigTIFF files
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Tags
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIPS, ORIENTATION, SAMPLES, STRIP_SIZES, PLANES, SAMPLE_FORMAT = 273, 274, 277, 279, 284, 339
# Their values
BLACK_IS_ZERO, RGB = 1, 2
UPRIGHT, SEPARATE = 1, 2
UNCOMPRESSED, LZW, DEFLATE, ADOBE_DEFLATE, PACK_BITS = 1, 5, 32946, 8, 32773
KINDS = {1: "u", 2: "i", 3: "f"}  # sample format -> NumPy's kind of number
TYPES = ("u2", "u4", "u8", "i2", "i4", "i8", "f4", "f8")


class DeepTiff(ImageFile.ImageFile):
    """A TIFF file as bytes of mode ``L`` or ``RGB``; alpha is dropped."""

    format = "TIFF"
    format_description = "TIFF of many bits"

    def _open(self) -> None:
        tags = self._directory = _tags(self.fp)
        size, samples = (tags.get(WIDTH), tags.get(HEIGHT)), tags.get(SAMPLES, 1)
        channels = {BLACK_IS_ZERO: (1,), RGB: (3, 4)}.get(tags.get(PHOTOMETRIC), ())
        packings: tuple[int, ...] = (UNCOMPRESSED,)
        if not _has_planes(tags):
            packings += (LZW, DEFLATE, ADOBE_DEFLATE, PACK_BITS)
        if (
            not all(isinstance(side, int) for side in size)
            or samples not in channels
            or _type(tags) not in TYPES
            or tags.get(COMPRESSION, UNCOMPRESSED) not in packings
            or tags.get(ORIENTATION, UPRIGHT) != UPRIGHT
            or (_has_planes(tags) and STRIPS not in tags)
        ):
            raise SyntaxError("this kind of TIFF is not supported")
        self._size, self._mode = size, "L" if samples == 1 else "RGB"

    def load(self) -> Any:
        """Decode the pixels, once."""
        if self._im is None:
            values = (_read_planes if _has_planes(self._directory) else _read_by_opencv)(
                self.fp, self._directory
            )
            white = 65535 if values.dtype.kind == "u" and values.dtype.itemsize == 2 else None
            pixels = to_bytes(values, white, str(self.filename or "a TIFF file"))
            self.im = Image.fromarray(np.ascontiguousarray(pixels)).im
            if self._exclusive_fp and self.fp:
                self.fp.close()
        return super().load()


def is_misread(image: Image.Image) -> bool:
    """Whether Pillow opens a TIFF file but reads other pixels: uncompressed planes of 16 bits."""
    tags: Any = getattr(image, "tag_v2", {})
    return _has_planes(tags) and _type(tags) == "u2" and tags.get(COMPRESSION, UNCOMPRESSED) == UNCOMPRESSED


def register() -> None:
    """Make ``Image.open`` try this plug-in after Pillow's own."""
    assert TiffImagePlugin.TiffImageFile.format in Image.ID  # imported above, so that it comes first
    Image.register_open("DEEP_TIFF", DeepTiff, lambda head: head[:4] in MAGIC)


def _tags(file: Any) -> Any:
    header = file.read(8)
    if 43 in header[2:4]:  # BigTIFF
        header += file.read(8)
    tags = ImageFileDirectory_v2(header)
    file.seek(tags.next)
    tags.load(file)
    return tags


def _has_planes(tags: Any) -> bool:
    return bool(tags.get(SAMPLES, 1) > 1 and tags.get(PLANES) == SEPARATE)


def _type(tags: Any) -> str:
    """NumPy's name of the numbers' type, "" if the channels differ in it."""
    kinds, bits = set(tags.get(SAMPLE_FORMAT, (1,))), set(tags.get(BITS, (1,)))
    return f"{KINDS.get(min(kinds))}{min(bits) // 8}" if len(kinds) == len(bits) == 1 else ""


def _read_planes(file: Any, tags: Any) -> NDArray[Any]:
    """(H, W, 3) of a file that holds the channels one after the other."""
    data = bytearray()
    for offset, size in zip(tags[STRIPS], tags[STRIP_SIZES], strict=True):
        file.seek(offset)
        data += file.read(size)
    dtype = np.dtype(("<" if tags.prefix == b"II" else ">") + _type(tags))
    shape = (tags[SAMPLES], tags[HEIGHT], tags[WIDTH])
    if len(data) != dtype.itemsize * math.prod(shape):
        raise OSError("truncated TIFF file")
    return np.frombuffer(data, dtype).reshape(shape)[:3].transpose(1, 2, 0)


def _read_by_opencv(file: Any, tags: Any) -> NDArray[Any]:
    """(H, W) or (H, W, 3)."""
    import cv2  # slow to import

    file.seek(0)
    try:
        values = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise OSError(f"OpenCV: {error.err}") from None
    if values is None or values.shape[:2] != (tags[HEIGHT], tags[WIDTH]):
        raise OSError("truncated TIFF file")
    return values if values.ndim == 2 else values[..., 2::-1]  # from BGR or BGRA
