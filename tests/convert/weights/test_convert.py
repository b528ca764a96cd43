"""The command convert-weights: its files can be evaluated and trained, and mistakes are one line."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CocoFiles
from helpers import commands
from helpers.layouts import Shapes, convnext, mmdet_heads, numbers, swin, zeros

from d2timm import get_config
from d2timm.cli import main
from d2timm.config.build import build_model, resolve_dataset
from d2timm.config.overrides import apply_overrides
from d2timm.runs.checkpoint import AtomicCheckpointer, load_weights

WIDTHS, DEPTHS = (8, 12, 16, 24), (1, 1, 2, 1)
TINY = [
    "model.backbone.bottom_up.model_name=convnext_tiny",
    "model.backbone.bottom_up.level_norm=all",
    f"+model.backbone.bottom_up.timm_kwargs.dims={[*WIDTHS]}".replace(" ", ""),
    f"+model.backbone.bottom_up.timm_kwargs.depths={[*DEPTHS]}".replace(" ", ""),
]
RECIPE = "mask_rcnn_timm.py"


def tiny_convnext(classes: int = 80) -> Shapes:
    return convnext(WIDTHS, DEPTHS) | mmdet_heads(WIDTHS, classes)


@pytest.fixture
def convert(capsys: pytest.CaptureFixture[str]) -> Any:
    """The command in this process; returns exit code, output and error."""

    def run(*arguments: str | Path, recipe: str = RECIPE) -> tuple[int, str, str]:
        code = main(["convert-weights", *map(str, arguments), "--recipe", recipe])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A published file of a tiny ConvNeXt, with the other keys that mmdet saves."""
    file = tmp_path / "published.pth"
    meta = {"epoch": 36, "config": "model = dict(...)", "CLASSES": ("person", "bicycle")}
    torch.save({"meta": meta, "state_dict": zeros(tiny_convnext()), "optimizer": {"state": {}}}, file)
    return file


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_run_loads_the_converted_file(
    convert: Any, small_coco: CocoFiles, tmp_path: Path, suffix: str
) -> None:
    published = tmp_path / "published.pkl"
    weights = numbers(tiny_convnext(classes=4))
    content = {"model": {name: x.numpy() for name, x in weights.items()}, "__author__": "somebody"}
    published.write_bytes(pickle.dumps(content))
    out = tmp_path / f"converted.{suffix}"
    code, report, error = convert(published, out, *TINY, *small_coco.overrides)
    assert (code, error) == (0, "")
    assert f"convnext_tiny: mapped {len(weights)} of {len(weights)} weights\n" in report
    assert report.endswith(f"{out}\n")

    cfg = apply_overrides(get_config("mask_rcnn_timm.py"), [*TINY, *small_coco.overrides, "train.device=cpu"])
    resolve_dataset(cfg)
    model = build_model(cfg, weights=False)
    load_weights(cfg.train, model, str(out))  # like --eval-only, which needs every weight
    bottom_up = model.get_submodule("backbone.bottom_up")
    published_weight = weights["backbone.stages.2.1.pwconv1.weight"]
    assert torch.equal(bottom_up.get_parameter("model.stages.2.blocks.1.mlp.fc1.weight"), published_weight)


def test_fine_tuning_starts_from_some_parts(convert: Any, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "backbone.pth"
    code, report, _ = convert(source, out, "--parts", "backbone,neck", "data.name=cityscapes", *TINY)
    assert code == 0
    assert "belongs to roi_heads: 20\n" in report
    cfg = apply_overrides(
        get_config("mask_rcnn_timm.py"), [*TINY, "data.name=cityscapes", "train.device=cpu"]
    )
    model = build_model(cfg, weights=False)
    AtomicCheckpointer(model).load(str(out), [])  # like training with train.init_checkpoint
    assert not model.get_parameter("backbone.fpn_lateral2.weight").any()
    assert model.get_parameter("roi_heads.box_predictor.cls_score.weight").any()


def test_lost_weights_are_an_error_and_write_nothing(convert: Any, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.pth"
    code, report, error = convert(source, out, *TINY[:2])
    assert code == 2
    assert "NO COUNTERPART in the model: " in report
    assert "MISSING in the file: " in report
    assert error.startswith(f"error: {source}: ")
    assert error.count("\n") == 1
    assert not out.exists()
    code, _, error = convert(source, out, *TINY, "data.name=cityscapes")
    assert code == 2
    assert "--new-classes" in error
    assert convert(source, out, "--new-classes", *TINY, "data.name=cityscapes")[0] == 0
    assert out.exists()


def test_the_report_lists_each_weight_on_demand(convert: Any, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.pth"
    _, report, _ = convert(source, out, "--parts", "backbone", *TINY)
    assert "    neck.lateral_convs.*.conv.weight (4)\n" in report
    _, report, _ = convert(source, out, "--list", "--parts", "backbone", *TINY)
    assert all(f"    neck.lateral_convs.{level}.conv.weight\n" in report for level in range(4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.pth", "out.pth"], "missing.pth: no such file"),
        (["text.pth", "out.pth"], "text.pth: not a checkpoint"),
        (["other.pth", "out.pth"], "other.pth: unknown layout of 1 weights (fc.weight, …)"),
        (["source.pth", "source.pth"], "source.pth is the source"),
        (["source.pth", "out.onnx"], "out.onnx: the name of the new file ends in .pth or .safetensors"),
        (["source.pth", "missing/out.pth"], "out.pth: give a file in an existing folder"),
        (["source.pth", "folder.pth"], "folder.pth: give a file in an existing folder"),
        (["source.pth", "out.pth", "--parts", "backbones"], "--parts backbones: did you mean backbone"),
        (["source.pth", "out.pth"], "has no weights for convnext_tiny"),
        (["source.pth", "out.pth", "model.backbon=1"], "model has no key 'backbon'"),
    ],
)
def test_mistakes_are_one_line(convert: Any, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "text.pth").write_text("not a checkpoint")
    (tmp_path / "folder.pth").mkdir()
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "other.pth")
    torch.save({"state_dict": zeros(swin())}, tmp_path / "source.pth")
    before = sorted(path.name for path in tmp_path.iterdir())
    paths = [tmp_path / name for name in arguments[:2]]
    code, _, error = convert(*paths, *arguments[2:], *TINY)
    assert code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_missing_recipe(convert: Any, source: Path, tmp_path: Path) -> None:
    code, _, error = convert(source, tmp_path / "out.pth", recipe="missing.py")
    assert code == 2
    assert "missing.py: no such file" in error
    assert error.count("\n") == 1


def test_help_of_the_command() -> None:
    done = commands.run("convert-weights", "--help")
    assert done.returncode == 0
    assert "--recipe" in done.stdout
