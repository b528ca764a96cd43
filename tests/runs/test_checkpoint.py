"""Checkpoints are written atomically, and no code in them is executed."""

from __future__ import annotations

import io
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from d2timm.errors import ConfigError
from d2timm.runs.checkpoint import AtomicCheckpointer, last_checkpoint


class Counter:
    """A checkpointable with a state."""

    def __init__(self, count: int = 0) -> None:
        self.count = count

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.count = state["count"]


class Code:
    """Creates a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def linear(value: float) -> nn.Linear:
    layer = nn.Linear(2, 2)
    nn.init.constant_(layer.weight, value)
    return layer


def test_resuming_restores_the_model_and_all_checkpointables(tmp_path: Path) -> None:
    AtomicCheckpointer(linear(3.0), str(tmp_path), trainer=Counter(7)).save("model_0000007", iteration=7)
    model, counter = linear(0.0), Counter()
    checkpointer = AtomicCheckpointer(model, str(tmp_path), trainer=counter)
    rest = checkpointer.resume_or_load("", resume=True)
    assert model.weight.tolist() == [[3.0, 3.0], [3.0, 3.0]]
    assert counter.count == 7
    assert rest["iteration"] == 7


@pytest.mark.parametrize("name", ["a?b=c", "who?", "a#b;c?d", "C:x", "new\nline", "%41 [x] é"])
def test_folder_may_have_any_name(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    AtomicCheckpointer(linear(3.0), str(folder), trainer=Counter(7)).save("model", iteration=7)
    resumed, initial, counter = linear(0.0), linear(0.0), Counter()
    AtomicCheckpointer(resumed, str(folder), trainer=counter).resume_or_load("", resume=True)
    AtomicCheckpointer(initial).load(str(folder / "model.pth"))
    assert resumed.weight.tolist() == initial.weight.tolist() == [[3.0, 3.0], [3.0, 3.0]]
    assert counter.count == 7


def test_interrupted_save_keeps_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpointer = AtomicCheckpointer(linear(1.0), str(tmp_path))
    checkpointer.save("model")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) == {"model.pth", "last_checkpoint"}

    def full(data: Any, file: Path) -> None:
        file.write_bytes(b"half of it")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", full)
    for name in ("model", "model_0000010"):
        with pytest.raises(OSError, match="disk full"):
            checkpointer.save(name)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_checkpoint_is_complete_before_it_becomes_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpointer = AtomicCheckpointer(linear(1.0), str(tmp_path))
    checkpointer.save("first")

    def killed(name: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpointer, "tag_last_checkpoint", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpointer.save("second")
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "first.pth")
    assert (tmp_path / "second.pth").is_file()
    checkpointer.save("second")
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "second.pth")


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe", b"", b"a\0b", b"../a.pth", b"/a.pth", b"x" * 5000, b".", b"..", b"a.pth\nb", b"none.pth"],
)
def test_damaged_name_of_the_last_checkpoint_is_an_error_of_one_line(content: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for file in (tmp_path / "a.pth", folder / "a.pth"):
        file.write_bytes(b"")
    (folder / "last_checkpoint").write_bytes(content)
    with pytest.raises(ConfigError, match=r"run/last_checkpoint ") as caught:
        last_checkpoint(folder)
    assert "\n" not in str(caught.value)


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    AtomicCheckpointer(linear(1.0), str(tmp_path), save_to_disk=False).save("model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", ["pth", "pkl", "pyth"])
def test_code_in_a_file_is_not_executed(tmp_path: Path, suffix: str) -> None:
    evil, proof = tmp_path / f"evil.{suffix}", tmp_path / "executed"
    data = {"model": Code(proof), "model_state": Code(proof), "__author__": "somebody"}
    if suffix == "pkl":
        evil.write_bytes(pickle.dumps(data))
    else:
        torch.save(data, evil)
    with pytest.raises(ConfigError, match=r"holds more than weights|can run code"):
        AtomicCheckpointer(linear(1.0)).load(str(evil))
    assert not proof.exists()


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


LINEAR = {"weight": torch.ones(2, 2), "bias": torch.zeros(2)}
OTHERS: dict[str, Any] = {
    **{
        f"{kind}": saved(value)
        for kind, value in {"list": [1], "tensor": torch.ones(2), "none": None}.items()
    },
    "text": b"hello",
    "empty": b"",
    "zeros": b"\0" * 100,
    "page": b"<html>404</html>",
    "pickle": pickle.dumps({"model": 1}),
    "cut off": saved({"model": LINEAR})[:-100],
    "a list of weights": saved({"model": [1]}),
    "no weights": saved({"model": None}),
    "numbers as names": saved({"model": {1: torch.ones(2)}}),
    "text as weight": saved({"model": {**LINEAR, "weight": "x"}}),
    "number as weight": saved({"model": {**LINEAR, "weight": 1.0}}),
    "mapping as weight": saved({"model": {**LINEAR, "weight": {"a": 1}}}),
    "complex": saved({"model": {**LINEAR, "weight": torch.ones(2, 2, dtype=torch.complex64)}}),
    "sparse": saved({"model": {**LINEAR, "weight": torch.ones(2, 2).to_sparse()}}),
    "integers": saved({"model": {**LINEAR, "weight": torch.ones(2, 2, dtype=torch.int8)}}),
    "not finite": saved({"model": {**LINEAR, "weight": torch.full((2, 2), math.nan)}}),
    "more weights": saved({"model": {**LINEAR, "other.weight": torch.ones(3)}}),
    "other shape": saved({"model": {**LINEAR, "weight": torch.ones(3)}}),
    "averages": saved({"model": LINEAR, "ema": {"weight": 3}}),
}


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS)
@pytest.mark.filterwarnings("ignore")
def test_other_files_are_errors_of_one_line(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "a.pth"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        AtomicCheckpointer(linear(1.0), strict=True).load(str(file))
    assert "\n" not in str(caught.value)
