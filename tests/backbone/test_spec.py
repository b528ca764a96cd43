"""The facts about a timm model as a source of features, and how features are taken."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch

from d2timm.backbone.spec import BackboneSpec, InputSpec, extract
from d2timm.utils.sizes import round_up, round_up_size


def source(needs: InputSpec, **kwargs: Any) -> BackboneSpec:
    """A source whose model was made for images of 150 x 160 pixels."""
    return BackboneSpec("test_resnet", tuple(kwargs.items()), 3, (150, 160), needs, ())


@pytest.mark.parametrize("indices", [(0, 2), (2, 0), (2, 2, 0)])
def test_extract_gives_each_feature_by_its_index(indices: tuple[int, ...]) -> None:
    """NCHW, though the model computes in NHWC."""
    with torch.device("meta"):
        model = timm.create_model("swin_tiny_patch4_window7_224").eval()
        maps = extract(model, torch.empty(1, 3, 224, 224), indices)
    assert {i: tuple(x.shape) for i, x in maps.items()} == {0: (1, 96, 56, 56), 2: (1, 384, 14, 14)}


def test_extract_runs_no_further_than_it_must() -> None:
    with torch.device("meta"):
        model = timm.create_model("test_resnet").eval()
        called = []
        for name, module in model.named_children():
            module.register_forward_pre_hook(lambda *_, name=name: called.append(name))
        extract(model, torch.empty(1, 3, 64, 64), (2, 1))
    assert "layer2" in called
    assert not {"layer3", "layer4", "global_pool", "fc"}.intersection(called)


@pytest.mark.parametrize(
    ("needs", "told"),
    [
        (InputSpec("any size"), "any size"),
        (InputSpec("dynamic size"), "dynamic size"),
        (InputSpec("padding", 32), "padding to multiples of 32"),
        (InputSpec("dynamic size and padding", 14), "dynamic size and padding to multiples of 14"),
        (InputSpec("multi-size", canvas="image"), "multi-size"),
        (InputSpec("multi-size", 16, canvas="square"), "canvas, padded to multiples of 16"),
        (InputSpec("resizing", size=(96, 128)), "resizing to 96x128"),
    ],
)
def test_needs_are_told_in_words(needs: InputSpec, told: str) -> None:
    assert str(needs) == told


@pytest.mark.parametrize(
    ("needs", "size"),
    [
        (InputSpec("any size"), (150, 160)),
        (InputSpec("padding", 32), (160, 160)),
        (InputSpec("padding", 64), (192, 192)),
        (InputSpec("multi-size", 64, canvas="image"), (150, 160)),  # that is what it was made for
        (InputSpec("resizing", size=(96, 128)), (96, 128)),
    ],
)
def test_trial_image_is_one_that_the_model_takes(needs: InputSpec, size: tuple[int, int]) -> None:
    assert source(needs).trial_size == size


def test_source_makes_its_model_where_torch_makes_tensors() -> None:
    made = source(InputSpec("any size"), in_chans=4)
    assert not any(x.is_meta for x in made.create().parameters())
    assert all(x.is_meta for x in made.create_on_meta().parameters())
    with torch.device("meta"):
        assert all(x.is_meta for x in made.create(pretrained=True).parameters())  # and asks no hub
    assert made.create().conv1[0].in_channels == 4


@pytest.mark.parametrize(
    ("value", "multiple", "expected"), [(1, 32, 32), (32, 32, 32), (33, 32, 64), (97, 1, 97)]
)
def test_round_up(value: int, multiple: int, expected: int) -> None:
    assert round_up(value, multiple) == expected


def test_both_sides_are_rounded() -> None:
    assert round_up_size((97, 32), 32) == (128, 32)
