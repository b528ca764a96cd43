"""Nodes as plain data: what the node files say, kept until something has changed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import timm

from d2timm.config import groups as nodes
from d2timm.config.groups import Nodes, load_nodes, read_nodes
from d2timm.config.lazy import PLACES
from d2timm.utils.files import resource_folder

COMMON = resource_folder("lazy_configs") / "common"


@pytest.fixture(scope="module")
def loaded() -> Nodes:
    return load_nodes(COMMON)


@pytest.fixture
def common(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A copy of the node files, with a cache of its own."""
    monkeypatch.setenv("D2TIMM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(nodes, "resource_folder", lambda name: tmp_path / name)
    return Path(shutil.copytree(COMMON, tmp_path / "lazy_configs" / "common"))


@pytest.fixture
def readings(common: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A folder for each time that node files are read, which gives nodes of the number of that time."""
    calls: list[Path] = []

    def load(folder: Path) -> Nodes:
        calls.append(folder)
        return Nodes({"neck": {"fpn": {"model.backbone": {"reading": len(calls)}}}}, ["é"], {})

    monkeypatch.setattr(nodes, "load_nodes", load)
    return calls


def in_a_new_process() -> Nodes:
    """The nodes, by files alone."""
    nodes._read.cache_clear()
    return read_nodes()


def reading(of: Nodes) -> int:
    return int(of.options["neck"]["fpn"]["model.backbone"]["reading"])


def cached(common: Path) -> Path:
    (file,) = (common.parents[1] / "cache").iterdir()
    return file


# What they are


def test_every_file_is_an_option(loaded: Nodes) -> None:
    files = {(file.parent.name, file.stem) for file in COMMON.glob("*/*.py")}
    assert {(group, option) for group, options in loaded.options.items() for option in options} == files
    assert set(loaded.options) == set(PLACES)


def test_every_part_has_its_place(loaded: Nodes) -> None:
    for group, options in loaded.options.items():
        places = {PLACES[group], "dataloader"} if group == "data" else {PLACES[group]}
        for option, its_places in options.items():
            nothing = (group, option) == ("roi_heads", "none")
            assert set(its_places) == (set() if nothing else places)


def test_names_are_those_of_timm(loaded: Nodes) -> None:
    assert loaded.names == timm.list_models()


def test_what_is_kept_is_what_was_read(loaded: Nodes) -> None:
    assert in_a_new_process() == loaded
    assert in_a_new_process() == loaded


# How long they are kept


def test_files_are_read_once(readings: list[Path], common: Path) -> None:
    for _ in range(3):
        assert in_a_new_process() == Nodes({"neck": {"fpn": {"model.backbone": {"reading": 1}}}}, ["é"], {})
    assert readings == [common]
    assert cached(common).suffix == ".json"


def test_other_node_files_have_a_cache_of_their_own(
    readings: list[Path], common: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    read_nodes()
    shutil.copytree(common, tmp_path / "others" / "common")
    with monkeypatch.context() as patch:
        patch.setattr(nodes, "resource_folder", lambda name: tmp_path / "others")
        assert reading(in_a_new_process()) == 2
    assert reading(in_a_new_process()) == 1
    assert len(list((tmp_path / "cache").iterdir())) == 2


def change_file(common: Path, patch: pytest.MonkeyPatch) -> None:
    with (common / "neck" / "fpn.py").open("a") as file:
        file.write("# more\n")


def add_file(common: Path, patch: pytest.MonkeyPatch) -> None:
    (common / "neck" / "mine.py").write_text("neck = {}\n")


def remove_file(common: Path, patch: pytest.MonkeyPatch) -> None:
    (common / "neck" / "fpn.py").unlink()


def rename_file(common: Path, patch: pytest.MonkeyPatch) -> None:
    (common / "neck" / "fpn.py").rename(common / "neck" / "fpn2.py")


def change_package(common: Path, patch: pytest.MonkeyPatch) -> None:
    package = common.parents[1] / "d2timm"
    package.mkdir()
    (package / "levels.py").touch()
    patch.setattr(nodes, "PACKAGE", package)


def update_timm(common: Path, patch: pytest.MonkeyPatch) -> None:
    version = nodes._version
    patch.setattr(nodes, "_version", lambda package: "9.9" if package == "timm" else version(package))


def lose_detectron2(common: Path, patch: pytest.MonkeyPatch) -> None:
    version = nodes._version
    patch.setattr(nodes, "_version", lambda package: None if "detectron2" in package else version(package))


def get_coco(common: Path, patch: pytest.MonkeyPatch) -> None:
    annotations = common.parents[1] / "datasets" / "coco" / "annotations"
    annotations.mkdir(parents=True)
    for split in ("train", "val"):
        (annotations / f"instances_{split}2017.json").touch()
    patch.setenv("DETECTRON2_DATASETS", str(annotations.parents[1]))


def hide_gpus(common: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("CUDA_VISIBLE_DEVICES", "-1")


@pytest.mark.parametrize(
    "change",
    [
        change_file,
        add_file,
        remove_file,
        rename_file,
        change_package,
        update_timm,
        lose_detectron2,
        get_coco,
        hide_gpus,
    ],
)
def test_files_are_read_again_when_something_has_changed(
    change: Callable[[Path, pytest.MonkeyPatch], None],
    readings: list[Path],
    common: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert reading(read_nodes()) == 1
    change(common, monkeypatch)
    assert reading(read_nodes()) == 2  # in the same process too
    assert reading(in_a_new_process()) == 2
    assert cached(common)  # in the place of the old one


@pytest.mark.parametrize(
    "content", [b"", b"{", b"null", b"[]", b'"state"', b"{}", b'{"state": 1}', b"\xff\x00"]
)
def test_broken_cache_is_made_anew(content: bytes, readings: list[Path], common: Path) -> None:
    read_nodes()
    cached(common).write_bytes(content)
    assert reading(in_a_new_process()) == 2
    assert reading(in_a_new_process()) == 2


def test_cache_without_nodes_is_made_anew(readings: list[Path], common: Path) -> None:
    read_nodes()
    state = json.loads(cached(common).read_text())["state"]
    cached(common).write_text(json.dumps({"state": state}))
    assert reading(in_a_new_process()) == 2


def test_cache_that_cannot_be_written_costs_time_only(readings: list[Path], tmp_path: Path) -> None:
    (tmp_path / "cache").touch()  # where a folder should be
    assert reading(in_a_new_process()) == 1
    assert reading(in_a_new_process()) == 2


def test_folder_in_place_of_the_cache_costs_time_only(readings: list[Path], common: Path) -> None:
    read_nodes()
    file = cached(common)
    file.unlink()
    file.mkdir()
    assert reading(in_a_new_process()) == 2
    assert list(file.parent.iterdir()) == [file]  # nothing half written beside it


# What they are for


def test_front_end_waits_for_no_torch(loaded: Nodes) -> None:
    read_nodes()  # into the cache
    code = (
        "import json, sys\n"
        "import d2timm.sweep.hydra_app, d2timm.sweep.hydra_groups, d2timm.sweep.jobs, d2timm.runs.record, d2timm.sweep.callback\n"  # noqa: E501
        "from d2timm.config.groups import read_nodes\n"
        "read = read_nodes()\n"
        "heavy = ('torch', 'torchvision', 'timm', 'detectron2', 'matplotlib', 'cv2')\n"
        "print(json.dumps([len(read.names), [name for name in heavy if name in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [len(loaded.names), []]
