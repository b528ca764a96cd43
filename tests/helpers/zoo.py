"""What every backbone must do, as a class of tests whose subclasses only name models."""

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
#: Native to many, a multiple of 32 that is not square, and two that nothing divides
SIZES = ((224, 224), (320, 448), (333, 500), (97, 131))
SMALL = SIZES[-1]

#: Where timm's models keep what only a classifier needs
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
    """(rows, columns) that an image of a size must have at a stride."""
    return math.ceil(size[0] / stride), math.ceil(size[1] / stride)


def assert_outputs(
    outputs: dict[str, Tensor], backbone: TimmBackbone, batch: int, size: tuple[int, int]
) -> None:
    """Names in order, declared channels, grids of the image as given, and numbers where there are any."""
    declared = backbone.output_shape()
    assert list(outputs) == list(declared)
    for name, x in outputs.items():
        expected = (batch, declared[name].channels, *grid(size, declared[name].stride))
        assert tuple(x.shape) == expected, f"{name} is {tuple(x.shape)}, not {expected}"
        assert x.is_meta or x.isfinite().all(), f"{name} is not finite"


def parameters_that_matter(backbone: TimmBackbone, model_name: str) -> set[str]:
    """Names of the parameters of timm's whole model that a backward pass from the used features reaches."""
    source = backbone.spec
    with torch.device("meta"):
        model = timm.create_model(model_name, **dict(source.kwargs)).train()
        images = torch.empty(2, source.channels, *source.trial_size)
    features = model.forward_intermediates(
        images, indices=sorted(set(backbone.out_indices)), intermediates_only=True
    )
    torch.stack([feature.sum() for feature in features]).sum().backward()
    return {name for name, parameter in model.named_parameters() if parameter.grad is not None}


def channels_of(model_name: str) -> list[int]:
    """Channels of each feature, from timm's declaration."""
    with torch.device("meta"):
        model: nn.Module = timm.create_model(model_name)
    return [info["num_chs"] for info in model.feature_info]


class BackboneContract:
    """Inherit, and parametrise with ``model_name`` at class scope, so that each model is built once."""

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

    def test_every_parameter_gets_a_gradient(self, backbone: TimmBackbone) -> None:
        torch.manual_seed(0)
        outputs = backbone.train()(torch.randn(1, 3, *SMALL))
        torch.stack([x.square().mean() for x in outputs.values()]).sum().backward()
        gradients = {name: p.grad for name, p in backbone.named_parameters() if p.requires_grad}
        backbone.zero_grad(set_to_none=True)
        assert [name for name, g in gradients.items() if g is None or not g.isfinite().all()] == []

    def test_parameters_are_those_that_matter(self, backbone: TimmBackbone, model_name: str) -> None:
        kept = {name for name, _ in backbone.model.named_parameters()}
        assert kept == parameters_that_matter(backbone, model_name)
        assert all(p.requires_grad for p in backbone.parameters())

    def test_state_has_no_classifier(self, backbone: TimmBackbone) -> None:
        classifier = backbone.model.pretrained_cfg["classifier"]
        classifiers = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        heads = (*HEADS, *(f"{name}." for name in classifiers))
        assert [name for name in backbone.model.state_dict() if name.startswith(heads)] == []

    def test_declares_what_it_gives(self, backbone: TimmBackbone, model_name: str) -> None:
        channels = channels_of(model_name)
        assert backbone.output_shape() == {
            name: ShapeSpec(channels=channels[index], stride=stride)
            for name, stride, index in zip(NAMES, STRIDES, backbone.out_indices, strict=True)
        }
        # it takes images of any size: a detector pads its batches for the neck only
        assert backbone.size_divisibility == 0
        assert not backbone.padding_constraints
