"""Batch norms with constant statistics are applied by the convolutions before them."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from d2timm import TimmBackbone
from d2timm.modeling.folding import FoldedConv2d, fold_norms

MODELS = ["test_resnet", "test_efficientnet", "resnet18", "resnetv2_18", "test_vit"]


class Net(nn.Module):
    """A convolution and a norm; ``shortcut`` reads what lies between them."""

    def __init__(self, norm: type[nn.Module] = nn.BatchNorm2d, shortcut: bool = False) -> None:
        super().__init__()
        self.conv, self.norm, self.shortcut = nn.Conv2d(3, 4, 3, bias=False), norm(4), shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(y) + y if self.shortcut else self.norm(y)


def with_statistics(model: nn.Module) -> nn.Module:
    """Random statistics, scales and shifts in all norms."""
    generator = torch.Generator().manual_seed(0)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                tensor.data = torch.rand(tensor.shape, generator=generator) + 0.5
    return model


def images(side: int = 64) -> Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def total(outputs: Any) -> Tensor:
    tensors = outputs.values() if isinstance(outputs, dict) else [outputs]
    return torch.stack([output.square().mean() for output in tensors]).sum()


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, BatchNormAct2d])
def test_both_kinds_of_norm_are_folded(norm: type[nn.Module]) -> None:
    plain = with_statistics(Net(norm)).eval()
    folded = copy.deepcopy(plain)
    assert fold_norms(folded) == 1
    torch.testing.assert_close(folded(images()), plain(images()))


def test_norm_is_kept_if_something_else_reads_its_input() -> None:
    assert fold_norms(Net(shortcut=True)) == 0


def test_norm_without_stored_statistics_is_kept() -> None:
    net = Net()
    net.norm = nn.BatchNorm2d(4, track_running_stats=False)
    assert fold_norms(net) == 0


@pytest.mark.parametrize("model_name", MODELS)
@pytest.mark.parametrize("norm", ["keep", "FrozenBN"])
def test_outputs_and_gradients_stay_the_same(model_name: str, norm: str) -> None:
    if norm == "FrozenBN" and model_name == "test_vit":
        pytest.skip("has no batch norm")
    plain = with_statistics(TimmBackbone(model_name, norm=norm)).double()
    for mode in (False, True):
        plain.train(mode)
        folded = copy.deepcopy(plain)
        assert bool(fold_norms(folded)) == (model_name != "test_vit")
        assert folded.training == mode
        for model in (plain, folded):
            model.zero_grad()
            total(model(images().double())).backward()
        for (name, a), b in zip(plain.named_parameters(), folded.parameters(), strict=True):
            assert (a.grad is None) == (b.grad is None), name
            if a.grad is not None:
                torch.testing.assert_close(b.grad, a.grad)
        for a, b in zip(plain.buffers(), folded.buffers(), strict=True):
            torch.testing.assert_close(b, a)


@pytest.mark.parametrize(
    ("model_name", "kept"), [("resnet50", 0), ("test_efficientnet", 0), ("resnetv2_18", 8)]
)
def test_all_norms_behind_a_convolution_are_folded(model_name: str, kept: int) -> None:
    backbone = TimmBackbone(model_name)
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert fold_norms(backbone) == len(norms) - kept


def test_names_and_values_of_the_state_stay_the_same() -> None:
    plain = with_statistics(TimmBackbone("test_resnet"))
    folded = copy.deepcopy(plain)
    fold_norms(folded)
    state = folded.state_dict()
    assert list(state) == list(plain.state_dict())
    assert all(torch.equal(state[name], value) for name, value in plain.state_dict().items())


def test_changed_weights_and_statistics_are_used() -> None:
    plain = Net().eval()
    folded = copy.deepcopy(plain)
    fold_norms(folded)
    with torch.inference_mode():
        folded(images())
    with_statistics(plain)
    folded.load_state_dict(plain.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(folded(images()), plain(images()))
    with torch.no_grad():
        for net in (plain, folded):
            net.conv.weight.mul_(2)
        torch.testing.assert_close(folded(images()), plain(images()))


def test_copy_uses_its_own_norm() -> None:
    net = Net().eval()
    fold_norms(net)
    twin = copy.deepcopy(net)
    with_statistics(twin)
    assert isinstance(twin.conv, FoldedConv2d)
    assert twin.conv.norms[0] is twin.norm
    assert not torch.equal(twin(images()), net(images()))


def test_frozen_norm_keeps_no_map_for_the_backward_pass() -> None:
    from d2timm.backbone.surgery import saved_bytes

    plain = TimmBackbone("test_resnet", norm="FrozenBN").train()
    folded = copy.deepcopy(plain)
    fold_norms(folded)
    x = torch.empty(2, 3, 256, 256, device="meta")
    sizes = []
    for model in (folded.to("meta"), plain.to("meta")):
        sizes.append(saved_bytes(functools.partial(model, x), model))
    assert sizes[0] < 0.9 * sizes[1]
