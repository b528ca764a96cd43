"""Run folders and exported files of strangers: no command executes what they name, and --trust allows it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import d2timm
from d2timm.cli.app import main
from d2timm.runs.record import Record
from d2timm.utils.safetensors_file import CHECKSUM
from d2timm.utils.targets import TRUST

Tree = dict[str, Any]
Edit = Callable[[Tree, Tree], None]


@pytest.fixture(autouse=True)
def nothing_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user trusts no package; what a command trusts is forgotten."""
    monkeypatch.setenv(TRUST, "")


def in_the_neck(cfg: Tree, evil: Tree) -> None:
    cfg["model"]["backbone"]["norm"] = evil


def as_the_model(cfg: Tree, evil: Tree) -> None:
    cfg["model"] = {**cfg["model"], **evil}


def in_the_backbone(cfg: Tree, evil: Tree) -> None:
    cfg["model"]["backbone"]["bottom_up"]["timm_kwargs"] = {"act_layer": evil}


def in_a_list(cfg: Tree, evil: Tree) -> None:
    cfg["model"]["pixel_mean"] = [evil, evil, evil]


def by_interpolation(cfg: Tree, evil: Tree) -> None:
    cfg["elsewhere"] = evil
    cfg["model"]["pixel_std"] = "${elsewhere}"


def by_a_name_in_pieces(cfg: Tree, evil: Tree) -> None:
    first, _, rest = evil["_target_"].partition(".")
    cfg["first"] = first
    cfg["model"]["backbone"]["norm"] = {**evil, "_target_": f"${{first}}.{rest}"}


EDITS = [in_the_neck, as_the_model, in_the_backbone, in_a_list, by_interpolation, by_a_name_in_pieces]


@pytest.fixture
def received(tiny_run: Path, tmp_path: Path) -> Callable[[Edit, str], tuple[Path, Path]]:
    """``received(edit, target)``: a run folder whose config calls a function with the name of a file."""

    def receive(edit: Edit, target: str) -> tuple[Path, Path]:
        folder, file = tmp_path / "run", tmp_path / "executed"
        shutil.copytree(tiny_run, folder, dirs_exist_ok=True)
        cfg = yaml.safe_load((folder / "config.yaml").read_text())
        edit(cfg, {"_target_": target, "command": f"touch {file}"})
        (folder / "config.yaml").write_text(yaml.safe_dump(cfg))
        return folder, file

    return receive


def commands(folder: Path, tmp_path: Path) -> dict[str, list[str]]:
    config = ["--config-file", str(folder / "config.yaml")]
    fresh = f"train.output_dir={tmp_path / 'new'}"
    return {
        "predict": ["predict", "--run", str(folder), str(tmp_path), "--output", str(tmp_path / "out")],
        "export": ["export", "--run", str(folder), "--output", str(tmp_path / "out.safetensors")],
        "dry run": ["train", *config, "--dry-run", fresh],
        "training": ["train", *config, fresh],
        "evaluation": ["train", *config, "--eval-only", f"train.output_dir={folder}"],
        "check": ["check-data", *config, "--output", str(tmp_path / "check.json")],
    }


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("target", ["os.system", "torch.os.system", "torch.nn.functional.os.system"])
def test_run_folder_executes_nothing(
    edit: Edit, target: str, received: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, file = received(edit, target)
    for name, arguments in commands(folder, tmp_path).items():
        code = main(arguments)
        lines = capsys.readouterr().err.splitlines()
        assert not file.exists(), name
        if name != "check":  # which builds no model
            assert (code, [line for line in lines if target in line]) == (2, lines[-1:]), name
    with pytest.raises(d2timm.ConfigError, match=target):
        d2timm.load(folder)
    assert not file.exists()


@pytest.mark.parametrize("edit", EDITS)
def test_exported_file_executes_nothing(edit: Edit, tiny_run: Path, tmp_path: Path) -> None:
    exported, file = tmp_path / "a.safetensors", tmp_path / "executed"
    assert main(["export", "--run", str(tiny_run), "--output", str(exported)]) == 0
    with safe_open(exported, framework="pt") as opened:
        metadata = opened.metadata()
    del metadata[CHECKSUM]  # which a stranger could compute as well
    cfg = yaml.safe_load(metadata["config"])
    edit(cfg, {"_target_": "os.system", "command": f"touch {file}"})
    save_file(load_file(exported), exported, {**metadata, "config": yaml.safe_dump(cfg)})
    with pytest.raises(d2timm.ConfigError, match=r"os\.system"):
        d2timm.load(exported)
    assert not file.exists()


def test_names_of_classes_are_no_resolvers(tiny_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    result = json.loads((folder / "result.json").read_text())
    result["labels"]["classes"][0] = "${oc.env:HOME}"
    (folder / "result.json").write_text(json.dumps(result))
    with pytest.raises(d2timm.ConfigError, match=r"oc\.env"):
        d2timm.load(folder)


OWN = """
from detectron2.modeling import FPN

class OwnFPN(FPN):
    pass
"""
RECIPE = """
import d2timm
from own_parts_of_a_user import OwnFPN

recipe = d2timm.get_config("faster_rcnn_timm.py")
recipe.model.backbone._target_ = {target}
model, dataloader, data = recipe.model, recipe.dataloader, recipe.data
optimizer, lr_multiplier, train = recipe.optimizer, recipe.lr_multiplier, recipe.train
"""


@pytest.mark.parametrize("target", ["OwnFPN", "'own_parts_of_a_user.OwnFPN'"], ids=["class", "name"])
def test_own_class_is_used_as_typed_and_opened_by_trust(
    target: str,
    tiny_overrides: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "own_parts_of_a_user.py").write_text(OWN)
    (tmp_path / "own.py").write_text(RECIPE.format(target=target))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_parts_of_a_user", raising=False)
    overrides = tiny_overrides("faster_rcnn_timm.py", tmp_path / "run", "train.max_iter=1")
    assert main(["train", "--config-file", str(tmp_path / "own.py"), *overrides]) == 0
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert saved["model"]["backbone"]["_target_"] == "own_parts_of_a_user.OwnFPN"
    export = ["export", "--run", str(tmp_path / "run"), "--output", str(tmp_path / "a.safetensors")]
    capsys.readouterr()
    assert main(export) == 2
    assert "--trust own_parts_of_a_user" in capsys.readouterr().err
    assert main([*export, "--trust", "own_parts_of_a_user"]) == 0


def test_trusted_packages_are_part_of_the_recorded_command(
    tiny_overrides: Callable[..., list[str]], tmp_path: Path
) -> None:
    overrides = tiny_overrides("faster_rcnn_timm.py", tmp_path / "run", "train.max_iter=1")
    assert main(["train", "--config-file", "faster_rcnn_timm.py", "--trust", "mine", *overrides]) == 0
    record = Record.read(tmp_path / "run")
    assert record is not None
    assert "--trust=mine" in record.command
