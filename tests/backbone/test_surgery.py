"""Norms and gradient checkpointing are applied, or refused in one line."""

from __future__ import annotations

import math
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from d2timm import ConfigError, TimmBackbone
from d2timm.backbone.meta import create_on_meta
from d2timm.backbone.surgery import saved_bytes

CANNOT_CHECKPOINT = ["crossvit_9_240", "hrnet_w18_small", "vgg11", "pit_ti_224"]


def backbone(model_name: str, **kwargs: Any) -> TimmBackbone:
    torch.manual_seed(0)
    return TimmBackbone(model_name, **kwargs)


def images_of(model: TimmBackbone) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, *(model.spec.input_spec.size or (64, 96)), generator=generator)


def gradients(model: TimmBackbone) -> dict[str, Tensor]:
    """Gradients of a training step by parameter name."""
    torch.manual_seed(2)  # for drop paths
    torch.stack([x.square().mean() for x in model.train()(images_of(model)).values()]).sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def kinds(model: nn.Module) -> set[str]:
    """Class names of the batch norms."""
    names = {type(module).__name__ for module in model.modules()}
    return {name for name in names if "BatchNorm" in name}


# Norms


@pytest.mark.parametrize("model_name", ["test_resnet", "test_efficientnet", "test_coatnet", "levit_128s"])
def test_synchronised_norms_have_the_same_parameters_and_outputs(model_name: str) -> None:
    """Also norms with a fused activation; only a group of processes shows the other statistics."""
    plain, synchronised = backbone(model_name), backbone(model_name, norm="SyncBN")
    assert kinds(plain.model)
    assert all("Sync" in kind for kind in kinds(synchronised.model))
    assert {k: x.shape for k, x in plain.state_dict().items()} == {
        k: x.shape for k, x in synchronised.state_dict().items()
    }
    synchronised.load_state_dict(plain.state_dict())
    images = images_of(plain)
    with torch.no_grad():
        expected, outputs = plain.eval()(images), synchronised.eval()(images)
    for name, x in outputs.items():
        torch.testing.assert_close(x, expected[name])


@pytest.mark.parametrize("norm", ["keep", "FrozenBN"])
def test_other_norms_do_not_change_the_structure(norm: str) -> None:
    with torch.device("meta"):
        plain, other = TimmBackbone("test_efficientnet"), TimmBackbone("test_efficientnet", norm=norm)
    assert [type(x) for x in plain.modules()] == [type(x) for x in other.modules()]


@pytest.mark.parametrize("norm", ["FrozenBN", "SyncBN"])
@pytest.mark.parametrize("model_name", ["test_vit", "test_convnext"])
def test_norm_of_a_model_without_batch_norms(model_name: str, norm: str) -> None:
    with pytest.raises(ConfigError) as error:
        TimmBackbone(model_name, norm=norm)
    text = str(error.value)
    assert all(word in text for word in (f"norm={norm}", model_name, "norm=keep"))
    assert "\n" not in text


@pytest.mark.parametrize("wrong", ["frozenbn", "BN", "", None, True])
def test_unknown_norms(wrong: Any) -> None:
    with pytest.raises(ConfigError) as error:
        TimmBackbone("test_resnet", norm=wrong)
    text = str(error.value)
    assert f"norm={wrong!r}" in text
    assert all(norm in text for norm in ("keep", "FrozenBN", "SyncBN"))


# Gradient checkpointing


@pytest.mark.parametrize("model_name", ["test_resnet", "test_vit", "test_convnext", "levit_128s"])
def test_checkpointing_saves_memory_and_does_not_change_gradients(model_name: str) -> None:
    plain, checkpointed = (backbone(model_name, grad_checkpointing=use) for use in (False, True))
    images = images_of(plain)
    before, after = (saved_bytes(lambda m=m: m.train()(images), m) for m in (plain, checkpointed))
    assert after < 0.9 * before

    plain, checkpointed = (backbone(model_name, grad_checkpointing=use) for use in (False, True))
    expected = gradients(plain)
    assert set(expected) == {name for name, _ in plain.named_parameters()}
    for name, gradient in gradients(checkpointed).items():
        torch.testing.assert_close(gradient, expected.pop(name), msg=name)
    assert not expected


@pytest.mark.parametrize("model_name", CANNOT_CHECKPOINT)
def test_model_without_checkpointing(model_name: str) -> None:
    """Some models of timm assert, others have the switch but ignore it."""
    with pytest.raises(ConfigError) as error, torch.device("meta"):
        TimmBackbone(model_name, grad_checkpointing=True)
    text = str(error.value)
    assert all(word in text for word in ("grad_checkpointing=True", model_name, "grad_checkpointing=False"))
    assert "\n" not in text


# saved_bytes


def test_bytes_are_those_of_activations_without_weights() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 5))
    x = torch.randn(4, 8)
    # the input of the first layer, and the output of the ReLU once, although two layers save it
    assert saved_bytes(lambda: model(x), model) == 4 * (4 * 8 + 4 * 16)
    model.requires_grad_(False)
    assert saved_bytes(lambda: model(x), model) == 0


def test_bytes_are_the_same_for_a_caller_without_gradients() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU())
    x = torch.randn(4, 8)
    expected = saved_bytes(lambda: model(x), model)
    with torch.no_grad():
        assert saved_bytes(lambda: model(x), model) == expected > 0


def bytes_on_meta(size: tuple[int, int]) -> int:
    model = create_on_meta("test_resnet").train()
    images = torch.empty(1, 3, *size, device="meta")
    return saved_bytes(lambda: model.forward_features(images), model)


def test_bytes_on_meta_match_a_real_run() -> None:
    model = timm.create_model("test_resnet").train()
    images = torch.randn(1, 3, 64, 96)
    expected = saved_bytes(lambda: model.forward_features(images), model)
    assert math.isclose(bytes_on_meta((64, 96)), expected, rel_tol=0.05)


def test_bytes_grow_with_the_image() -> None:
    assert bytes_on_meta((128, 192)) / bytes_on_meta((64, 64)) == pytest.approx(6, rel=0.05)
