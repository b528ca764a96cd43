"""Pillow's formats, errors and limits; this module needs no torch.

Importing it registers the plug-ins for formats that Pillow itself does not read.
"""

from __future__ import annotations

import functools
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any

import PIL
from PIL import Image, UnidentifiedImageError

from . import deep_tiff
from .text import one_line

__all__ = [
    "BROKEN",
    "HEIC",
    "MAX_PIXELS",
    "has_heic",
    "has_several_images",
    "image_suffixes",
    "open_image",
    "orientation_of",
    "pillow_state",
    "reason_of",
    "stored_size",
    "without_pixel_limit",
]

#: Everything that Pillow and its plug-ins raise for broken files and for files that are not images
BROKEN = (
    *(OSError, SyntaxError, ValueError, EOFError, RuntimeError, struct.error, zlib.error),
    *(LookupError, TypeError, AttributeError, AssertionError, ArithmeticError, Image.DecompressionBombError),
)
#: Largest image that is read by default, as in OpenCV
MAX_PIXELS = 2**30
#: Suffixes of photographs of phones that Pillow reads with the plug-in pillow-heif only
HEIC = frozenset({".heic", ".heics", ".heif", ".heifs", ".hif"})

# Formats that Pillow opens but that hold no photographs: documents that need another program, and videos
_DOCUMENTS = frozenset({"EPS", "FPX", "HDF5", "MPEG", "PDF", "WMF", "GRIB", "BUFR"})
# Formats whose further images are previews, depth maps or layers of the first
_STILL = frozenset({"MPO", "PSD"})
_ORIENTATION = 0x0112  # EXIF tag
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257  # tags
_LOCK = Lock()
_users = 0  # threads inside ``without_pixel_limit``
_limit: int | None = None


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Suffixes, in lower case with the dot, of all image formats that the installed Pillow opens.

    ``.heic`` is among them where the plug-in pillow-heif is installed.
    """
    return frozenset(
        suffix
        for suffix, name in Image.registered_extensions().items()
        if name in Image.OPEN and name not in _DOCUMENTS
    )


def has_heic() -> bool:
    """Whether the plug-in for ``HEIC`` is installed."""
    return image_suffixes() >= HEIC


@contextmanager
def open_image(file: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """Open an image of any size with Pillow, whose limit is suspended meanwhile.

    Raises:
        OSError: the file cannot be opened, or is none: a pipe would be waited for.
    """
    if os.path.exists(file) and not os.path.isfile(file):
        raise OSError("not a file")
    with without_pixel_limit(), Image.open(file) as image:
        yield image


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation of an image, 1 (upright) to 8; 1 if its EXIF data are missing or broken."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow's parser of EXIF raises errors of many types
        return 1
    return orientation if orientation in range(1, 9) else 1


def stored_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of an image as it is stored, before its orientation is applied.

    ``Image.size`` is the same except for TIFF files, whose size Pillow gives as it is shown.
    """
    tags: Any = getattr(image, "tag_v2", {})
    width, height = image.size
    return tags.get(_TIFF_WIDTH, width), tags.get(_TIFF_HEIGHT, height)


def has_several_images(image: Image.Image) -> bool:
    """Whether a file has more images than the first one that is read: an animation, or pages."""
    try:
        return image.format not in _STILL and bool(getattr(image, "is_animated", False))
    except BROKEN:  # by the second image, which does not matter
        return False


def reason_of(error: BaseException, file: str | Path) -> str:
    """Why a file cannot be read, on one line and without its name, with the fix where there is one.

    Args:
        error: one of ``BROKEN``, raised by Pillow.
        file: the image.
    """
    if isinstance(error, UnidentifiedImageError):
        return _unidentified(Path(file))
    text = getattr(error, "strerror", None) or one_line(error) or type(error).__name__
    return text.replace(f" {str(file)!r}", "")


def _unidentified(file: Path) -> str:
    head = b""
    with suppress(OSError), file.open("rb") as opened:
        head = opened.read(16)
    if head[4:8] == b"ftyp" and head[8:11] in (b"hei", b"hev", b"mif", b"msf") and not has_heic():
        return "reading HEIC needs a plug-in of Pillow: pip install 'd2timm[heic]'"
    if head[:4] in deep_tiff.MAGIC:
        return "the TIFF is broken or of a rare kind: save it as RGB or grey with 8 or 16 bits"
    return "Pillow does not know its format"


@contextmanager
def without_pixel_limit() -> Iterator[None]:
    """Suspend Pillow's limit on the size of images, which callers replace by their own; thread-safe."""
    global _users, _limit
    with _LOCK:
        if _users == 0:
            _limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _users += 1
    try:
        yield
    finally:
        with _LOCK:
            _users -= 1
            if _users == 0:
                Image.MAX_IMAGE_PIXELS = _limit


def pillow_state() -> str:
    """A text that changes when another version of Pillow or another plug-in can read other files."""
    return f"Pillow {PIL.__version__}, {len(image_suffixes())} suffixes"


def _register_plugins() -> None:
    deep_tiff.register()
    with suppress(ImportError):
        from pillow_heif import register_heif_opener  # type: ignore[import-not-found, unused-ignore]

        register_heif_opener()


_register_plugins()
