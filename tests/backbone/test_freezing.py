"""Parameters are numbered by depth; frozen parts keep their weights and stay in eval mode."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import pytest
import timm
import torch
from omegaconf import OmegaConf
from torch import nn

from d2timm import ConfigError, TimmBackbone
from d2timm.backbone.freezing import stage_of_parameters
from d2timm.backbone.probing import probe
from d2timm.backbone.pruning import prune
from d2timm.backbone.spec import extract

IMAGES = (2, 3, 64, 96)

#: Pyramids, plain transformers, a multi-size model, and models without timm's group_matcher
MODELS = ["test_resnet", "test_convnext", "test_vit", "test_coatnet", "crossvit_9_240", "pit_ti_224"]


def backbone(model_name: str = "test_resnet", **kwargs: object) -> TimmBackbone:
    torch.manual_seed(0)
    return TimmBackbone(model_name, **kwargs)  # type: ignore[arg-type]


def stages_frozen(model: TimmBackbone, stages: list[str]) -> list[bool | None]:
    """For each stage: True if all its parameters are frozen, False if none is, None if some are."""
    result: list[bool | None] = []
    for prefix in stages:
        frozen = {not p.requires_grad for n, p in model.model.named_parameters() if n.startswith(prefix)}
        result.append(frozen.pop() if len(frozen) == 1 else None)
    return result


# freeze_at


@pytest.mark.parametrize("freeze_at", [0, 1, 2, 3, 4, 5])
def test_first_stages_are_frozen(freeze_at: int) -> None:
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


def test_optimizer_step_changes_other_stages_only() -> None:
    model = backbone(freeze_at=2).train()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    torch.stack([x.square().mean() for x in model(torch.randn(*IMAGES)).values()]).sum().backward()
    optimizer.step()
    changed = {name for name, x in model.state_dict().items() if not torch.equal(x, before[name])}
    frozen = ("model.conv1.", "model.bn1.", "model.layer1.")
    assert not [name for name in changed if name.startswith(frozen)]  # including running statistics
    for name in ("model.layer2.0.bn2.bias", "model.layer4.0.bn1.running_mean"):
        assert name in changed


def test_every_parameter_that_is_not_frozen_has_a_gradient() -> None:
    model = backbone(freeze_at=3).train()
    torch.stack([x.square().mean() for x in model(torch.randn(*IMAGES)).values()]).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


def test_completely_frozen_model_is_in_eval_mode() -> None:
    model = backbone(freeze_at=99, remaps=("level",), strides=(32,)).train()
    assert not any(p.requires_grad for p in model.model.parameters())
    assert not any(module.training for module in model.model.modules())


def test_nothing_is_frozen_by_default() -> None:
    model = backbone().train()
    assert all(p.requires_grad for p in model.parameters())
    assert all(module.training for module in model.modules())


def test_model_without_groups_is_frozen_by_features() -> None:
    with torch.device("meta"):
        model = TimmBackbone("pit_ti_224", freeze_at=2)
    stages = ["patch_embed.", "transformers.0.", "transformers.1.", "transformers.2."]
    assert stages_frozen(model, stages) == [True, True, True, False]


@pytest.mark.parametrize("wrong", [-1, "2", 1.5, None])
def test_invalid_freeze_at(wrong: object) -> None:
    with pytest.raises(ConfigError, match="freeze_at") as error, torch.device("meta"):
        backbone(freeze_at=wrong)
    assert "\n" not in str(error.value)


# freeze


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


def test_patterns_may_be_a_list_of_a_config() -> None:
    model = backbone(freeze=OmegaConf.create(["conv1.*"]))
    assert stages_frozen(model, ["conv1", "layer1"]) == [True, False]


def test_freeze_at_and_freeze_combine() -> None:
    model = backbone(freeze_at=1, freeze=["layer2.*"])
    stages = ["conv1", "layer1", "layer2", "layer3"]
    assert stages_frozen(model, stages) == [True, False, True, False]


def test_only_completely_frozen_modules_are_in_eval_mode() -> None:
    model = backbone(freeze=["layer2.*", "layer3.0.conv1.weight"]).train()
    assert not any(module.training for module in model.model.layer2.modules())
    assert model.model.layer3.training
    assert model.model.layer3[0].bn1.training
    assert not model.model.layer3[0].conv1.training


@pytest.mark.parametrize(
    ("patterns", "wrong"),
    [
        (["conv1.*", "layer9.*"], "layer9.*"),
        (["Conv1.*"], "Conv1.*"),  # case matters
        (["model.conv1.*"], "model.conv1.*"),
        (["fc.*"], "fc.*"),  # removed, because no feature depends on it
    ],
)
def test_pattern_that_matches_nothing(patterns: list[str], wrong: str) -> None:
    with pytest.raises(ConfigError) as error, torch.device("meta"):
        backbone(freeze=patterns)
    text = str(error.value)
    assert f"freeze={patterns}" in text
    assert repr(wrong) in text
    assert "\n" not in text


def test_misspelt_pattern_suggests_similar_names() -> None:
    with pytest.raises(ConfigError, match=r"did you mean .*layer1\.0\.conv1\.weight"):
        backbone(freeze=["layer1.0.convv1.weight"])


@pytest.mark.parametrize("wrong", ["conv1.*", [3], 3])
def test_invalid_patterns(wrong: object) -> None:
    with pytest.raises(ConfigError) as error, torch.device("meta"):
        backbone(freeze=wrong)
    assert f"freeze={wrong}" in str(error.value)
    assert "\n" not in str(error.value)


# norm=FrozenBN


@pytest.mark.parametrize("model_name", ["test_resnet", "test_efficientnet", "test_coatnet", "levit_128s"])
def test_frozen_norms_keep_their_statistics_scale_and_shift(model_name: str) -> None:
    """Also norms of one dimension, as in levit, and with a fused activation, as in efficientnet."""
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


def test_frozen_norms_stay_in_eval_mode_inside_a_detector() -> None:
    model = backbone(norm="FrozenBN")
    detector = nn.ModuleDict({"backbone": model, "head": nn.BatchNorm2d(4)}).train().eval().train()
    assert detector["head"].training
    assert model.model.layer4.training
    assert not model.model.layer4[0].bn1.training


def test_norms_train_by_default() -> None:
    model = backbone("levit_128s").train()
    name = next(name for name, _ in model.model.named_buffers() if name.endswith("running_mean"))
    before = model.model.get_buffer(name).clone()
    model(torch.randn(*IMAGES))
    assert not torch.equal(model.model.get_buffer(name), before)


# stage_of_parameters


@functools.cache
def pruned(model_name: str, *indices: int) -> tuple[Any, Any, tuple[int, ...]]:
    """A pruned model on ``meta``, its spec and the indices of its features."""
    spec = probe(model_name)
    indices = indices or tuple(range(len(spec.features)))
    model = spec.create_on_meta()
    prune(model, spec, indices)
    return model, spec, indices


def number(model_name: str, coarse: bool, *indices: int) -> dict[str, int]:
    return stage_of_parameters(*pruned(model_name, *indices), coarse)


def numbers_of(stage: dict[str, int], prefix: str) -> set[int]:
    """The numbers of the parameters whose names start with a prefix."""
    numbers = {n for name, n in stage.items() if name.startswith(prefix)}
    assert numbers, f"no parameter starts with {prefix}"
    return numbers


@pytest.mark.parametrize("coarse", [True, False], ids=["stages", "layers"])
@pytest.mark.parametrize("model_name", MODELS)
def test_every_parameter_has_a_number_without_gaps(model_name: str, coarse: bool) -> None:
    stage = number(model_name, coarse)
    model, _, _ = pruned(model_name)
    assert set(stage) == {name for name, _ in model.named_parameters()}
    assert set(stage.values()) == set(range(max(stage.values()) + 1))
    assert max(stage.values()) >= 2


@pytest.mark.parametrize(
    ("model_name", "prefixes"),
    [
        ("test_resnet", ("conv1.", "layer1.", "layer2.", "layer3.", "layer4.")),
        ("test_convnext", ("stem.", "stages.0.", "stages.1.", "stages.2.", "stages.3.")),
        ("test_vit", ("patch_embed.", "blocks.0.", "blocks.1.", "blocks.2.")),
        ("test_coatnet", ("stem.", "stages.0.", "stages.1.", "stages.2.", "stages.3.")),
    ],
)
def test_stages_are_timms(model_name: str, prefixes: tuple[str, ...]) -> None:
    stage = number(model_name, True)
    assert [numbers_of(stage, prefix) for prefix in prefixes] == [{i} for i in range(len(prefixes))]


def test_layers_are_finer_than_stages() -> None:
    """ConvNeXt has ten: a stem, then 1, 2, 4 and 2 blocks, the first of each stage with down-sampling."""
    layer = number("test_convnext", False)
    blocks = [f"stages.{s}.blocks.{b}." for s, depth in enumerate((1, 2, 4, 2)) for b in range(depth)]
    assert [numbers_of(layer, block) for block in blocks] == [{i} for i in range(1, 10)]
    assert numbers_of(layer, "stages.2.downsample.") == numbers_of(layer, "stages.2.blocks.0.")


def test_embeddings_belong_to_the_stem() -> None:
    for coarse in (True, False):
        stage = number("test_vit", coarse)
        assert {stage["pos_embed"], stage["cls_token"], *numbers_of(stage, "patch_embed.")} == {0}


def test_model_without_groups_is_numbered_by_features() -> None:
    assert not hasattr(timm.create_model("pit_ti_224"), "group_matcher")
    stage = number("pit_ti_224", True)
    assert numbers_of(stage, "transformers.0.") == numbers_of(stage, "patch_embed.") == {0}
    assert numbers_of(stage, "transformers.1.") == {1}
    assert numbers_of(stage, "transformers.2.") == {2}
    assert stage == number("pit_ti_224", False)


def test_stages_begin_after_the_previous_feature() -> None:
    """Each feature of pit depends on its own stage and the previous ones only."""
    stage = number("pit_ti_224", True)
    for index in range(3):
        model, spec, _ = pruned("pit_ti_224", index)
        images = torch.empty(1, 3, *spec.trial_size, device="meta")
        extract(model, images, (index,))[index].sum().backward()
        reached = {name for name, p in model.named_parameters() if p.grad is not None}
        assert reached == {name for name, n in stage.items() if n <= index}


@pytest.mark.parametrize(
    ("model_name", "indices", "stages"),
    [("test_resnet", (1, 2), 3), ("test_vit", (3,), 5), ("pit_ti_224", (0, 1), 2), ("pit_ti_224", (1,), 2)],
)
def test_numbers_end_with_the_last_feature(model_name: str, indices: tuple[int, ...], stages: int) -> None:
    stage = number(model_name, True, *indices)
    assert set(stage.values()) == set(range(stages))
    assert set(stage) == {name for name, _ in pruned(model_name, *indices)[0].named_parameters()}


def test_numbers_do_not_depend_on_the_device() -> None:
    real = TimmBackbone("pit_ti_224")
    with torch.device("meta"):
        on_meta = TimmBackbone("pit_ti_224")
    for coarse in (True, False):
        assert real.stage_of_parameters(coarse) == on_meta.stage_of_parameters(coarse)
    assert not any(x.is_meta for x in itertools.chain(real.parameters(), real.buffers()))
