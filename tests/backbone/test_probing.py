"""The probe determines on ``meta`` which features a timm model has and which images it accepts."""

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
    """A backbone on ``meta``, in eval mode."""
    with torch.device("meta"):
        return TimmBackbone(model_name).eval()


# Routes


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
    spec = probe(model_name)
    input_spec = spec.input_spec
    assert (input_spec.route, input_spec.multiple, input_spec.size) == (route, multiple, None)
    # the keyword argument is used only where the model needs it
    assert spec.kwargs == (DYNAMIC if "dynamic size" in route else ())
    assert spec.trial_size[0] % multiple == spec.trial_size[1] % multiple == 0


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
def test_images_are_resized_for_models_with_one_size(model_name: str, native: int) -> None:
    spec = probe(model_name)
    assert spec.input_spec == InputSpec("resizing", size=(native, native))
    assert spec.native_size == spec.trial_size == (native, native)
    assert spec.kwargs == ()


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
def test_multi_size_models(model_name: str, shape: str, multiple: int) -> None:
    spec = probe(model_name)
    assert spec.input_spec == InputSpec("multi-size", multiple, multisize=shape)  # type: ignore[arg-type]
    assert spec.kwargs == ()  # its weights have the native size
    assert spec.trial_size == spec.native_size


def test_index_out_of_bounds_is_found_on_meta() -> None:
    """On plain ``meta``, mvitv2 accepts any size; on a real device, it raises."""
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
                "any size": "resizes every image",
                "multi-size": "pos_embed_0",
            },
        ),
        ("test_maxvit", {"any size": "at 333x500"}),
        ("vgg11", {"any size": "grids"}),
        ("test_vit3", {"any size": "333", "dynamic size": "divisible by patch size", "padding": "336"}),
        (
            "mixer_s32_224",
            {"any size": "doesn't match", "padding": "352", "multi-size": "fc1.weight"},
        ),
        (
            "pit_ti_224",
            {"any size": "at 333x500", "padding": "352", "multi-size": "pos_embed"},
        ),
    ],
)
def test_refused_routes_have_reasons(model_name: str, reasons: dict[str, str]) -> None:
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
def test_fixed_size_means_resizing(fixed_input_size: Any, size: tuple[int, int]) -> None:
    spec = probe("test_resnet", fixed_input_size)
    assert spec.input_spec == InputSpec("resizing", size=size)
    assert spec.kwargs == ()


def test_fixed_size_uses_img_size_where_required() -> None:
    spec = probe("mixer_s32_224", (96, 128))
    assert spec.input_spec.size == (96, 128)
    assert spec.kwargs == (("img_size", (96, 128)),)


@pytest.mark.parametrize(
    "model_name", ["inception_v3", "legacy_xception", "vit_small_patch14_dinov2", "resnet18d"]
)
def test_model_accepts_its_smallest_size(model_name: str) -> None:
    spec = probe(model_name)
    smallest = spec.input_spec.smallest
    assert smallest >= 32
    assert smallest % spec.input_spec.multiple == 0
    with torch.device("meta"):
        maps = extract(spec.create().eval(), torch.empty(1, 3, smallest, smallest), range(len(spec.features)))
    assert all(min(x.shape[-2:]) >= 1 for x in maps.values())


def test_small_images_are_padded_for_unpadded_convolutions() -> None:
    assert 75 <= probe("inception_v3").input_spec.smallest <= 128
    assert probe("resnet18d").input_spec.smallest == 32
    with torch.device("meta"):
        outputs = TimmBackbone("inception_v3").eval()(torch.empty(1, 3, 32, 40))
    assert [tuple(x.shape[-2:]) for x in outputs.values()] == [(8, 10), (4, 5), (2, 3), (1, 2)]


# Features


@pytest.mark.parametrize(
    ("model_name", "lost"), [("inception_v3", (3, 4, 3, 2, 2)), ("legacy_xception", (3, 1, 0, 0, 0))]
)
def test_lost_cells_of_unpadded_convolutions(model_name: str, lost: tuple[int, ...]) -> None:
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
def test_exact_grids_hold_at_sizes_that_were_not_tried(model_name: str) -> None:
    spec = probe(model_name)
    with torch.device("meta"):
        model = spec.create().eval()
    for size in ((129, 191), (257, 318)):
        sides = [round_up(side, spec.input_spec.multiple) for side in size]
        maps = extract(model, torch.empty(1, 3, *sides, device="meta"), range(len(spec.features)))
        for feature in spec.features:
            assert feature.exact
            expected = [math.ceil(side / feature.stride) - feature.lost for side in sides]
            assert [*maps[feature.index].shape[1:]] == [feature.channels, *expected]


@pytest.mark.parametrize(("model_name", "index"), [("crossvit_9_240", 3), ("pit_ti_224", 0)])
def test_stride_of_other_grids_is_measured(model_name: str, index: int) -> None:
    """timm declares 16 for the coarse branch of crossvit and 8 for pit, which is not exact."""
    spec = probe(model_name)
    feature = spec.features[index]
    model = spec.create_on_meta()
    with torch.no_grad(), MetaRun():
        images = torch.empty(1, 3, *spec.trial_size, device="meta")
        x = extract(model, images, (index,))[index]
    assert not feature.exact
    assert feature.stride == spec.trial_size[0] / x.shape[-2]


@pytest.mark.parametrize(
    "model_name", ["resnet18d", "swin_tiny_patch4_window7_224", "levit_128s", "crossvit_9_240", "test_vit"]
)
def test_features_are_as_timm_declares(model_name: str) -> None:
    info = timm.create_model(model_name).feature_info
    features = probe(model_name).features
    assert [f.channels for f in features] == [entry["num_chs"] for entry in info]
    assert [f.name for f in features] == [entry["module"] for entry in info]
    assert [f.index for f in features] == list(range(len(info)))


# Keyword arguments


def test_keyword_arguments_change_the_spec() -> None:
    spec = probe("test_vit", None, (("depth", 3), ("in_chans", 1)))
    assert spec.channels == 1
    assert len(spec.features) == 3
    assert spec.kwargs == (("depth", 3), ("in_chans", 1))


@pytest.mark.parametrize("img_size", [96, [96, 96], (96, 96)])
def test_img_size_is_the_native_size(img_size: Any) -> None:
    with torch.device("meta"):
        backbone = TimmBackbone(
            "vit_tiny_patch16_224", fixed_input_size=True, timm_kwargs={"img_size": img_size}
        )
    assert backbone.spec.native_size == backbone.spec.input_spec.size == (96, 96)
    assert backbone.model.pos_embed.shape[1] == 6 * 6 + 1


@pytest.mark.parametrize(
    "kwargs",
    [{"nope": 1}, {"act_layer": "nope"}, {"output_stride": 7}, {"pretrained": True}],
)
def test_keyword_arguments_that_the_model_does_not_accept(kwargs: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as error, torch.device("meta"):
        TimmBackbone("test_resnet", timm_kwargs=kwargs)
    ((key, value),) = kwargs.items()
    assert "test_resnet" in str(error.value)
    assert f"{key}={value!r}" in str(error.value)
    assert "\n" not in str(error.value)


def test_keyword_argument_that_removes_features() -> None:
    with pytest.raises(ConfigError, match=r"test_resnet .* features_only=True"):
        probe("test_resnet", None, (("features_only", True),))


# Names


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet18x", ("resnet18x", "did you mean", "resnet18")),
        ("resnet18.nope", ("nope", "a1_in1k")),
        ("local-dir:/there/is/none", ("/there/is/none", "cannot be read")),
        ("ftp:resnet18", ("ftp", "hf-hub")),
    ],
)
@pytest.mark.parametrize("function", [probe, pretrained_cfg, TimmBackbone])
def test_unknown_names(function: Any, name: str, words: tuple[str, ...]) -> None:
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


def test_pretrained_cfg_depends_on_the_tag() -> None:
    cfg = pretrained_cfg("resnet50.tv_in1k")
    assert cfg["tag"] == "tv_in1k"
    assert cfg["input_size"] == (3, 224, 224)
    assert cfg["classifier"] == "fc"
    assert pretrained_cfg("resnet50.a1_in1k")["tag"] == "a1_in1k"


# Cache


def test_probe_is_cached() -> None:
    assert probe("test_resnet") is probe("test_resnet")
    assert probe("test_resnet") is not probe("test_resnet", (96, 96))


def test_probe_uses_no_random_numbers() -> None:
    probe.cache_clear()
    state = torch.get_rng_state()
    probe("test_vit")
    assert torch.equal(torch.get_rng_state(), state)
