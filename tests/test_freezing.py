"""freeze_at: frozen stages keep their weights and stay in eval mode, the others train."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from d2timm import ConfigError, TimmBackbone

IMAGES = (2, 3, 64, 96)


def backbone(model_name: str = "test_resnet", **kwargs: object) -> TimmBackbone:
    torch.manual_seed(0)
    return TimmBackbone(model_name, **kwargs)  # type: ignore[arg-type]


def stages_frozen(model: TimmBackbone, stages: list[str]) -> list[bool | None]:
    """Of each stage: all parameters frozen, none, or some (None)."""
    told: list[bool | None] = []
    for prefix in stages:
        frozen = {not p.requires_grad for n, p in model.model.named_parameters() if n.startswith(prefix)}
        told.append(frozen.pop() if len(frozen) == 1 else None)
    return told


@pytest.mark.parametrize("freeze_at", [0, 1, 2, 3, 4, 5])
def test_stages_are_frozen_from_the_stem_on(freeze_at: int) -> None:
    model = backbone(freeze_at=freeze_at)
    stages = ["conv1", "layer1", "layer2", "layer3", "layer4"]
    assert stages_frozen(model, stages) == [i < freeze_at for i in range(5)]
    assert stages_frozen(model, ["bn1"]) == [freeze_at > 0]
    assert all(p.requires_grad for p in model.levels.parameters())


@pytest.mark.parametrize(
    ("model_name", "stages"),
    [
        ("test_convnext", ["stem", "stages.0.", "stages.1."]),
        ("test_efficientnet", ["conv_stem", "blocks.0.", "blocks.1."]),
        ("test_vit", ["patch_embed", "blocks.0.", "blocks.1."]),
        ("test_byobnet", ["stem", "stages.0.", "stages.1."]),
    ],
)
def test_stages_of_other_families(model_name: str, stages: list[str]) -> None:
    assert stages_frozen(backbone(model_name, freeze_at=2), stages) == [True, True, False]


def test_frozen_stages_stay_in_eval_mode() -> None:
    model = backbone(freeze_at=2)
    for _ in range(2):
        assert model.train() is model
        assert model.training
        assert not any(module.training for module in model.model.layer1.modules())
        assert not model.model.bn1.training
        assert all(module.training for module in model.model.layer2.modules())
        model.eval()
        assert not any(module.training for module in model.modules())


def test_frozen_stages_stay_in_eval_mode_inside_a_detector() -> None:
    model = backbone(freeze_at=2)
    detector = nn.ModuleDict({"backbone": model}).train()
    assert detector.training
    assert not any(module.training for module in model.model.layer1.modules())
    assert all(module.training for module in model.model.layer4.modules())


def test_an_optimizer_step_changes_the_other_stages_only() -> None:
    model = backbone(freeze_at=2).train()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    torch.stack([x.square().mean() for x in model(torch.randn(*IMAGES)).values()]).sum().backward()
    optimizer.step()
    changed = {name for name, x in model.state_dict().items() if not torch.equal(x, before[name])}
    frozen = ("model.conv1.", "model.bn1.", "model.layer1.")
    assert not [name for name in changed if name.startswith(frozen)]  # running statistics included
    for name in ("model.layer2.0.bn2.bias", "model.layer4.0.bn1.running_mean"):
        assert name in changed


def test_every_parameter_that_is_not_frozen_gets_a_gradient() -> None:
    model = backbone(freeze_at=3).train()
    torch.stack([x.square().mean() for x in model(torch.randn(*IMAGES)).values()]).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


def test_all_frozen_is_all_in_eval_mode() -> None:
    model = backbone(freeze_at=99, remaps=("level",), strides=(32,)).train()
    assert not any(p.requires_grad for p in model.model.parameters())
    assert not any(module.training for module in model.model.modules())


def test_nothing_frozen_trains_everything() -> None:
    model = backbone().train()
    assert all(p.requires_grad for p in model.parameters())
    assert all(module.training for module in model.modules())


def test_a_model_without_stages() -> None:
    with pytest.raises(ConfigError, match="freeze_at=1") as error, torch.device("meta"):
        TimmBackbone("pit_ti_224", freeze_at=1)
    assert "use 0" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", [-1, "2", 1.5])
def test_stages_that_are_no_number(wrong: object) -> None:
    with pytest.raises(ConfigError, match="freeze_at") as error, torch.device("meta"):
        backbone(freeze_at=wrong)
    assert "\n" not in str(error.value)
