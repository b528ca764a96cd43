"""What is packed comes back exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2timm.utils.arrays import map_arrays, smallest, write_arrays
from d2timm.utils.packing import DecimalPacker, Decimals, Texts, pack_texts

FLOATS = st.floats(allow_nan=False)
DECIMALS = st.decimals(-(10**6), 10**6, places=2).map(float)


@given(
    st.lists(
        st.one_of(FLOATS, st.decimals(-(10**6), 10**6, places=2).map(float), st.integers(-9, 9)), max_size=99
    )
)
def test_numbers(numbers: list[float]) -> None:
    packer = DecimalPacker("x")
    for start in range(0, len(numbers), 7):
        packer.extend(numbers[start : start + 7])
    assert packer.count == len(numbers)
    packed = Decimals(packer.arrays(), "x")
    assert packed[:].tolist() == numbers
    assert packed[3:8].tolist() == numbers[3:8]


def test_numbers_of_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d2timm.utils.packing.BLOCK", 10)
    numbers = [n / 100 for n in range(100)]
    numbers[17], numbers[93] = 1 / 3, 1e300
    packer = DecimalPacker("x")
    for number in numbers:
        packer.extend([number])
    arrays = packer.arrays()
    assert {name: array.dtype.name for name, array in arrays.items()} == {
        "x": "uint8",
        "x.places": "uint8",
        "x.others": "float64",
    }
    packed = Decimals(arrays, "x")
    assert [packed[i : i + 3].tolist() for i in range(97)] == [numbers[i : i + 3] for i in range(97)]


@given(st.lists(st.text(st.characters())))
def test_texts(texts: list[str]) -> None:
    assert list(Texts(pack_texts("x", texts), "x")) == texts


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5))
def test_integers(values: list[int]) -> None:
    assert smallest(np.array(values, np.int64)).tolist() == values


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([], "uint8"),
        ([255], "uint8"),
        ([256], "uint16"),
        ([-1, 127], "int8"),
        ([-1, 128], "int16"),
        ([2**40], "uint64"),
    ],
)
def test_smallest_type(values: list[int], kind: str) -> None:
    assert smallest(np.array(values, np.int64)).dtype == kind


@pytest.mark.parametrize(
    "kind", ["uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float64", "bool"]
)
def test_arrays_in_a_file(tmp_path: Path, kind: str) -> None:
    arrays = {"a": np.arange(6).reshape(2, 3).astype(kind), "b": np.zeros(0, kind), "c": np.zeros(3, "uint8")}
    write_arrays(tmp_path / "x", arrays, {"key": "value"})
    mapped, metadata = map_arrays(tmp_path / "x")
    assert metadata == {"key": "value"}
    assert set(mapped) == set(arrays)
    for name, array in arrays.items():
        assert mapped[name].dtype == array.dtype
        assert np.array_equal(mapped[name], array)
        assert not mapped[name].flags.writeable


@pytest.mark.parametrize("content", [b"", b"x" * 50])
def test_file_of_another_format(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match="x"):
        map_arrays(tmp_path / "x")
