"""Run a trained detector on files: writes pictures, annotated videos and one JSON file.

files, folders, patterns -> inputs -> batches -> Predictor -> pictures, videos and predictions.json
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tqdm import tqdm

from ..errors import ConfigError
from ..utils.images import Picture, read_image
from ..utils.text import first_line, printable
from ..visualize.attention import attention_of, draw_attention
from ..visualize.feature_maps import backbone_of, draw_feature_maps, image_tile, levels_of
from ..visualize.visualizer import draw, write_picture
from .canvas import canvas_size
from .coco_results import CocoIds, CocoResults
from .inputs import Input, find_inputs
from .predictor import Predictor, load
from .video import Video, open_writer

__all__ = ["FILE", "predict"]

FILE = "predictions.json"
ALLOCATOR = "DefaultCPUAllocator"  # in PyTorch's error if the main memory is exhausted
MIN_SIDE = 480  # pixels; pictures whose longer side is shorter are enlarged, so that labels are readable


def predict(
    inputs: Sequence[str],
    output: Path,
    *,
    run: Path,
    weights: str | None = None,
    device: str | None = None,
    score_threshold: float = 0.5,
    batch_size: int = 1,
    pictures: bool = True,
    features: bool = False,
    ids_from: Path | None = None,
    max_pixels: int | None = None,
    channels_last: bool = False,
    compile: bool = False,
) -> int:
    """Detect objects in images and videos; the arguments are those of ``d2timm predict``.

    Args:
        inputs: images, videos, folders and patterns.
        output: the folder to write to: a new one, or one with earlier results.
        run: a run folder, or an exported ``.safetensors``.
        weights: see ``load``.
        device: see ``load``.
        score_threshold: 0 to 1; detections that do not exceed it are dropped.
        batch_size: images or frames in a forward pass, >= 1.
        pictures: whether to write pictures and videos.
        features: whether to draw feature maps and attention.
        ids_from: a COCO file whose image and category ids are used.
        max_pixels: see ``Predictor``.
        channels_last: see ``Predictor``.
        compile: see ``Predictor``.

    Returns:
        The exit code: 1 if an image or video could not be read, although the others were processed.

    Raises:
        ConfigError: an argument is invalid; nothing was written.
    """
    root, files, left_out = find_inputs(inputs, output)
    _check_output(output)
    ids = CocoIds(ids_from)
    predictor = load(run, weights, device, score_threshold, batch_size, max_pixels, channels_last, compile)
    info = {
        "image_root": str(root),
        "run": str(run),
        "weights": str(predictor.trained.weights),
        "score_threshold": score_threshold,
    }
    results = CocoResults(predictor.labels, ids, info)
    writer = _Writer(predictor, results, output, pictures, features, total=len(files))
    try:
        output.mkdir(parents=True, exist_ok=True)
        writer.write_json()  # marks the folder as one of results, even if this run is interrupted
    except OSError as error:
        raise ConfigError(f"--output {output}: {error.strerror}") from None
    for line in left_out:
        print(printable(line))
    started = time.monotonic()
    try:
        for batch in _batches(files, batch_size):
            writer.add(batch)
    finally:
        writer.bar.close()
        writer.write_json()
    print(writer.summary(time.monotonic() - started))
    return int(writer.failed > 0)


def _check_output(output: Path) -> None:
    """Refuse a folder that contains files but no results, so that results never mix with other files."""
    try:
        foreign = output.exists() and any(output.iterdir()) and not (output / FILE).is_file()
    except OSError as error:
        raise ConfigError(f"--output {output}: {error.strerror}") from None
    if foreign:
        raise ConfigError(f"--output {output} contains files but no {FILE}: choose another folder")


def _batches(inputs: list[Input], size: int) -> list[list[Input]]:
    """Split the inputs, in order, into batches of up to ``size`` images and single videos."""
    batches: list[list[Input]] = []
    for item in inputs:
        last = batches[-1] if batches else []
        if not last or item.is_video or last[0].is_video or len(last) == size:
            batches.append([item])
        else:
            last.append(item)
    return batches


class _Writer:
    """Runs the detector on each input and writes the requested results.

    Args:
        predictor: the detector.
        results: collects the detections.
        output: the folder to write to.
        pictures: whether to write pictures and videos.
        features: whether to draw feature maps and attention.
        total: number of inputs, for the progress bar.

    Attributes:
        failed: number of inputs that could not be read.
    """

    def __init__(
        self,
        predictor: Predictor,
        results: CocoResults,
        output: Path,
        pictures: bool,
        features: bool,
        total: int,
    ) -> None:
        self.predictor, self.results, self.output = predictor, results, output
        self.pictures, self.features = pictures, features
        self.metadata = predictor.trained.metadata
        self.frames = self.failed = 0
        self.bar = tqdm(total=total, unit="image", disable=None, leave=False)  # shown on terminals only
        self._notes: set[str] = set()

    def add(self, batch: list[Input]) -> None:
        """Process a batch of images, or a video; inputs that need too much memory count as failed."""
        try:
            self.add_video(batch[0]) if batch[0].is_video else self.add_images(batch)
        except (MemoryError, RuntimeError) as error:
            if not (isinstance(error, MemoryError | torch.OutOfMemoryError) or ALLOCATOR in str(error)):
                raise
            for item in batch:
                self._fail(ConfigError(f"{item.path}: there is not enough memory: {first_line(error)}"))

    def add_images(self, batch: list[Input]) -> None:
        """Detect objects in a batch of images, and draw each image."""
        readable = [(item, entry) for item in batch if (entry := self._read(item)) is not None]
        on_canvas = [self._on_canvas(entry) for _, entry in readable]
        outputs = self.predictor.run(on_canvas) if readable else []
        for (item, entry), output in zip(readable, outputs, strict=True):
            self._add(item.name, entry["height"], entry["width"], output)
            if self.pictures:
                picture = draw(self._picture(item, entry), output, self.metadata, MIN_SIDE)
                write_picture(self._result(item, ".jpg"), picture)
            if self.features:
                self._draw_features(item, entry)

    def add_video(self, item: Input) -> None:
        """Detect objects in the frames of a video, and write an annotated video."""
        if self.features:
            self._note("--features: not drawn for videos")
        try:
            video = Video(item.path)
            self.bar.total += max(video.length - 1, 0)  # until now the video counted as one image
            video_id = self.results.add_video(item.name, video.fps)
            target = open_writer(self._result(item, ".mp4"), video.fps) if self.pictures else nullcontext()
            with target as write_frame:
                frames, ahead = itertools.tee(video)
                outputs = self.predictor.outputs(ahead)
                for number, (frame, output) in enumerate(zip(frames, outputs, strict=False)):
                    ids = {"video_id": video_id, "frame_id": number}
                    height, width = frame.shape[:2]
                    self._add(f"{item.name}#{number}", height, width, output, **ids)
                    if write_frame:
                        write_frame(draw(frame, output, self.metadata))
        except ConfigError as error:
            self._fail(error)

    def write_json(self) -> None:
        """Write all detections so far."""
        self.results.write(self.output / FILE)

    def summary(self, seconds: float) -> str:
        """Counts, time and the JSON file, on one line."""
        ids = self.results.ids
        parts = [
            _count(len(self.results.images) - self.frames, "image"),
            *([_count(self.frames, "frame")] if self.frames else []),
            _count(len(self.results.annotations), "detection"),
            f"{seconds:.1f} s",
        ]
        if self.failed:
            parts.append(f"{self.failed} could not be read")
        if ids.file and ids.unlisted:
            parts.append(f"{ids.unlisted} not in {ids.file}")
        return f"{', '.join(parts)}: {self.output / FILE}"

    def _read(self, item: Input) -> dict[str, Any] | None:
        try:
            return self.predictor.prepare(item.path)
        except ConfigError as error:
            self._fail(error)
            return None

    def _on_canvas(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """The input of the detector with the size at which results are computed."""
        height, width = canvas_size(entry["height"], entry["width"])
        if (height, width) != (entry["height"], entry["width"]):
            self._note("masks and pictures of images above 33 megapixels are computed at a reduced size")
        return {**entry, "height": height, "width": width}

    def _picture(self, item: Input, entry: Mapping[str, Any]) -> Picture:
        """The image, reduced to its canvas."""
        image = read_image(item.path, "RGB", self.predictor.max_pixels)
        height, width = canvas_size(entry["height"], entry["width"])
        if image.shape[:2] != (height, width):
            image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
        return image

    def _add(self, name: str, height: int, width: int, output: Mapping[str, Any], **more: Any) -> None:
        self.results.add(name, (height, width), output, **more)
        self.frames += "frame_id" in more
        self.bar.update()

    def _draw_features(self, item: Input, entry: Mapping[str, Any]) -> None:
        """Draw the feature maps of each level, and the attention of each block if there is any."""
        model = self.predictor.model
        image, levels = image_tile(entry, self.predictor.image_format), levels_of(model, entry)
        draw_feature_maps(self._result(item, ".features.png"), image, levels)
        attention = attention_of(backbone_of(model), levels.input, entry["image"].shape[-2:])
        if attention.maps:
            draw_attention(self._result(item, ".attention.png"), image, attention)
        for line in attention.notes():
            self._note(line)

    def _result(self, item: Input, suffix: str) -> Path:
        """The path of a result; creates its folder."""
        file = self.output / (item.result + suffix)
        file.parent.mkdir(parents=True, exist_ok=True)
        return file

    def _fail(self, error: ConfigError) -> None:
        self.failed += 1
        self.bar.update()
        tqdm.write(f"error: {error}", file=sys.stderr)

    def _note(self, line: str) -> None:
        """Print a line unless it was printed before."""
        if line not in self._notes:
            self._notes.add(line)
            tqdm.write(line)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
