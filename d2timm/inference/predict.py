"""Detections of a trained detector in files: pictures, annotated videos and one JSON.

files, folders, patterns -> inputs -> batches -> Predictor -> pictures, videos and predictions.json
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..errors import ConfigError
from ..utils.images import read_image
from ..visualize.attention import attention_of, draw_attention
from ..visualize.feature_maps import backbone_of, draw_feature_maps, image_tile, levels_of
from ..visualize.visualizer import draw, write_picture
from .coco_results import Detections, Ids
from .inputs import Input, find
from .predictor import Predictor, load
from .video import Video, written

__all__ = ["FILE", "predict"]

FILE = "predictions.json"
LEGIBLE = 480  # pixels of a picture's longer side at which labels can be read: smaller images are enlarged


def predict(options: argparse.Namespace) -> int:
    """Detect objects in images and videos, as ``scripts/predict.py`` asks.

    Args:
        options: of the command line.

    Returns:
        The exit code: 1 if an image or video could not be read, the others being done.

    Raises:
        ConfigError: nothing was done, for what is asked for cannot be.
    """
    output = options.output
    root, inputs = find(options.inputs, output)
    _check_output(output)
    ids = Ids(options.ids_from)
    predictor = load(
        options.run, options.weights, options.device, options.score_threshold, options.batch_size
    )
    info = {
        "image_root": str(root),
        "run": str(options.run),
        "weights": str(predictor.trained.weights),
        "score_threshold": options.score_threshold,
    }
    work = _Work(predictor, Detections(predictor.labels, ids, info), options, len(inputs))
    try:
        output.mkdir(parents=True, exist_ok=True)
        work.write()  # by which the folder is known for one of results, whatever happens
    except OSError as error:
        raise ConfigError(f"--output {output}: {error.strerror}") from None
    started = time.monotonic()
    try:
        for group in _groups(inputs, options.batch_size):
            work.video(group[0]) if group[0].is_video else work.images(group)
    finally:
        work.bar.close()
        work.write()
    print(work.summary(time.monotonic() - started))
    return int(work.failed > 0)


def _check_output(output: Path) -> None:
    """Make sure that no files of another kind will be among the results."""
    try:
        strange = output.exists() and any(output.iterdir()) and not (output / FILE).is_file()
    except OSError as error:
        raise ConfigError(f"--output {output}: {error.strerror}") from None
    if strange:
        raise ConfigError(
            f"--output {output} holds files, and no {FILE} of earlier results: choose another folder"
        )


def _groups(inputs: list[Input], size: int) -> list[list[Input]]:
    """Inputs in their order: videos each on their own, images in groups."""
    groups: list[list[Input]] = []
    for given in inputs:
        last = groups[-1] if groups else []
        if not last or given.is_video or last[0].is_video or len(last) == size:
            groups.append([given])
        else:
            last.append(given)
    return groups


class _Work:
    """What is done with each input.

    Args:
        predictor: the detector.
        detections: where to put what is found.
        options: of the command line.
        inputs: how many there are.
    """

    def __init__(
        self, predictor: Predictor, detections: Detections, options: argparse.Namespace, inputs: int
    ) -> None:
        self.predictor, self.detections, self.options = predictor, detections, options
        self.metadata = predictor.trained.metadata
        self.frames = self.failed = 0
        self.bar = tqdm(total=inputs, unit="image", disable=None, leave=False)  # none where nobody looks on
        self._told: set[str] = set()

    def images(self, group: list[Input]) -> None:
        """Detect in images, and draw each."""
        batch = [(given, entry) for given in group if (entry := self._read(given)) is not None]
        outputs = self.predictor.run([entry for _, entry in batch]) if batch else []
        for (given, entry), output in zip(batch, outputs, strict=True):
            self._add(given.name, entry["height"], entry["width"], output)
            if self.options.pictures:
                picture = draw(read_image(given.path, "RGB"), output, self.metadata, LEGIBLE)
                write_picture(self._result(given, ".jpg"), picture)
            if self.options.features:
                self._draw_inside(given, entry)

    def video(self, given: Input) -> None:
        """Detect in the frames of a video, and write one with what is found."""
        if self.options.features:
            self._tell("--features: of videos there are none")
        try:
            video = Video(given.path)
            self.bar.total += max(video.length - 1, 0)  # a video was one
            video_id = self.detections.add_video(given.name, video.fps)
            target = (
                written(self._result(given, ".mp4"), video.fps) if self.options.pictures else nullcontext()
            )
            with target as write:
                frames, ahead = itertools.tee(video)
                outputs = self.predictor.outputs(ahead)
                for number, (frame, output) in enumerate(zip(frames, outputs, strict=False)):
                    place = {"video_id": video_id, "frame_id": number}
                    height, width = frame.shape[:2]
                    self._add(f"{given.name}#{number}", height, width, output, **place)
                    if write:
                        write(draw(frame, output, self.metadata))
        except ConfigError as error:
            self._fail(error)

    def write(self) -> None:
        """Write the JSON of all that was found so far."""
        self.detections.write(self.options.output / FILE)

    def summary(self, seconds: float) -> str:
        """What was done, in a line."""
        parts = [
            _count(len(self.detections.images) - self.frames, "image"),
            *([_count(self.frames, "frame")] if self.frames else []),
            _count(len(self.detections.annotations), "detection"),
            f"{seconds:.1f} s",
        ]
        if self.failed:
            parts.append(f"{self.failed} could not be read")
        if self.detections.ids.file and self.detections.ids.unknown:
            parts.append(f"{self.detections.ids.unknown} not in {self.detections.ids.file}")
        return f"{', '.join(parts)}: {self.options.output / FILE}"

    def _read(self, given: Input) -> dict[str, Any] | None:
        try:
            return self.predictor.prepare(given.path)
        except ConfigError as error:
            self._fail(error)
            return None

    def _add(self, name: str, height: int, width: int, output: Mapping[str, Any], **more: Any) -> None:
        self.detections.add(name, (height, width), output, **more)
        self.frames += "frame_id" in more
        self.bar.update()

    def _draw_inside(self, given: Input, entry: Mapping[str, Any]) -> None:
        """Sheets of the levels, and of the attention where there is one."""
        model = self.predictor.model
        image, levels = image_tile(entry, self.predictor.image_format), levels_of(model, entry)
        draw_feature_maps(self._result(given, ".features.png"), image, levels)
        attention = attention_of(backbone_of(model), levels.seen, entry["image"].shape[-2:])
        if attention.maps:
            draw_attention(self._result(given, ".attention.png"), image, attention)
        for line in attention.told():
            self._tell(line)

    def _result(self, given: Input, suffix: str) -> Path:
        file: Path = self.options.output / (given.result + suffix)
        file.parent.mkdir(parents=True, exist_ok=True)
        return file

    def _fail(self, error: ConfigError) -> None:
        self.failed += 1
        self.bar.update()
        tqdm.write(f"error: {error}", file=sys.stderr)

    def _tell(self, line: str) -> None:
        """Tell something once."""
        if line not in self._told:
            self._told.add(line)
            tqdm.write(line)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
