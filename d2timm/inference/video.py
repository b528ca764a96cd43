"""Read and write videos frame by frame."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from ..errors import ConfigError
from ..utils.images import Picture

__all__ = ["Video", "open_writer"]

CODEC = "mp4v"  # MPEG-4 Part 2, which every build of OpenCV can write
DEFAULT_FPS = 25.0  # for files without a frame rate


class Video:
    """A video file, which can be read once.

    Args:
        file: a video in any format that OpenCV reads.

    Attributes:
        fps: frames per second.
        length: number of frames according to the file, which may be wrong.

    Raises:
        ConfigError: the file cannot be read as a video.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._capture = cv2.VideoCapture(str(file))
        if not self._capture.isOpened():
            raise ConfigError(f"{file}: cannot be read as a video")
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else DEFAULT_FPS  # also if it is NaN
        self.length = max(int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        success, self._first = self._capture.read()
        if not success:
            raise ConfigError(f"{file}: cannot be read as a video: its first frame is broken")

    def __iter__(self) -> Iterator[Picture]:
        """Yield the frames, (H, W, 3) RGB."""
        success, frame = True, self._first
        try:
            while success:
                yield np.ascontiguousarray(frame[..., ::-1], np.uint8)
                success, frame = self._capture.read()
        finally:
            self._capture.release()


@contextmanager
def open_writer(file: Path, fps: float) -> Iterator[Callable[[Picture], None]]:
    """Write an MP4 file, which appears under its name only when it is complete.

    The format needs even sides: an odd last row or column is dropped.

    Args:
        file: the file to write.
        fps: frames per second.

    Yields:
        A function that writes the next frame, (H, W, 3) RGB; all frames must have the same size.
    """
    partial = file.with_name(f".{os.getpid()}.{file.name}")  # OpenCV derives the format from the suffix
    writers: list[cv2.VideoWriter] = []  # at most one, created at the first frame, which has the size

    def write(frame: Picture) -> None:
        size = (frame.shape[1], frame.shape[0])
        if not writers:
            writers.append(cv2.VideoWriter(str(partial), cv2.VideoWriter.fourcc(*CODEC), fps, size))
            if not writers[0].isOpened():
                raise ConfigError(f"{file}: OpenCV cannot write a video of {size[0]}x{size[1]} pixels")
        writers[0].write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

    try:
        yield write
        for writer in writers:
            writer.release()
            partial.replace(file)
    finally:
        for writer in writers:
            writer.release()
        partial.unlink(missing_ok=True)
