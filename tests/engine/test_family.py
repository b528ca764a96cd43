"""The kind of a model follows from timm's facts and from what it computes."""

from __future__ import annotations

import pytest

from d2timm import ConfigError
from d2timm.engine.family import Family, family_of


@pytest.mark.parametrize(
    ("model_name", "kind", "norm", "attention", "labels"),
    [
        ("resnet18", "pyramid", "batch", False, 1000),
        ("tf_efficientnet_lite0", "pyramid", "batch", False, 1000),
        ("convnext_atto", "pyramid", "other", False, 1000),
        ("swin_tiny_patch4_window7_224", "pyramid", "other", True, 1000),
        ("xcit_nano_12_p16_224", "one stride", "other", True, 1000),
        ("vit_tiny_patch16_224.augreg_in21k", "one stride", "other", True, 21843),
        ("vit_small_patch14_dinov2.lvd142m", "one stride", "other", True, 0),
        ("vit_base_patch16_224.mae", "one stride", "other", True, 0),
        ("mixer_s16_224", "one stride", "other", False, 1000),  # products with weights only
        ("efficientformer_l1", "pyramid", "batch", True, 1000),
    ],
)
def test_family(model_name: str, kind: str, norm: str, attention: bool, labels: int) -> None:
    family = family_of(model_name)
    assert (family.kind, family.norm, family.attention, family.labels) == (kind, norm, attention, labels)
    assert family.parameters > 0.1


def test_conditions() -> None:
    family = Family("pyramid", "other", attention=True, labels=0, parameters=28.0)
    assert family.fits({})
    assert family.fits({"kind": "pyramid", "labels": 0, "parameters": 28})
    assert not family.fits({"kind": "one stride"})
    assert not family.fits({"parameters": 27.9})


def test_unknown_name() -> None:
    with pytest.raises(ConfigError, match="resnet18"):
        family_of("resnet18x")
