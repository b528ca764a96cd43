"""Pictures of what detectors find, in colours that stay: a class has the same one in every picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
from detectron2.data.catalog import Metadata
from detectron2.utils.colormap import colormap
from detectron2.utils.visualizer import ColorMode, Visualizer

from ..errors import ConfigError
from ..utils.files import atomic_write
from ..utils.images import Picture

__all__ = ["DetectionVisualizer", "draw", "write_picture"]

ALPHA = 0.5  # of masks
STUFF = {"area_threshold": 0, "alpha": ALPHA}  # draw segments however small, and the image through them
QUALITY = 95  # of JPEG files


class DetectionVisualizer(Visualizer):
    """detectron2's visualizer with a colour for each class, where that varies it for each object.

    Args:
        image: (H, W, 3) RGB.
        metadata: names of the classes.
        scale: of the picture.
    """

    def __init__(self, image: Picture, metadata: Metadata, scale: float = 1.0) -> None:
        super().__init__(image, _with_colors(metadata), scale, ColorMode.SEGMENTATION)

    def draw_output(self, output: Mapping[str, Any], score_threshold: float = 0.0) -> None:
        """Draw what a model gives for an image; of several kinds, that which holds the others.

        Args:
            output: as a detector of detectron2 gives it, on the CPU.
            score_threshold: objects with lower scores are left out.
        """
        if "panoptic_seg" in output:
            self.draw_panoptic_seg(*output["panoptic_seg"], **STUFF)
        elif "sem_seg" in output:
            self.draw_sem_seg(output["sem_seg"].argmax(dim=0), **STUFF)
        else:
            instances = output["instances"]
            self.draw_instance_predictions(instances[instances.scores >= score_threshold])

    def overlay_instances(self, **parts: Any) -> Any:
        """Draw objects: the image is seen through their masks."""
        return super().overlay_instances(**{**parts, "alpha": ALPHA})

    def _jitter(self, color: Any) -> tuple[float, ...]:
        return tuple(color)


def draw(image: Picture, output: Mapping[str, Any], metadata: Metadata, least_side: int = 1) -> Picture:
    """Draw what a detector gives for an image, on it.

    Args:
        image: (H, W, 3) RGB.
        output: as a detector of detectron2 gives it, on the CPU.
        metadata: names of the classes.
        least_side: in pixels; the picture is a multiple of the image whose longer side is at least this.

    Returns:
        The picture, RGB.
    """
    canvas = DetectionVisualizer(image, metadata, -(-least_side // max(image.shape[:2])))
    canvas.draw_output(output)
    picture: Picture = canvas.output.get_image()
    return picture


def write_picture(file: Path, picture: Picture) -> None:
    """Write a picture, (H, W, 3) RGB, in the format that the file's suffix names.

    Raises:
        ConfigError: it cannot be written in that format.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY] if file.suffix == ".jpg" else []
    done, data = cv2.imencode(file.suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise ConfigError(f"{file}: a picture of {picture.shape[1]}x{picture.shape[0]} cannot be written")
    with atomic_write(file) as partial:
        partial.write_bytes(data.tobytes())


def _with_colors(metadata: Metadata) -> Metadata:
    """Names of classes with a colour for each; those that a set brings with it stay."""
    colors = colormap(rgb=True)
    named = {
        f"{kind}_colors": [colors[i % len(colors)] for i in range(len(metadata.get(f"{kind}_classes") or ()))]
        for kind in ("thing", "stuff")
    }
    return Metadata(**{**named, **metadata.as_dict()})
