"""Names of layers, strides and freezing of an old config, as TimmBackbone takes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from d2timm.backbone.timm_backbone import TimmBackbone
from d2timm.convert.yacs.account import Account
from d2timm.convert.yacs.backbone import backbone_settings, model_name
from d2timm.convert.yacs.parts import choose_parts
from d2timm.convert.yacs.read import read
from d2timm.errors import ConfigError

CONFIG = "MODEL.BACKBONE.CONFIG"
FOUR = {"STRIDES": [4, 8, 16, 32], "REMAPS": ["a", "b", "c", "d"]}

Settings = Callable[..., tuple[dict[str, Any], Account]]


@pytest.fixture
def convert(tmp_path: Path) -> Settings:
    """The settings of a model with some keys of CONFIG and some others, and the account of them."""

    def of(name: str, config: dict[str, Any], **more: Any) -> tuple[dict[str, Any], Account]:
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

    return of


def test_features_by_the_names_of_their_layers(convert: Settings) -> None:
    layers = ["layer1", "layer2", "layer3", "layer4"]
    settings, account = convert("test_resnet_fpn", {"OUT_FEATURES": layers, **FOUR})
    # those that fit best anyway
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


def test_blocks_of_a_plain_transformer(convert: Settings) -> None:
    layers = [f"blocks.{i}" for i in (0, 2, 3, 5)]
    settings, account = convert("test_vit_fpn", {"OUT_FEATURES": layers, **FOUR})
    assert settings["out_indices"] == [0, 2, 3, 5]
    note = account.notes[f"{CONFIG}.STRIDES"]
    assert note == "blocks.0, blocks.2, blocks.3, blocks.5 have strides 16, 16, 16, 16: up-sampled and pooled"


@pytest.mark.parametrize(
    ("layer", "index", "note"),
    [
        ("layer3.0", 3, None),  # the last block of its stage
        ("conv1", 0, "timm gives no conv1, but act1 after it"),
        ("layer2.0.conv1", 2, "timm gives no layer2.0.conv1, but layer2 after it"),
    ],
)
def test_layers_that_timm_gives_no_feature_of(
    convert: Settings, layer: str, index: int, note: str | None
) -> None:
    stride = [2, 4, 8, 16, 32][index]
    settings, account = convert("test_resnet_fpn", {"OUT_FEATURES": [layer], "STRIDES": [stride]})
    with torch.device("meta"):
        backbone = TimmBackbone(
            "test_resnet", settings["out_indices"], settings["remaps"], settings["strides"]
        )
    assert backbone.out_indices == (index,)
    assert account.notes.get(f"{CONFIG}.OUT_FEATURES") == note


def test_strides_that_are_not_those_of_the_layers(convert: Settings) -> None:
    layers = ["layer1", "layer2", "layer3", "layer3"]
    settings, account = convert("test_resnet_fpn", {"OUT_FEATURES": layers, **FOUR})
    assert settings["out_indices"] is None
    note = account.notes[f"{CONFIG}.STRIDES"]
    assert note.startswith("layer1, layer2, layer3, layer3 have strides 4, 8, 16, 16")
    assert note.endswith("layer1, layer2, layer3, layer4 are taken, whose strides fit")


def test_channels_are_the_models(convert: Settings) -> None:
    config = {"OUT_FEATURES": ["layer1", "layer2"], "STRIDES": [4, 8], "REMAPS": ["a", "b"]}
    settings, account = convert("test_resnet_fpn", {**config, "CHANNELS": [32, 64]})
    assert account.notes[f"{CONFIG}.CHANNELS"] == "the model has 32, 48"
    assert "channels" not in settings
    _, account = convert("test_resnet_fpn", {**config, "CHANNELS": [32, 48]})
    assert f"{CONFIG}.CHANNELS" not in account.notes
    assert f"{CONFIG}.CHANNELS" in account.needless


def test_names_that_cannot_be_are_changed(convert: Settings) -> None:
    config = {"OUT_FEATURES": ["blocks.1", "blocks.2"], "STRIDES": [4, 8]}
    settings, account = convert("test_efficientnet_fpn", config)
    assert settings["remaps"] == ["res2", "res3"]
    note = account.notes[f"{CONFIG}.REMAPS"]
    assert note == "names are identifiers here: blocks.1 is res2, blocks.2 is res3"


def test_without_layers_those_that_fit(convert: Settings) -> None:
    settings, account = convert("test_resnet_fpn", {}, MODEL__FPN__IN_FEATURES=["layer2", "layer3"])
    assert (settings["out_indices"], settings["strides"]) == (None, [4, 8, 16, 32])
    assert settings["in_features"] == ["layer2", "layer3"]  # the names that timm gives
    names = ["res2", "res3", "res4", "res5"]  # those that detectron2 gives
    settings, account = convert("test_resnet_fpn", {}, MODEL__FPN__IN_FEATURES=names)
    assert settings["remaps"] == names
    assert "MODEL.FPN.IN_FEATURES" not in account.lost


def test_what_the_neck_takes(convert: Settings) -> None:
    layers = {"OUT_FEATURES": ["layer1", "layer2", "layer3", "layer4"], **FOUR}
    settings, _ = convert("test_resnet_fpn", layers, MODEL__FPN__IN_FEATURES=["b", "c", "d"])
    assert settings["in_features"] == ["b", "c", "d"]
    settings, account = convert("test_resnet_fpn", layers, MODEL__FPN__IN_FEATURES=["b", "res4"])
    assert "in_features" not in settings
    assert account.lost["MODEL.FPN.IN_FEATURES"] == "the outputs are a, b, c, d; taken: a, b, c, d"
    # RetinaNet's begins at stride 8
    settings, _ = convert(
        "test_resnet_fpn",
        layers,
        MODEL__FPN__IN_FEATURES=["a", "b", "c", "d"],
        MODEL__META_ARCHITECTURE="RetinaNet",
    )
    assert "in_features" not in settings


def test_without_a_pyramid_the_heads_say_which_output(convert: Settings) -> None:
    layers = {"OUT_FEATURES": ["layer1", "layer2", "layer3", "layer4"], **FOUR}
    heads = {f"MODEL__{part}__IN_FEATURES": ["d"] for part in ("RPN", "ROI_HEADS")}
    settings, account = convert("test_resnet", layers, **heads)
    assert settings["in_features"] == ["d"]
    assert account.notes["MODEL.RPN.IN_FEATURES"].startswith("d is p5")
    settings, account = convert("test_resnet", layers)
    assert "in_features" not in settings
    assert account.lost["MODEL.RPN.IN_FEATURES"] == "the outputs are a, b, c, d; taken: c"


def test_layers_to_freeze(convert: Settings) -> None:
    config = {
        "OUT_FEATURES": ["layer1", "layer2"],
        "STRIDES": [4, 8],
        "REMAPS": ["a", "b"],
        "FREEZE_LAYERS": ["conv1", "bn1", "a", "layer4"],
    }
    settings, account = convert("test_resnet_fpn", config, MODEL__BACKBONE__FREEZE_AT=2)
    assert settings["freeze"] == ["conv1.*", "bn1.*", "layer1.*"]
    assert account.notes[f"{CONFIG}.FREEZE_LAYERS"] == "layer4 is not there, as no feature needs it"
    assert settings["freeze_at"] == 2
    assert "froze nothing, and these weights are random" in account.notes["MODEL.BACKBONE.FREEZE_AT"]
    with torch.device("meta"):
        backbone = TimmBackbone("test_resnet", None, ["a", "b"], [4, 8], freeze=settings["freeze"])
    trained = {name.split(".")[0] for name, p in backbone.model.named_parameters() if p.requires_grad}
    assert trained == {"layer2"}


def test_parameters_to_freeze(convert: Settings) -> None:
    config = {"OUT_FEATURES": ["blocks.5"], "STRIDES": [16], "FREEZE_LAYERS": ["pos_embed", "patch_embed"]}
    settings, _ = convert("test_vit_fpn", config)
    assert settings["freeze"] == ["pos_embed", "patch_embed.*"]


def test_size_that_images_are_resized_to(convert: Settings) -> None:
    config = {"OUT_FEATURES": ["blocks.5"], "STRIDES": [16], "REMAPS": ["a"]}
    sides = {"INPUT__MIN_SIZE_TRAIN": "(96, 100)", "INPUT__MAX_SIZE_TRAIN": 170}
    settings, account = convert("vit_tiny_patch16_224_fpn", config, **sides)
    assert settings["fixed_input_size"] == [96, 160]
    assert "resized to 96x160" in account.notes["INPUT.FIXED_INPUT_SIZE"]
    settings, _ = convert("vit_tiny_patch16_224_fpn", config, **sides, INPUT__FIXED_INPUT_SIZE=False)
    assert settings["fixed_input_size"] is None
    settings, account = convert("test_resnet_fpn", {}, **sides)
    assert settings["fixed_input_size"] is None
    assert account.needless["INPUT.FIXED_INPUT_SIZE"] == "the model takes images of any size"


def test_weights_that_timm_does_not_have_are_told(convert: Settings) -> None:
    settings, account = convert("test_resnet_fpn", {"PRETRAINED": True})
    assert settings["pretrained"] is True
    assert f"{CONFIG}.PRETRAINED" not in account.notes
    _, account = convert("ghostnet_050_fpn", {"PRETRAINED": True})
    assert account.notes[f"{CONFIG}.PRETRAINED"].startswith("timm has no weights for ghostnet_050")


def test_model_that_timm_has_renamed(tmp_path: Path) -> None:
    file = tmp_path / "old.yaml"
    file.write_text("MODEL: {BACKBONE: {NAME: build_xcit_nano_12_p16_224_dist_fpn_backbone}}")
    account = Account(read(file))
    assert model_name(account) == "xcit_nano_12_p16_224.fb_dist_in1k"
    assert "timm calls it" in account.notes["MODEL.BACKBONE.NAME"]


@pytest.mark.parametrize(
    ("name", "config", "told"),
    [
        ("test_resnett_fpn", {}, r"NAME=build_test_resnett_fpn_backbone: .*did you mean test_resnet"),
        ("resnet_fpn", {}, "is detectron2's own: name a model of timm, such as --opts"),
        (
            "test_resnet",
            {"OUT_FEATURES": ["layer5"], "STRIDES": [4]},
            "no layer 'layer5': did you mean layer4",
        ),
        ("test_resnet", {"OUT_FEATURES": ["layer4"], "STRIDES": [16, 32]}, "1 entries, STRIDES 2"),
        ("test_resnet", {"FREEZE_LAYERS": ["stem"]}, "FREEZE_LAYERS: test_resnet has no layer 'stem'"),
    ],
)
def test_what_cannot_be(convert: Settings, name: str, config: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        convert(name, config)
