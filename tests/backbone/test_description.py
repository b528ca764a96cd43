"""What a backbone is, told without weights."""

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
    count,
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


def test_table_has_a_line_a_level() -> None:
    lines = table_of_levels(levels(on_meta("pit_ti_224"))).splitlines()
    assert len(lines) == 2 + 4
    assert lines[2].split() == ["res2", "0", "transformers.0", "8.2963", "4", "64"]


def test_numbers_of_a_known_model() -> None:
    """ResNet-50 has 25.56 M parameters, 2.05 M of them in its classifier, and 4.1 G multiply-adds."""
    told = describe(on_meta("resnet50"), (224, 224))
    assert told.model_name == "resnet50"
    assert told.parameters == 25_557_032 - 2_049_000
    assert told.multiply_adds == pytest.approx(4.09e9, rel=0.005)
    assert (told.kind, told.route, told.refused) == ("pyramid", "any size", {})
    assert (told.native_size, told.size) == ((224, 224), (224, 224))
    assert told.pixel_mean == [123.675, 116.28, 103.53]
    assert told.pixel_std == [58.395, 57.12, 57.375]
    assert told.licence == "apache-2.0"
    assert {"a1_in1k", "tv_in1k"} <= set(told.tags)


def test_costs_grow_with_the_image() -> None:
    small, large = (describe(on_meta("test_resnet"), size) for size in ((64, 64), (128, 192)))
    assert large.multiply_adds / small.multiply_adds == pytest.approx(6, rel=0.01)
    assert large.activation_bytes / small.activation_bytes == pytest.approx(6, rel=0.05)
    assert large.parameters == small.parameters


def test_activations_are_those_that_a_real_step_keeps() -> None:
    backbone = TimmBackbone("test_convnext").train()
    kept: dict[int, int] = {}
    weights = {x.untyped_storage().data_ptr() for x in backbone.parameters()}

    def pack(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        outputs = backbone(torch.randn(1, 3, 64, 96))
    told = describe(on_meta("test_convnext"), (64, 96)).activation_bytes
    assert outputs
    assert told == pytest.approx(sum(kept.values()), rel=0.05)


def test_description_follows_the_tag() -> None:
    told = describe(on_meta("vit_base_patch16_clip_224.openai"), (64, 64))
    assert told.model_name == "vit_base_patch16_clip_224.openai"
    assert told.pixel_mean[0] == pytest.approx(122.771, abs=1e-3)
    assert "openai" in told.tags


def test_reasons_are_told() -> None:
    told = describe(on_meta("mixer_s32_224"), (64, 64))
    assert told.route == "resizing to 224x224"
    assert list(told.refused) == ["any size", "padding", "multi-size"]
    text = str(told)
    assert "not canvas: blocks.0.mlp_tokens.fc1.weight is of that size only" in text
    assert "resizing to 224x224" in text


def test_text_tells_all() -> None:
    told = describe(on_meta("test_resnet"), (96, 128))
    text = str(told)
    assert text.startswith("test_resnet\n\n")
    assert table_of_levels(told.levels) in text
    for key, value in (
        ("native size", "160x160"),
        ("route", "any size"),
        ("parameters", "0.37 M"),
        ("multiply-adds at 96x128", f"{told.multiply_adds / 1e9:.2f} G"),
        ("pixel mean", "127.5, 127.5, 127.5"),
        ("licence of the weights", "apache-2.0"),
    ):
        assert f"\n{key:26s}{value}" in text


def test_what_is_not_known_is_told_as_such() -> None:
    name = next(name for name in timm.list_models("resnet*") if not timm.is_model_pretrained(name))
    told = describe(on_meta(name), (64, 64))
    assert told.tags == []
    assert str(told).endswith(f"{'pretrained':26s}none")


def test_plain_form_is_json() -> None:
    told = describe(on_meta("test_vit"), (64, 64))
    plain = json.loads(json.dumps(dataclasses.asdict(told)))
    assert set(plain) == set(vars(told))
    assert plain["levels"][0] == vars(told.levels[0])
    assert plain["size"] == [64, 64]


@pytest.mark.timeout(60)
def test_giant_takes_no_memory() -> None:
    told = describe(on_meta("vit_giant_patch14_dinov2"), (64, 64))
    assert told.parameters > 1.1e9
    assert (told.kind, told.levels[0].native_stride) == ("one stride", 14)


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


def test_models_are_found_with_their_parameters() -> None:
    found = find("test_resn*")
    model = timm.create_model("test_resnet", num_classes=0)
    assert found == {"test_resnet": count(model)}


def test_models_are_found_by_their_number_of_parameters() -> None:
    everything = find("test_vit*")
    assert list(everything) == timm.list_models("test_vit*")
    limit = sorted(everything.values())[1]
    assert find("test_vit*", limit) == {name: n for name, n in everything.items() if n <= limit}
    assert len(find("test_vit*", limit)) == 2
    assert find("test_vit*", 10) == {}


def test_pattern_that_no_model_matches_gives_near_names() -> None:
    with pytest.raises(ConfigError) as error:
        find("resnet5O")
    text = str(error.value)
    assert text.startswith("--list 'resnet5O': ")
    assert "resnet50" in text
    assert "\n" not in text


# Counts


def test_parameters_are_counted_once() -> None:
    layer = nn.Linear(3, 5)
    assert count(nn.Sequential(layer, nn.ReLU(), layer)) == 3 * 5 + 5


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


def test_multiply_adds_are_those_of_plain_meta() -> None:
    """Runs are shortened, which the counter must not miss."""
    from torch.utils.flop_counter import FlopCounterMode

    backbone = on_meta("test_vit").eval()
    images = torch.empty(1, 3, 64, 96, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        backbone(images)
    assert multiply_adds(backbone, images) == counter.get_total_flops() // 2
