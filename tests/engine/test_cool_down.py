"""Cool-downs before a pause: annealed weights are evaluated, and the run goes on as if there were none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.run_folders import read_record, series

from d2timm.engine.process import run
from d2timm.runs.checkpoint_file import AVERAGE

BOX = "faster_rcnn_timm.py"
OFTEN = ("train.max_iter=8", "train.eval_period=0", "optimizer.lr=0.01")
AVERAGED = ("train.ema.enabled=True", "train.ema.decay=0.5")


def weights(file: Path, entry: str = "model") -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(file, weights_only=True)[entry]
    return state


@pytest.mark.parametrize("averaging", [(), AVERAGED])
def test_a_run_that_cooled_down_continues_exactly(
    tiny: Callable[..., Any], tmp_path: Path, averaging: tuple[str, ...]
) -> None:
    for name, cool_down in (("plain", 0.0), ("cooled", 1.0)):
        folder = tmp_path / name
        run(tiny(BOX, folder, *OFTEN, *averaging, "train.pause_at=4", f"train.cool_down={cool_down}"))
        record = read_record(folder)
        assert (record.iterations, record.status) == (4, "done")
        assert [iterations for iterations, _ in record.scores] == [4]
    paused = [weights(tmp_path / name / "model_final.pth") for name in ("plain", "cooled")]
    assert all(torch.equal(paused[0][name], paused[1][name]) for name in paused[0])
    best = [weights(tmp_path / name / "model_best.pth") for name in ("plain", "cooled")]
    assert not all(torch.equal(best[0][name], best[1][name]) for name in best[0])

    for name in ("plain", "cooled"):
        run(tiny(BOX, tmp_path / name, *OFTEN, *averaging), resume=True)
    entry = AVERAGE if averaging else "model"
    ended = [weights(tmp_path / name / "model_final.pth", entry) for name in ("plain", "cooled")]
    assert all(torch.equal(ended[0][name], ended[1][name]) for name in ended[0])
    assert series(tmp_path / "plain", "total_loss") == series(tmp_path / "cooled", "total_loss")
    assert series(tmp_path / "plain", "lr") == series(tmp_path / "cooled", "lr")


def test_a_run_that_was_killed_in_its_cool_down_repeats_it(tiny: Callable[..., Any], tmp_path: Path) -> None:
    cooled = (*OFTEN, "train.pause_at=4", "train.cool_down=0.5")
    run(tiny(BOX, tmp_path / "whole", *cooled))
    run(tiny(BOX, tmp_path / "killed", *OFTEN, "train.pause_at=4"))
    run(tiny(BOX, tmp_path / "killed", *cooled), resume=True)
    whole, killed = (
        (tmp_path / name / "inference" / "coco_instances_results.json").read_text()
        for name in ("whole", "killed")
    )
    assert len(whole) > 2
    assert killed == whole
    assert read_record(tmp_path / "killed").scores == read_record(tmp_path / "whole").scores


def test_the_end_of_the_schedule_has_no_cool_down(tiny: Callable[..., Any], tmp_path: Path) -> None:
    for name, cool_down in (("plain", 0.0), ("cooled", 1.0)):
        run(tiny(BOX, tmp_path / name, "train.eval_period=0", f"train.cool_down={cool_down}"))
    ended = [weights(tmp_path / name / "model_best.pth") for name in ("plain", "cooled")]
    assert all(torch.equal(ended[0][name], ended[1][name]) for name in ended[0])


def test_a_share_of_the_schedule_is_a_pause(tiny: Callable[..., Any], tmp_path: Path) -> None:
    run(tiny(BOX, tmp_path, *OFTEN, "train.pause_at=0.3"))
    assert read_record(tmp_path).iterations == 3
