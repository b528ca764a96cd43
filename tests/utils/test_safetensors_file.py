"""Files of safetensors: what is written is read again, and no damage goes unnoticed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from d2timm.errors import ConfigError
from d2timm.utils.safetensors_file import read_safetensors, write_safetensors

WEIGHTS = {
    "weight": torch.arange(64.0).reshape(8, 8).t(),
    "half": torch.arange(6).to(torch.bfloat16),
    "steps": torch.tensor(3),
    "mask": torch.tensor([True, False]),
    "empty": torch.ones(0, 2),
}


def test_weights_and_metadata_are_read_again(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    write_safetensors(WEIGHTS, file, {"config": "a: 1\n"})
    weights, metadata = read_safetensors(file)
    assert metadata == {"format": "pt", "config": "a: 1\n"}
    assert weights.keys() == WEIGHTS.keys()
    assert all(value.dtype == WEIGHTS[name].dtype for name, value in weights.items())
    assert all(torch.equal(value, WEIGHTS[name]) for name, value in weights.items())


def test_tied_weights_can_be_written(tmp_path: Path) -> None:
    layer = nn.Linear(2, 2)
    write_safetensors({"a": layer.weight, "b": layer.weight}, tmp_path / "a.safetensors", {})
    weights, _ = read_safetensors(tmp_path / "a.safetensors")
    assert torch.equal(weights["a"], weights["b"])


def test_files_of_other_programs_have_no_checksum(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    assert read_safetensors(tmp_path / "a.safetensors")[1] == {}


@given(st.integers(0), st.integers(1, 255))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_changed_byte_changes_nothing_that_is_read(tmp_path: Path, place: int, change: int) -> None:
    file = tmp_path / "a.safetensors"
    write_safetensors(WEIGHTS, file, {"config": "a: 1\n"})
    data = bytearray(file.read_bytes())
    data[place % len(data)] ^= change
    file.write_bytes(data)
    try:
        weights, metadata = read_safetensors(file)
    except ConfigError:
        return
    assert metadata["config"] == "a: 1\n", "the byte is of the name of the checksum"
    assert all(torch.equal(weights[name], value) for name, value in WEIGHTS.items())


def test_damage_is_said(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    write_safetensors(WEIGHTS, file, {})
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ConfigError, match=r"a\.safetensors: damaged"):
        read_safetensors(file)
