"""A backbone is described without its weights."""

from __future__ import annotations

import dataclasses
import json

import pytest
import timm
import torch
from torch import nn

from d2timm import ConfigError, TimmBackbone
from d2timm.backbone.description import (
    LevelInfo,
    count_parameters,
    describe,
    find,
    kind,
    levels,
    multiply_adds,
    on_meta,
    table_of_levels,
)
from d2timm.backbone.probing import probe


def test_levels_are_the_outputs() -> None:
    assert levels(on_meta("test_vit")) == [
        LevelInfo("res2", 1, "blocks.1", 16, 4, 64),
        LevelInfo("res3", 2, "blocks.2", 16, 8, 64),
        LevelInfo("res4", 3, "blocks.3", 16, 16, 64),
        LevelInfo("res5", 5, "blocks.5", 16, 32, 64),
    ]


def test_table_has_a_row_per_level() -> None:
    lines = table_of_levels(levels(on_meta("pit_ti_224"))).splitlines()
    assert len(lines) == 2 + 4
    assert lines[2].split() == ["res2", "0", "transformers.0", "8.2963", "4", "64"]


def test_description_of_a_known_model() -> None:
    """ResNet-50 has 25.56 M parameters, 2.05 M of them in its classifier, and 4.1 G multiply-adds."""
    description = describe(on_meta("resnet50"), (224, 224))
    assert description.model_name == "resnet50"
    assert description.parameters == 25_557_032 - 2_049_000
    assert description.multiply_adds == pytest.approx(4.09e9, rel=0.005)
    assert (description.kind, description.route, description.refused) == ("pyramid", "any size", {})
    assert (description.native_size, description.size) == ((224, 224), (224, 224))
    assert description.pixel_mean == [123.675, 116.28, 103.53]
    assert description.pixel_std == [58.395, 57.12, 57.375]
    assert description.licence == "apache-2.0"
    assert {"a1_in1k", "tv_in1k"} <= set(description.tags)


def test_costs_grow_with_the_image() -> None:
    small, large = (describe(on_meta("test_resnet"), size) for size in ((64, 64), (128, 192)))
    assert large.multiply_adds / small.multiply_adds == pytest.approx(6, rel=0.01)
    assert large.activation_bytes / small.activation_bytes == pytest.approx(6, rel=0.05)
    assert large.parameters == small.parameters


def test_activation_bytes_match_a_real_step() -> None:
    backbone = TimmBackbone("test_convnext").train()
    saved: dict[int, int] = {}
    weights = {x.untyped_storage().data_ptr() for x in backbone.parameters()}

    def pack(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        outputs = backbone(torch.randn(1, 3, 64, 96))
    expected = sum(saved.values())
    assert outputs
    assert describe(on_meta("test_convnext"), (64, 96)).activation_bytes == pytest.approx(expected, rel=0.05)


def test_description_follows_the_tag() -> None:
    description = describe(on_meta("vit_base_patch16_clip_224.openai"), (64, 64))
    assert description.model_name == "vit_base_patch16_clip_224.openai"
    assert description.pixel_mean[0] == pytest.approx(122.771, abs=1e-3)
    assert "openai" in description.tags


def test_refused_routes_have_reasons() -> None:
    description = describe(on_meta("mixer_s32_224"), (64, 64))
    assert description.route == "resizing to 224x224"
    assert list(description.refused) == ["any size", "padding", "multi-size"]
    text = str(description)
    assert "not multi-size: blocks.0.mlp_tokens.fc1.weight" in text
    assert "resizing to 224x224" in text


def test_text_has_all_facts() -> None:
    description = describe(on_meta("test_resnet"), (96, 128))
    text = str(description)
    assert text.startswith("test_resnet\n\n")
    assert table_of_levels(description.levels) in text
    for key, value in (
        ("native size", "160x160"),
        ("route", "any size"),
        ("parameters", "0.37 M"),
        ("multiply-adds at 96x128", f"{description.multiply_adds / 1e9:.2f} G"),
        ("pixel mean", "127.5, 127.5, 127.5"),
        ("licence of the weights", "apache-2.0"),
    ):
        assert f"\n{key:26s}{value}" in text


def test_model_without_pretrained_weights() -> None:
    name = next(name for name in timm.list_models("resnet*") if not timm.is_model_pretrained(name))
    description = describe(on_meta(name), (64, 64))
    assert description.tags == []
    assert str(description).splitlines()[-1].split() == ["pretrained", "none"]


def test_description_can_be_json() -> None:
    description = describe(on_meta("test_vit"), (64, 64))
    plain = json.loads(json.dumps(dataclasses.asdict(description)))
    assert set(plain) == set(vars(description))
    assert plain["levels"][0] == vars(description.levels[0])
    assert plain["size"] == [64, 64]


@pytest.mark.timeout(60)
def test_giant_model_needs_no_memory() -> None:
    description = describe(on_meta("vit_giant_patch14_dinov2"), (64, 64))
    assert description.parameters > 1.1e9
    assert (description.kind, description.levels[0].native_stride) == ("one stride", 14)


@pytest.mark.parametrize(
    ("model_name", "expected"),
    [
        ("test_resnet", "pyramid"),
        ("test_convnext", "pyramid"),
        ("test_vit", "one stride"),
        ("mixer_s32_224", "one stride"),
        ("levit_128s", "part of a pyramid"),
        ("pit_ti_224", "part of a pyramid"),
    ],
)
def test_kinds(model_name: str, expected: str) -> None:
    assert kind(probe(model_name)) == expected


# Search


def test_find_returns_parameters() -> None:
    model = timm.create_model("test_resnet", num_classes=0)
    assert find("test_resn*") == {"test_resnet": count_parameters(model)}


def test_find_omits_larger_models() -> None:
    everything = find("test_vit*")
    assert list(everything) == timm.list_models("test_vit*")
    limit = sorted(everything.values())[1]
    assert find("test_vit*", limit) == {name: n for name, n in everything.items() if n <= limit}
    assert len(find("test_vit*", limit)) == 2
    assert find("test_vit*", 10) == {}


def test_find_suggests_similar_names() -> None:
    with pytest.raises(ConfigError) as error:
        find("resnet5O")
    text = str(error.value)
    assert "--list 'resnet5O'" in text
    assert "resnet50" in text
    assert "\n" not in text


# Counts


def test_shared_parameters_count_once() -> None:
    layer = nn.Linear(3, 5)
    assert count_parameters(nn.Sequential(layer, nn.ReLU(), layer)) == 3 * 5 + 5


@pytest.mark.parametrize(
    ("module", "shape", "expected"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), (1, 3, 16, 12), 3 * 8 * 9 * 16 * 12),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), (1, 8, 16, 12), 8 * 9 * 16 * 12),
        (nn.Linear(8, 16), (4, 8), 4 * 8 * 16),
        (nn.Linear(8, 16), (2, 4, 8), 2 * 4 * 8 * 16),
        (nn.ConvTranspose2d(8, 4, 2, stride=2), (1, 8, 5, 6), 8 * 4 * 4 * 5 * 6),
    ],
    ids=str,
)
def test_multiply_adds(module: nn.Module, shape: tuple[int, ...], expected: int) -> None:
    assert multiply_adds(module.to("meta"), torch.empty(shape, device="meta")) == expected


def test_multiply_adds_match_torchs_counter() -> None:
    """The shortcuts of ``MetaRun`` do not hide operators from our counter."""
    from torch.utils.flop_counter import FlopCounterMode

    backbone = on_meta("test_vit").eval()
    images = torch.empty(1, 3, 64, 96, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        backbone(images)
    assert multiply_adds(backbone, images) == counter.get_total_flops() // 2
