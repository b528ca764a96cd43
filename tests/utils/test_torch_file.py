"""Files that torch wrote: no damage goes unnoticed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d2timm import ConfigError
from d2timm.utils.torch_file import read_torch_file, verify


def saved(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


WEIGHTS = {"weight": torch.arange(4096.0).reshape(64, 64), "bias": torch.zeros(64)}
CONTENT = saved(WEIGHTS)


@given(st.integers(0, len(CONTENT) - 1), st.integers(1, 255))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_changed_byte_never_changes_a_weight(tmp_path: Path, place: int, change: int) -> None:
    file = tmp_path / "a.pth"
    file.write_bytes(CONTENT[:place] + bytes([CONTENT[place] ^ change]) + CONTENT[place + 1 :])
    try:
        read = read_torch_file(file)
    except ConfigError:
        return
    assert all(torch.equal(read[name], value) for name, value in WEIGHTS.items()), "the byte is of no weight"


def test_damaged_numbers_are_said_to_be_damaged(tmp_path: Path) -> None:
    file = tmp_path / "a.pth"
    place = CONTENT.index(WEIGHTS["weight"].numpy().tobytes()) + 5000
    file.write_bytes(CONTENT[:place] + b"\xff" + CONTENT[place + 1 :])
    with pytest.raises(ConfigError, match=r"a\.pth: damaged: the checksum of .*data/\d is wrong$"):
        verify(file)
    file.write_bytes(CONTENT)
    verify(file)


def test_files_without_checksums(tmp_path: Path) -> None:
    file = tmp_path / "a.pth"
    file.write_bytes(saved(WEIGHTS, _use_new_zipfile_serialization=False))
    assert torch.equal(read_torch_file(file)["weight"], WEIGHTS["weight"])
    assert torch.equal(read_torch_file(file, lazy=True)["weight"], WEIGHTS["weight"])


@pytest.mark.parametrize("content", [b"", b"text", b"\x80\x02broken", b"PK\x05\x06" + b"\0" * 18])
def test_other_files(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "a.pth"
    file.write_bytes(content)
    for lazy in (False, True):
        with pytest.raises(ConfigError, match=r"a\.pth: ") as caught:
            read_torch_file(file, lazy)
        assert "\n" not in str(caught.value)


def test_zip_file_of_another_program(tmp_path: Path) -> None:
    with ZipFile(tmp_path / "a.pth", "w") as opened:
        opened.writestr("a", "text")
    with pytest.raises(ConfigError, match=r"a\.pth: not a checkpoint, or cut off: "):
        read_torch_file(tmp_path / "a.pth")
