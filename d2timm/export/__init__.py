"""Trained detectors as files that need none of this package.

image.py    pixels to what a detector takes
regions.py  R-CNNs, and dense.py RetinaNet and FCOS, by operations that exporters know
masks.py    masks in the image
program.py  all of it as one function
write.py    that function as a file, held against the detector
"""

from .write import FORMATS, PARTS, export_run

__all__ = ["FORMATS", "PARTS", "export_run"]
