"""The rule that scales images to 8 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from d2timm.utils import depth
from d2timm.utils.depth import to_bytes
from d2timm.utils.once import Once


@pytest.fixture(autouse=True)
def nothing_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depth, "_LOGGED", {key: Once() for key in depth._LOGGED})


@pytest.mark.parametrize(
    ("values", "white", "expected"),
    [
        (np.uint16([0, 256, 257, 65535]), 65535, [0, 1, 1, 255]),
        (np.uint16([0, 16, 17, 4095]), 4095, [0, 1, 1, 255]),
        (np.uint16([0, 1, 1, 1]), None, [0, 1, 1, 1]),
        (np.float64([0.25, 0.75, 0, 0]), None, [64, 191, 0, 0]),
        (np.float64([1.5, 2.4, 0, 0]), None, [2, 2, 0, 0]),
        (np.float64([1e9, 3e9, 2e9, 1e9]), None, [0, 255, 128, 0]),
        (np.float64([np.nan] * 4), None, [0] * 4),
        (np.float64([-np.inf, np.inf, 0, 1]), None, [0, 255, 0, 255]),
        (np.int64([-7] * 4), None, [0] * 4),
        (np.uint32([0, 2**31, 2**32 - 1, 0]), None, [0, 128, 255, 0]),
    ],
)
def test_range_follows_from_the_format_or_the_values(
    values: Any, white: float | None, expected: list[int]
) -> None:
    for shape in ((2, 2), (4, 1), (2, 1, 2)):
        scaled = to_bytes(values.reshape(shape), white)
        assert (scaled.dtype, scaled.shape) == (np.uint8, shape)
        assert scaled.ravel().tolist() == expected


@given(arrays(np.float32, (3, 5), elements=st.floats(width=32)))
def test_every_image_is_scaled_without_a_warning(values: Any) -> None:
    with np.errstate(all="raise"):
        scaled = to_bytes(values)
    ordered = np.argsort(values[np.isfinite(values)])
    assert (np.diff(scaled[np.isfinite(values)][ordered].astype(int)) >= 0).all(), "brighter stays brighter"


def test_rows_are_scaled_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random((7, 3))
    whole = to_bytes(values)
    monkeypatch.setattr(depth, "ROWS", 2)
    assert np.array_equal(to_bytes(values), whole)


def test_each_range_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.tif", "b.tif"):
        to_bytes(np.float32([[0, 1]]), name=name)
        to_bytes(np.uint16([[0, 1]]), 65535, name=name)
        to_bytes(np.float32([[-3, 1]]), name=name)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["a.tif"] * 3
    assert all(text in caplog.text for text in ("0 to 1 become", "0 to 65535 become", "-3 to 1 become"))
