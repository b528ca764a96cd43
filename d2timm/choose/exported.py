"""The speed of an exported detector, in a process of its own.

``python -m d2timm.choose.exported DETECTOR IMAGES.json RESULT.json`` writes the milliseconds per image.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

from ..export.formats import open_program
from ..utils.files import atomic_write
from ..utils.images import read_image
from ..utils.json_file import read_json

__all__ = ["measure"]

REPEATS = 2  # of each image; the first image is not counted


def measure(detector: Path, images: list[str]) -> float:
    """The median milliseconds that an exported detector takes for an image.

    Args:
        detector: the file.
        images: paths of images.
    """
    run = open_program(detector, detector.suffix)
    pictures = [torch.from_numpy(np.array(read_image(image, "RGB"))) for image in images]
    run(pictures[0])
    seconds = []
    for picture in pictures * REPEATS:
        start = time.perf_counter()
        run(picture)
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds)


if __name__ == "__main__":
    coco = read_json(Path(sys.argv[2]))
    result = measure(Path(sys.argv[1]), [image["file_name"] for image in coco["images"]])
    with atomic_write(Path(sys.argv[3])) as partial:
        partial.write_text(json.dumps({"milliseconds": result}))
