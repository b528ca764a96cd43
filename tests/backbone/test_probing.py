"""What a timm model gives and needs, found on ``meta``."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers.zoo import assert_outputs
from hypothesis import given, settings
from hypothesis import strategies as st

from d2timm import ConfigError, TimmBackbone
from d2timm.backbone.meta import MetaRun
from d2timm.backbone.probing import pretrained_cfg, probe
from d2timm.backbone.spec import InputSpec, extract
from d2timm.utils.sizes import round_up

DYNAMIC = (("dynamic_img_size", True),)


@functools.cache
def on_meta(model_name: str) -> TimmBackbone:
    """A backbone without numbers."""
    with torch.device("meta"):
        return TimmBackbone(model_name).eval()


# InputSpec


@pytest.mark.parametrize(
    ("model_name", "route", "multiple"),
    [
        ("resnet18d", "any size", 1),
        ("efficientnet_b0", "any size", 1),
        ("xcit_small_12_p8_224", "any size", 1),
        ("convnext_atto", "padding", 32),
        ("dla34", "padding", 32),
        ("hrnet_w18_small", "padding", 32),
        ("mobilevitv2_050", "padding", 32),
        ("inception_v3", "padding", 32),
        ("legacy_xception", "padding", 32),
        ("maxvit_pico_rw_256", "padding", 256),
        ("test_maxvit", "padding", 160),
        ("vit_small_patch16_dinov3", "padding", 16),
        ("vit_tiny_patch16_224", "dynamic size and padding", 16),
        ("vit_small_patch14_dinov2", "dynamic size and padding", 14),
        ("swin_tiny_patch4_window7_224", "dynamic size and padding", 32),
    ],
)
def test_routes_to_any_size(model_name: str, route: str, multiple: int) -> None:
    source = probe(model_name)
    assert (source.input_spec.route, source.input_spec.multiple, source.input_spec.size) == (
        route,
        multiple,
        None,
    )
    # a keyword is given only where the model needs it
    assert source.kwargs == (DYNAMIC if "dynamic size" in route else ())
    assert source.trial_size[0] % multiple == source.trial_size[1] % multiple == 0


@pytest.mark.parametrize(
    ("model_name", "native"),
    [
        ("mixer_s32_224", 224),
        ("levit_128s", 224),
        ("pit_ti_224", 224),
        ("volo_d1_224", 224),
        ("crossvit_9_240", 240),
    ],
)
def test_what_takes_one_size_only_gets_images_resized_to_it(model_name: str, native: int) -> None:
    source = probe(model_name)
    assert source.input_spec == InputSpec("resizing", size=(native, native))
    assert source.native_size == source.trial_size == (native, native)
    assert source.kwargs == ()


@pytest.mark.parametrize(
    ("model_name", "shape", "multiple"),
    [
        ("vit_relpos_small_patch16_224", "image", 16),
        ("tnt_s_patch16_224", "image", 16),
        ("coat_tiny", "image", 32),
        ("test_coatnet", "image", 32),
        ("test_vit_relpos", "image", 16),
        ("mvitv2_tiny", "square", 32),
    ],
)
def test_what_is_made_for_one_size_and_can_be_made_for_another_gets_a_canvas(
    model_name: str, shape: str, multiple: int
) -> None:
    source = probe(model_name)
    assert source.input_spec == InputSpec("multi-size", multiple, canvas=shape)  # type: ignore[arg-type]
    assert source.kwargs == ()  # its weights are those of the native size
    assert source.trial_size == source.native_size


def test_index_out_of_bounds_is_found_without_numbers() -> None:
    """On ``meta`` alone mvitv2 would seem to take any size; on a real device it raises."""
    refused = dict(probe("mvitv2_tiny").refused)
    assert list(refused) == ["any size", "padding"]
    for reason in refused.values():
        assert "IndexError" in reason
        assert "out of bounds" in reason


@pytest.mark.parametrize(
    ("model_name", "reasons"),
    [
        ("resnet18d", {}),
        (
            "crossvit_9_240",
            {
                "any size": "it resizes every image to a size of its own",
                "multi-size": "pos_embed_0 is of that size",
            },
        ),
        ("test_maxvit", {"any size": "at 333x500"}),
        ("vgg11", {"any size": "its grids do not follow the image"}),
        ("test_vit3", {"any size": "333", "dynamic size": "divisible by patch size", "padding": "336"}),
        (
            "mixer_s32_224",
            {"any size": "doesn't match", "padding": "352", "multi-size": "fc1.weight is of that size only"},
        ),
        (
            "pit_ti_224",
            {"any size": "at 333x500", "padding": "352", "multi-size": "pos_embed is of that size"},
        ),
    ],
)
def test_routes_that_are_not_taken_are_told_with_the_reason(model_name: str, reasons: dict[str, str]) -> None:
    refused = dict(probe(model_name).refused)
    assert list(refused) == list(reasons)
    for route, reason in reasons.items():
        assert reason in refused[route]
        assert "\n" not in refused[route]


@pytest.mark.parametrize(
    "model_name",
    ["resnet18d", "test_vit", "test_convnext", "vit_small_patch14_dinov2", "test_coatnet", "pit_ti_224"],
)
@given(height=st.integers(32, 400), width=st.integers(32, 400))
@settings(max_examples=12)
def test_grids_are_the_ceiling_at_any_size(model_name: str, height: int, width: int) -> None:
    backbone = on_meta(model_name)
    with torch.no_grad(), MetaRun():
        outputs = backbone(torch.empty(1, 3, height, width, device="meta"))
    assert_outputs(outputs, backbone, 1, (height, width))
    assert list(outputs) == ["res2", "res3", "res4", "res5"]


@pytest.mark.parametrize(
    ("fixed_input_size", "size"), [(True, (160, 160)), ((96, 128), (96, 128)), ((33, 47), (33, 47))]
)
def test_fixed_size_is_a_route_of_its_own(fixed_input_size: Any, size: tuple[int, int]) -> None:
    source = probe("test_resnet", fixed_input_size)
    assert source.input_spec == InputSpec("resizing", size=size)
    assert source.kwargs == ()


def test_fixed_size_by_the_keyword_of_a_model_that_has_one() -> None:
    source = probe("mixer_s32_224", (96, 128))
    assert source.input_spec.size == (96, 128)
    assert source.kwargs == (("img_size", (96, 128)),)


@pytest.mark.parametrize(
    "model_name", ["inception_v3", "legacy_xception", "vit_small_patch14_dinov2", "resnet18d"]
)
def test_smallest_size_is_one_that_the_model_takes(model_name: str) -> None:
    source = probe(model_name)
    smallest = source.input_spec.smallest
    assert smallest >= 32
    assert smallest % source.input_spec.multiple == 0
    with torch.device("meta"):
        maps = extract(
            source.create().eval(), torch.empty(1, 3, smallest, smallest), range(len(source.features))
        )
    assert all(min(x.shape[-2:]) >= 1 for x in maps.values())


def test_inception_sees_no_image_that_its_convolutions_use_up() -> None:
    assert 75 <= probe("inception_v3").input_spec.smallest <= 128
    assert probe("resnet18d").input_spec.smallest == 32
    with torch.device("meta"):
        outputs = TimmBackbone("inception_v3").eval()(torch.empty(1, 3, 32, 40))
    assert [tuple(x.shape[-2:]) for x in outputs.values()] == [(8, 10), (4, 5), (2, 3), (1, 2)]


# Features


@pytest.mark.parametrize(
    ("model_name", "lost"), [("inception_v3", (3, 4, 3, 2, 2)), ("legacy_xception", (3, 1, 0, 0, 0))]
)
def test_cells_that_unpadded_convolutions_take_off(model_name: str, lost: tuple[int, ...]) -> None:
    features = probe(model_name).features
    assert all(feature.exact for feature in features)
    assert tuple(feature.lost for feature in features) == lost
    assert tuple(feature.stride for feature in features) == (2, 4, 8, 16, 32)


@pytest.mark.parametrize(
    "model_name",
    [
        "resnet18d",
        "test_convnext",
        "test_vit",
        "vit_small_patch14_dinov2",
        "swin_tiny_patch4_window7_224",
        "inception_v3",
        "legacy_xception",
        "dla34",
    ],
)
def test_exact_grids_hold_at_sizes_that_were_never_tried(model_name: str) -> None:
    source = probe(model_name)
    with torch.device("meta"):
        model = source.create().eval()
    for size in ((129, 191), (257, 318)):
        sides = [round_up(side, source.input_spec.multiple) for side in size]
        maps = extract(model, torch.empty(1, 3, *sides, device="meta"), range(len(source.features)))
        for feature in source.features:
            assert feature.exact
            expected = [math.ceil(side / feature.stride) - feature.lost for side in sides]
            assert [*maps[feature.index].shape[1:]] == [feature.channels, *expected]


@pytest.mark.parametrize(("model_name", "index"), [("crossvit_9_240", 3), ("pit_ti_224", 0)])
def test_grids_with_a_size_of_their_own_have_their_stride_measured(model_name: str, index: int) -> None:
    """Not the declared 16 of crossvit's coarse branch, and not the declared 8 of pit."""
    source = probe(model_name)
    feature = source.features[index]
    model = source.create_on_meta()
    with torch.no_grad(), MetaRun():
        images = torch.empty(1, 3, *source.trial_size, device="meta")
        x = extract(model, images, (index,))[index]
    assert not feature.exact
    assert feature.stride == source.trial_size[0] / x.shape[-2]


@pytest.mark.parametrize(
    "model_name", ["resnet18d", "swin_tiny_patch4_window7_224", "levit_128s", "crossvit_9_240", "test_vit"]
)
def test_features_are_those_that_timm_declares(model_name: str) -> None:
    info = timm.create_model(model_name).feature_info
    features = probe(model_name).features
    assert [f.channels for f in features] == [entry["num_chs"] for entry in info]
    assert [f.name for f in features] == [entry["module"] for entry in info]
    assert [f.index for f in features] == list(range(len(info)))


# Keywords


def test_keywords_reach_the_model_and_its_probe() -> None:
    source = probe("test_vit", None, (("depth", 3), ("in_chans", 1)))
    assert source.channels == 1
    assert len(source.features) == 3
    assert source.kwargs == (("depth", 3), ("in_chans", 1))


@pytest.mark.parametrize("img_size", [96, [96, 96], (96, 96)])
def test_image_size_among_the_keywords_is_the_native_one(img_size: Any) -> None:
    with torch.device("meta"):
        backbone = TimmBackbone(
            "vit_tiny_patch16_224", fixed_input_size=True, timm_kwargs={"img_size": img_size}
        )
    assert backbone.spec.native_size == backbone.spec.input_spec.size == (96, 96)
    assert backbone.model.pos_embed.shape[1] == 6 * 6 + 1


@pytest.mark.parametrize(
    "keywords",
    [{"nope": 1}, {"act_layer": "nope"}, {"output_stride": 7}, {"pretrained": True}],
)
def test_keywords_that_the_model_refuses(keywords: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as error, torch.device("meta"):
        TimmBackbone("test_resnet", timm_kwargs=keywords)
    ((key, value),) = keywords.items()
    assert str(error.value).startswith(f"test_resnet does not take {key}={value!r}: ")
    assert "\n" not in str(error.value)


def test_keyword_without_which_there_are_features() -> None:
    with pytest.raises(ConfigError, match="test_resnet gives no features with features_only=True"):
        probe("test_resnet", None, (("features_only", True),))


# Names


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet18x", ("resnet18x", "did you mean", "resnet18")),
        ("resnet18.nope", ("nope", "a1_in1k")),
        ("local-dir:/there/is/none", ("/there/is/none",)),
        ("ftp:resnet18", ("ftp", "hf-hub")),
    ],
)
@pytest.mark.parametrize("function", [probe, pretrained_cfg, TimmBackbone])
def test_names_that_are_none(function: Any, name: str, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as error:
        function(name)
    text = str(error.value)
    assert all(word in text for word in words)
    assert "\n" not in text


def test_name_on_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match="hf-hub:timm/resnet18") as error:
        probe("hf-hub:timm/resnet18.a1_in1k")
    assert "\n" not in str(error.value)


def test_pretrained_cfg_is_that_of_the_tag() -> None:
    cfg = pretrained_cfg("resnet50.tv_in1k")
    assert cfg["tag"] == "tv_in1k"
    assert cfg["input_size"] == (3, 224, 224)
    assert cfg["classifier"] == "fc"
    assert pretrained_cfg("resnet50.a1_in1k")["tag"] == "a1_in1k"


# The probe itself


def test_probe_is_remembered() -> None:
    assert probe("test_resnet") is probe("test_resnet")
    assert probe("test_resnet") is not probe("test_resnet", (96, 96))


def test_probe_makes_no_numbers() -> None:
    probe.cache_clear()
    state = torch.get_rng_state()
    probe("test_vit")
    assert torch.equal(torch.get_rng_state(), state)
