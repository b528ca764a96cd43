"""Draw detections with consistent colours: a class has the same colour in every picture."""

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
from ..utils.sizes import ceil_div

__all__ = ["STUFF", "DetectionVisualizer", "draw", "write_picture"]

ALPHA = 0.5  # opacity of masks
#: Options for drawing segments: all of them, however small, and translucent
STUFF = {"area_threshold": 0, "alpha": ALPHA}
JPEG_QUALITY = 95


class DetectionVisualizer(Visualizer):
    """detectron2's visualizer with one colour per class instead of a random one per object.

    Args:
        image: (H, W, 3) RGB.
        metadata: names of the classes.
        scale: factor by which the picture is enlarged.
    """

    def __init__(self, image: Picture, metadata: Metadata, scale: float = 1.0) -> None:
        super().__init__(image, _with_colors(metadata), scale, ColorMode.SEGMENTATION)

    def draw_output(self, output: Mapping[str, Any], score_threshold: float = 0.0) -> None:
        """Draw a model's output: the panoptic map if there is one, or else classes of pixels, or objects.

        Args:
            output: a detectron2 model's output for the image, on the CPU.
            score_threshold: objects with lower scores are not drawn.
        """
        if "panoptic_seg" in output:
            self.draw_panoptic_seg(*output["panoptic_seg"], **STUFF)
        elif "sem_seg" in output:
            self.draw_sem_seg(output["sem_seg"].argmax(dim=0), **STUFF)
        else:
            instances = output["instances"]
            self.draw_instance_predictions(instances[instances.scores >= score_threshold])

    def draw_dataset_dict(self, dic: Mapping[str, Any]) -> Any:
        """Draw the annotations of an image, some of which may lack a mask or keypoints."""
        annotations = dic.get("annotations") or []
        shown = {key for key in ("segmentation", "keypoints") if any(a.get(key) for a in annotations)}
        empty = {"segmentation": [], "keypoints": [0] * 3 * len(self.metadata.get("keypoint_names") or ())}
        completed = [
            {key: value for key, value in annotation.items() if key not in empty}
            | {key: annotation.get(key) or empty[key] for key in shown}
            for annotation in annotations
        ]
        return super().draw_dataset_dict({**dic, "annotations": completed})

    def overlay_instances(self, **parts: Any) -> Any:
        """Draw objects with translucent masks."""
        return super().overlay_instances(**{**parts, "alpha": ALPHA})

    def _jitter(self, color: Any) -> tuple[float, ...]:
        return tuple(color)


def draw(image: Picture, output: Mapping[str, Any], metadata: Metadata, min_side: int = 1) -> Picture:
    """Draw a model's output on an image.

    Args:
        image: (H, W, 3) RGB.
        output: a detectron2 model's output for the image, on the CPU.
        metadata: names of the classes.
        min_side: in pixels; the image is enlarged by the smallest whole factor that makes its longer side at
            least this long.

    Returns:
        The picture, RGB.
    """
    visualizer = DetectionVisualizer(image, metadata, ceil_div(min_side, max(image.shape[:2])))
    visualizer.draw_output(output)
    picture: Picture = visualizer.output.get_image()
    return picture


def write_picture(file: Path, picture: Picture) -> None:
    """Write a picture, (H, W, 3) RGB, in the format of the file's suffix.

    Raises:
        ConfigError: the format does not support a picture of this size.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if file.suffix == ".jpg" else []
    success, data = cv2.imencode(file.suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
    if not success:
        raise ConfigError(f"{file}: cannot write a picture of {picture.shape[1]}x{picture.shape[0]} pixels")
    with atomic_write(file) as partial:
        partial.write_bytes(data.tobytes())


def _with_colors(metadata: Metadata) -> Metadata:
    """The metadata with a colour for each class; colours that the dataset defines are kept."""
    colors = colormap(rgb=True)
    defaults = {
        f"{kind}_colors": [colors[i % len(colors)] for i in range(len(metadata.get(f"{kind}_classes") or ()))]
        for kind in ("thing", "stuff")
    }
    return Metadata(**{**defaults, **metadata.as_dict()})
