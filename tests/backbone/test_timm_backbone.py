"""TimmBackbone works with any timm model, for images of any size."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from helpers.zoo import NAMES, SIZES, SMALL, STRIDES, BackboneContract, assert_outputs, grid
from omegaconf import ListConfig, OmegaConf
from torch import Tensor, nn

import d2timm.backbone.timm_backbone
from d2timm import ConfigError, TimmBackbone
from d2timm.backbone.spec import extract

MODELS = [
    "resnet50",
    "resnet18d",
    "convnext_atto",
    "swin_tiny_patch4_window7_224",
    "swinv2_cr_tiny_ns_224",
    "xcit_small_12_p8_224",
    "vit_tiny_patch16_224",
    "vit_small_patch14_dinov2",
    "vit_small_patch16_dinov3",
    "cait_xxs24_224",
    "efficientnet_b0",
    "tf_efficientnet_lite0",
    "mobilenetv3_small_050",
    "regnety_004",
    "hrnet_w18_small",
    "inception_v3",
    "maxvit_pico_rw_256",
    "crossvit_9_240",
    "dla34",
    "levit_128s",
    "pit_ti_224",
    "mobilevitv2_050",
    "volo_d1_224",
    "mixer_s32_224",
]


@pytest.mark.slow
@pytest.mark.parametrize("model_name", MODELS, scope="class")
class TestZoo(BackboneContract):
    """The contract holds for models of all kinds."""


def on_meta(model_name: str, *args: Any, **kwargs: Any) -> TimmBackbone:
    """A backbone on ``meta``, for tests of its shapes."""
    with torch.device("meta"):
        return TimmBackbone(model_name, *args, **kwargs)


def one_level(model_name: str, stride: int, **kwargs: Any) -> TimmBackbone:
    """A backbone with one output, ``level``."""
    torch.manual_seed(0)
    return TimmBackbone(model_name, remaps=("level",), strides=(stride,), **kwargs).eval()


def one_line(error: pytest.ExceptionInfo[ConfigError]) -> str:
    """The text of an error, which must be one line."""
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


# On the meta device


@pytest.mark.parametrize(
    ("model_name", "billions"),
    [
        ("resnet18d", 0.0),
        ("test_maxvit", 0.0),
        ("crossvit_9_240", 0.0),
        ("levit_128s", 0.0),
        ("vit_giant_patch14_dinov2", 1.1),
    ],
)
def test_builds_and_runs_on_meta(model_name: str, billions: float) -> None:
    backbone = on_meta(model_name)
    assert all(x.is_meta for x in itertools.chain(backbone.parameters(), backbone.buffers()))
    assert sum(p.numel() for p in backbone.parameters()) >= billions * 1e9
    for size in (SIZES[0], SMALL):
        outputs = backbone(torch.empty(2, 3, *size, device="meta"))
        assert all(x.is_meta for x in outputs.values())
        assert_outputs(outputs, backbone, 2, size)


def test_nothing_is_loaded_on_meta(tmp_path: Path) -> None:
    backbone = on_meta("test_resnet", pretrained=True, checkpoint_path=str(tmp_path / "later.pth"))
    assert all(x.is_meta for x in backbone.parameters())


# Features


@pytest.mark.parametrize("model_name", ["resnet18d", "vit_tiny_patch16_224", "levit_128s"])
def test_autocast_changes_features_little(model_name: str) -> None:
    torch.manual_seed(0)
    backbone = TimmBackbone(model_name).eval()
    images = torch.randn(1, 3, *SMALL)
    with torch.no_grad():
        exact = backbone(images)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = backbone(images)
    assert_outputs(rounded, backbone, 1, SMALL)
    assert any(x.dtype == torch.bfloat16 for x in rounded.values())
    for name in NAMES:
        similarity = F.cosine_similarity(exact[name].flatten(), rounded[name].float().flatten(), dim=0)
        assert similarity > 0.999, name


@pytest.mark.parametrize(
    ("model_name", "levels"),
    [
        ("resnet18d", "res2 res3 res4 res5"),
        ("convnext_atto", "res2 res3 res4 res5"),
        ("swin_tiny_patch4_window7_224", "res2 res3 res4 res5"),
        ("vit_tiny_patch16_224", "res4"),
        ("levit_128s", "res4 res5"),
        ("pit_ti_224", "res4 res5"),
        ("mixer_s32_224", "res5"),
    ],
)
def test_levels_without_resampling_are_timms_features(model_name: str, levels: str, tmp_path: Path) -> None:
    """Compared with ``features_only=True`` and the same weights, which are not the initial ones."""
    torch.manual_seed(0)
    model = timm.create_model(model_name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    weights = tmp_path / "weights.pth"
    torch.save(model.state_dict(), weights)

    backbone = TimmBackbone(model_name, checkpoint_path=str(weights)).eval()
    wanted = sorted(set(backbone.out_indices))
    reference = timm.create_model(
        model_name,
        features_only=True,
        out_indices=wanted,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(weights)},
    ).eval()
    images = torch.randn(1, 3, *backbone.spec.native_size)
    with torch.no_grad():
        outputs, features = backbone(images), dict(zip(wanted, reference(images), strict=True))
    channels_last = getattr(reference, "output_fmt", None) == "NHWC"
    for name in levels.split():
        feature = features[backbone.out_indices[NAMES.index(name)]]
        expected = feature.permute(0, 3, 1, 2) if channels_last else feature
        assert outputs[name].abs().max() > 0.01, name
        assert (outputs[name] - expected).abs().max() < 1e-4, name


@pytest.mark.parametrize("model_name", ["test_convnext", "test_vit", "swin_tiny_patch4_window7_224"])
def test_images_are_padded_with_the_mean_at_the_right_and_bottom(model_name: str) -> None:
    backbone = one_level(model_name, 16)
    multiple = backbone.spec.input_spec.multiple
    images = torch.randn(1, 3, *SMALL)
    padded = F.pad(images, (0, -SMALL[1] % multiple, 0, -SMALL[0] % multiple))
    assert padded.shape != images.shape
    with torch.no_grad():
        rows, columns = grid(SMALL, 16)
        expected = backbone(padded)["level"][..., :rows, :columns]
        assert torch.equal(backbone(images)["level"], expected)


@pytest.mark.parametrize(
    ("model_name", "fixed_input_size"),
    [
        ("test_resnet", None),  # at its own size
        ("test_vit", None),  # padded
        ("vit_small_patch14_dinov2", None),  # cells of 14 pixels
        ("test_resnet", (320, 480)),  # resized
        ("crossvit_9_240", None),  # a grid stretched over the image
    ],
)
def test_features_do_not_move_in_the_image(
    model_name: str, fixed_input_size: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a model that only averages, and images whose pixels are their coordinates."""
    backbone = one_level(model_name, 16, fixed_input_size=fixed_input_size, out_indices=(-2,))
    feature = backbone.spec.features[backbone.out_indices[0]]

    def average(_: nn.Module, images: Tensor, indices: Sequence[int]) -> dict[int, Tensor]:
        if feature.exact:
            maps = F.avg_pool2d(images, int(feature.stride), ceil_mode=True)
        else:
            maps = images
            for dim in (2, 3):  # cell borders may lie within pixels
                cells = round(images.shape[dim] / feature.stride)
                maps = maps.repeat_interleave(cells, dim).unflatten(dim, (cells, -1)).mean(dim + 1)
        maps = maps.repeat(1, feature.channels, 1, 1)[:, : feature.channels]
        return dict.fromkeys(indices, maps)

    monkeypatch.setattr(d2timm.backbone.timm_backbone, "extract", average)
    height, width = 400, 600
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    output = backbone(torch.stack([y, x, y])[None])["level"]
    rows, columns = (16 * (torch.arange(cells) + 0.5) for cells in output.shape[-2:])
    inside = (slice(2, -4), slice(2, -4))  # cells at the border see the padding
    error_y = (output[0, 0] - rows[:, None])[inside].abs().max()
    error_x = (output[0, 1] - columns)[inside].abs().max()
    assert error_y < 0.1
    assert error_x < 0.1


@pytest.mark.parametrize(("model_name", "size"), [("levit_128s", (224, 224)), ("crossvit_9_240", (240, 240))])
def test_image_of_the_native_size_is_not_changed(model_name: str, size: tuple[int, int]) -> None:
    """Although 224 is not a multiple of the stride 64, nor 240 of 32."""
    with torch.device("meta"):
        backbone = TimmBackbone(model_name, remaps=("level",), strides=(64,), out_indices=(-1,)).eval()
    images: list[Tensor] = []

    def record(_: nn.Module, x: Tensor, indices: Sequence[int]) -> dict[int, Tensor]:
        images.append(x)
        return extract(backbone.model, x, indices)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(d2timm.backbone.timm_backbone, "extract", record)
        native = torch.empty(1, 3, *size, device="meta")
        backbone(native)
        backbone(torch.empty(1, 3, 97, 131, device="meta"))
    assert images[0].shape == native.shape
    assert tuple(images[1].shape[-2:]) == size


def test_feature_at_the_native_size_is_not_changed() -> None:
    backbone = one_level("levit_128s", 64, out_indices=(-1,))
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        feature = extract(backbone.model, images, (2,))[2]
        assert torch.equal(backbone(images)["level"], feature)


def test_images_are_padded_to_cover_interpolated_cells() -> None:
    """97 pixels are 7 patches of 14 pixels, and 7 cells of 16 pixels, which end at 112."""
    backbone = on_meta("vit_small_patch14_dinov2")
    images = []
    backbone.model.patch_embed.proj.register_forward_pre_hook(lambda _, args: images.append(args[0]))
    backbone(torch.empty(1, 3, 97, 160, device="meta"))
    assert [tuple(x.shape[-2:]) for x in images] == [(112, 168)]


def test_equal_seeds_create_equal_backbones() -> None:
    first, again = one_level("test_vit", 16), one_level("test_vit", 16)
    images = torch.randn(1, 3, *SMALL)
    with torch.no_grad():
        assert torch.equal(first(images)["level"], again(images)["level"])


def test_can_be_copied_and_restored() -> None:
    torch.manual_seed(0)
    backbone = TimmBackbone("test_efficientnet").eval()
    twin = copy.deepcopy(backbone)
    other = TimmBackbone("test_efficientnet").eval()
    images = torch.randn(1, 3, *SMALL)
    with torch.no_grad():
        outputs = backbone(images)
        assert not torch.equal(other(images)["res5"], outputs["res5"])
        other.load_state_dict(backbone.state_dict())
        for name in NAMES:
            assert torch.equal(twin(images)[name], outputs[name])
            assert torch.equal(other(images)[name], outputs[name])


# Model arguments


@pytest.mark.parametrize("model_name", ["test_resnet", "test_vit", "test_coatnet", "mixer_s32_224"])
@pytest.mark.parametrize("in_chans", [1, 4])
def test_images_with_other_channels(model_name: str, in_chans: int) -> None:
    backbone = on_meta(model_name, in_chans=in_chans)
    assert backbone.spec.channels == in_chans
    assert_outputs(backbone(torch.empty(1, in_chans, *SMALL, device="meta")), backbone, 1, SMALL)


def test_other_channels_by_timm_kwargs() -> None:
    backbone = TimmBackbone("test_resnet", timm_kwargs={"in_chans": 4}).eval()
    with torch.no_grad():
        assert_outputs(backbone(torch.randn(1, 4, *SMALL)), backbone, 1, SMALL)


@pytest.mark.parametrize("in_chans", [0, -1, "3", 2.5])
def test_invalid_in_chans(in_chans: Any) -> None:
    with pytest.raises(ConfigError) as error:
        on_meta("test_resnet", in_chans=in_chans)
    assert f"in_chans={in_chans}: " in one_line(error)


@pytest.mark.parametrize("model_name", ["resnet18d", "test_vit", "test_convnext", "test_efficientnet"])
def test_drop_path_rate_reaches_the_blocks(model_name: str) -> None:
    rates = [
        max(getattr(module, "drop_prob", 0) or 0 for module in on_meta(model_name, **kwargs).modules())
        for kwargs in ({}, {"drop_path_rate": 0.0}, {"drop_path_rate": 0.4})
    ]
    assert rates[0] < rates[2]  # the default of the model
    assert rates[1] == 0
    assert 0.2 < rates[2] < 0.41


def test_paths_are_dropped_in_training_only() -> None:
    torch.manual_seed(0)
    backbone = TimmBackbone("test_convnext", drop_path_rate=0.5)
    images = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        first, again = (backbone.train()(images)["res5"] for _ in range(2))
        assert not torch.equal(first, again)
        first, again = (backbone.eval()(images)["res5"] for _ in range(2))
        assert torch.equal(first, again)


@pytest.mark.parametrize("wrong", [1, 1.0, -0.1, 20, float("nan"), "0.1"])
def test_invalid_drop_path_rate(wrong: Any) -> None:
    with pytest.raises(ConfigError) as error:
        on_meta("test_resnet", drop_path_rate=wrong)
    text = one_line(error)
    assert f"drop_path_rate={wrong}" in text
    assert "0 <= drop_path_rate < 1" in text


def test_drop_path_rate_for_a_model_without_it() -> None:
    with pytest.raises(ConfigError) as error:
        on_meta("vgg11", drop_path_rate=0.1)
    text = one_line(error)
    assert "vgg11" in text
    assert "drop_path_rate=0.1" in text


@pytest.mark.parametrize(
    ("model_name", "output_stride", "native"),
    [
        ("resnet18d", 8, (4, 8, 8, 8)),
        ("resnet18d", 16, (4, 8, 16, 16)),
        ("resnet18d", 32, (4, 8, 16, 32)),
        ("test_convnext", 16, (4, 8, 16, 16)),
        ("test_efficientnet", 16, (4, 8, 16, 16)),
    ],
)
def test_later_stages_are_dilated(model_name: str, output_stride: int, native: tuple[int, ...]) -> None:
    """The outputs have the strides of the dilated model, so none is resampled."""
    backbone = on_meta(model_name, output_stride=output_stride, strides=native, out_indices=(-4, -3, -2, -1))
    assert tuple(backbone.spec.features[i].stride for i in backbone.out_indices) == native
    assert not list(backbone.levels.parameters())
    assert_outputs(backbone(torch.empty(1, 3, *SMALL, device="meta")), backbone, 1, SMALL)


def test_dilated_stages_can_form_a_pyramid() -> None:
    backbone = on_meta("resnet18d", output_stride=16)
    assert backbone.out_indices == (1, 2, 3, 4)
    assert_outputs(backbone(torch.empty(1, 3, *SMALL, device="meta")), backbone, 1, SMALL)


@pytest.mark.parametrize(
    ("model_name", "output_stride"),
    [("test_vit", 16), ("dla34", 16), ("hrnet_w18_small", 8)],
)
def test_output_stride_for_a_model_without_it(model_name: str, output_stride: int) -> None:
    with pytest.raises(ConfigError) as error:
        on_meta(model_name, output_stride=output_stride)
    text = one_line(error)
    assert f"output_stride={output_stride}" in text
    assert model_name in text


@pytest.mark.parametrize("wrong", [4, 7, "16"])
def test_invalid_output_stride(wrong: Any) -> None:
    with pytest.raises(ConfigError) as error:
        on_meta("resnet18d", output_stride=wrong)
    text = one_line(error)
    assert f"output_stride={wrong}" in text
    assert "8, 16 or 32" in text


@pytest.mark.parametrize(
    ("key", "value", "other"), [("in_chans", 4, 1), ("drop_path_rate", 0.1, 0.1), ("output_stride", 16, 8)]
)
def test_argument_in_two_places(key: str, value: Any, other: Any) -> None:
    with pytest.raises(ConfigError) as error:
        on_meta("test_resnet", **{key: value, "timm_kwargs": {key: other}})
    text = one_line(error)
    assert text.startswith(f"{key}={value} ")
    assert f"timm_kwargs.{key}={other}" in text


@pytest.mark.parametrize("model_name", ["test_resnet", "levit_128s", "test_coatnet"])
def test_all_model_arguments_together(model_name: str) -> None:
    torch.manual_seed(0)
    backbone = TimmBackbone(
        model_name, in_chans=4, drop_path_rate=0.1, grad_checkpointing=True, freeze_at=1, norm="FrozenBN"
    ).train()
    outputs = backbone(torch.randn(2, 4, *SMALL))
    assert_outputs(outputs, backbone, 2, SMALL)
    torch.stack([x.square().mean() for x in outputs.values()]).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in backbone.parameters())


# level_norm


def test_level_norm_all_normalises_every_output() -> None:
    kwargs = {"timm_kwargs": {"depths": (1, 1, 1, 1), "embed_dim": 8, "num_heads": (1, 1, 1, 1)}}
    backbone = TimmBackbone("swin_tiny_patch4_window7_224", level_norm="all", **kwargs).eval()
    norms = [name for name, _ in backbone.levels.named_parameters()]
    assert norms == [f"{name}.scale.0.{part}" for name in NAMES for part in ("weight", "bias")]
    assert {layer.scale[0].eps for layer in backbone.levels.values()} == {
        1e-5
    }  # as in Swin's own layer norms
    for x in backbone(torch.randn(1, 3, 64, 64)).values():
        assert x.mean(1).abs().max() < 1e-4


def test_unknown_level_norm() -> None:
    with pytest.raises(ConfigError, match=r"level_norm='each'.* resampled, all, none"):
        on_meta("test_resnet", level_norm="each")


# fixed_input_size


@pytest.mark.parametrize(
    ("model_name", "fixed_input_size", "seen"),
    [
        ("test_resnet", True, (160, 160)),
        ("test_resnet", 96, (96, 96)),
        ("test_resnet", (64, 128), (64, 128)),
        ("test_resnet", [64, 128], (64, 128)),
        ("test_resnet", OmegaConf.create([64, 128]), (64, 128)),
        ("test_vit", 128, (128, 128)),
        ("mixer_s32_224", (96, 128), (96, 128)),
    ],
)
@pytest.mark.parametrize("size", [(160, 160), SMALL], ids="{0[0]}x{0[1]}".format)
def test_fixed_size_is_that_of_the_input_and_not_of_the_outputs(
    model_name: str, fixed_input_size: Any, seen: tuple[int, int], size: tuple[int, int]
) -> None:
    backbone = TimmBackbone(model_name, fixed_input_size=fixed_input_size).eval()
    images = []
    stem = next(module for module in backbone.model.modules() if isinstance(module, nn.Conv2d))
    stem.register_forward_pre_hook(lambda _, args: images.append(args[0]))
    with torch.no_grad():
        outputs = backbone(torch.randn(1, 3, *size))
    assert [tuple(x.shape[-2:]) for x in images] == [seen]
    assert_outputs(outputs, backbone, 1, size)


def test_fixed_size_equal_to_the_image_size_has_no_effect() -> None:
    free, fixed = (one_level("test_resnet", 32, fixed_input_size=size) for size in (None, (96, 160)))
    images = torch.randn(1, 3, 96, 160)
    with torch.no_grad():
        assert torch.equal(free(images)["level"], fixed(images)["level"])


def test_false_is_not_a_fixed_size() -> None:
    assert on_meta("test_resnet", fixed_input_size=False).spec.input_spec.size is None


@pytest.mark.parametrize("wrong", [0, -1, (224,), (224, 224, 224), (224, 0), (224.0, 224), "224", 224.0])
def test_invalid_fixed_size(wrong: Any) -> None:
    with pytest.raises(ConfigError) as error:
        on_meta("test_resnet", fixed_input_size=wrong)
    assert f"fixed_input_size={wrong}" in one_line(error)


def test_fixed_size_at_which_the_model_does_not_run() -> None:
    with pytest.raises(ConfigError) as error:
        on_meta("vit_tiny_patch16_224", fixed_input_size=10)
    text = one_line(error)
    assert "fixed_input_size=(10, 10)" in text
    assert "(224, 224)" in text  # the native size


def test_fixed_size_that_is_too_small_for_unpadded_convolutions() -> None:
    """At this size, inception's feature maps are empty."""
    with pytest.raises(ConfigError) as error:
        on_meta("inception_v3", fixed_input_size=32)
    assert "fixed_input_size=(32, 32)" in one_line(error)


def test_resizing_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    backbone = TimmBackbone("test_resnet", fixed_input_size=(96, 64)).eval()
    with torch.no_grad():
        backbone(torch.randn(1, 3, 96, 64))
        assert not caplog.records
        for _ in range(3):
            backbone(torch.randn(1, 3, *SMALL))
    (record,) = [record for record in caplog.records if record.name.startswith("d2timm")]
    assert record.levelname == "WARNING"
    assert "test_resnet" in record.getMessage()
    assert "96x64" in record.getMessage()


# out_indices


@pytest.mark.parametrize(
    ("model_name", "selected"),
    [
        ("xcit_small_12_p8_224", (3, 5, 7, 11)),  # as in XCiT's detection models
        ("cait_xxs24_224", (7, 11, 15, 23)),
        ("resnet18d", (1, 2, 3, 4)),
        ("levit_128s", (0, 0, 0, 1)),
        ("convnext_atto", (0, 1, 2, 3)),
        ("dla34", (2, 3, 4, 5)),
        ("volo_d1_224", (0, 0, 2, 3)),  # three stages with stride 16 for two levels
    ],
)
def test_default_features_fit_the_strides(model_name: str, selected: tuple[int, ...]) -> None:
    assert on_meta(model_name).out_indices == selected


@pytest.mark.parametrize(
    ("model_name", "stride", "selected"),
    [("xcit_small_12_p8_224", 16, 11), ("resnet18d", 16, 3), ("resnet18d", 64, 4), ("volo_d1_224", 16, 3)],
)
def test_single_level_uses_the_deepest_feature_that_fits(model_name: str, stride: int, selected: int) -> None:
    assert on_meta(model_name, remaps=("level",), strides=(stride,)).out_indices == (selected,)


@pytest.mark.parametrize(
    ("out_indices", "used"),
    [((1, 2, 3, 4), (1, 2, 3, 4)), ((-4, -3, -2, -1), (1, 2, 3, 4)), ((0, 0, 4, -1), (0, 0, 4, 4))],
)
@pytest.mark.parametrize("kind", [tuple, list, ListConfig])
def test_features_may_be_selected_by_index(
    out_indices: tuple[int, ...], used: tuple[int, ...], kind: Any
) -> None:
    backbone = on_meta("test_resnet", out_indices=kind(list(out_indices)))
    channels = (32, 32, 48, 192, 96)
    assert backbone.out_indices == used
    assert [spec.channels for spec in backbone.output_shape().values()] == [channels[i] for i in used]
    assert_outputs(backbone(torch.empty(1, 3, *SMALL, device="meta")), backbone, 1, SMALL)


@pytest.mark.parametrize("wrong", [(0, 1, 2, 5), (0, 1, 2, -6), (1, 2, 3, 2.5), (1, 2, 3, "4"), 4])
def test_invalid_out_indices(wrong: Any) -> None:
    with pytest.raises(ConfigError) as error:
        on_meta("test_resnet", out_indices=wrong)
    text = one_line(error)
    assert "out_indices" in text
    if isinstance(wrong, tuple):
        assert "0 to 4" in text


# remaps, strides and out_features


@pytest.mark.parametrize(
    "strides", [(8, 16, 32, 64), (16,), (2, 4), (32,), (1,), (7, 28), (64, 128), (4, 8, 16, 32, 64)]
)
@pytest.mark.parametrize("model_name", ["test_resnet", "test_vit", "vit_small_patch14_dinov2"])
@pytest.mark.parametrize("kind", [tuple, ListConfig])
def test_outputs_may_have_any_strides(model_name: str, strides: tuple[int, ...], kind: Any) -> None:
    remaps = [f"level{i}" for i in range(len(strides))]
    backbone = on_meta(model_name, remaps=kind(remaps), strides=kind(list(strides)))
    assert [spec.stride for spec in backbone.output_shape().values()] == list(strides)
    for size in (SIZES[1], SMALL):
        outputs = backbone(torch.empty(1, 3, *size, device="meta"))
        assert list(outputs) == remaps
        assert_outputs(outputs, backbone, 1, size)


@pytest.mark.parametrize("strides", [(16,), [8, 16], ListConfig([4, 8, 16, 32, 64]), (1, 2)])
def test_names_follow_from_the_strides_if_only_these_are_given(strides: Any) -> None:
    shapes = on_meta("test_vit", strides=strides).output_shape()
    assert [(2 ** int(name[3:]), spec.stride) for name, spec in shapes.items()] == [(s, s) for s in strides]


def test_last_block_alone() -> None:
    backbone = on_meta("vit_tiny_patch16_224", out_indices=(-1,), strides=(16,))
    assert backbone.output_shape() == {"res4": ShapeSpec(channels=192, stride=16)}
    assert on_meta("test_vit", strides=(2, 4, 8, 16)).output_shape().keys() == {
        "res2",
        "res3",
        "res4",
        "res5",
    }


def test_output_shape() -> None:
    shapes = on_meta("test_efficientnet").output_shape()
    assert shapes == {
        "res2": ShapeSpec(channels=24, stride=4),
        "res3": ShapeSpec(channels=32, stride=8),
        "res4": ShapeSpec(channels=48, stride=16),
        "res5": ShapeSpec(channels=64, stride=32),
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"remaps": ("a", "a", "b", "c")}, ("['a', 'a', 'b', 'c']", "same name")),
        ({"remaps": ("a", "b.c", "d", "e")}, ("b.c", "identifier")),
        ({"remaps": ("a", "", "d", "e")}, ("['a', '', 'd', 'e']", "identifier")),
        ({"remaps": ("a", 2, "d", "e")}, ("['a', 2, 'd', 'e']", "identifier")),
        ({"remaps": ("keys", "b", "c", "d")}, ("['keys', 'b', 'c', 'd']",)),  # name of a method
        ({"remaps": ("a", "b")}, ("remaps has 2", "strides has 4")),
        ({"strides": (8, 12)}, ("remaps has 4", "strides has 2")),
        ({"strides": ["16"]}, ("remaps has 4", "strides has 1")),
        ({"strides": (8, 16), "remaps": ["res2", "res3", "res4", "res5"]}, ("remaps has 4", "strides has 2")),
        ({"out_indices": (3, 4)}, ("out_indices has 2", "remaps has 4")),
        ({"remaps": (), "strides": ()}, ("at least one", "remaps has 0")),
        ({"strides": (0, 8, 16, 32)}, ("[0, 8, 16, 32]", ">= 1")),
        ({"strides": (4, -8, 16, 32)}, ("[4, -8, 16, 32]", ">= 1")),
        ({"strides": (4.0, 8, 16, 32)}, ("[4.0, 8, 16, 32]", ">= 1")),
        ({"strides": 32, "remaps": ("level",)}, ("strides=32",)),
        ({"strides": (32,), "remaps": "level"}, ("remaps",)),
    ],
)
def test_invalid_outputs(arguments: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as error:
        on_meta("test_resnet", **arguments)
    text = one_line(error)
    for word in words:
        assert word in text


def test_default_names_and_strides_are_detectron2s() -> None:
    shapes = on_meta("test_resnet").output_shape()
    assert {name: spec.stride for name, spec in shapes.items()} == dict(zip(NAMES, STRIDES, strict=True))


def test_unused_outputs_are_not_computed() -> None:
    every = TimmBackbone("test_vit")
    some = TimmBackbone("test_vit", out_features=["res5", "res3"])
    assert some.output_shape() == {name: every.output_shape()[name] for name in ("res3", "res5")}
    x = torch.randn(1, 3, 96, 64)
    some.load_state_dict({k: v for k, v in every.state_dict().items() if k in some.state_dict()})
    outputs, expected = some.eval()(x), every.eval()(x)
    assert list(outputs) == ["res3", "res5"]
    for name, output in outputs.items():
        assert torch.equal(output, expected[name])
    sum(output.sum() for output in some.train()(x).values()).backward()
    assert all(parameter.grad is not None for parameter in some.parameters())
