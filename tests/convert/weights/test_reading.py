"""Checkpoints of other projects are read as data, or are errors of one line; nothing in them is executed."""

from __future__ import annotations

import collections
import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from d2timm.convert.weights.pickles import read_pickle
from d2timm.convert.weights.reading import read
from d2timm.errors import ConfigError

ARRAYS = {
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "of_columns": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
    "big_endian": np.arange(3, dtype=">f4"),
    "half": np.ones((2, 1), np.float16),
    "counter": np.array(7, dtype=np.int64),
    "empty": np.zeros((0, 4), np.float32),
}


class Code:
    """Creates a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_detectron2_are_read(tmp_path: Path, protocol: int) -> None:
    file = tmp_path / "model.pkl"
    weights = collections.OrderedDict(ARRAYS) | {"number": np.float32(0.5)}
    file.write_bytes(pickle.dumps({"model": weights, "__author__": "Detectron2"}, protocol))
    checkpoint = read(file)
    assert checkpoint.author == "Detectron2"
    assert checkpoint.other_keys == ("__author__",)
    assert [*checkpoint.weights] == [*ARRAYS, "number"]
    for name, array in ARRAYS.items():
        assert checkpoint.weights[name].shape == array.shape
        assert checkpoint.weights[name].tolist() == array.tolist()


def test_pickles_of_python_2_are_read(tmp_path: Path) -> None:
    """Pickles of Caffe2 store bytes as strings."""
    reconstruct = b"cnumpy.core.multiarray\n_reconstruct\n"
    shell = reconstruct + b"(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    dtype = b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
    array = (
        shell + b"(I1\n(I2\nt" + dtype + b"I00\nS" + repr(struct.pack("<2f", 1, -2))[1:].encode() + b"\ntb"
    )
    file = tmp_path / "R-50.pkl"
    file.write_bytes(b"(dS'blobs'\n(dS'conv1_w'\n" + array + b"ss.")
    assert read(file).weights["conv1_w"].tolist() == [1, -2]


@pytest.mark.parametrize("suffix", ["pkl", "pth", "bin"])
def test_code_in_a_file_is_not_executed(tmp_path: Path, suffix: str) -> None:
    evil, proof = tmp_path / f"evil.{suffix}", tmp_path / "executed"
    data = {"model": {"weight": Code(proof)}}
    if suffix == "pkl":
        evil.write_bytes(pickle.dumps(data))
    else:
        torch.save(data, evil)
    with pytest.raises(ConfigError, match=r"it holds more than weights|only data \(.*it contains") as error:
        read(evil)
    assert not proof.exists()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "value",
    [
        np.array([{}], dtype=object),
        np.array(["text"]),
        np.zeros(2, [("a", "f4")]),
        np.datetime64("2020-01-01"),
        np.zeros(2, np.complex64),
        slice(1),
        {1, 2},
        print,
        np.load,
        torch.zeros(1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_anything_but_arrays_of_numbers_is_an_error(tmp_path: Path, value: Any) -> None:
    for protocol in (2, 5):
        file = tmp_path / "other.pkl"
        file.write_bytes(pickle.dumps({"model": {"weight": value}}, protocol))
        with pytest.raises(ConfigError):
            read(file)


@pytest.mark.parametrize(
    "state",
    [
        (1, (2, 3), "f4", False, b"\0" * 20),  # too few numbers
        (1, (2**40,), "f4", False, b""),
        (1, (-1, -6), "f4", False, b"\0" * 24),
        (1, (2, 3), "O", False, [print] * 6),
        (1, (2, 3), "f4", False, [1, 2]),
        (1, 6, "f4", False, b"\0" * 24),
        (1, (2, 3), None, False, b"\0" * 24),
        (),
        None,
    ],
)
def test_inconsistent_arrays_are_errors(tmp_path: Path, state: Any) -> None:
    file = tmp_path / "wrong.pkl"
    file.write_bytes(_array_pickle(state))
    with pytest.raises(ConfigError):
        read(file)


def _array_pickle(state: Any) -> bytes:
    """A pickle of an array with any state; a string for its type becomes a dtype."""
    out = io.BytesIO()
    out.write(b"\x80\x02}(X\x06\x00\x00\x00weight")
    out.write(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R")
    if state:
        version, shape, dtype, fortran, content = state
        out.write(b"(")
        for value in (version, shape, dtype, fortran, content):
            if value is dtype and isinstance(dtype, str):
                out.write(
                    b"cnumpy\ndtype\nX" + struct.pack("<I", len(dtype)) + dtype.encode() + b"\x89\x88\x87R"
                )
                out.write(b"(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb")
            else:
                out.write(pickle.dumps(value, 3)[2:-1])
        out.write(b"tb")
    else:
        out.write(pickle.dumps(state, 2)[2:-1] + b"b")
    out.write(b"u.")
    return out.getvalue()


def test_the_hostile_pickles_are_well_formed(tmp_path: Path) -> None:
    """Otherwise the test above would prove nothing."""
    good = _array_pickle((1, (2, 3), "f4", False, b"\0" * 24))
    (tmp_path / "good.pkl").write_bytes(good)
    assert read(tmp_path / "good.pkl").weights["weight"].shape == (2, 3)


@pytest.mark.parametrize(
    "content",
    [
        b"]" + b"(" + b"h\x00" * 9 + b"l" + b".",  # memo entries that are never stored
        b"]r\xff\xff\xff\xff.",  # a memo index for which an array would take 64 GB
        b"]q\x00(" + b"h\x00" * 50 + b"e.",  # a list that contains itself
        b"]" + b"".join(b"q%c]q%c(" % (i, i + 1) + b"h%c" % i * 99 + b"e" for i in range(19)) + b".",
        b"(" * 1000 + b"t" * 1000 + b".",
        b"\x80\x05\x8e\xff\xff\xff\xff\x00\x00\x00\x00.",
    ],
)
def test_small_files_cannot_exhaust_time_or_memory(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "small.pkl"
    file.write_bytes(content)
    with pytest.raises(ConfigError):
        read(file)


GOOD = pickle.dumps({"model": {"weight": ARRAYS["weight"]}, "more": [1, "a", (2.5, None)]}, 2)


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (str, bytes, bytearray, int, float, np.ndarray))


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    st.booleans(),
)
def test_broken_pickles_are_plain_data_or_raise(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], cut: bool
) -> None:
    content = bytearray(GOOD)
    for place, byte in changes:
        content[place] = byte
    file = tmp_path_factory.getbasetemp() / "broken.pkl"
    file.write_bytes(content[: changes[0][0]] if cut else content)
    try:
        content = read_pickle(file)
    except Exception:  # any type; the caller reports it on one line
        return
    assert _is_plain(content)


@pytest.mark.parametrize("suffix", ["pth", "pkl", "safetensors"])
def test_files_that_are_not_checkpoints_are_errors(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"file.{suffix}"
    for content in (b"", b"\0" * 100, b"{}", b"PK\x03\x04", b"\x80\x02}."):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=f"file.{suffix}") as error:
            read(file)
        assert "\n" not in str(error.value)


def test_missing_files_and_other_formats_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read(tmp_path / "model.pth")
    with zipfile.ZipFile(tmp_path / "model.zip", "w"):
        pass
    with pytest.raises(ConfigError, match=r"ends in \.pth"):
        read(tmp_path / "model.zip")


def test_weights_are_found_under_the_keys_of_each_project(tmp_path: Path) -> None:
    weight = torch.ones(2)
    for number, (content, other_keys) in enumerate(
        [
            (
                {"meta": {"epoch": 36}, "state_dict": {"module.a": weight}, "optimizer": {}},
                ("meta", "optimizer"),
            ),
            ({"model": {"a": weight}, "iteration": 5}, ("iteration",)),
            ({"a": weight}, ()),
        ]
    ):
        file = tmp_path / f"{number}.pth"
        torch.save(content, file)
        checkpoint = read(file)
        assert checkpoint.other_keys == other_keys
        assert checkpoint.weights["a"].tolist() == [1, 1]
    save_file({"a": weight}, tmp_path / "a.safetensors")
    assert [*read(tmp_path / "a.safetensors").weights] == ["a"]
