"""Options as plain data: the content of the node files, cached until something changes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
from omegaconf import OmegaConf

from d2timm.config import groups
from d2timm.config.groups import Nodes, describe_option, load_nodes, option_nodes, read_nodes, target_of
from d2timm.config.lazy import PLACES
from d2timm.modeling import BiFPN, TopBlock, Traits
from d2timm.utils.files import resource_folder

COMMON = resource_folder("lazy_configs") / "common"
TRAITS = {"a.Block": Traits(top_block=TopBlock(1, "p5", False)), "a.function": None}


@pytest.fixture(scope="module")
def loaded() -> Nodes:
    return load_nodes(COMMON)


@pytest.fixture
def common(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A copy of the node files, and an empty cache."""
    monkeypatch.setenv("D2TIMM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(groups, "resource_folder", lambda name: tmp_path / name)
    return Path(shutil.copytree(COMMON, tmp_path / "lazy_configs" / "common"))


@pytest.fixture
def loads(common: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folder of each time that node files are loaded; the nodes hold the number of that time."""
    calls: list[Path] = []

    def load(folder: Path) -> Nodes:
        calls.append(folder)
        return numbered(len(calls))

    monkeypatch.setattr(groups, "load_nodes", load)
    return calls


def numbered(number: int) -> Nodes:
    return Nodes({"neck": {"fpn": {"model.backbone": {"number": number}}}}, ["é"], TRAITS)


def number_of(nodes: Nodes) -> int:
    return int(nodes.options["neck"]["fpn"]["model.backbone"]["number"])


def read_in_a_new_process() -> Nodes:
    """The nodes as a new process reads them, which has nothing in memory."""
    groups._read.cache_clear()
    return read_nodes()


def cache_file(common: Path) -> Path:
    (file,) = (common.parents[1] / "cache").iterdir()
    return file


# Content


def test_every_file_is_an_option(loaded: Nodes) -> None:
    files = {(file.parent.name, file.stem) for file in COMMON.glob("*/*.py")}
    assert {(group, option) for group, options in loaded.options.items() for option in options} == files
    assert set(loaded.options) == set(PLACES)


def test_every_node_has_its_place(loaded: Nodes) -> None:
    for group, options in loaded.options.items():
        expected = {PLACES[group], "dataloader"} if group == "data" else {PLACES[group]}
        for option, places in options.items():
            empty = (group, option) == ("roi_heads", "none")
            assert set(places) == (set() if empty else expected)


def test_names_are_all_timm_models(loaded: Nodes) -> None:
    assert loaded.names == timm.list_models()


def test_every_target_has_traits_or_none(loaded: Nodes) -> None:
    assert loaded.traits["d2timm.modeling.BiFPN"] == BiFPN.traits
    assert loaded.traits["d2timm.modeling.levels.level_names"] is None
    nodes = [node for options in loaded.options.values() for p in options.values() for node in p.values()]
    assert {target_of(node) for node in nodes} - {""} <= set(loaded.traits)


def test_cached_nodes_equal_loaded_nodes(loaded: Nodes) -> None:
    assert read_in_a_new_process() == loaded
    assert read_in_a_new_process() == loaded


@pytest.mark.parametrize("group", ["model", "neck", "roi_heads"])
def test_node_is_described_by_the_first_option_of_its_class(group: str) -> None:
    nodes = {option: node for option, node in option_nodes(group).items() if node}
    for node in nodes.values():
        name, _, option = describe_option(group, OmegaConf.create(node)).partition("=")
        assert name == group
        assert target_of(nodes[option]) == target_of(node)
        assert nodes[option].get("norm") == node.get("norm")


def test_node_of_another_class_is_described_by_its_target() -> None:
    node = OmegaConf.create({"_target_": "my.package.Neck"})
    assert describe_option("neck", node) == "model.backbone._target_=my.package.Neck"


# Cache


def test_files_are_loaded_once(loads: list[Path], common: Path) -> None:
    for _ in range(3):
        assert read_in_a_new_process() == numbered(1)
    assert loads == [common]
    assert cache_file(common).suffix == ".json"


def test_other_folders_have_other_cache_files(
    loads: list[Path], common: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    read_nodes()
    shutil.copytree(common, tmp_path / "other" / "common")
    with monkeypatch.context() as patch:
        patch.setattr(groups, "resource_folder", lambda name: tmp_path / "other")
        assert number_of(read_in_a_new_process()) == 2
    assert number_of(read_in_a_new_process()) == 1
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
    patch.setattr(groups, "PACKAGE", package)


def update_timm(common: Path, patch: pytest.MonkeyPatch) -> None:
    version = groups._version
    patch.setattr(groups, "_version", lambda package: "9.9" if package == "timm" else version(package))


def remove_detectron2(common: Path, patch: pytest.MonkeyPatch) -> None:
    version = groups._version
    patch.setattr(groups, "_version", lambda package: None if "detectron2" in package else version(package))


def add_coco(common: Path, patch: pytest.MonkeyPatch) -> None:
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
        remove_detectron2,
        add_coco,
        hide_gpus,
    ],
)
def test_files_are_loaded_again_after_a_change(
    change: Callable[[Path, pytest.MonkeyPatch], None],
    loads: list[Path],
    common: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert number_of(read_nodes()) == 1
    change(common, monkeypatch)
    assert number_of(read_nodes()) == 2  # in the same process too
    assert number_of(read_in_a_new_process()) == 2
    assert cache_file(common), "it replaces the old one"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"null", b"[]", b'"state"', b"{}", b'{"state": 1}', b"\xff\x00"]
)
def test_invalid_cache_is_replaced(content: bytes, loads: list[Path], common: Path) -> None:
    read_nodes()
    cache_file(common).write_bytes(content)
    assert number_of(read_in_a_new_process()) == 2
    assert number_of(read_in_a_new_process()) == 2


def test_cache_without_nodes_is_replaced(loads: list[Path], common: Path) -> None:
    read_nodes()
    state = json.loads(cache_file(common).read_text())["state"]
    cache_file(common).write_text(json.dumps({"state": state}))
    assert number_of(read_in_a_new_process()) == 2


def test_cache_that_cannot_be_written_is_not_an_error(loads: list[Path], tmp_path: Path) -> None:
    (tmp_path / "cache").touch()  # a file in place of the folder
    assert number_of(read_in_a_new_process()) == 1
    assert number_of(read_in_a_new_process()) == 2


def test_folder_in_place_of_the_cache_is_not_an_error(loads: list[Path], common: Path) -> None:
    read_nodes()
    file = cache_file(common)
    file.unlink()
    file.mkdir()
    assert number_of(read_in_a_new_process()) == 2
    assert list(file.parent.iterdir()) == [file], "no partial file remains"


# Import time


def test_front_end_does_not_import_torch(loaded: Nodes) -> None:
    read_nodes()  # into the cache
    code = (
        "import json, sys\n"
        "import d2timm.sweep.hydra_app, d2timm.sweep.hydra_groups, d2timm.sweep.jobs\n"
        "import d2timm.runs.record, d2timm.sweep.callback\n"
        "from d2timm.config.groups import read_nodes\n"
        "read = read_nodes()\n"
        "heavy = ('torch', 'torchvision', 'timm', 'detectron2', 'matplotlib', 'cv2')\n"
        "print(json.dumps([len(read.names), [name for name in heavy if name in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [len(loaded.names), []]
