"""Specs describe their route and create their model; features are extracted by index."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch

from d2timm.backbone.spec import BackboneSpec, InputSpec, extract
from d2timm.utils.sizes import round_up, round_up_size


def spec_with(input_spec: InputSpec, **kwargs: Any) -> BackboneSpec:
    """A spec whose native size is 150 x 160 pixels."""
    return BackboneSpec("test_resnet", tuple(kwargs.items()), 3, (150, 160), input_spec, ())


@pytest.mark.parametrize("indices", [(0, 2), (2, 0), (2, 2, 0)])
def test_extract_returns_features_by_index(indices: tuple[int, ...]) -> None:
    """In NCHW, although the model computes in NHWC."""
    with torch.device("meta"):
        model = timm.create_model("swin_tiny_patch4_window7_224").eval()
        maps = extract(model, torch.empty(1, 3, 224, 224), indices)
    assert {i: tuple(x.shape) for i, x in maps.items()} == {0: (1, 96, 56, 56), 2: (1, 384, 14, 14)}


def test_extract_stops_at_the_deepest_feature() -> None:
    with torch.device("meta"):
        model = timm.create_model("test_resnet").eval()
        called = []
        for name, module in model.named_children():
            module.register_forward_pre_hook(lambda *_, name=name: called.append(name))
        extract(model, torch.empty(1, 3, 64, 64), (2, 1))
    assert "layer2" in called
    assert not {"layer3", "layer4", "global_pool", "fc"}.intersection(called)


@pytest.mark.parametrize(
    ("input_spec", "text"),
    [
        (InputSpec("any size"), "any size"),
        (InputSpec("dynamic size"), "dynamic size"),
        (InputSpec("padding", 32), "padding to multiples of 32"),
        (InputSpec("dynamic size and padding", 14), "dynamic size and padding to multiples of 14"),
        (InputSpec("multi-size", multisize="image"), "multi-size"),
        (InputSpec("multi-size", 16, multisize="square"), "multi-size, padded to multiples of 16"),
        (InputSpec("resizing", size=(96, 128)), "resizing to 96x128"),
    ],
)
def test_input_spec_as_text(input_spec: InputSpec, text: str) -> None:
    assert str(input_spec) == text


@pytest.mark.parametrize(
    ("input_spec", "size"),
    [
        (InputSpec("any size"), (150, 160)),
        (InputSpec("padding", 32), (160, 160)),
        (InputSpec("padding", 64), (192, 192)),
        (InputSpec("multi-size", 64, multisize="image"), (150, 160)),  # the native size
        (InputSpec("resizing", size=(96, 128)), (96, 128)),
    ],
)
def test_trial_size(input_spec: InputSpec, size: tuple[int, int]) -> None:
    assert spec_with(input_spec).trial_size == size


def test_model_is_created_on_the_default_device() -> None:
    spec = spec_with(InputSpec("any size"), in_chans=4)
    assert not any(x.is_meta for x in spec.create().parameters())
    assert all(x.is_meta for x in spec.create_on_meta().parameters())
    with torch.device("meta"):
        assert all(x.is_meta for x in spec.create(pretrained=True).parameters())  # without access to the hub
    assert spec.create().conv1[0].in_channels == 4


@pytest.mark.parametrize(
    ("value", "multiple", "expected"), [(1, 32, 32), (32, 32, 32), (33, 32, 64), (97, 1, 97)]
)
def test_round_up(value: int, multiple: int, expected: int) -> None:
    assert round_up(value, multiple) == expected


def test_round_up_size_rounds_both_sides() -> None:
    assert round_up_size((97, 32), 32) == (128, 32)
