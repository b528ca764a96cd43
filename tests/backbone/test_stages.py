"""Parameters are numbered by depth, those of the stem first."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import pytest
import timm
import torch
from d2timm.backbone.timm_backbone.stages import stage_of_parameters

from d2timm import TimmBackbone
from d2timm.backbone.probing import probe
from d2timm.backbone.pruning import prune
from d2timm.backbone.spec import extract

#: Pyramids, plain transformers, a canvas, and models that timm gives no group_matcher
MODELS = ["test_resnet", "test_convnext", "test_vit", "test_coatnet", "crossvit_9_240", "pit_ti_224"]


@functools.cache
def pruned(model_name: str, *indices: int) -> tuple[Any, Any, tuple[int, ...]]:
    """A model on ``meta``, its source and the features that it is pruned to."""
    source = probe(model_name)
    indices = indices or tuple(range(len(source.features)))
    model = source.create_on_meta()
    prune(model, source, indices)
    return model, source, indices


def number(model_name: str, coarse: bool, *indices: int) -> dict[str, int]:
    return stage_of_parameters(*pruned(model_name, *indices), coarse)


def numbers_of(stage: dict[str, int], prefix: str) -> set[int]:
    """Those of the parameters whose names begin so, of which there must be one."""
    found = {n for name, n in stage.items() if name.startswith(prefix)}
    assert found, f"nothing is called {prefix}"
    return found


@pytest.mark.parametrize("coarse", [True, False], ids=["stages", "layers"])
@pytest.mark.parametrize("model_name", MODELS)
def test_every_parameter_has_a_number_and_there_are_no_gaps(model_name: str, coarse: bool) -> None:
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
def test_stages_are_those_of_timm(model_name: str, prefixes: tuple[str, ...]) -> None:
    stage = number(model_name, True)
    assert [numbers_of(stage, prefix) for prefix in prefixes] == [{i} for i in range(len(prefixes))]


def test_layers_are_finer_than_stages() -> None:
    """The ten of ConvNeXt: a stem, and 1, 2, 4 and 2 blocks, with down-sampling in the first of a stage."""
    layer = number("test_convnext", False)
    blocks = [f"stages.{s}.blocks.{b}." for s, depth in enumerate((1, 2, 4, 2)) for b in range(depth)]
    assert [numbers_of(layer, block) for block in blocks] == [{i} for i in range(1, 10)]
    assert numbers_of(layer, "stages.2.downsample.") == numbers_of(layer, "stages.2.blocks.0.")


def test_embeddings_are_of_the_stem() -> None:
    for coarse in (True, False):
        stage = number("test_vit", coarse)
        assert {stage["pos_embed"], stage["cls_token"], *numbers_of(stage, "patch_embed.")} == {0}


def test_model_without_groups_is_divided_by_its_features() -> None:
    assert not hasattr(timm.create_model("pit_ti_224"), "group_matcher")
    stage = number("pit_ti_224", True)
    assert numbers_of(stage, "transformers.0.") == numbers_of(stage, "patch_embed.") == {0}
    assert numbers_of(stage, "transformers.1.") == {1}
    assert numbers_of(stage, "transformers.2.") == {2}
    assert stage == number("pit_ti_224", False)


def test_stages_begin_where_the_feature_before_ends() -> None:
    """Each feature of pit depends on its stage and on those before, and on no other."""
    stage = number("pit_ti_224", True)
    for index in range(3):
        model, source, _ = pruned("pit_ti_224", index)
        extract(model, torch.empty(1, 3, *source.trial_size, device="meta"), (index,))[index].sum().backward()
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


def test_numbers_are_the_same_whatever_the_device() -> None:
    real = TimmBackbone("pit_ti_224")
    with torch.device("meta"):
        empty = TimmBackbone("pit_ti_224")
    for coarse in (True, False):
        assert real.stage_of_parameters(coarse) == empty.stage_of_parameters(coarse)
    assert not any(x.is_meta for x in itertools.chain(real.parameters(), real.buffers()))
