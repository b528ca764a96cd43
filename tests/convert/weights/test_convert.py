"""The command: what it writes can be evaluated and trained on, and mistakes are one line."""

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
from d2timm.config.build import build_model, resolve_dataset
from d2timm.config.lazy import apply_overrides, root
from d2timm.runs.checkpoint import AtomicCheckpointer, load_weights

WIDTHS, DEPTHS = (8, 12, 16, 24), (1, 1, 2, 1)
TINY = [
    "model.backbone.bottom_up.model_name=convnext_tiny",
    "model.backbone.bottom_up.level_norm=all",
    f"+model.backbone.bottom_up.timm_kwargs.dims={[*WIDTHS]}".replace(" ", ""),
    f"+model.backbone.bottom_up.timm_kwargs.depths={[*DEPTHS]}".replace(" ", ""),
]
RECIPE = str(root() / "mask_rcnn_timm.py")


def tiny_convnext(classes: int = 80) -> Shapes:
    return convnext(WIDTHS, DEPTHS) | mmdet_heads(WIDTHS, classes)


@pytest.fixture
def convert(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """The script, as a command in this process: exit code, what is printed, the error."""
    script = commands.load("convert_weights")

    def run(*arguments: str | Path, recipe: str = RECIPE) -> tuple[int, str, str]:
        argv = ["convert_weights.py", *map(str, arguments), "--recipe", recipe]
        monkeypatch.setattr("sys.argv", argv)
        code = script.main()
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A published file of a tiny ConvNeXt, with what mmdet saves beside the weights."""
    file = tmp_path / "published.pth"
    meta = {"epoch": 36, "config": "model = dict(...)", "CLASSES": ("person", "bicycle")}
    torch.save({"meta": meta, "state_dict": zeros(tiny_convnext()), "optimizer": {"state": {}}}, file)
    return file


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_detectors_of_a_run_load_what_is_written(
    convert: Any, small_coco: CocoFiles, tmp_path: Path, suffix: str
) -> None:
    published = tmp_path / "published.pkl"
    weights = numbers(tiny_convnext(classes=4))
    content = {"model": {name: x.numpy() for name, x in weights.items()}, "__author__": "somebody"}
    published.write_bytes(pickle.dumps(content))
    out = tmp_path / f"converted.{suffix}"
    code, told, error = convert(published, out, *TINY, *small_coco.overrides)
    assert (code, error) == (0, "")
    assert f"ConvNeXt of mmdet -> convnext_tiny: mapped {len(weights)} of {len(weights)} weights\n" in told
    assert told.endswith(f"written to {out}\n")

    cfg = apply_overrides(get_config("mask_rcnn_timm.py"), [*TINY, *small_coco.overrides, "train.device=cpu"])
    resolve_dataset(cfg)
    model = build_model(cfg, weights=False)
    load_weights(cfg, model, str(out))  # as --eval-only does: each weight has to be there
    bottom_up = model.get_submodule("backbone.bottom_up")
    theirs = weights["backbone.stages.2.1.pwconv1.weight"]
    assert torch.equal(bottom_up.get_parameter("model.stages.2.blocks.1.mlp.fc1.weight"), theirs)


def test_fine_tuning_starts_from_a_part(convert: Any, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "backbone.pth"
    code, told, _ = convert(source, out, "--parts", "backbone,neck", "data.name=cityscapes", *TINY)
    assert code == 0
    assert "of the part roi_heads: 20\n" in told
    cfg = apply_overrides(
        get_config("mask_rcnn_timm.py"), [*TINY, "data.name=cityscapes", "train.device=cpu"]
    )
    model = build_model(cfg, weights=False)
    AtomicCheckpointer(model).load(str(out), [])  # as training does with train.init_checkpoint
    assert not model.get_parameter("backbone.fpn_lateral2.weight").any()
    assert model.get_parameter("roi_heads.box_predictor.cls_score.weight").any()


def test_what_is_lost_is_told_and_nothing_is_written(convert: Any, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.pth"
    code, told, error = convert(source, out, *TINY[:2])
    assert code == 2
    assert "WITHOUT A PLACE in the model: " in told
    assert "of the model, WITHOUT A SOURCE: " in told
    assert error.startswith(f"error: {source}: ")
    assert error.count("\n") == 1
    assert not out.exists()
    code, told, error = convert(source, out, *TINY, "data.name=cityscapes")
    assert code == 2
    assert "--new-classes" in error
    assert convert(source, out, "--new-classes", *TINY, "data.name=cityscapes")[0] == 0
    assert out.exists()


def test_each_weight_is_named_if_asked_for(convert: Any, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.pth"
    _, told, _ = convert(source, out, "--parts", "backbone", *TINY)
    assert "    neck.lateral_convs.*.conv.weight (4)\n" in told
    _, told, _ = convert(source, out, "--list", "--parts", "backbone", *TINY)
    assert all(f"    neck.lateral_convs.{level}.conv.weight\n" in told for level in range(4))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["missing.pth", "out.pth"], "missing.pth: no such file"),
        (["text.pth", "out.pth"], "text.pth: not a checkpoint that holds data only"),
        (["other.pth", "out.pth"], "other.pth: the layout of its 1 weights (fc.weight, …) is none of: Swin"),
        (["source.pth", "source.pth"], "source.pth: the source would be overwritten"),
        (["source.pth", "out.onnx"], "out.onnx: the converted file ends in .pth or .safetensors"),
        (["source.pth", "missing/out.pth"], "out.pth: a file in a folder that exists is needed"),
        (["source.pth", "folder.pth"], "folder.pth: a file in a folder that exists is needed"),
        (["source.pth", "out.pth", "--parts", "backbones"], "--parts backbones: did you mean backbone"),
        (["source.pth", "out.pth"], "a Swin Transformer of mmdet has no weights for convnext_tiny"),
        (["source.pth", "out.pth", "model.backbon=1"], "model has no key 'backbon'"),
    ],
)
def test_mistakes_are_one_line(convert: Any, tmp_path: Path, arguments: list[str], told: str) -> None:
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
    assert told in error
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_recipe_that_is_missing(convert: Any, source: Path, tmp_path: Path) -> None:
    code, _, error = convert(source, tmp_path / "out.pth", recipe="missing.py")
    assert code == 2
    assert "missing.py: no such file" in error
    assert error.count("\n") == 1


def test_help_answers_without_torch() -> None:
    done = commands.run("convert_weights", "--help")
    assert done.returncode == 0
    assert "--recipe" in done.stdout
