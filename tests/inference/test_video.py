"""Videos are read and written frame by frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from d2timm import ConfigError
from d2timm.inference.video import Video, open_writer

COLORS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30), (90, 90, 90)]


def film(file: Path, size: tuple[int, int] = (64, 64), fps: float = 12.5) -> Path:
    with open_writer(file, fps) as write:
        for color in COLORS:
            write(np.full((*size, 3), color, np.uint8))
    return file


def test_round_trip(tmp_path: Path) -> None:
    video = Video(film(tmp_path / "x.mp4"))
    assert (video.fps, video.length) == (12.5, len(COLORS))
    frames = list(video)
    assert [frame.shape for frame in frames] == [(64, 64, 3)] * len(COLORS)
    for frame, color in zip(frames, COLORS, strict=True):
        np.testing.assert_allclose(frame.mean((0, 1)), color, atol=8)  # RGB in, RGB out
    assert [path.name for path in tmp_path.iterdir()] == ["x.mp4"]


def test_odd_last_row_and_column_are_dropped(tmp_path: Path) -> None:
    assert next(iter(Video(film(tmp_path / "x.mp4", (63, 65))))).shape == (62, 64, 3)


def test_file_is_complete_or_absent(tmp_path: Path) -> None:
    def interrupted() -> None:
        with open_writer(tmp_path / "x.mp4", 10) as write:
            write(np.zeros((64, 64, 3), np.uint8))
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [None, b"", b"not a video", b"\0" * 1000])
def test_other_files_are_an_error(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "x.mp4").write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.mp4: .*video"):
        Video(tmp_path / "x.mp4")
