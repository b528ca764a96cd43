"""The contract of a backbone, as checks of any timm model: on ``meta``, and on the CPU with gradients."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from d2timm import TimmBackbone
from d2timm.backbone import description
from d2timm.backbone.meta import MetaRun
from d2timm.backbone.pruning import Used
from d2timm.backbone.zoo_table import Row
from d2timm.utils.sizes import Size

#: Native to many; a multiple of 32 that is not square; two that nothing divides, of COCO's proportions
SIZES: tuple[Size, ...] = ((224, 224), (320, 448), (333, 500), (800, 1333))
REAL_SIZES: tuple[Size, ...] = ((192, 256), (161, 223))
COST_SIZE: Size = (512, 512)


def check_on_meta(model_name: str) -> Row:
    """Check shapes at ``SIZES`` and the stages of the parameters; returns the row of the zoo table."""
    backbone = description.on_meta(model_name).eval()
    spec = backbone.spec
    for size in SIZES:
        with torch.no_grad(), MetaRun():
            outputs = backbone(torch.empty(1, spec.channels, *size, device="meta"))
        check_outputs(backbone, outputs, 1, size)
    check_stages(backbone)
    images = torch.empty(1, spec.channels, *COST_SIZE, device="meta")
    return {
        "model_name": model_name,
        "kind": description.kind(spec),
        "route": str(spec.input_spec),
        "indices": list(backbone.out_indices),
        "channels": [shape.channels for shape in backbone.output_shape().values()],
        "native_strides": [spec.features[i].stride for i in backbone.out_indices],
        "parameters": sum(parameter.numel() for parameter in backbone.parameters()),
        "multiply_adds": description.multiply_adds(backbone, images),
    }


def check_on_cpu(model_name: str) -> TimmBackbone:
    """Check a forward and a backward pass at ``REAL_SIZES``, and that every parameter and buffer is used."""
    torch.manual_seed(0)
    backbone = TimmBackbone(model_name)
    used: set[int] = set()
    for size in REAL_SIZES:
        images = torch.randn(2, backbone.spec.channels, *size)
        with Used() as training:
            outputs = backbone.train()(images)
        check_outputs(backbone, outputs, 2, size)
        torch.stack([x.square().mean() for x in outputs.values()]).sum().backward()
        check_gradients(backbone)
        backbone.zero_grad()
        used |= training.ids | _used_in_eval_mode(backbone, images)
    # buffers are listed only now, because a model may create them in its first run
    tensors = {**dict(backbone.named_parameters()), **dict(backbone.named_buffers())}
    if any(id(x) not in used for x in tensors.values()):
        # some are needed by images of the native size only
        used |= _used_in_eval_mode(
            backbone, torch.randn(1, backbone.spec.channels, *backbone.spec.trial_size)
        )
    unused = [name for name, x in tensors.items() if id(x) not in used]
    assert not unused, f"nothing uses {', '.join(unused)}"
    return backbone


def _used_in_eval_mode(backbone: TimmBackbone, images: Tensor) -> set[int]:
    with Used() as used, torch.no_grad():
        backbone.eval()(images)
    ids: set[int] = used.ids
    return ids


def check_gradients(backbone: TimmBackbone) -> None:
    """Check that each parameter that requires a gradient has a finite one."""
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None or not parameter.requires_grad, f"{name} gets no gradient"
        finite = parameter.grad is None or parameter.grad.isfinite().all()
        assert finite, f"the gradient of {name} is not finite"


def check_outputs(backbone: TimmBackbone, outputs: dict[str, Tensor], batch: int, size: Size) -> None:
    """Check that outputs are as declared, on the grids of the image, and finite."""
    declared = backbone.output_shape()
    assert list(outputs) == list(declared), f"outputs {list(outputs)}, declared {list(declared)}"
    for name, x in outputs.items():
        stride = declared[name].stride
        grid = (math.ceil(size[0] / stride), math.ceil(size[1] / stride))
        expected = (batch, declared[name].channels, *grid)
        assert tuple(x.shape) == expected, f"{name} is {tuple(x.shape)} at {size}, expected {expected}"
        assert x.is_meta or x.isfinite().all(), f"{name} is not finite at {size}"


def check_stages(backbone: TimmBackbone) -> None:
    """Check that each parameter belongs to a stage and to a layer, which are numbered without gaps."""
    for coarse in (True, False):
        number = backbone.stage_of_parameters(coarse)
        names = {name for name, _ in backbone.model.named_parameters()}
        assert set(number) == names, "parameters without a stage"
        assert set(number.values()) == set(range(max(number.values()) + 1)), "stages are numbered with gaps"
