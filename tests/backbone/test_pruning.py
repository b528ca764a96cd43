"""Parts on which the used features do not depend are removed, or frozen if they must run."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import timm
import torch
from helpers.zoo import assert_outputs, reached_parameters

from d2timm import TimmBackbone
from d2timm.backbone.probing import probe
from d2timm.backbone.pruning import prune
from d2timm.backbone.spec import extract


def on_meta(model_name: str, *indices: int) -> TimmBackbone:
    """A backbone on ``meta``, with the given features or the default ones."""
    with torch.device("meta"):
        if not indices:
            return TimmBackbone(model_name)
        names = [f"level{i}" for i in range(len(indices))]
        return TimmBackbone(model_name, out_indices=indices, remaps=names, strides=[16] * len(indices))


def names_of(backbone: TimmBackbone) -> list[str]:
    return list(backbone.model.state_dict())


@pytest.mark.parametrize(
    ("model_name", "indices", "removed", "kept"),
    [
        (
            "test_vit",
            (2,),
            ("blocks.3.", "blocks.5.", "norm.", "head."),
            ("blocks.2.", "cls_token", "pos_embed"),
        ),
        ("test_vit", (5,), ("norm.", "head."), ("blocks.5.",)),
        ("test_resnet", (1,), ("layer2.", "layer3.", "layer4.", "fc."), ("conv1.", "layer1.")),
        ("test_resnet", (0,), ("layer1.", "fc."), ("conv1.",)),
        ("test_efficientnet", (2,), ("blocks.3.", "conv_head.", "classifier."), ("blocks.1.",)),
        ("test_convnext", (1, 2), ("stages.3.", "head."), ("stages.2.", "stem.")),
        ("levit_128s", (), ("stages.2.", "head"), ("stages.0.", "stages.1.")),
        ("pit_ti_224", (), ("norm.", "head."), ("transformers.2.", "cls_token", "pos_embed")),
        ("cait_xxs24_224", (), ("blocks_token_only.", "cls_token", "norm."), ("blocks.23.", "pos_embed")),
        ("xcit_small_12_p8_224", (), ("cls_attn_blocks.", "cls_token", "norm."), ("blocks.11.",)),
        (
            "volo_d1_224",
            (),
            ("post_network.", "aux_head.", "cls_token", "norm."),
            ("network.4.", "pos_embed"),
        ),
        ("crossvit_9_240", (3,), ("head.", "blocks.1.", "blocks.2."), ("blocks.0.",)),
        ("dla34", (3,), ("level4.", "level5.", "fc."), ("base_layer.", "level3.")),
    ],
)
def test_unused_parts_are_removed(
    model_name: str, indices: tuple[int, ...], removed: tuple[str, ...], kept: tuple[str, ...]
) -> None:
    complete = list(timm.create_model(model_name).state_dict())
    for prefix in (*removed, *kept):
        assert any(name.startswith(prefix) for name in complete), f"timm's {model_name} has no {prefix}"
    names = names_of(on_meta(model_name, *indices))
    assert [name for name in names if name.startswith(removed)] == []
    for prefix in kept:
        assert any(name.startswith(prefix) for name in names), prefix


@pytest.mark.parametrize(
    "model_name",
    [
        "test_vit",
        "test_resnet",
        "test_efficientnet",
        "test_convnext",
        "test_maxvit",
        "hrnet_w18_small",
        "dla34",
    ],
)
def test_trained_parameters_are_those_on_which_each_feature_depends(model_name: str) -> None:
    """For each feature alone, compared with a backward pass through timm's complete model."""
    for index in range(len(probe(model_name).features)):
        backbone = on_meta(model_name, index)
        trained = {name for name, p in backbone.model.named_parameters() if p.requires_grad}
        assert trained == reached_parameters(backbone, model_name), f"feature {index}"


@pytest.mark.parametrize(
    ("model_name", "indices"),
    [
        ("test_vit", (1, 3)),
        ("test_resnet", (2,)),
        ("test_convnext", (0, 2)),
        ("crossvit_9_240", (3,)),
        ("levit_128s", (0, 1)),
        ("pit_ti_224", (0, 2)),
        ("hrnet_w18_small", (2,)),
    ],
)
def test_pruning_does_not_change_the_features(model_name: str, indices: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    spec = probe(model_name)
    model = spec.create().eval()
    images = torch.randn(1, 3, *spec.trial_size)
    parameters = len(list(model.parameters()))
    with torch.no_grad():
        before = extract(model, images, indices)
    prune(model, spec, indices)
    with torch.no_grad():
        after = extract(model, images, indices)
    assert len(list(model.parameters())) < parameters
    assert list(before) == list(after) == list(indices)
    for index in indices:
        torch.testing.assert_close(after[index], before[index], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("model_name", "indices"), [("test_vit4", (1, 4)), ("test_convnext3", (1,))])
def test_unused_parts_are_removed_without_help_of_timm(
    model_name: str, indices: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model's own pruning removes nothing."""
    kind = type(timm.create_model(model_name))
    monkeypatch.setattr(kind, "prune_intermediate_layers", lambda *_, **__: None)
    backbone = on_meta(model_name, *indices)
    kept = dict(backbone.model.named_parameters())
    assert set(kept) == reached_parameters(backbone, model_name)
    assert all(p.requires_grad for p in kept.values())
    assert_outputs(backbone(torch.empty(2, 3, 96, 64, device="meta")), backbone, 2, (96, 64))


@pytest.mark.parametrize("index", [1, 2, 3, 4])
def test_hrnet_freezes_parts_that_must_run(index: int) -> None:
    """With one level, HRNet still computes and fuses all branches, which needs their weights."""
    torch.manual_seed(0)
    backbone = TimmBackbone("hrnet_w18_small", out_indices=(index,), remaps=("level",), strides=(2 << index,))
    frozen = {name for name, p in backbone.model.named_parameters() if not p.requires_grad}
    assert frozen
    assert all(name.startswith(("stage4.", "incre_modules.")) for name in frozen)
    assert not [name for name in frozen if name.startswith(f"incre_modules.{index - 1}.")]
    assert not [name for name in names_of(backbone) if name.startswith(("final_layer.", "classifier."))]

    backbone(torch.randn(2, 3, 64, 64))["level"].square().mean().backward()
    assert all((p.grad is not None) == p.requires_grad for p in backbone.parameters())


def test_defaults_freeze_nothing() -> None:
    for model_name in ("hrnet_w18_small", "pit_ti_224", "test_vit", "test_maxvit"):
        assert all(p.requires_grad for p in on_meta(model_name).parameters()), model_name


@pytest.mark.parametrize(("mode", "index"), [(torch.no_grad, 1), (torch.inference_mode, 2)])
def test_pruning_does_not_depend_on_the_mode_of_the_caller(mode: Any, index: int) -> None:
    """A model may be built without gradients for prediction, and the same one again for training."""
    with mode():
        backbone = on_meta("test_nfnet", index)
    assert {name for name, _ in backbone.model.named_parameters()} == reached_parameters(
        backbone, "test_nfnet"
    )
    assert all(p.requires_grad for p in on_meta("test_nfnet", index).parameters())


def test_pruned_model_has_no_tensor_on_meta() -> None:
    """The parts to remove are found on ``meta``."""
    backbone = TimmBackbone("test_vit", out_indices=(2,), remaps=("level",), strides=(16,))
    assert not any(x.is_meta for x in itertools.chain(backbone.parameters(), backbone.buffers()))


def test_second_backbone_uses_cached_results(monkeypatch: pytest.MonkeyPatch) -> None:
    TimmBackbone("test_efficientnet", strides=[4, 8, 16, 32])
    created: list[str] = []
    create_model = timm.create_model

    def record(model_name: str, *args: Any, **kwargs: Any) -> Any:
        created.append(model_name)
        return create_model(model_name, *args, **kwargs)

    monkeypatch.setattr(timm, "create_model", record)
    TimmBackbone("test_efficientnet")
    assert created == ["test_efficientnet"]  # only the model itself
    TimmBackbone("test_efficientnet", out_indices=(0, 1, 2, 3))
    assert len(created) == 3  # other features need another trial on meta
