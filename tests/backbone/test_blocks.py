"""Blocks as they were published."""

from __future__ import annotations

import torch
from timm.models.swin_transformer import SwinTransformerBlock

from d2timm import TimmBackbone
from d2timm.backbone.blocks import PaddedThenShifted, StrideIn1x1, stride_in_1x1


def test_bottlenecks_halve_in_their_first_convolution() -> None:
    block = StrideIn1x1(16, 4, stride=2)
    assert block.conv1.stride == (2, 2)
    assert block.conv2.stride == (1, 1)
    assert stride_in_1x1(stem_width=8) == {"stem_width": 8, "block": StrideIn1x1}


def test_backbones_take_them_by_their_keywords() -> None:
    kwargs = stride_in_1x1(layers=(1, 1, 1, 1), channels=(8, 8, 8, 8))
    model = TimmBackbone("resnet50", timm_kwargs=kwargs)
    assert [block.conv1.stride for block in model.modules() if isinstance(block, StrideIn1x1)] == [
        (1, 1),
        *[(2, 2)] * 3,
    ]


def test_swin_pads_before_it_shifts() -> None:
    """Where windows divide the map both are the same; else cells at its ends do not see each other."""
    torch.manual_seed(0)
    ours = PaddedThenShifted(8, (14, 14), num_heads=2, window_size=7, shift_size=3, dynamic_mask=True).eval()
    theirs = SwinTransformerBlock(
        8, (14, 14), num_heads=2, window_size=7, shift_size=3, dynamic_mask=True
    ).eval()
    theirs.load_state_dict(ours.state_dict())
    with torch.no_grad():
        whole = torch.randn(1, 14, 21, 8)
        assert torch.equal(ours(whole), theirs(whole))
        part = torch.randn(1, 12, 12, 8)
        changed = part.clone()
        changed[:, 0] += 1
        assert torch.equal(ours(part)[:, -1], ours(changed)[:, -1])
        assert not torch.equal(theirs(part)[:, -1], theirs(changed)[:, -1])


def test_all_blocks_of_a_backbone_do() -> None:
    kwargs = {"embed_dim": 8, "depths": (1, 1, 2, 1), "num_heads": (1, 1, 1, 1)}
    model = TimmBackbone("swin_tiny_patch4_window7_224", timm_kwargs=kwargs)
    blocks = [m for m in model.modules() if isinstance(m, SwinTransformerBlock)]
    assert len(blocks) == 5
    assert all(isinstance(block, PaddedThenShifted) for block in blocks)
