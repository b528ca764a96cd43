"""Videos, frame by frame."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from ..errors import ConfigError
from ..utils.images import Picture

__all__ = ["Video", "written"]

CODEC = "mp4v"  # MPEG-4 Part 2, which every build of OpenCV writes
USUAL = 25.0  # frames a second, of a file that does not say


class Video:
    """A video file to be read once.

    Args:
        file: of any format of OpenCV's.

    Attributes:
        fps: frames a second.
        length: number of frames as the file says, which may be wrong.

    Raises:
        ConfigError: it is no video that can be read.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._capture = cv2.VideoCapture(str(file))
        if not self._capture.isOpened():
            raise ConfigError(f"{file}: no video that can be read")
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else USUAL  # also where it is nan
        self.length = max(int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        there, self._first = self._capture.read()
        if not there:
            raise ConfigError(f"{file}: a video without a frame that can be read")

    def __iter__(self) -> Iterator[Picture]:
        """Its frames, (H, W, 3) RGB."""
        there, frame = True, self._first
        try:
            while there:
                yield np.ascontiguousarray(frame[..., ::-1], np.uint8)
                there, frame = self._capture.read()
        finally:
            self._capture.release()


@contextmanager
def written(file: Path, fps: float) -> Iterator[Callable[[Picture], None]]:
    """Write an MP4 file, which is there once it is whole.

    The format has even sides: a last row or column that is odd is left out.

    Yields:
        A function that takes the next frame, (H, W, 3) RGB; all are of one size.
    """
    partial = file.with_name(f".{os.getpid()}.{file.name}")  # OpenCV goes by the suffix
    writers: list[cv2.VideoWriter] = []  # one, made for the size of the first frame

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
