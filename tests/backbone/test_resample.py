"""Feature maps are resampled to the stride grid of the image, without moving in the image."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from d2timm import ConfigError
from d2timm.backbone.resample import Resample, base_stride, check_norms, norm_epsilon, restore

NATIVE = (1, 2, 4, 7, 8, 12, 12.6, 14, 16, 17.88, 32, 64)
TARGET = (1, 2, 4, 5, 7, 8, 12, 14, 16, 32, 64)

sides = st.integers(32, 300)
REPEATABLE = settings(deadline=None, derandomize=True, database=None)


def ramp(cells: int, cell: float) -> Tensor:
    """Coordinates of the centres of cells in image pixels."""
    return cell * (torch.arange(cells, dtype=torch.float64) + 0.5)


# base_stride


@pytest.mark.parametrize(
    ("native", "target", "base"),
    [
        (16, 16, 16),
        (16, 4, 16),
        (16, 64, 16),
        (8, 32, 8),
        (14, 16, 16),
        (14, 4, 16),
        (14, 32, 16),
        (12.6, 8, 16),
        (17.88, 16, 16),
        (32, 1, 32),
        (7, 28, 7),
        (3, 6, 3),
        (3, 7, 7),  # 7 has no half
        (4, 12, 3),
        (4, 20, 5),
    ],
)
def test_base_is_a_power_of_two_times_the_target(native: float, target: int, base: int) -> None:
    assert base_stride(native, target) == base


@given(st.sampled_from(NATIVE), st.sampled_from(TARGET))
@REPEATABLE
def test_doubling_or_halving_leads_from_base_to_target(native: float, target: int) -> None:
    base = base_stride(native, target)
    assert isinstance(base, int)
    ratio = base / target if base >= target else target / base
    assert ratio == 2 ** round(math.log2(ratio))


# Resample


@given(native=st.sampled_from(NATIVE), target=st.sampled_from(TARGET), height=sides, width=sides)
@settings(REPEATABLE, max_examples=300)
def test_grid_is_the_ceiling_at_any_size(native: float, target: int, height: int, width: int) -> None:
    base = base_stride(native, target)
    size = (height, width)
    with torch.device("meta"):
        level = Resample(3, base, target)
        cells = [math.ceil(math.ceil(side / base) * base / native) for side in size]
        x = torch.empty(2, 3, *cells)
    y = level(x, (native, native), size)
    assert tuple(y.shape) == (2, 3, math.ceil(height / target), math.ceil(width / target))


@given(
    cells=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    target=st.sampled_from(TARGET),
    height=sides,
    width=sides,
)
@settings(REPEATABLE, max_examples=300)
def test_grid_is_the_ceiling_for_any_stretched_map(
    cells: tuple[int, int], target: int, height: int, width: int
) -> None:
    base = base_stride(max(height, width) / max(cells), target)
    extent = [math.ceil(side / base) * base for side in (height, width)]
    with torch.device("meta"):
        level = Resample(3, base, target)
        x = torch.empty(1, 3, *cells)
    y = level(x, (extent[0] / cells[0], extent[1] / cells[1]), (height, width))
    assert tuple(y.shape) == (1, 3, math.ceil(height / target), math.ceil(width / target))


@given(
    cell=st.tuples(
        st.sampled_from((14.0, 12.6, 17.5, 21.0, 16.0)), st.sampled_from((14.0, 11.7, 16.0, 19.2))
    ),
    height=st.integers(150, 500),
    width=st.integers(150, 500),
)
@REPEATABLE
def test_features_do_not_move_in_the_image(cell: tuple[float, float], height: int, width: int) -> None:
    """A ramp in cells of 14 pixels, or stretched ones, is the same ramp in cells of 16 pixels."""
    rows, columns = (math.ceil(side / size) + 1 for side, size in zip((height, width), cell, strict=True))
    y, x = ramp(rows, cell[0])[:, None], ramp(columns, cell[1])
    image = torch.stack([y + 0 * x, 0 * y + x, 3 * y - 2 * x])[None]

    output = Resample(3, 16, 16)(image, cell, (height, width))[0]

    y, x = ramp(math.ceil(height / 16), 16)[:, None], ramp(math.ceil(width / 16), 16)
    expected = torch.stack([y + 0 * x, 0 * y + x, 3 * y - 2 * x])
    inside = (..., slice(1, -1), slice(1, -1))  # the border cannot be interpolated
    assert (output - expected)[inside].abs().max() < 1e-6


def test_cells_of_another_size_are_interpolated_even_if_their_number_is_the_same() -> None:
    """8 cells of 20 pixels cover an image of 8 cells of 16 pixels, which ends in the 7th cell."""
    x = ramp(8, 20)[:, None] + 0 * ramp(8, 20)
    y = Resample(1, 16, 16)(x[None, None], (20, 20), (128, 128))[0, 0]
    assert (y[1:, 0] - ramp(8, 16)[1:]).abs().max() < 1e-6


def test_map_with_the_target_stride_is_only_cropped() -> None:
    x = torch.randn(1, 3, 10, 12)
    y = Resample(3, 16, 16)(x, (16, 16), (97, 131))
    assert torch.equal(y, x[..., :7, :9])


def normalised(x: Tensor) -> Tensor:
    """Normalise each cell over its channels."""
    return F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], eps=1e-6).permute(0, 3, 1, 2)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_doubling_starts_as_nearest_neighbour_up_sampling_of_the_normalised_map(steps: int) -> None:
    """Each cell is repeated, with a function of its channels between two doublings."""
    x = 1000 * torch.randn(2, 5, 4, 6)  # as large as the output of a plain transformer's block
    y = Resample(5, 32, 32 // 2**steps)(x, (32, 32), (128, 192))
    value = normalised(x)
    for _ in range(steps - 1):
        value = F.gelu(normalised(value))
    expected = F.interpolate(value, scale_factor=2**steps, mode="nearest")
    assert (y - expected).abs().max() < 1e-5


def test_doubling_is_learned() -> None:
    level = Resample(4, 16, 4)
    parameters = list(level.parameters())
    assert sum(isinstance(module, nn.ConvTranspose2d) for module in level.modules()) == 2
    level(torch.randn(2, 4, 6, 6), (16, 16), (90, 90)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)
    assert all(p.grad is not None and p.grad.any() for p in parameters if p.ndim > 1)


@pytest.mark.parametrize(("target", "factor"), [(32, 2), (64, 4)])
def test_coarser_levels_are_normalised_and_max_pooled(target: int, factor: int) -> None:
    level = Resample(3, 16, target)
    x = torch.randn(1, 3, 7, 9)
    y = level(x, (16, 16), (112, 144))
    assert not [module for module in level.modules() if isinstance(module, nn.ConvTranspose2d)]
    assert tuple(y.shape) == (1, 3, math.ceil(112 / target), math.ceil(144 / target))
    for row in range(y.shape[2]):
        for column in range(y.shape[3]):
            block = (slice(row * factor, (row + 1) * factor), slice(column * factor, (column + 1) * factor))
            expected = normalised(x)[(..., *block)].amax(dim=(2, 3))
            torch.testing.assert_close(y[..., row, column], expected, rtol=0, atol=1e-6)


def test_level_at_the_stride_of_its_feature_has_no_layers() -> None:
    assert not list(Resample(3, 16, 16).parameters())
    assert list(Resample(3, 16, 8).parameters())


@pytest.mark.parametrize("target", [4, 8, 16, 32])
def test_level_norm_all_or_none(target: int) -> None:
    first = {kind: [*Resample(3, 16, target, level_norm=kind).scale][:1] for kind in ("all", "none")}
    assert isinstance(first["all"][0], nn.LayerNorm)
    assert not any(isinstance(layer, nn.LayerNorm) for layer in first["none"])


def test_level_norm_all_normalises_a_level_at_the_stride_of_its_feature() -> None:
    x = 100 * torch.randn(2, 5, 7, 9)
    y = Resample(5, 16, 16, level_norm="all")(x, (16, 16), (112, 144))
    torch.testing.assert_close(y, normalised(x), rtol=0, atol=1e-5)


def test_fine_level_is_as_in_the_detector_of_xcit() -> None:
    """A transposed convolution, batch norm, GELU, a transposed convolution."""
    layers = Resample(3, 16, 4, level_norm="none", doubling_norm="BN").scale
    kinds = [nn.ConvTranspose2d, nn.BatchNorm2d, nn.GELU, nn.ConvTranspose2d]
    assert all(isinstance(layer, kind) for layer, kind in zip(layers, kinds, strict=True))


def test_epsilon_is_that_of_the_models_layer_norms() -> None:
    assert norm_epsilon(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2, eps=1e-3))) == 1e-3
    assert norm_epsilon(nn.Linear(2, 2)) == 1e-6
    levels = Resample(3, 16, 4, epsilon=1e-3).scale
    assert [layer.eps for layer in levels if isinstance(layer, nn.LayerNorm)] == [1e-3, 1e-3]


@pytest.mark.parametrize(("level_norm", "doubling_norm"), [("ln", "LN"), ("all", "GN")])
def test_unknown_norms(level_norm: str, doubling_norm: str) -> None:
    with pytest.raises(ConfigError, match=r"level_norm='ln'.* all|doubling_norm='GN'.* LN"):
        check_norms(level_norm, doubling_norm)


# restore


@pytest.mark.parametrize(("lost", "before"), [(1, 0), (2, 1), (3, 1), (4, 2)])
def test_lost_cells_are_restored_at_both_ends(lost: int, before: int) -> None:
    x = torch.randn(2, 3, 5, 6)
    y = restore(x, lost)
    assert tuple(y.shape) == (2, 3, 5 + lost, 6 + lost)
    assert torch.equal(y[..., before : before + 5, before : before + 6], x)
    nearest = [min(max(cell - before, 0), 4) for cell in range(5 + lost)]
    assert torch.equal(y[..., before : before + 6], x[..., nearest, :])
    nearest = [min(max(cell - before, 0), 5) for cell in range(6 + lost)]
    assert torch.equal(y[..., before : before + 5, :], x[..., nearest])


def test_map_without_lost_cells_is_not_changed() -> None:
    x = torch.randn(1, 2, 3, 4)
    assert restore(x, 0) is x
