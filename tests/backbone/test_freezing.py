"""What is frozen, by stage, by name or as batch norms, keeps its weights and stays in eval mode."""

from __future__ import annotations

import pytest
import torch
from omegaconf import OmegaConf
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


# Stages


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


def test_model_without_groups_is_frozen_by_its_features() -> None:
    with torch.device("meta"):
        model = TimmBackbone("pit_ti_224", freeze_at=2)
    stages = ["patch_embed.", "transformers.0.", "transformers.1.", "transformers.2."]
    assert stages_frozen(model, stages) == [True, True, True, False]


@pytest.mark.parametrize("wrong", [-1, "2", 1.5, None])
def test_stages_that_are_no_number(wrong: object) -> None:
    with pytest.raises(ConfigError, match="freeze_at") as error, torch.device("meta"):
        backbone(freeze_at=wrong)
    assert "\n" not in str(error.value)


# Names


@pytest.mark.parametrize(
    ("patterns", "frozen"),
    [
        (["conv1.*"], ("conv1.",)),
        (["conv1.*", "layer2.*"], ("conv1.", "layer2.")),
        (["layer[12].*"], ("layer1.", "layer2.")),
        (["layer1.0.conv1.weight"], ("layer1.0.conv1.weight",)),
        (["*"], ("",)),
        ((), ()),
    ],
)
def test_parameters_are_frozen_by_name(patterns: list[str], frozen: tuple[str, ...]) -> None:
    model = backbone(freeze=patterns)
    for name, parameter in model.model.named_parameters():
        assert parameter.requires_grad != name.startswith(frozen), name
    assert all(p.requires_grad for p in model.levels.parameters())


def test_patterns_may_be_those_of_a_config() -> None:
    model = backbone(freeze=OmegaConf.create(["conv1.*"]))
    assert stages_frozen(model, ["conv1", "layer1"]) == [True, False]


def test_stages_and_names_add_up() -> None:
    model = backbone(freeze_at=1, freeze=["layer2.*"])
    stages = ["conv1", "layer1", "layer2", "layer3"]
    assert stages_frozen(model, stages) == [True, False, True, False]


def test_only_what_is_frozen_whole_is_in_eval_mode() -> None:
    model = backbone(freeze=["layer2.*", "layer3.0.conv1.weight"]).train()
    assert not any(module.training for module in model.model.layer2.modules())
    assert model.model.layer3.training
    assert model.model.layer3[0].bn1.training
    assert not model.model.layer3[0].conv1.training


@pytest.mark.parametrize(
    ("patterns", "wrong"),
    [
        (["conv1.*", "layer9.*"], "layer9.*"),
        (["Conv1.*"], "Conv1.*"),  # the case counts
        (["model.conv1.*"], "model.conv1.*"),
        (["fc.*"], "fc.*"),  # gone, as no feature depends on it
    ],
)
def test_pattern_that_matches_nothing(patterns: list[str], wrong: str) -> None:
    with pytest.raises(ConfigError) as error, torch.device("meta"):
        backbone(freeze=patterns)
    text = str(error.value)
    assert text.startswith(f"freeze={patterns}: ")
    assert repr(wrong) in text
    assert "\n" not in text


def test_name_that_is_misspelt_is_told_the_near_ones() -> None:
    with pytest.raises(ConfigError, match=r"did you mean .*layer1\.0\.conv1\.weight"):
        backbone(freeze=["layer1.0.convv1.weight"])


@pytest.mark.parametrize("wrong", ["conv1.*", [3], 3])
def test_patterns_that_are_none(wrong: object) -> None:
    with pytest.raises(ConfigError) as error, torch.device("meta"):
        backbone(freeze=wrong)
    assert str(error.value).startswith(f"freeze={wrong}: ")
    assert "\n" not in str(error.value)


# Batch norms


@pytest.mark.parametrize("model_name", ["test_resnet", "test_efficientnet", "test_coatnet", "levit_128s"])
def test_frozen_norms_keep_their_statistics_scale_and_shift(model_name: str) -> None:
    """Those of one dimension, as in levit, and those with an activation, as in efficientnet, too."""
    model = backbone(model_name, norm="FrozenBN").train()
    norms = [module for module in model.model.modules() if "BatchNorm" in type(module).__name__]
    assert norms
    before = [x.clone() for norm in norms for x in norm.state_dict().values()]
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    torch.stack([x.square().mean() for x in model(torch.randn(*IMAGES)).values()]).sum().backward()
    optimizer.step()
    after = [x for norm in norms for x in norm.state_dict().values()]
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))
    assert not any(norm.training or any(p.requires_grad for p in norm.parameters()) for norm in norms)
    frozen = {p for norm in norms for p in norm.parameters()}
    assert set(model.parameters()) - frozen == set(parameters)
    assert all(p.grad is not None for p in parameters)


def test_frozen_norms_stay_so_inside_a_detector() -> None:
    model = backbone(norm="FrozenBN")
    detector = nn.ModuleDict({"backbone": model, "head": nn.BatchNorm2d(4)}).train().eval().train()
    assert detector["head"].training
    assert model.model.layer4.training
    assert not model.model.layer4[0].bn1.training


def test_norms_train_unless_they_are_frozen() -> None:
    model = backbone("levit_128s").train()
    name = next(name for name, _ in model.model.named_buffers() if name.endswith("running_mean"))
    before = model.model.get_buffer(name).clone()
    model(torch.randn(*IMAGES))
    assert not torch.equal(model.model.get_buffer(name), before)
