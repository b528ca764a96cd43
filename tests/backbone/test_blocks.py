"""Blocks compute what the published models compute."""

from __future__ import annotations

import torch
from timm.models.swin_transformer import SwinTransformerBlock

from d2timm import TimmBackbone
from d2timm.backbone.blocks import PaddedThenShifted, StrideIn1x1, stride_in_1x1


def test_first_convolution_of_the_bottleneck_has_the_stride() -> None:
    block = StrideIn1x1(16, 4, stride=2)
    assert block.conv1.stride == (2, 2)
    assert block.conv2.stride == (1, 1)
    assert stride_in_1x1(stem_width=8) == {"stem_width": 8, "block": StrideIn1x1}


def test_backbone_uses_the_bottlenecks_of_its_keyword_arguments() -> None:
    kwargs = stride_in_1x1(layers=(1, 1, 1, 1), channels=(8, 8, 8, 8))
    model = TimmBackbone("resnet50", timm_kwargs=kwargs)
    assert [block.conv1.stride for block in model.modules() if isinstance(block, StrideIn1x1)] == [
        (1, 1),
        *[(2, 2)] * 3,
    ]


def test_swin_pads_before_it_shifts() -> None:
    """Both blocks agree if windows divide the map; otherwise only timm's lets opposite borders interact."""
    torch.manual_seed(0)
    kwargs = {"num_heads": 2, "window_size": 7, "shift_size": 3, "dynamic_mask": True}
    ours = PaddedThenShifted(8, (14, 14), **kwargs).eval()
    theirs = SwinTransformerBlock(8, (14, 14), **kwargs).eval()
    theirs.load_state_dict(ours.state_dict())
    with torch.no_grad():
        divisible = torch.randn(1, 14, 21, 8)
        assert torch.equal(ours(divisible), theirs(divisible))
        indivisible = torch.randn(1, 12, 12, 8)
        changed = indivisible.clone()
        changed[:, 0] += 1
        assert torch.equal(ours(indivisible)[:, -1], ours(changed)[:, -1])
        assert not torch.equal(theirs(indivisible)[:, -1], theirs(changed)[:, -1])


def test_all_swin_blocks_of_a_backbone_pad_first() -> None:
    kwargs = {"embed_dim": 8, "depths": (1, 1, 2, 1), "num_heads": (1, 1, 1, 1)}
    model = TimmBackbone("swin_tiny_patch4_window7_224", timm_kwargs=kwargs)
    blocks = [m for m in model.modules() if isinstance(m, SwinTransformerBlock)]
    assert len(blocks) == 5
    assert all(isinstance(block, PaddedThenShifted) for block in blocks)
