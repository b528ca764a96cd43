"""An old config's layers, strides and frozen layers become arguments of TimmBackbone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from d2timm.backbone.timm_backbone import TimmBackbone
from d2timm.convert.yacs.account import Account
from d2timm.convert.yacs.backbone import backbone_settings
from d2timm.convert.yacs.parts import choose_parts, model_name
from d2timm.convert.yacs.read import read
from d2timm.errors import ConfigError

CONFIG = "MODEL.BACKBONE.CONFIG"
FOUR = {"STRIDES": [4, 8, 16, 32], "REMAPS": ["a", "b", "c", "d"]}

Settings = Callable[..., tuple[dict[str, Any], Account]]


@pytest.fixture
def convert(tmp_path: Path) -> Settings:
    """The settings of a model with some keys of CONFIG and others, and the account of the keys."""

    def settings_of(name: str, config: dict[str, Any], **more: Any) -> tuple[dict[str, Any], Account]:
        tree = {"MODEL": {"BACKBONE": {"NAME": f"build_{name}_backbone", "CONFIG": config}}}
        file = tmp_path / "old.yaml"
        file.write_text(json.dumps(tree))
        opts = [text for key, value in more.items() for text in (key.replace("__", "."), str(value))]
        account = Account(read(file, opts))
        settings = backbone_settings(account, model_name(account), choose_parts(account))
        return {
            key.removeprefix("model.backbone.").removeprefix("bottom_up."): value
            for key, value in settings.items()
        }, account

    return settings_of


def test_layers_that_fit_best_need_no_indices(convert: Settings) -> None:
    layers = ["layer1", "layer2", "layer3", "layer4"]
    settings, account = convert("test_resnet_fpn", {"OUT_FEATURES": layers, **FOUR})
    assert (settings["out_indices"], settings["remaps"], settings["strides"]) == (
        None,
        ["a", "b", "c", "d"],
        [4, 8, 16, 32],
    )
    assert "in_features" not in settings
    assert set(account.notes) <= {"DATASETS.TRAIN", "INPUT.FIXED_INPUT_SIZE"}
    settings, _ = convert(
        "test_resnet_fpn", {"OUT_FEATURES": layers[1:], "STRIDES": [8, 16, 32], "REMAPS": ["b", "c", "d"]}
    )
    assert (settings["out_indices"], settings["strides"]) == (None, [8, 16, 32])


def test_blocks_of_a_plain_transformer_become_indices(convert: Settings) -> None:
    layers = [f"blocks.{i}" for i in (0, 2, 3, 5)]
    settings, account = convert("test_vit_fpn", {"OUT_FEATURES": layers, **FOUR})
    assert settings["out_indices"] == [0, 2, 3, 5]
    note = account.notes[f"{CONFIG}.STRIDES"]
    assert "blocks.0, blocks.2, blocks.3, blocks.5 have strides 16, 16, 16, 16" in note
    assert "up-sampled" in note


@pytest.mark.parametrize(
    ("layer", "index", "note"),
    [
        ("layer3.0", 3, None),  # the last block of its stage
        ("conv1", 0, "conv1: act1"),
        ("layer2.0.conv1", 2, "layer2.0.conv1: layer2"),
    ],
)
def test_a_layer_without_a_timm_feature_becomes_the_next_feature(
    convert: Settings, layer: str, index: int, note: str | None
) -> None:
    stride = [2, 4, 8, 16, 32][index]
    settings, account = convert("test_resnet_fpn", {"OUT_FEATURES": [layer], "STRIDES": [stride]})
    with torch.device("meta"):
        backbone = TimmBackbone(
            "test_resnet", settings["out_indices"], settings["remaps"], settings["strides"]
        )
    assert backbone.out_indices == (index,)
    if note is None:
        assert f"{CONFIG}.OUT_FEATURES" not in account.notes
    else:
        assert note in account.notes[f"{CONFIG}.OUT_FEATURES"]


def test_wrong_strides_of_a_pyramid_select_the_features_that_fit(convert: Settings) -> None:
    layers = ["layer1", "layer2", "layer3", "layer3"]
    settings, account = convert("test_resnet_fpn", {"OUT_FEATURES": layers, **FOUR})
    assert settings["out_indices"] is None
    note = account.notes[f"{CONFIG}.STRIDES"]
    assert "layer1, layer2, layer3, layer3 have strides 4, 8, 16, 16" in note
    assert "layer1, layer2, layer3, layer4 are used" in note


def test_channels_are_those_of_the_model(convert: Settings) -> None:
    config = {"OUT_FEATURES": ["layer1", "layer2"], "STRIDES": [4, 8], "REMAPS": ["a", "b"]}
    settings, account = convert("test_resnet_fpn", {**config, "CHANNELS": [32, 64]})
    assert "32, 48" in account.notes[f"{CONFIG}.CHANNELS"]
    assert "channels" not in settings
    _, account = convert("test_resnet_fpn", {**config, "CHANNELS": [32, 48]})
    account.finish()
    assert f"{CONFIG}.CHANNELS" not in account.notes
    assert f"{CONFIG}.CHANNELS" in account.not_needed


def test_names_that_are_not_identifiers_are_replaced(convert: Settings) -> None:
    config = {"OUT_FEATURES": ["blocks.1", "blocks.2"], "STRIDES": [4, 8]}
    settings, account = convert("test_efficientnet_fpn", config)
    assert settings["remaps"] == ["res2", "res3"]
    assert "blocks.1 is now res2, blocks.2 is now res3" in account.notes[f"{CONFIG}.REMAPS"]


def test_without_layers_the_features_that_fit_are_used(convert: Settings) -> None:
    settings, account = convert("test_resnet_fpn", {}, MODEL__FPN__IN_FEATURES=["layer2", "layer3"])
    assert (settings["out_indices"], settings["strides"]) == (None, [4, 8, 16, 32])
    assert settings["in_features"] == ["layer2", "layer3"]  # timm's names
    names = ["res2", "res3", "res4", "res5"]  # detectron2's names
    settings, account = convert("test_resnet_fpn", {}, MODEL__FPN__IN_FEATURES=names)
    assert settings["remaps"] == names
    assert "MODEL.FPN.IN_FEATURES" not in account.not_converted


def test_the_neck_takes_the_features_of_the_old_pyramid(convert: Settings) -> None:
    layers = {"OUT_FEATURES": ["layer1", "layer2", "layer3", "layer4"], **FOUR}
    settings, _ = convert("test_resnet_fpn", layers, MODEL__FPN__IN_FEATURES=["b", "c", "d"])
    assert settings["in_features"] == ["b", "c", "d"]
    settings, account = convert("test_resnet_fpn", layers, MODEL__FPN__IN_FEATURES=["b", "res4"])
    assert "in_features" not in settings
    reason = account.not_converted["MODEL.FPN.IN_FEATURES"]
    assert "outputs are a, b, c, d" in reason
    assert "neck takes a, b, c, d" in reason
    # RetinaNet's neck begins at stride 8
    settings, _ = convert(
        "test_resnet_fpn",
        layers,
        MODEL__FPN__IN_FEATURES=["a", "b", "c", "d"],
        MODEL__META_ARCHITECTURE="RetinaNet",
    )
    assert "in_features" not in settings


def test_without_a_pyramid_the_heads_name_the_output(convert: Settings) -> None:
    layers = {"OUT_FEATURES": ["layer1", "layer2", "layer3", "layer4"], **FOUR}
    heads = {f"MODEL__{part}__IN_FEATURES": ["d"] for part in ("RPN", "ROI_HEADS")}
    settings, account = convert("test_resnet", layers, **heads)
    assert settings["in_features"] == ["d"]
    assert "d becomes p5" in account.notes["MODEL.RPN.IN_FEATURES"]
    settings, account = convert("test_resnet", layers)
    assert "in_features" not in settings
    assert "neck takes c" in account.not_converted["MODEL.RPN.IN_FEATURES"]


def test_frozen_layers_become_patterns(convert: Settings) -> None:
    config = {
        "OUT_FEATURES": ["layer1", "layer2"],
        "STRIDES": [4, 8],
        "REMAPS": ["a", "b"],
        "FREEZE_LAYERS": ["conv1", "bn1", "a", "layer4"],
    }
    settings, account = convert("test_resnet_fpn", config, MODEL__BACKBONE__FREEZE_AT=2)
    assert settings["freeze"] == ["conv1.*", "bn1.*", "layer1.*"]
    assert account.notes[f"{CONFIG}.FREEZE_LAYERS"].startswith("layer4 ")
    assert "froze nothing" in account.notes["MODEL.BACKBONE.FREEZE_AT"]
    assert "random" in account.notes["MODEL.BACKBONE.FREEZE_AT"]
    with torch.device("meta"):
        backbone = TimmBackbone("test_resnet", None, ["a", "b"], [4, 8], freeze=settings["freeze"])
    trained = {name.split(".")[0] for name, p in backbone.model.named_parameters() if p.requires_grad}
    assert trained == {"layer2"}


def test_single_parameters_can_be_frozen(convert: Settings) -> None:
    config = {"OUT_FEATURES": ["blocks.5"], "STRIDES": [16], "FREEZE_LAYERS": ["pos_embed", "patch_embed"]}
    settings, _ = convert("test_vit_fpn", config)
    assert settings["freeze"] == ["pos_embed", "patch_embed.*"]


def test_fixed_size_follows_from_sizes_and_strides(convert: Settings) -> None:
    config = {"OUT_FEATURES": ["blocks.5"], "STRIDES": [16], "REMAPS": ["a"]}
    sides = {"INPUT__MIN_SIZE_TRAIN": "(96, 100)", "INPUT__MAX_SIZE_TRAIN": 170}
    settings, account = convert("vit_tiny_patch16_224_fpn", config, **sides)
    assert settings["fixed_input_size"] == [96, 160]
    assert "resized to 96x160" in account.notes["INPUT.FIXED_INPUT_SIZE"]
    settings, _ = convert("vit_tiny_patch16_224_fpn", config, **sides, INPUT__FIXED_INPUT_SIZE=False)
    assert settings["fixed_input_size"] is None
    settings, account = convert("test_resnet_fpn", {}, **sides)
    assert settings["fixed_input_size"] is None
    assert "INPUT.FIXED_INPUT_SIZE" in account.not_needed


def test_weights_that_timm_lacks_are_noted(convert: Settings) -> None:
    _, account = convert("test_resnet_fpn", {"PRETRAINED": True})
    assert f"{CONFIG}.PRETRAINED" not in account.notes
    _, account = convert("ghostnet_050_fpn", {"PRETRAINED": True})
    assert account.notes[f"{CONFIG}.PRETRAINED"].startswith("timm has no weights for ghostnet_050")


def test_renamed_models_get_their_new_name(tmp_path: Path) -> None:
    file = tmp_path / "old.yaml"
    file.write_text("MODEL: {BACKBONE: {NAME: build_xcit_nano_12_p16_224_dist_fpn_backbone}}")
    account = Account(read(file))
    assert model_name(account) == "xcit_nano_12_p16_224.fb_dist_in1k"
    assert "xcit_nano_12_p16_224.fb_dist_in1k" in account.notes["MODEL.BACKBONE.NAME"]


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("test_resnett_fpn", {}, r"NAME=build_test_resnett_fpn_backbone: .*did you mean test_resnet"),
        ("resnet_fpn", {}, "NAME=build_resnet_fpn_backbone .*--opts MODEL.BACKBONE.NAME"),
        (
            "test_resnet",
            {"OUT_FEATURES": ["layer5"], "STRIDES": [4]},
            "no layer 'layer5': did you mean layer4",
        ),
        ("test_resnet", {"OUT_FEATURES": ["layer4"], "STRIDES": [16, 32]}, "1 entries, STRIDES 2"),
        ("test_resnet", {"FREEZE_LAYERS": ["stem"]}, "FREEZE_LAYERS: test_resnet has no layer 'stem'"),
    ],
)
def test_invalid_backbones_are_errors(
    convert: Settings, name: str, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        convert(name, config)
