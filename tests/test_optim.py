"""Optimizers: decay where it belongs, gradients clipped when the step is taken."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor, nn

from d2timm import ConfigError, TimmBackbone
from d2timm.optim import build_optimizer, param_groups


@functools.cache
def decay_of(model_name: str) -> dict[str, float]:
    """Weight decay of each parameter of a backbone, by name."""
    with torch.device("meta"):
        backbone = TimmBackbone(model_name)
    names = {parameter: name for name, parameter in backbone.named_parameters()}
    groups = param_groups(backbone, weight_decay=0.05)
    return {names[p]: group["weight_decay"] for group in groups for p in group["params"]}


def with_gradient(norm: float, shape: tuple[int, ...] = (3, 4)) -> nn.Parameter:
    """A parameter whose gradient has a norm."""
    parameter = nn.Parameter(torch.zeros(shape))
    parameter.grad = torch.full(shape, norm / parameter.numel() ** 0.5)
    return parameter


def together(*tensors: Tensor | None) -> float:
    """The norm of tensors together."""
    return torch.cat([x.flatten() for x in tensors if x is not None]).norm().item()


# Groups


@pytest.mark.parametrize(
    ("model_name", "parameter", "decayed"),
    [
        ("vit_tiny_patch16_224", "model.pos_embed", False),
        ("vit_tiny_patch16_224", "model.cls_token", False),
        ("vit_tiny_patch16_224", "model.blocks.0.norm1.weight", False),
        ("vit_tiny_patch16_224", "model.blocks.0.attn.qkv.bias", False),
        ("vit_tiny_patch16_224", "model.blocks.0.attn.qkv.weight", True),
        ("vit_tiny_patch16_224", "model.patch_embed.proj.weight", True),
        ("vit_tiny_patch16_224", "levels.res2.scale.0.weight", True),
        ("vit_tiny_patch16_224", "levels.res2.scale.0.bias", False),
        ("vit_tiny_patch16_224", "levels.res2.scale.1.weight", False),
        ("swin_tiny_patch4_window7_224", "model.layers.0.blocks.0.attn.relative_position_bias_table", False),
        ("resnet18d", "model.layer1.0.conv1.weight", True),
        ("resnet18d", "model.layer1.0.bn1.weight", False),
        ("resnet18d", "model.layer1.0.bn1.bias", False),
    ],
)
def test_decay_is_where_it_belongs(model_name: str, parameter: str, decayed: bool) -> None:
    assert decay_of(model_name)[parameter] == (0.05 if decayed else 0.0)


@pytest.mark.parametrize("model_name", ["vit_tiny_patch16_224", "resnet18d"])
def test_every_parameter_is_in_one_group(model_name: str) -> None:
    with torch.device("meta"):
        backbone = TimmBackbone(model_name)
    grouped = [p for group in param_groups(backbone, 0.05) for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == set(backbone.parameters())


def test_exemptions_are_found_inside_a_detector() -> None:
    with torch.device("meta"):
        backbone = TimmBackbone("vit_tiny_patch16_224")
        detector = nn.ModuleDict({"backbone": backbone, "head": nn.Linear(8, 8)})
    groups = param_groups(detector, weight_decay=0.05)
    decay = {p: group["weight_decay"] for group in groups for p in group["params"]}
    assert decay[backbone.model.pos_embed] == 0.0
    assert decay[detector["head"].weight] == 0.05


def test_frozen_parameters_are_left_out() -> None:
    with torch.device("meta"):
        backbone = TimmBackbone("test_resnet", freeze_at=2)
    grouped = {p for group in param_groups(backbone, 0.05) for p in group["params"]}
    frozen = {p for p in backbone.parameters() if not p.requires_grad}
    assert frozen
    assert not grouped & frozen
    assert grouped == set(backbone.parameters()) - frozen


# Clipping


@pytest.mark.parametrize("opt", ["sgd", "adamw", "lamb", "lion", "lookahead_sgd", "lookahead_adamw"])
def test_gradients_are_clipped_together_at_the_step(opt: str) -> None:
    first, second = with_gradient(30.0), with_gradient(40.0, (5,))
    groups = [{"params": [first]}, {"params": [second], "weight_decay": 0.0}]
    optimizer = build_optimizer(groups, opt=opt, lr=0.1, clip_norm=2.0)
    assert together(first.grad, second.grad) == pytest.approx(50.0)  # not before
    optimizer.step()
    assert together(first.grad, second.grad) == pytest.approx(2.0, rel=1e-4)
    assert together(first.grad) / together(second.grad) == pytest.approx(30 / 40)


def test_step_is_taken_with_clipped_gradients() -> None:
    parameter = with_gradient(50.0)
    groups = [{"params": [parameter], "weight_decay": 0.0}]
    build_optimizer(groups, opt="momentum", lr=0.1, clip_norm=2.0).step()
    assert together(parameter.data) == pytest.approx(0.1 * 2.0, rel=1e-4)


@pytest.mark.parametrize(("clip_norm", "norm"), [(2.0, 0.5), (None, 50.0)])
def test_gradients_below_the_limit_or_without_one_stay(clip_norm: float | None, norm: float) -> None:
    parameter = with_gradient(norm)
    build_optimizer([{"params": [parameter]}], opt="sgd", clip_norm=clip_norm).step()
    assert together(parameter.grad) == pytest.approx(norm)


def test_gradients_are_clipped_after_a_scaler_has_unscaled_them() -> None:
    parameter = nn.Parameter(torch.zeros(4))
    groups = [{"params": [parameter], "weight_decay": 0.0}]
    optimizer = build_optimizer(groups, opt="momentum", lr=1.0, clip_norm=2.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale((0.5 * parameter).sum()).backward()  # a gradient of norm 1, which needs no clipping
    scaler.step(optimizer)
    assert together(parameter.data) == pytest.approx(1.0)
    assert together(parameter.grad) == pytest.approx(1.0)


# By name


@pytest.mark.parametrize(
    ("opt", "kind"), [("adamw", "AdamW"), ("sgd", "SGD"), ("lamb", "Lamb"), ("muon", "Muon")]
)
def test_optimizer_is_timms_for_the_name(opt: str, kind: str) -> None:
    optimizer = build_optimizer([{"params": [with_gradient(1.0)]}], opt=opt, lr=0.02, weight_decay=0.03)
    assert type(optimizer).__name__ == kind
    assert optimizer.param_groups[0]["lr"] == 0.02
    assert optimizer.param_groups[0]["weight_decay"] == 0.03


def test_options_reach_the_optimizer_and_lists_become_tuples() -> None:
    optimizer = build_optimizer([{"params": [with_gradient(1.0)]}], betas=[0.8, 0.9], eps=1e-6)
    assert optimizer.defaults["betas"] == (0.8, 0.9)
    assert optimizer.defaults["eps"] == 1e-6


def test_groups_keep_their_own_decay() -> None:
    with torch.device("meta"):
        groups = param_groups(TimmBackbone("test_resnet"), weight_decay=0.05)
    optimizer = build_optimizer(groups, opt="adamw", weight_decay=0.5)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.05}


def test_unknown_optimizer_gives_near_names() -> None:
    with pytest.raises(ConfigError, match=r"adamww.*adamw"):
        build_optimizer([{"params": [with_gradient(1.0)]}], opt="adamww")
