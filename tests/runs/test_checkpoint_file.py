"""Files of weights: no damage goes unnoticed, and those of another model are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from d2timm.errors import ConfigError
from d2timm.runs.checkpoint_file import check_fit, read_checkpoint


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    file, weight = tmp_path / "a.pth", torch.arange(4096.0)
    torch.save({"model": {"weight": weight}}, file)
    content = file.read_bytes()
    place = content.index(weight.numpy().tobytes()) + 5000
    file.write_bytes(content[:place] + b"\xff" + content[place + 1 :])
    with pytest.raises(ConfigError, match=r"a\.pth: damaged: "):
        read_checkpoint(str(file))


def test_checkpoint_of_which_nothing_fits(tmp_path: Path) -> None:
    for weights in ({}, {"other": torch.ones(2)}, {"weight": torch.ones(3)}):
        with pytest.raises(ConfigError, match=r"^train\.init_checkpoint=a\.pth: none of its \d weights fits"):
            check_fit({"model": weights}, nn.Linear(2, 2), "train.init_checkpoint=a.pth")
    check_fit({"model": {"weight": torch.ones(2, 2), "other": torch.ones(1)}}, nn.Linear(2, 2), "a.pth")
    check_fit({"model": {"other": torch.ones(2)}, "matching_heuristics": True}, nn.Linear(2, 2), "a.pth")
