"""Optimizers: parameter groups, layer-wise rates, gradient clipping, scaled learning rates."""

from __future__ import annotations

import functools
import io
import math
from typing import Any

import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import LazyConfig, instantiate
from timm.optim import get_optimizer_info, list_optimizers
from torch import Tensor, nn

from d2timm import ConfigError, TimmBackbone, get_config
from d2timm.config.build import resolve_dataset
from d2timm.config.overrides import apply_overrides
from d2timm.engine.optim import build_optimizer, create_optimizer, param_groups, scaled_rate
from d2timm.utils.files import resource_folder


@functools.cache
def decay_of(model_name: str) -> dict[str, float]:
    """Parameter name -> weight decay, for a backbone."""
    with torch.device("meta"):
        backbone = TimmBackbone(model_name)
    names = {parameter: name for name, parameter in backbone.named_parameters()}
    groups = param_groups(backbone, weight_decay=0.05)
    return {names[p]: group["weight_decay"] for group in groups for p in group["params"]}


def with_gradient(norm: float, shape: tuple[int, ...] = (3, 4)) -> nn.Parameter:
    """A parameter whose gradient has this norm."""
    parameter = nn.Parameter(torch.zeros(shape))
    parameter.grad = torch.full(shape, norm / parameter.numel() ** 0.5)
    return parameter


def together(*tensors: Tensor | None) -> float:
    """The joint norm of tensors."""
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
        ("vit_tiny_patch16_224", "levels.res2.scale.0.weight", False),  # a norm
        ("vit_tiny_patch16_224", "levels.res2.scale.1.weight", True),
        ("vit_tiny_patch16_224", "levels.res2.scale.1.bias", False),
        ("swin_tiny_patch4_window7_224", "model.layers.0.blocks.0.attn.relative_position_bias_table", False),
        ("resnet18d", "model.layer1.0.conv1.weight", True),
        ("resnet18d", "model.layer1.0.bn1.weight", False),
        ("resnet18d", "model.layer1.0.bn1.bias", False),
    ],
)
def test_norms_biases_and_exempt_parameters_do_not_decay(
    model_name: str, parameter: str, decayed: bool
) -> None:
    assert decay_of(model_name)[parameter] == (0.05 if decayed else 0.0)


@pytest.mark.parametrize("model_name", ["vit_tiny_patch16_224", "resnet18d"])
def test_every_parameter_is_in_one_group(model_name: str) -> None:
    with torch.device("meta"):
        backbone = TimmBackbone(model_name)
    grouped = [p for group in param_groups(backbone, 0.05) for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == set(backbone.parameters())


def test_exemptions_apply_inside_a_detector() -> None:
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


# Layers


def rates(model: nn.Module, **kwargs: float) -> dict[str, float]:
    """Parameter name -> learning rate."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = param_groups(model, 0.05, **kwargs)
    return {names[p]: group["lr"] for group in groups for p in group["params"]}


def on_meta(model_name: str, **kwargs: Any) -> TimmBackbone:
    with torch.device("meta"):
        return TimmBackbone(model_name, **kwargs)


def test_rates_decay_from_the_last_block_to_the_stem() -> None:
    """ViT-tiny has twelve blocks, and its stem is the thirteenth layer below the heads."""
    lr, d = 1e-3, 0.7
    detector = nn.ModuleDict(
        {"backbone": on_meta("vit_tiny_patch16_224"), "head": nn.Linear(8, 8, device="meta")}
    )
    rate = rates(detector, lr=lr, layer_decay=d)
    for stem in ("patch_embed.proj.weight", "patch_embed.proj.bias", "pos_embed", "cls_token"):
        assert rate[f"backbone.model.{stem}"] == pytest.approx(lr * d**13)
    for block in range(12):
        for name in ("attn.qkv.weight", "norm1.bias"):
            assert rate[f"backbone.model.blocks.{block}.{name}"] == pytest.approx(lr * d ** (12 - block))
    assert rate["backbone.model.blocks.11.mlp.fc2.weight"] == pytest.approx(lr * d)
    assert rate["head.weight"] == rate["head.bias"] == lr
    assert {n for name, n in rate.items() if name.startswith("backbone.levels.")} == {lr}


def test_rates_of_a_model_without_groups_decay_by_stage() -> None:
    rate = rates(on_meta("pit_ti_224"), lr=1.0, layer_decay=0.5)
    for i, prefix in enumerate(("transformers.2.", "transformers.1.", "transformers.0.")):
        assert {n for name, n in rate.items() if name.startswith(f"model.{prefix}")} == {0.5 ** (i + 1)}
    assert rate["model.patch_embed.conv.weight"] == 0.125
    assert rate["levels.res2.scale.1.weight"] == 1.0


@pytest.mark.parametrize("model_name", ["vit_tiny_patch16_224", "pit_ti_224", "test_coatnet"])
@pytest.mark.parametrize("layer_decay", [1.0, 0.7])
def test_every_parameter_is_in_one_group_with_any_layer_decay(model_name: str, layer_decay: float) -> None:
    backbone = on_meta(model_name, freeze_at=1)
    groups = param_groups(backbone, 0.05, layer_decay=layer_decay)
    grouped = [p for group in groups for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {p for p in backbone.parameters() if p.requires_grad}
    decay = {p: group["weight_decay"] for group in groups for p in group["params"]}
    plain = {p: group["weight_decay"] for group in param_groups(backbone, 0.05) for p in group["params"]}
    assert decay == plain, "layer decay does not change weight decay"
    assert all(group["params"] for group in groups)


def test_frozen_layers_do_not_change_other_rates() -> None:
    full, frozen = (rates(on_meta("test_vit", freeze_at=n), lr=1.0, layer_decay=0.5) for n in (0, 3))
    assert len(frozen) < len(full)
    assert frozen == {name: full[name] for name in frozen}


def test_backbone_has_a_rate_of_its_own() -> None:
    parts = {"backbone": on_meta("test_vit"), "head": nn.Linear(8, 8, device="meta")}
    rate = rates(nn.ModuleDict(parts), lr=1e-3, backbone_factor=1.5)
    assert rate["head.weight"] == 1e-3
    assert {n for name, n in rate.items() if name.startswith("backbone.model.")} == {1.5e-3}
    assert {n for name, n in rate.items() if name.startswith("backbone.levels.")} == {1e-3}
    both = rates(nn.ModuleDict(parts), lr=1e-3, backbone_factor=1.5, layer_decay=0.5)
    assert max(n for name, n in both.items() if name.startswith("backbone.model.")) == 0.75e-3


def test_groups_without_layer_decay_have_no_rate() -> None:
    assert all("lr" not in group for group in param_groups(on_meta("test_vit"), 0.05, lr=0.1))


def test_rates_reach_the_optimizer() -> None:
    groups = param_groups(on_meta("test_vit"), 0.05, lr=1e-3, layer_decay=0.5)
    optimizer = create_optimizer(groups, opt="adamw", lr=1e-3, weight_decay=0.05)
    rates = sorted({group["lr"] for group in optimizer.param_groups})
    assert rates == pytest.approx([1e-3 * 0.5**n for n in range(7, -1, -1)])


@pytest.mark.parametrize(
    ("num_layers", "expected"),
    [(None, [1, 2, 3, 4, 5, 6, 7]), (3, [1, 1, 2, 2, 3, 3, 4]), (1, [1] * 6 + [2])],
)
def test_layers_are_merged(num_layers: int | None, expected: list[int]) -> None:
    """``expected``: depth of the six blocks from the last to the first, and of the stem."""
    backbone = on_meta("test_vit")
    names = {parameter: name for name, parameter in backbone.named_parameters()}
    depth = {
        names[p]: round(math.log(group["lr"], 0.5))
        for group in param_groups(backbone, 0.05, lr=1.0, layer_decay=0.5, num_layers=num_layers)
        for p in group["params"]
    }
    blocks = [depth[f"model.blocks.{block}.mlp.fc1.weight"] for block in (5, 4, 3, 2, 1, 0)]
    assert [*blocks, depth["model.patch_embed.proj.weight"]] == expected


@pytest.mark.parametrize("num_layers", [0, -1])
def test_number_of_layers_out_of_range(num_layers: int) -> None:
    with pytest.raises(ConfigError, match=rf"optimizer\.params\.num_layers={num_layers}: .*>= 1"):
        param_groups(nn.Linear(2, 2), 0.05, num_layers=num_layers)


def test_biases_decay_optionally_but_norms_do_not() -> None:
    backbone = on_meta("test_vit")
    names = {parameter: name for name, parameter in backbone.named_parameters()}
    groups = param_groups(backbone, 0.05, decay_biases=True)
    decay = {names[p]: group["weight_decay"] for group in groups for p in group["params"]}
    assert set(decay) == set(names.values())
    assert decay["model.blocks.0.attn.qkv.bias"] == decay["model.blocks.0.attn.qkv.weight"] == 0.05
    without = {name for name, rate in decay.items() if rate == 0}
    exempt = {f"model.{name}" for name in backbone.model.no_weight_decay()}
    norms = {name for name in decay if "norm" in name or name in ("levels.res2.scale.0.weight",)}
    assert norms < without
    assert {"model.pos_embed"} <= without & exempt


@pytest.mark.parametrize("layer_decay", [0, -0.5, 1.1, 2, float("nan")])
def test_layer_decay_out_of_range(layer_decay: float) -> None:
    with pytest.raises(ConfigError) as error:
        param_groups(nn.Linear(2, 2), 0.05, layer_decay=layer_decay)
    message = str(error.value)
    assert message.startswith(f"optimizer.params.layer_decay={layer_decay}: ")
    assert "0 < layer_decay <= 1" in message
    assert "\n" not in message


def test_layer_decay_is_a_key_of_the_config() -> None:
    """It starts from the learning rate of the config."""
    cfg = get_config("mask_rcnn_timm.py")
    overrides = ["optimizer.params.layer_decay=0.7", "optimizer.lr=0.01", "data.name=shapes"]
    cfg = apply_overrides(cfg, overrides)
    resolve_dataset(cfg)
    model = nn.ModuleDict({"backbone": on_meta("test_vit"), "head": nn.Linear(8, 8, device="meta")})
    optimizer = build_optimizer(cfg, model)
    rate = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rate[model["head"].weight] == 0.01
    assert rate[model["backbone"].model.blocks[5].mlp.fc1.weight] == pytest.approx(0.01 * 0.7)
    assert rate[model["backbone"].model.pos_embed] == pytest.approx(0.01 * 0.7**7)


# Clipping


@pytest.mark.parametrize("opt", ["sgd", "adamw", "lamb", "lion", "lookahead_sgd", "lookahead_adamw"])
def test_gradients_are_clipped_jointly_in_the_step(opt: str) -> None:
    first, second = with_gradient(30.0), with_gradient(40.0, (5,))
    groups = [{"params": [first]}, {"params": [second], "weight_decay": 0.0}]
    optimizer = create_optimizer(groups, opt=opt, lr=0.1, clip_norm=2.0)
    assert together(first.grad, second.grad) == pytest.approx(50.0), "not clipped before the step"
    optimizer.step()
    assert together(first.grad, second.grad) == pytest.approx(2.0, rel=1e-4)
    assert together(first.grad) / together(second.grad) == pytest.approx(30 / 40)


def test_step_uses_clipped_gradients() -> None:
    parameter = with_gradient(50.0)
    groups = [{"params": [parameter], "weight_decay": 0.0}]
    create_optimizer(groups, opt="momentum", lr=0.1, clip_norm=2.0).step()
    assert together(parameter.data) == pytest.approx(0.1 * 2.0, rel=1e-4)


@pytest.mark.parametrize(("clip_norm", "norm"), [(2.0, 0.5), (None, 50.0)])
def test_gradients_below_the_limit_or_without_a_limit_are_unchanged(
    clip_norm: float | None, norm: float
) -> None:
    parameter = with_gradient(norm)
    create_optimizer([{"params": [parameter]}], opt="sgd", clip_norm=clip_norm).step()
    assert together(parameter.grad) == pytest.approx(norm)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("slope", "norm"), [(0.5, 1.0), (5.0, 2.0)])
def test_gradients_are_clipped_as_if_they_were_unscaled(fused: bool, slope: float, norm: float) -> None:
    parameter = nn.Parameter(torch.zeros(4))
    groups = [{"params": [parameter], "weight_decay": 0.0}]
    optimizer = create_optimizer(groups, opt="momentum", lr=1.0, clip_norm=2.0, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale((slope * parameter).sum()).backward()
    scaler.step(optimizer)
    assert together(parameter.data) == pytest.approx(norm, rel=1e-4)


# Fused kernels


@pytest.mark.parametrize(
    ("opt", "has"), [("adamw", True), ("sgd", True), ("lookahead_adamw", True), ("lion", False)]
)
def test_optimizers_are_fused_where_they_can_be(opt: str, has: bool) -> None:
    def build(fused: bool | None) -> Any:
        optimizer: Any = create_optimizer([{"params": [with_gradient(1.0)]}], opt=opt, fused=fused)
        return getattr(optimizer, "_base_optimizer", optimizer).defaults.get("fused")

    assert bool(build(None)) == has
    assert not build(False)
    if not has:
        with pytest.raises(ConfigError, match="fused"):
            build(True)


@pytest.mark.parametrize("opt", ["adamw", "sgd", "momentum"])
def test_fused_steps_are_the_same(opt: str) -> None:
    results = []
    for fused in (True, False):
        parameter = with_gradient(3.0)
        optimizer = create_optimizer([{"params": [parameter]}], opt=opt, lr=0.1, fused=fused)
        for _ in range(3):
            optimizer.step()
        results.append(parameter.detach())
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("earlier", [None, True])
def test_run_continues_with_other_kernels(earlier: bool | None) -> None:
    from d2timm.engine.optimizer_options import apply_changed_options, options_of

    first, second = with_gradient(3.0), with_gradient(3.0)
    old = create_optimizer([{"params": [first]}], opt="adamw", lr=0.1, fused=bool(earlier))
    new = create_optimizer([{"params": [second]}], opt="adamw", lr=0.1, fused=not earlier)
    given = options_of(old), options_of(new)
    old.step()
    second.data.copy_(first.data)
    new.load_state_dict(old.state_dict())
    apply_changed_options(new, *given)
    assert bool(new.param_groups[0]["fused"]) == (not earlier)
    old.step()
    new.step()
    torch.testing.assert_close(second, first)


# By name


class Tiny(nn.Module):
    """A convolution, a norm and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.norm, self.linear = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(self.convolution(x)).mean((2, 3)))


@pytest.mark.parametrize("opt", list_optimizers())
def test_recipe_runs_with_any_optimizer(opt: str) -> None:
    """It takes steps and its state can be saved and loaded, or an error says what is missing."""
    cfg = apply_overrides(get_config("mask_rcnn_timm.py"), [f"optimizer.opt={opt}", "data.name=shapes"])
    resolve_dataset(cfg)
    model = Tiny()
    info = get_optimizer_info(opt)
    if info.second_order or isinstance(info.opt_class, str):  # needs Hessians or another package
        with pytest.raises(
            ConfigError, match=rf"optimizer\.opt={opt}.*(second derivatives|required|installed)"
        ):
            build_optimizer(cfg, model)
        return
    optimizer = build_optimizer(cfg, model)
    before = [p.detach().clone() for p in model.parameters()]
    for seed in range(2):
        images = torch.randn(3, 2, 5, 5, generator=torch.Generator().manual_seed(seed))
        model(images).square().mean().backward()
        optimizer.step()
    changed = [not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)]
    assert any(changed)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    loaded = build_optimizer(cfg, model)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    assert loaded.state_dict()["state"].keys() == optimizer.state_dict()["state"].keys()


def test_sgd_equals_that_of_detectron2() -> None:
    cfg = get_config("mask_rcnn_timm.py")
    cfg.optimizer = LazyConfig.load(
        str(resource_folder("lazy_configs") / "common/optimizer/sgd.py"), "optimizer"
    )
    cfg.data.name = "shapes"
    optimizer = build_optimizer(cfg, Tiny())
    node = model_zoo.get_config("common/optim.py").SGD
    node.params.model = Tiny()
    reference = instantiate(node)
    assert type(optimizer) is type(reference)
    names = ["momentum", "nesterov", "weight_decay", "dampening"]
    assert [optimizer.defaults[name] for name in names] == [reference.defaults[name] for name in names]
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 1e-4}


@pytest.mark.parametrize(
    ("opt", "option"),
    [
        ("sgd", {"betas": [0.9, 0.99]}),
        ("adamw", {"momentum": 0.9}),
        ("lion", {"eps": 1e-6}),
        ("lookahead_sgd", {"eps": 1e-6}),
        ("adamw", {"fallback_list": ["head"]}),
    ],
)
def test_unknown_options_are_rejected(opt: str, option: dict[str, Any]) -> None:
    """timm ignores some of these silently."""
    ((key, value),) = option.items()
    with pytest.raises(ConfigError) as error:
        create_optimizer([{"params": [with_gradient(1.0)]}], opt=opt, **option)
    message = str(error.value)
    assert message.startswith(f"optimizer.{key}={tuple(value) if isinstance(value, list) else value}: ")
    assert f"{opt} takes " in message
    assert "weight_decay" in message
    create_optimizer([{"params": [with_gradient(1.0)]}], opt=opt, **dict.fromkeys(option))


def test_invalid_values_of_options_are_rejected() -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.opt=adamw: Invalid beta parameter"):
        create_optimizer([{"params": [with_gradient(1.0)]}], betas=[2.0, 0.9])


# Scaled learning rates


@pytest.mark.parametrize(
    ("overrides", "factor", "formula"),
    [
        ([], 1.0, None),
        (["train.reference_batch_size=8"], 1 / 2, "0.01 x sqrt(2/8) = 0.005"),
        (["train.reference_batch_size=32", "train.accumulate=4"], 1 / 2, "0.01 x sqrt(8/32) = 0.005"),
        (["train.reference_batch_size=16", "optimizer.opt=sgd"], 2 / 16, "0.01 x 2/16 = 0.00125"),
        (["train.reference_batch_size=1", "optimizer.opt=sgd"], 2.0, "0.01 x 2/1 = 0.02"),
        (["train.accumulate=4"], 1.0, None),
    ],
)
def test_learning_rate_is_scaled_to_the_images_per_step(
    overrides: list[str], factor: float, formula: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    overrides = ["optimizer.lr=0.01", "optimizer.params.layer_decay=0.5", "data.name=shapes", *overrides]
    cfg = apply_overrides(get_config("mask_rcnn_timm.py"), overrides)
    model = nn.ModuleDict({"backbone": on_meta("test_vit"), "head": nn.Linear(8, 8, device="meta")})
    with caplog.at_level("INFO", "d2timm.engine.optim"):
        optimizer = build_optimizer(cfg, model)
    rate = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rate[model["head"].weight] == pytest.approx(0.01 * factor)
    assert rate[model["backbone"].model.pos_embed] == pytest.approx(0.01 * factor * 0.5**7)
    assert cfg.optimizer.lr == 0.01, "the config is not changed"
    assert len(caplog.messages) == (1 if formula else 0)
    assert all(formula in message for message in caplog.messages if formula)


@pytest.mark.parametrize(
    ("opt", "adaptive"),
    [
        ("sgd", False),
        ("nesterov", False),
        ("lookahead_sgd", False),
        ("lars", False),
        ("adamw", True),
        ("lamb", True),
        ("rmsprop", True),
        ("adagrad", True),
        ("adafactorbv", True),
        ("muon", True),
        (None, False),  # an optimizer of another library
    ],
)
def test_rate_is_proportional_to_the_images_or_their_root(opt: str | None, adaptive: bool) -> None:
    rate, formula = scaled_rate(0.1, opt, images=4, reference=64)
    assert rate == pytest.approx(0.1 / 4 if adaptive else 0.1 / 16)
    assert formula.startswith("0.1 x sqrt(4/64) = " if adaptive else "0.1 x 4/64 = ")
    assert scaled_rate(0.1, opt, images=4, reference=None) == (0.1, "0.1")


def test_rate_of_an_unknown_optimizer() -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.opt=adamv .*did you mean"):
        scaled_rate(0.1, "adamv", images=4, reference=64)


@pytest.mark.parametrize(
    ("opt", "kind"), [("adamw", "AdamW"), ("sgd", "SGD"), ("lamb", "Lamb"), ("muon", "Muon")]
)
def test_name_selects_the_timm_optimizer(opt: str, kind: str) -> None:
    optimizer = create_optimizer([{"params": [with_gradient(1.0)]}], opt=opt, lr=0.02, weight_decay=0.03)
    assert type(optimizer).__name__ == kind
    assert optimizer.param_groups[0]["lr"] == 0.02
    assert optimizer.param_groups[0]["weight_decay"] == 0.03


def test_options_reach_the_optimizer_and_lists_become_tuples() -> None:
    optimizer = create_optimizer([{"params": [with_gradient(1.0)]}], betas=[0.8, 0.9], eps=1e-6)
    assert optimizer.defaults["betas"] == (0.8, 0.9)
    assert optimizer.defaults["eps"] == 1e-6


def test_groups_keep_their_weight_decay() -> None:
    with torch.device("meta"):
        groups = param_groups(TimmBackbone("test_resnet"), weight_decay=0.05)
    optimizer = create_optimizer(groups, opt="adamw", weight_decay=0.5)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.05}


def test_unknown_optimizer_suggests_similar_names() -> None:
    with pytest.raises(ConfigError, match=r"adamww.*adamw"):
        create_optimizer([{"params": [with_gradient(1.0)]}], opt="adamww")
