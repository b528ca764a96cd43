"""Files are whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from d2timm.utils.files import atomic_write


def test_file_takes_the_place_of_the_old_one_when_it_is_complete(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_text("old")
    with file.open() as reader:
        with atomic_write(file) as partial:
            partial.write_text("new")
            assert file.read_text() == "old"
        assert reader.read() == "old", "who has opened the old file reads all of it"
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


def write_half(file: Path, error: BaseException) -> None:
    with atomic_write(file) as partial:
        partial.write_text("ne")
        raise error


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_interrupted_writing_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: BaseException
) -> None:
    file = tmp_path / "result.json"
    file.write_text("old")
    with pytest.raises(type(error)):
        write_half(file, error)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_interrupted_first_writing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk full"):
        write_half(tmp_path / "new", OSError("disk full"))
    assert not list(tmp_path.iterdir())
