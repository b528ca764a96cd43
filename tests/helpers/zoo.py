"""The contract of all backbones: a class of tests, whose subclasses only list models."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from d2timm import TimmBackbone

NAMES = ("res2", "res3", "res4", "res5")
STRIDES = (4, 8, 16, 32)
#: (height, width) in pixels: native size of many models, multiples of 32, and two of no model's multiples
SIZES = ((224, 224), (320, 448), (333, 500), (97, 131))
SMALL = SIZES[-1]

#: Prefixes of the parameters of timm's models that only a classifier uses
HEADS = (
    "head.",
    "head_dist.",
    "fc.",
    "fc_norm.",
    "classifier.",
    "last_linear.",
    "global_pool.",
    "attn_pool.",
)


def grid(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """The (rows, columns) of a feature map with a stride, for an image of a size."""
    return math.ceil(size[0] / stride), math.ceil(size[1] / stride)


def assert_outputs(
    outputs: dict[str, Tensor], backbone: TimmBackbone, batch: int, size: tuple[int, int]
) -> None:
    """Check names, channels and grids of outputs, and that their values are finite unless on ``meta``."""
    declared = backbone.output_shape()
    assert list(outputs) == list(declared)
    for name, x in outputs.items():
        expected = (batch, declared[name].channels, *grid(size, declared[name].stride))
        assert tuple(x.shape) == expected, f"{name} is {tuple(x.shape)}, not {expected}"
        assert x.is_meta or x.isfinite().all(), f"{name} is not finite"


def reached_parameters(backbone: TimmBackbone, model_name: str) -> set[str]:
    """Names of the parameters of timm's complete model on which the used features depend."""
    spec = backbone.spec
    with torch.device("meta"):
        model = timm.create_model(model_name, **dict(spec.kwargs)).train()
        images = torch.empty(2, spec.channels, *spec.trial_size)
    features = model.forward_intermediates(
        images, indices=sorted(set(backbone.out_indices)), intermediates_only=True
    )
    torch.stack([feature.sum() for feature in features]).sum().backward()
    return {name for name, parameter in model.named_parameters() if parameter.grad is not None}


def channels_of(model_name: str) -> list[int]:
    """Channels of each feature as timm declares them."""
    with torch.device("meta"):
        model: nn.Module = timm.create_model(model_name)
    return [info["num_chs"] for info in model.feature_info]


class BackboneContract:
    """Subclasses parametrise ``model_name`` at class scope, so that each model is built once."""

    @pytest.fixture(scope="class")
    @classmethod
    def backbone(cls, model_name: str) -> TimmBackbone:
        torch.manual_seed(0)
        return TimmBackbone(model_name)

    @pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)
    @pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
    def test_outputs(self, backbone: TimmBackbone, training: bool, size: tuple[int, int]) -> None:
        torch.manual_seed(0)
        backbone.train(training)
        with torch.no_grad():
            outputs = backbone(torch.randn(1, 3, *size))
        assert list(outputs) == list(NAMES)
        assert_outputs(outputs, backbone, 1, size)

    def test_every_parameter_has_a_gradient(self, backbone: TimmBackbone) -> None:
        torch.manual_seed(0)
        outputs = backbone.train()(torch.randn(1, 3, *SMALL))
        torch.stack([x.square().mean() for x in outputs.values()]).sum().backward()
        gradients = {name: p.grad for name, p in backbone.named_parameters() if p.requires_grad}
        backbone.zero_grad(set_to_none=True)
        assert [name for name, g in gradients.items() if g is None or not g.isfinite().all()] == []

    def test_parameters_are_those_that_features_depend_on(
        self, backbone: TimmBackbone, model_name: str
    ) -> None:
        names = {name for name, _ in backbone.model.named_parameters()}
        assert names == reached_parameters(backbone, model_name)
        assert all(p.requires_grad for p in backbone.parameters())

    def test_state_has_no_classifier(self, backbone: TimmBackbone) -> None:
        classifier = backbone.model.pretrained_cfg["classifier"]
        classifiers = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        heads = (*HEADS, *(f"{name}." for name in classifiers))
        assert [name for name in backbone.model.state_dict() if name.startswith(heads)] == []

    def test_output_shape(self, backbone: TimmBackbone, model_name: str) -> None:
        channels = channels_of(model_name)
        assert backbone.output_shape() == {
            name: ShapeSpec(channels=channels[index], stride=stride)
            for name, stride, index in zip(NAMES, STRIDES, backbone.out_indices, strict=True)
        }
        # images may have any size, so a detector pads its batches only as the neck requires
        assert backbone.size_divisibility == 0
        assert not backbone.padding_constraints
