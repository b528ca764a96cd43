"""A checkpoint that is written while the training goes on has the state of its own iteration."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.run_folders import read_record
from outcomes import differences, leaves, outcome
from torch import nn

from d2timm.engine import checkpoints, training
from d2timm.engine.checkpoints import snapshot
from d2timm.engine.process import run

MASK = "mask_rcnn_timm.py"


def test_snapshot_keeps_its_values_and_what_is_tied() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "norm": nn.BatchNorm1d(2)})
    model["tied"] = model["a"]
    optimizer = torch.optim.AdamW(model.parameters())
    model["a"](torch.ones(1, 2)).sum().backward()
    optimizer.step()
    lists = {"scalars": [1.0], "empty": torch.ones(0)}
    entries = {"model": model.state_dict(), "trainer": {"optimizer": optimizer.state_dict(), "hooks": lists}}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    copied = snapshot(entries)
    optimizer.step()
    lists["scalars"].append(2.0)

    weights = copied["model"]
    assert all(torch.equal(weights[name], value) for name, value in before.items())
    assert not torch.equal(model["a"].weight, before["a.weight"])
    assert weights["tied.weight"].data_ptr() == weights["a.weight"].data_ptr()
    assert weights._metadata == entries["model"]._metadata, "the versions of the modules"
    assert {int(state["step"]) for state in copied["trainer"]["optimizer"]["state"].values()} == {1}
    assert copied["trainer"]["hooks"]["scalars"] == [1.0]


def test_training_goes_on_while_a_checkpoint_is_written(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cfg(folder: str) -> Any:
        schedule = ["train.max_iter=6", "train.checkpointer.period=2", "train.eval_period=0"]
        return tiny(MASK, tmp_path / folder, *schedule, "train.ema.enabled=True")

    save, before_step = torch.save, training.SaveCheckpoints.before_step
    goes_on, saved = threading.Event(), []

    def slow(data: Any, file: Path) -> None:
        if isinstance(file, Path):  # detectron2's evaluator saves detections
            before = leaves_of(data)
            assert saved or goes_on.wait(60)
            saved.append((data["iteration"], before == leaves_of(data)))
        save(data, file)

    def note(self: Any) -> None:
        before_step(self)
        if self.trainer.iter == 3:
            goes_on.set()

    run(cfg("plain"))
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", slow)
        patch.setattr(training.SaveCheckpoints, "before_step", note)
        run(cfg("slow"))
    assert saved[:3] == [(1, True), (3, True), (5, True)], "the first one after two more steps, in order"
    assert differences(outcome(tmp_path / "slow"), outcome(tmp_path / "plain")) == []


def test_without_memory_for_a_copy_the_training_waits(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(entries: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(checkpoints, "snapshot", short)
    folder = tmp_path / "run"
    run(tiny(MASK, folder, "train.max_iter=4", "train.checkpointer.period=2", "train.eval_period=0"))
    assert read_record(folder).status == "done"
    assert torch.load(folder / "model_0000001.pth", weights_only=True)["iteration"] == 1
    assert "No memory for a copy" in (folder / "log.txt").read_text()


def leaves_of(data: Any) -> dict[str, Any]:
    return dict(leaves(data, ""))
