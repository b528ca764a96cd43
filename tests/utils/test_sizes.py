"""Arithmetic of sizes, for numbers and for symbolic sizes of an export."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from d2timm.utils.sizes import at_least, ceil_div, round_up, round_up_size

sizes, divisors = st.integers(0, 10_000), st.integers(1, 512)


@given(sizes, divisors)
def test_quotients_are_rounded_up(value: int, divisor: int) -> None:
    quotient = ceil_div(value, divisor)
    assert (quotient - 1) * divisor < value <= quotient * divisor


@given(sizes, divisors)
def test_result_is_the_next_multiple(value: int, multiple: int) -> None:
    rounded = round_up(value, multiple)
    assert rounded % multiple == 0
    assert value <= rounded < value + multiple


@given(st.tuples(sizes, sizes), divisors)
def test_both_sides_are_rounded(size: tuple[int, int], multiple: int) -> None:
    assert round_up_size(size, multiple) == (round_up(size[0], multiple), round_up(size[1], multiple))


@given(sizes, sizes)
def test_larger_of_two(value: int, smallest: int) -> None:
    assert at_least(value, smallest) == max(value, smallest)


class Pad(nn.Module):
    """Pads an image to a multiple of 4, and to 32 pixels at least."""

    def forward(self, image: Tensor) -> Tensor:
        height, width = round_up_size((image.shape[-2], image.shape[-1]), 4)
        pad = (0, at_least(width, 32) - image.shape[-1], 0, at_least(height, 32) - image.shape[-2])
        return nn.functional.pad(image, pad)


def test_sizes_stay_symbolic_in_an_export() -> None:
    side = torch.export.Dim("side", min=40, max=400)
    program = torch.export.export(
        Pad(), (torch.zeros(1, 3, 45, 50),), dynamic_shapes={"image": {2: side, 3: torch.export.Dim.STATIC}}
    )
    for height in (41, 45, 64):
        assert program.module()(torch.zeros(1, 3, height, 50)).shape == (1, 3, round_up(height, 4), 52)
