"""A run is continued or evaluated only with what it was trained with; otherwise its folder stays as it is."""

from __future__ import annotations

import json
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from d2timm import ConfigError
from d2timm.cli import main
from d2timm.config.build import build_on_meta
from d2timm.engine.resuming import check_evaluation, check_resume
from d2timm.runs.checkpoint import find_checkpoint
from d2timm.runs.checkpoint_file import read_checkpoint
from d2timm.runs.record import Record

BACKBONE = "model.backbone.bottom_up"


@pytest.fixture
def folder(trained_masks: Namespace, tmp_path: Path) -> Path:
    """A copy of the folder of a run."""
    return Path(shutil.copytree(trained_masks.folder, tmp_path / "run"))


@pytest.fixture
def call(folder: Path, tiny_overrides: Callable[..., list[str]]) -> Callable[..., int]:
    """Run ``d2timm train`` in the folder; returns the exit code."""

    def run(*arguments: str) -> int:
        return main(
            ["train", "--config-file", "mask_rcnn_timm.py", *tiny_overrides("mask", folder), *arguments]
        )

    return run


@pytest.fixture
def check(folder: Path, tiny: Callable[..., Any]) -> Callable[..., None]:
    """Check that a config with more overrides continues the run in the folder."""

    def run(*overrides: str) -> None:
        cfg = tiny("mask_rcnn_timm.py", folder, *overrides)
        check_resume(cfg, build_on_meta(cfg))

    return run


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def record_labels(folder: Path, **labels: list[str]) -> None:
    """Change the labels that a run has recorded."""
    record = Record.read(folder)
    assert record is not None
    record.labels |= labels
    record.write(folder)


@pytest.mark.parametrize(
    ("overrides", "facts"),
    [
        (["model.backbone.out_channels=24"], ["model.backbone.out_channels=24 instead of 16"]),
        (
            [f"{BACKBONE}.model_name=test_resnet"],
            [f"{BACKBONE}.model_name=test_resnet instead of test_efficientnet"],
        ),
        (["model.roi_heads.box_head.fc_dims=[16]"], ["box_head.fc_dims=[16] instead of [16, 16]"]),
        (["model.roi_heads.mask_in_features=null"], ["model.roi_heads.mask_in_features=None instead of"]),
        (["optimizer.opt=sgd"], ["optimizer.opt=sgd instead of adamw"]),
        (
            ["optimizer._target_=torch.optim.SGD"],
            ["optimizer._target_=torch.optim.SGD instead of d2timm."],
        ),
        (["optimizer.params.layer_decay=0.5"], ["optimizer.params.layer_decay=0.5 instead of 1.0", "groups"]),
        ([f"{BACKBONE}.freeze_at=1"], [f"{BACKBONE}.freeze_at=1 instead of 0", "parameters in 2 groups"]),
        (["train.ema.enabled=True"], ["train.ema.enabled=True instead of False"]),
    ],
    ids=lambda value: value[0] if "=" in value[0] else "",
)
def test_another_detector_or_optimizer_is_refused_with_the_way_to_fine_tune(
    overrides: list[str], facts: list[str], check: Callable[..., None], folder: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        check(*overrides)
    fine_tuning = f"train.output_dir=NEW train.init_checkpoint={folder}/model_final.pth"
    for fact in [*facts, fine_tuning]:
        assert fact in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["optimizer.lr=0.5", "optimizer.weight_decay=0.1", "lr_multiplier.warmup_length=0.5"],
        ["data.settings.custom.max_iter=9", "dataloader.train.total_batch_size=3", "train.accumulate=2"],
        [
            "dataloader.train.num_workers=1",
            "train.eval_period=3",
            "train.seed=5",
            f"{BACKBONE}.pretrained=False",
        ],
        ["model.roi_heads.batch_size_per_image=8", f"{BACKBONE}.drop_path_rate=0.1"],
        ["train.amp.enabled=True", "train.amp.precision=bf16", "train.ema.decay=0.5"],
    ],
    ids=" ".join,
)
def test_schedule_and_data_may_change(overrides: list[str], check: Callable[..., None]) -> None:
    check(*overrides)


@pytest.mark.parametrize(
    ("labels", "facts"),
    [
        ({"classes": ["a", "b"]}, ["4 classes instead of 2", "number 0 is", "instead of 'a'"]),
        ({"classes": list("abcdef")}, ["4 classes instead of 6"]),
        ({"keypoints": ["nose"]}, ["0 keypoints instead of 1", "'nose' is missing"]),
    ],
    ids=["fewer", "more", "keypoints"],
)
def test_other_classes_are_refused(
    labels: dict[str, list[str]], facts: list[str], check: Callable[..., None], folder: Path
) -> None:
    record_labels(folder, **labels)
    with pytest.raises(ConfigError) as caught:
        check()
    for fact in facts:
        assert fact in str(caught.value)


def test_classes_in_another_order_are_refused(check: Callable[..., None], folder: Path) -> None:
    record = Record.read(folder)
    assert record is not None
    first, second, *others = record.labels["classes"]
    record_labels(folder, classes=[second, first, *others])
    with pytest.raises(ConfigError, match=f"other classes: number 0 is '{first}' instead of '{second}'"):
        check()


def test_run_of_an_earlier_version_has_no_labels(check: Callable[..., None], folder: Path) -> None:
    content = json.loads((folder / "result.json").read_text())
    del content["labels"]
    (folder / "result.json").write_text(json.dumps(content))
    check()


def test_weights_are_named_if_no_key_differs(check: Callable[..., None], folder: Path) -> None:
    (folder / "config.yaml").unlink()
    with pytest.raises(ConfigError, match=r"fpn_\w+\.\w+: \[24.*\] instead of \[16"):
        check("model.backbone.out_channels=24")


def test_run_without_a_checkpoint_starts_anew(check: Callable[..., None], folder: Path) -> None:
    (folder / "last_checkpoint").unlink()
    check("model.backbone.out_channels=24")


@pytest.mark.parametrize(
    ("damage", "facts"),
    [
        (Path.unlink, ["last_checkpoint refers to model_final.pth", "no other checkpoint"]),
        (lambda file: file.write_bytes(file.read_bytes()[:-5000]), ["model_final.pth: ", "cut off"]),
        (lambda file: file.write_bytes(b""), ["model_final.pth: ", "cut off"]),
        (lambda file: file.write_bytes(b"<html>"), ["model_final.pth: not a checkpoint"]),
        (lambda file: torch.save([1], file), ["model_final.pth: not a checkpoint", "list"]),
        (lambda file: torch.save({"model": {}}, file), ["weights differ"]),
        (lambda file: torch.save({"state_dict": {"a": torch.ones(1)}}, file), ["state_dict is no weight"]),
    ],
    ids=["gone", "cut off", "empty", "text", "list", "no weights", "another project"],
)
@pytest.mark.parametrize("flag", ["--resume", "--eval-only"])
def test_damaged_checkpoint_is_one_line_and_changes_nothing(
    damage: Callable[[Path], Any],
    facts: list[str],
    flag: str,
    call: Callable[..., int],
    folder: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for earlier in folder.glob("model_0*.pth"):
        earlier.unlink()
    damage(folder / "model_final.pth")
    before = content(folder)
    assert call(flag) == 2
    (line,) = capfd.readouterr().err.splitlines()
    if flag == "--eval-only":
        facts = facts[:1]
    for fact in ["error: ", *facts]:
        assert fact in line
    assert content(folder) == before


def flip_byte(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 255
    file.write_bytes(data)


@pytest.mark.parametrize("damage", [Path.unlink, flip_byte, lambda file: file.write_bytes(b"")])
def test_damaged_checkpoint_is_replaced_by_an_earlier_one(
    damage: Callable[[Path], Any],
    call: Callable[..., int],
    folder: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    earlier, last = folder / "model_0000001.pth", folder / "model_final.pth"
    state = torch.load(last, weights_only=True)
    torch.save({**state, "iteration": 1, "trainer": {**state["trainer"], "iteration": 1}}, earlier)
    damage(last)
    assert find_checkpoint(folder) == earlier
    (warning,) = [message.getMessage() for message in caplog.records]
    assert "model_final.pth" in warning
    assert warning.endswith("; continuing from model_0000001.pth, which is older")
    assert call("--resume") == 0
    assert "Starting training from iteration 2" in (folder / "log.txt").read_text()
    record = Record.read(folder)
    assert record is not None
    assert record.status == "done"
    assert (folder / "last_checkpoint").read_text() == "model_final.pth"
    assert "trainer" in read_checkpoint(str(last))


@pytest.mark.parametrize("flag", ["--resume", "--eval-only"])
@pytest.mark.parametrize("change", ["width", "classes"])
def test_refused_command_changes_nothing(
    flag: str, change: str, call: Callable[..., int], folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if change == "classes":
        record_labels(folder, classes=["a", "b", "c", "d"])
    before = content(folder)
    assert call(flag, *(["model.backbone.out_channels=24"] if change == "width" else [])) == 2
    line = capfd.readouterr().err
    assert line.count("\n") == 1
    assert ("out_channels=24 instead of 16" if change == "width" else "instead of 'a'") in line
    assert content(folder) == before


def test_initial_checkpoint_that_is_cut_off_creates_no_folder(
    call: Callable[..., int], folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_bytes((folder / "model_final.pth").read_bytes()[:5000])
    assert call(f"train.init_checkpoint={weights}", f"train.output_dir={tmp_path / 'new'}") == 2
    assert f"{weights}: not a checkpoint, or cut off" in capfd.readouterr().err
    assert not (tmp_path / "new").exists()


def test_weights_alone_can_be_evaluated_but_not_resumed(
    tiny: Callable[..., Any], folder: Path, tmp_path: Path
) -> None:
    cfg = tiny("mask_rcnn_timm.py", folder)
    model = build_on_meta(cfg)
    weights = torch.load(folder / "model_final.pth", weights_only=True)["model"]
    parallel = {f"module.{name}": value for name, value in weights.items() if "pixel" not in name}
    torch.save({**parallel, "more": torch.ones(1)}, folder / "weights.pth")
    check_evaluation(cfg, model, str(folder / "weights.pth"))
    torch.save(weights, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    check_evaluation(cfg, model, str(tmp_path / "old.pth"))
    torch.save({"model": weights}, folder / "model_final.pth")
    with pytest.raises(ConfigError, match="weights only"):
        check_resume(cfg, model)


def test_evaluation_needs_averaged_weights_if_they_are_selected(
    tiny: Callable[..., Any], folder: Path
) -> None:
    cfg = tiny("mask_rcnn_timm.py", folder, "train.ema.enabled=True")
    with pytest.raises(ConfigError, match=r"'ema'.*train\.ema\.enabled=False"):
        check_evaluation(cfg, build_on_meta(cfg), str(folder / "model_final.pth"))
    check_evaluation(cfg, build_on_meta(cfg), "https://host/model.pth")
