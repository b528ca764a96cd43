"""Earlier runs make room for new ones, wherever their folder is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from d2timm import ConfigError
from d2timm.runs.aside import check_folder, move_aside
from d2timm.runs.record import FILE, Record, hold, is_held


def test_earlier_run_is_renamed_with_the_first_free_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    move_aside(folder)
    assert folder.is_dir(), "it contains no run"
    for number in (1, 2):
        Record(iterations=number).write(folder)
        move_aside(folder)
        assert not folder.exists()
        renamed = Record.read(tmp_path / f"run~{number}")
        assert renamed is not None
        assert renamed.iterations == number
        assert f"{folder}~{number}" in capsys.readouterr().out
        folder.mkdir()


def test_running_run_is_not_moved_aside(tmp_path: Path) -> None:
    """If two commands start at once in one folder, the later one must leave it to the earlier one."""
    Record().write(tmp_path)
    with hold(tmp_path):
        with pytest.raises(ConfigError, match="another process"):
            move_aside(tmp_path)
        assert is_held(tmp_path)
    assert not tmp_path.with_name(f"{tmp_path.name}~1").exists()


@pytest.mark.parametrize("mounted", [False, True])
def test_only_the_files_of_a_run_leave_a_folder_that_cannot_be_renamed(
    mounted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    if mounted:
        rename = Path.rename

        def busy(self: Path, target: Path) -> Path:
            if self == folder:
                raise OSError("Device or resource busy")
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", busy)
    else:
        monkeypatch.chdir(folder)
    for name in (
        "a.jpg",
        "model_final.pth",
        "log.txt",
        "log.txt.rank1",
        "notes.txt",
        "events.out.tfevents.1.a",
    ):
        (folder / name).write_text(name)
    for number in (1, 2):
        Record(iterations=number).write(folder)
        move_aside(folder if mounted else Path("."))
        moved = Record.read(folder / f"run~{number}")
        assert moved is not None
        assert moved.iterations == number
    assert {path.name for path in folder.iterdir()} == {"a.jpg", "notes.txt", "run~1", "run~2"}
    assert (folder / "run~1/log.txt.rank1").is_file()
    assert "run~2" in capsys.readouterr().out


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("")
    for folder in (file, file / "b" / "c"):
        with pytest.raises(ConfigError, match=rf"^train\.output_dir={folder}: {file} is a file"):
            check_folder(folder, "train.output_dir")
    check_folder(tmp_path / "new" / "run", "train.output_dir")
    check_folder(Path("."), "train.output_dir")
    if os.getuid():
        tmp_path.chmod(0o500)
        with pytest.raises(ConfigError, match="cannot be written"):
            check_folder(tmp_path / "b", "train.output_dir")
        tmp_path.chmod(0o700)
    assert not (tmp_path / FILE).exists()
