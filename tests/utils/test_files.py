"""Atomic writes, locks, the cache folder and the project's own folders."""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from d2timm.utils import files
from d2timm.utils.files import (
    atomic_folder,
    atomic_write,
    cache_root,
    disk_errors,
    resource_folder,
    try_lock,
)

# Atomic writes


def test_file_is_replaced_once_it_is_complete(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_text("old")
    with file.open() as reader:
        with atomic_write(file) as partial:
            partial.write_text("new")
            assert file.read_text() == "old"
        assert reader.read() == "old", "an open reader still sees all of the old file"
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


def write_half(file: Path, error: BaseException) -> None:
    with atomic_write(file) as partial:
        partial.write_text("ne")
        raise error


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_interrupted_write_keeps_the_old_file(tmp_path: Path, error: BaseException) -> None:
    file = tmp_path / "result.json"
    file.write_text("old")
    with pytest.raises(type(error)):
        write_half(file, error)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_failed_write_frees_its_space_although_it_is_open(tmp_path: Path) -> None:
    with (tmp_path / "b").open("wb", buffering=0) as opened:

        def write(partial: Path) -> None:
            os.link(tmp_path / "b", partial)
            opened.write(bytes(9999))
            raise OSError("full")

        with pytest.raises(OSError, match="full"), atomic_write(tmp_path / "a") as partial:
            write(partial)
        assert os.fstat(opened.fileno()).st_size == 0


def test_interrupted_first_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk full"):
        write_half(tmp_path / "new", OSError("disk full"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (RuntimeError("unexpected pos 1 vs 2"), "the disk is full or broken"),
    ],
)
def test_disk_error_names_the_file_and_the_space(error: Exception, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "a.pth"
    expected = rf"^{re.escape(str(file))} cannot be written: {reason}; \d+ MB are free$"
    with (
        pytest.raises(OSError, match=expected),
        atomic_write(file) as partial,
        disk_errors(partial, RuntimeError),
    ):
        raise error
    with pytest.raises(OSError, match=expected), disk_errors(file, RuntimeError):
        raise error
    with pytest.raises(ValueError, match="a bug"), disk_errors(file, RuntimeError):
        raise ValueError("a bug")


def test_folder_appears_with_all_of_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    with atomic_folder(folder) as partial:
        (partial / "a").write_text("1")
        assert not folder.exists()
    assert [path.read_text() for path in folder.iterdir()] == ["1"]
    assert list(tmp_path.iterdir()) == [folder]


def test_faster_process_keeps_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    with atomic_folder(folder) as partial:
        (partial / "a").write_text("slow")
        folder.mkdir()
        (folder / "a").write_text("fast")
    assert (folder / "a").read_text() == "fast"
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_interrupted_folder_leaves_nothing(error: BaseException, tmp_path: Path) -> None:
    def write() -> None:
        with atomic_folder(tmp_path / "set") as partial:
            (partial / "a").write_text("1")
            raise error

    with pytest.raises(type(error)):
        write()
    assert not list(tmp_path.iterdir())


def test_what_killed_processes_left_is_deleted(tmp_path: Path) -> None:
    host = socket.gethostname()
    others = [f".set.{os.getppid()}@{host}", ".set.999999999@elsewhere", f".other.999999999@{host}"]
    for name in [f".set.999999999@{host}", *others]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text("half")
    with atomic_folder(tmp_path / "set"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"set", *others}


# Locks

TRY = """
import sys
from d2timm.utils.files import try_lock
with open(sys.argv[1], "r+") as file:
    print([try_lock(file, exclusive=exclusive) for exclusive in (False, True)])
"""


@pytest.mark.parametrize(
    ("held", "granted"), [("exclusive", [False, False]), ("shared", [True, False]), ("none", [True, True])]
)
def test_locks_exclude_other_processes(held: str, granted: list[bool], tmp_path: Path) -> None:
    """``granted``: whether another process gets a shared, and an exclusive, lock."""
    lock = tmp_path / "lock"
    with lock.open("w+") as file:
        if held != "none":
            assert try_lock(file, exclusive=held == "exclusive")
        other = subprocess.run([sys.executable, "-c", TRY, str(lock)], capture_output=True, text=True)
    assert other.stdout.strip() == str(granted), other.stderr


def test_lock_is_released_when_the_file_is_closed(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with lock.open("w+") as file:
        assert try_lock(file)
    other = subprocess.run([sys.executable, "-c", TRY, str(lock)], capture_output=True, text=True)
    assert other.stdout.strip() == "[True, True]", other.stderr


# The cache folder


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("D2TIMM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")


@pytest.mark.usefixtures("no_variables")
@pytest.mark.parametrize(
    ("variables", "root"),
    [
        ({}, "/home/me/.cache/d2timm"),
        ({"XDG_CACHE_HOME": "/var/cache"}, "/var/cache/d2timm"),
        ({"D2TIMM_CACHE": "/data/cache"}, "/data/cache"),
        ({"D2TIMM_CACHE": "/data/cache", "XDG_CACHE_HOME": "/var/cache"}, "/data/cache"),
        ({"D2TIMM_CACHE": "~/cache"}, "/home/me/cache"),
        ({"D2TIMM_CACHE": "", "XDG_CACHE_HOME": ""}, "/home/me/.cache/d2timm"),
    ],
)
def test_first_variable_that_is_set_is_the_cache(
    variables: dict[str, str], root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_root() == Path(root)


def test_cache_path_is_absolute_and_not_created(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("D2TIMM_CACHE", "here")
    assert cache_root() == tmp_path / "here"
    assert not list(tmp_path.iterdir())


# The project's own folders


def test_resource_folders_of_this_installation_exist() -> None:
    assert (resource_folder("lazy_configs") / "mask_rcnn_timm.py").is_file()
    assert resource_folder("conf").is_dir()


@pytest.mark.parametrize("place", ["wheel", "checkout", "both", "neither"])
def test_resource_folder_is_in_the_package_or_next_to_it(
    place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "d2timm"
    monkeypatch.setattr(files, "PACKAGE", package)
    inside, outside = package / "conf", tmp_path / "conf"
    if place in ("wheel", "both"):
        inside.mkdir(parents=True)
    if place in ("checkout", "both"):
        outside.mkdir()
    assert resource_folder("conf") == (inside if place in ("wheel", "both") else outside)
