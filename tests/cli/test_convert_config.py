"""``d2timm convert-config``: the new file trains, and mistakes are one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from d2timm.cli import main

OLD = """
MODEL:
  MASK_ON: true
  BACKBONE:
    CONFIG: {OUT_FEATURES: [layer1, layer2, layer3, layer4], STRIDES: [4, 8, 16, 32]}
  ROI_HEADS: {NAME: StandardROIHeads}
  ROI_BOX_HEAD: {NUM_FC: 1}
SOLVER: {MAX_ITER: 1234, STEPS: [1000]}
VIS_PERIOD: 3
"""
NAME = ["--opts", "MODEL.BACKBONE.NAME", "build_test_resnet_fpn_backbone"]


def test_new_file_can_be_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = tmp_path / "old.yaml", tmp_path / "old.py"
    old.write_text(OLD)
    assert main(["convert-config", str(old), *NAME]) == 0
    output = capsys.readouterr().out
    assert output.startswith(f"{old} -> {new}\n")
    assert "VIS_PERIOD=3" in output.partition("not converted")[2]
    assert main(["train", "--config-file", str(new), "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("test_resnet")
    assert "1234 iterations" in output


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["none.yaml"], ["none.yaml: no such file"]),
        (["old.yaml"], ["build_resnet_backbone", "timm"]),
        (["old.yaml", "out.txt"], ["out.txt: ", ".py"]),
        (["old.yaml", "old.yaml"], ["old.yaml: ", ".py"]),
        (["old.yaml", "there.py"], ["there.py ", "another name"]),
        (["old.yaml", "out.py", "--opts", "SEED"], ["SEED"]),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(
    arguments: list[str],
    facts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old.yaml").write_text(OLD)
    Path("there.py").write_text("")
    assert main(["convert-config", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    for fact in facts:
        assert fact in line
    assert {file.name for file in tmp_path.iterdir()} == {"old.yaml", "there.py"}
