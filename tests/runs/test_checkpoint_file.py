"""Files of weights: no damage goes unnoticed, and those of another model are refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from d2timm.errors import ConfigError
from d2timm.runs.checkpoint_file import check_fit, read_checkpoint


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


WEIGHTS = {"weight": torch.arange(4096.0).reshape(64, 64), "bias": torch.zeros(64)}
CONTENT = saved({"model": WEIGHTS})


@given(st.integers(0, len(CONTENT) - 1), st.integers(1, 255))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_changed_byte_never_changes_a_weight(tmp_path: Path, place: int, change: int) -> None:
    file = tmp_path / "a.pth"
    file.write_bytes(CONTENT[:place] + bytes([CONTENT[place] ^ change]) + CONTENT[place + 1 :])
    try:
        model = read_checkpoint(str(file))["model"]
    except ConfigError:
        return
    assert all(torch.equal(model[name], value) for name, value in WEIGHTS.items()), "the byte is of no weight"


def test_checkpoint_of_which_nothing_fits(tmp_path: Path) -> None:
    for weights in ({}, {"other": torch.ones(2)}, {"weight": torch.ones(3)}):
        with pytest.raises(ConfigError, match=r"^train\.init_checkpoint=a\.pth: none of its \d weights fits"):
            check_fit({"model": weights}, nn.Linear(2, 2), "train.init_checkpoint=a.pth")
    check_fit({"model": {"weight": torch.ones(2, 2), "other": torch.ones(1)}}, nn.Linear(2, 2), "a.pth")
    check_fit({"model": {"other": torch.ones(2)}, "matching_heuristics": True}, nn.Linear(2, 2), "a.pth")
