"""Runs on ``meta`` raise the errors of a real device and return its shapes."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from d2timm.backbone.meta import MetaRun, create_on_meta

Lookup = Callable[[Tensor, Tensor], Tensor]

#: Ways of looking up rows of a (rows, 3) tensor by a flat index
LOOKUPS: dict[str, Lookup] = {
    "index": lambda x, index: x[index],
    "index of a column": lambda x, index: x.T[:, index],
    "index with another": lambda x, index: x[index, torch.zeros_like(index)],
    "index_select": lambda x, index: x.index_select(0, index),
    "gather": lambda x, index: x.gather(0, index[:, None].expand(-1, 3)),
    "embedding": lambda x, index: F.embedding(index, x),
}


def index_of(*numbers: int, device: str = "meta") -> Tensor:
    """An index tensor as a model creates it: from constants, on the device of its tensors."""
    return torch.stack([torch.full((), number, device=device) for number in numbers])


# Indices


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("lookup", LOOKUPS.values(), ids=LOOKUPS)
@pytest.mark.parametrize("numbers", [(8,), (0, 7, 12), (-9, 0)])
def test_index_out_of_bounds_raises(lookup: Lookup, numbers: tuple[int, ...], device: str) -> None:
    x = torch.zeros(8, 3, device=device)
    with MetaRun(), pytest.raises((IndexError, RuntimeError), match="index"):
        lookup(x, index_of(*numbers, device=device))


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("name", ["index_select", "gather", "embedding"])
def test_negative_index_raises_where_torch_does_not_support_it(name: str, device: str) -> None:
    x = torch.zeros(8, 3, device=device)
    with MetaRun(), pytest.raises((IndexError, RuntimeError), match="index"):
        LOOKUPS[name](x, index_of(-1, 0, device=device))


def test_error_names_the_index_and_the_size() -> None:
    x = torch.empty(8, 3, device="meta")
    with MetaRun(), pytest.raises(IndexError, match=r"index 12 .* dimension of size 8"):
        x[index_of(0, 12, 3)]
    with MetaRun(), pytest.raises(IndexError, match=r"index -9 .* dimension of size 8"):
        x[index_of(-9, 3)]


@pytest.mark.parametrize("lookup", LOOKUPS.values(), ids=LOOKUPS)
def test_index_within_bounds_is_accepted(lookup: Lookup) -> None:
    with MetaRun():
        y = lookup(torch.empty(8, 3, device="meta"), index_of(0, 7, 7, 3))
    assert y.is_meta
    assert tuple(y.shape) == tuple(lookup(torch.zeros(8, 3), torch.tensor([0, 7, 7, 3])).shape)


def test_negative_index_and_empty_index_are_accepted() -> None:
    x = torch.empty(8, 3, device="meta")
    with MetaRun():
        assert tuple(x[index_of(-8, -1)].shape) == (2, 3)
        assert tuple(x[torch.arange(0, device="meta")].shape) == (0, 3)


def test_boolean_index_is_accepted() -> None:
    x = torch.empty(3, 2, device="meta")
    with MetaRun():
        mask = torch.arange(2, device="meta") < 5
        assert tuple(torch.where(mask, x, x).shape) == (3, 2)
        x[:, mask] = 0.0


@pytest.mark.parametrize(
    "highest",
    [
        lambda i: 2 * i - 1,  # 7
        lambda i: i.view(1, 5).T.flatten() + 3,
        lambda i: (i[:, None] - i).flatten() + 3,
        lambda i: i.clone().add_(3),
        lambda i: (1.75 * i.float()).to(torch.long),
        lambda i: torch.stack(torch.meshgrid(i, i, indexing="ij")).sum(0).flatten() - 1,
        lambda i: torch.cat([i, i + 3]),
        lambda i: F.pad(i, (0, 1), value=7),
        lambda i: torch.where(i > 3, i + 3, i),
        lambda i: (i + 3).unbind()[4][None],
        lambda i: torch.chunk(i + 3, 2)[1],
        lambda i: (i + 3).max(0).values[None],
    ],
    ids=itertools.count(),
)
def test_values_are_tracked_through_arithmetic(highest: Callable[[Tensor], Tensor]) -> None:
    """The highest value of each result is 7."""
    assert highest(torch.arange(5)).max() == 7
    with MetaRun():
        index = highest(torch.arange(5, device="meta"))
        torch.empty(8, device="meta")[index]
        with pytest.raises(IndexError, match="index 7 is out of bounds"):
            torch.empty(7, device="meta")[index]


def test_values_are_tracked_through_writes_in_place() -> None:
    with MetaRun():
        index = torch.zeros(4, dtype=torch.long, device="meta")
        index[2] = 7
        index[1:3] += 2
        torch.empty(10, device="meta")[index]
        with pytest.raises(IndexError, match="index 9 "):
            torch.empty(9, device="meta")[index]


def test_item_returns_a_known_value() -> None:
    with MetaRun():
        assert (torch.arange(5, device="meta").max() + 3).item() == 7
        with pytest.raises(RuntimeError):
            torch.empty(1, device="meta").item()


def test_unknown_values_are_accepted() -> None:
    unknown = torch.empty(4, dtype=torch.long, device="meta")
    with MetaRun():
        index = torch.arange(4, device="meta") + unknown
        assert tuple(torch.empty(2, device="meta")[index].shape) == (4,)


@pytest.mark.parametrize("part", [lambda x: x, lambda x: x[1:]], ids=["itself", "a view of it"])
def test_overwritten_values_are_unknown(part: Callable[[Tensor], Tensor]) -> None:
    unknown = torch.empty(4, dtype=torch.long, device="meta")
    with MetaRun():
        index = torch.arange(4, device="meta")
        part(index).copy_(part(unknown))
        assert tuple(torch.empty(2, device="meta")[index].shape) == (4,)


def test_real_tensors_are_computed_as_usual() -> None:
    x, index = torch.arange(6.0), torch.tensor([4, 1])
    with MetaRun():
        assert torch.equal(x[index] * 2, torch.tensor([8.0, 2.0]))
        assert torch.equal(F.linear(x[None], torch.eye(6)), x[None])
        assert F.layer_norm(x, (6,)).mean().abs() < 1e-6


# Shortcuts


def linear(x: Tensor, features: int = 8, bias: int = 5) -> Tensor:
    return F.linear(x, x.new_empty(5, features), x.new_empty(bias))


def layer_norm(x: Tensor, features: int = 8, weight: int = 8) -> Tensor:
    return F.layer_norm(x, (features,), x.new_empty(weight), x.new_empty(weight))


def batch_norm(x: Tensor, channels: int = 8, weight: int = 8, training: bool = False) -> Tensor:
    statistics = x.new_empty(channels), x.new_empty(channels)
    return F.batch_norm(x, *statistics, x.new_empty(weight), x.new_empty(weight), training)


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (linear, (4, 8)),
        (linear, (2, 3, 8)),
        (layer_norm, (4, 8)),
        (layer_norm, (2, 3, 5, 8)),
        (batch_norm, (4, 8)),
        (batch_norm, (4, 8, 6)),
        (batch_norm, (2, 8, 4, 6)),
        (lambda x: batch_norm(x, training=True), (2, 8, 4, 6)),
    ],
)
def test_shapes_and_types_are_as_on_plain_meta(
    function: Callable[[Tensor], Tensor], shape: tuple[int, ...]
) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.empty(shape, device="meta", dtype=dtype)
        expected = function(x)
        with MetaRun():
            y = function(x)
        assert (y.shape, y.dtype, y.stride()) == (expected.shape, expected.dtype, expected.stride())
        assert y.is_meta


@pytest.mark.parametrize("layout", ["contiguous", "transposed", "channels last"])
@pytest.mark.parametrize(
    "function",
    [F.relu, F.gelu, F.silu, lambda x: x.softmax(-1), lambda x: x.softmax(1)],
    ids=["relu", "gelu", "silu", "softmax of the last", "softmax of the second"],
)
def test_activations_keep_shape_and_layout_as_on_plain_meta(
    function: Callable[[Tensor], Tensor], layout: str
) -> None:
    x = torch.empty(2, 8, 4, 6, device="meta")
    if layout == "transposed":
        x = x.transpose(1, 2)
    if layout == "channels last":
        x = x.to(memory_format=torch.channels_last)
    expected = function(x)
    with MetaRun():
        y = function(x)
    assert (y.shape, y.dtype, y.stride()) == (expected.shape, expected.dtype, expected.stride())


def test_attention_has_the_shape_as_on_plain_meta() -> None:
    q, k, v = (torch.empty(2, 3, n, 8, device="meta") for n in (5, 7, 7))
    expected = F.scaled_dot_product_attention(q, k, v)
    with MetaRun():
        y = F.scaled_dot_product_attention(q, k, v)
    assert (y.shape, y.stride()) == (expected.shape, expected.stride())


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (linear, (4, 7)),
        (lambda x: linear(x, bias=4), (4, 8)),
        (layer_norm, (4, 7)),
        (lambda x: layer_norm(x, weight=7), (4, 8)),
        (batch_norm, (2, 7, 4, 4)),
        (lambda x: batch_norm(x, weight=7), (2, 8, 4, 4)),
    ],
)
def test_invalid_shapes_raise_as_on_plain_meta(
    function: Callable[[Tensor], Tensor], shape: tuple[int, ...]
) -> None:
    x = torch.empty(shape, device="meta")
    with pytest.raises(RuntimeError):
        function(x)
    with MetaRun(), pytest.raises(RuntimeError):
        function(x)


@pytest.mark.parametrize("fast", [True, False])
def test_gradients_have_the_shapes_of_their_weights(fast: bool) -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(8, 6), nn.LayerNorm(6), nn.GELU(), nn.BatchNorm1d(6))
        x = torch.empty(4, 8)
    with MetaRun(fast):
        model(x).sum().backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.shape == parameter.shape


def test_outer_modes_see_operators_unless_a_run_is_fast() -> None:
    x, weight = torch.empty(4, 8, device="meta"), torch.empty(5, 8, device="meta")
    flops = []
    for fast in (True, False):
        with FlopCounterMode(display=False) as counter, MetaRun(fast):
            F.linear(x, weight, torch.empty(5, device="meta"))
        flops.append(counter.get_total_flops())
    assert flops == [0, 2 * 4 * 5 * 8]


# MetaRun


def test_device_context_is_suspended() -> None:
    with torch.device("meta"):
        with MetaRun():
            assert torch.empty(1).device.type == "cpu"
        assert torch.empty(1).is_meta


def test_active_runs_are_counted_also_after_an_error() -> None:
    x = torch.empty(2, device="meta")
    with MetaRun(), MetaRun():
        assert MetaRun.active == 2
    with pytest.raises(RuntimeError), MetaRun():
        x.view(3)
    assert MetaRun.active == 0


# create_on_meta


@pytest.mark.parametrize("model_name", ["test_vit", "test_resnet", "swin_tiny_patch4_window7_224"])
def test_models_are_created_without_values(model_name: str) -> None:
    state = torch.get_rng_state()
    model = create_on_meta(model_name, num_classes=7)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(x.is_meta for x in itertools.chain(model.parameters(), model.buffers()))
    assert not any(module.training for module in model.modules())
    assert model.num_classes == 7


def test_models_created_in_inference_mode_can_be_trained() -> None:
    with torch.inference_mode():
        model = create_on_meta("test_resnet")
    model.train()(torch.empty(2, 3, 64, 64, device="meta")).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_initialisation_works_again_afterwards() -> None:
    create_on_meta("test_resnet")
    assert nn.init.ones_(torch.zeros(2)).tolist() == [1, 1]
    assert nn.Linear(2, 2).weight.any()
