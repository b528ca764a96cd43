"""Names and shapes of the weights in published detection checkpoints.

Each function returns name -> shape, for the sizes of the published models or of tiny ones. The sources are:

- https://github.com/SwinTransformer/Swin-Transformer-Object-Detection at c7b20110 (mmdet 2.11)
- https://github.com/facebookresearch/ConvNeXt at 048efcea, object_detection/
- https://github.com/facebookresearch/xcit at 82f5291f, detection/
- https://github.com/facebookresearch/detectron2 at 02b5c4e2: detectron2/modeling, configs, projects/ViTDet
- https://github.com/facebookresearch/mae, models_mae.py
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]

COCO = 80  # number of classes


def affine(name: str, *shape: int) -> Shapes:
    """A layer with weight and bias; the bias has one number for each row."""
    return {f"{name}.weight": shape, f"{name}.bias": (shape[0],)}


def batch_norm(name: str, channels: int, counter: bool = True) -> Shapes:
    """A batch norm; detectron2's frozen batch norms have no counter."""
    statistics = {f"{name}.running_mean": (channels,), f"{name}.running_var": (channels,)}
    return {
        **affine(name, channels),
        **statistics,
        **({f"{name}.num_batches_tracked": ()} if counter else {}),
    }


def transposed(name: str, channels: int) -> Shapes:
    """A transposed convolution that doubles a map and keeps its channels."""
    return affine(name, channels, channels, 2, 2)


def transformer_mlp(name: str, width: int) -> Shapes:
    """Norm and MLP of a transformer block."""
    return {
        **affine(f"{name}.norm2", width),
        **affine(f"{name}.mlp.fc1", 4 * width, width),
        **affine(f"{name}.mlp.fc2", width, 4 * width),
    }


def attention(name: str, width: int) -> Shapes:
    """Norm and projections of a transformer block."""
    return {
        **affine(f"{name}.norm1", width),
        **affine(f"{name}.attn.qkv", 3 * width, width),
        **affine(f"{name}.attn.proj", width, width),
    }


def swin(
    width: int = 96,
    depths: Sequence[int] = (2, 2, 6, 2),
    heads: Sequence[int] = (3, 6, 12, 24),
    window: int = 7,
) -> Shapes:
    """mmdet/models/backbones/swin_transformer.py; by default Swin-T."""
    shapes = {
        **affine("backbone.patch_embed.proj", width, 3, 4, 4),
        **affine("backbone.patch_embed.norm", width),
    }
    for stage, depth in enumerate(depths):
        channels = width * 2**stage
        for index in range(depth):
            block = f"backbone.layers.{stage}.blocks.{index}"
            shapes |= attention(block, channels) | transformer_mlp(block, channels)
            table = ((2 * window - 1) ** 2, heads[stage])
            shapes[f"{block}.attn.relative_position_bias_table"] = table
            shapes[f"{block}.attn.relative_position_index"] = (window**2, window**2)
        if stage < len(depths) - 1:
            shapes[f"backbone.layers.{stage}.downsample.reduction.weight"] = (2 * channels, 4 * channels)
            shapes |= affine(f"backbone.layers.{stage}.downsample.norm", 4 * channels)
        shapes |= affine(f"backbone.norm{stage}", channels)
    return shapes


def convnext(widths: Sequence[int] = (96, 192, 384, 768), depths: Sequence[int] = (3, 3, 9, 3)) -> Shapes:
    """object_detection/mmdet/models/backbones/convnext.py; by default ConvNeXt-T."""
    shapes: Shapes = {}
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        down = f"backbone.downsample_layers.{stage}"
        if stage:
            before = widths[stage - 1]
            shapes |= affine(f"{down}.0", before) | affine(f"{down}.1", width, before, 2, 2)
        else:
            shapes |= affine(f"{down}.0", width, 3, 4, 4) | affine(f"{down}.1", width)
        for index in range(depth):
            block = f"backbone.stages.{stage}.{index}"
            shapes[f"{block}.gamma"] = (width,)
            shapes |= affine(f"{block}.dwconv", width, 1, 7, 7) | affine(f"{block}.norm", width)
            shapes |= affine(f"{block}.pwconv1", 4 * width, width) | affine(
                f"{block}.pwconv2", width, 4 * width
            )
        shapes |= affine(f"backbone.norm{stage}", width)
    return shapes


def xcit(patch: int, width: int = 384, depth: int = 12, heads: int = 8) -> Shapes:
    """detection/backbone/xcit.py with patches of 8 or 16 pixels; by default XCiT-S12."""
    stem = [3, *(width // 2**i for i in reversed(range({8: 3, 16: 4}[patch])))]
    shapes: Shapes = {}
    for index, (before, after) in enumerate(itertools.pairwise(stem)):
        shapes[f"backbone.patch_embed.proj.{2 * index}.0.weight"] = (after, before, 3, 3)
        shapes |= batch_norm(f"backbone.patch_embed.proj.{2 * index}.1", after)
    shapes |= affine("backbone.pos_embeder.token_projection", width, 64, 1, 1)
    for index in range(depth):
        block = f"backbone.blocks.{index}"
        shapes |= attention(block, width) | transformer_mlp(block, width) | affine(f"{block}.norm3", width)
        shapes |= {f"{block}.gamma{i}": (width,) for i in (1, 2, 3)}
        shapes[f"{block}.attn.temperature"] = (heads, 1, 1)
        shapes |= batch_norm(f"{block}.local_mp.bn", width)
        for layer in ("conv1", "conv2"):
            shapes |= affine(f"{block}.local_mp.{layer}", width, 1, 3, 3)
    shapes |= transposed("backbone.fpn1.0", width)
    if patch == 16:
        shapes |= batch_norm("backbone.fpn1.1", width) | transposed("backbone.fpn1.3", width)
        shapes |= transposed("backbone.fpn2.0", width)
    return shapes


def mmdet_neck(widths: Sequence[int]) -> Shapes:
    """FPN and RPN: mmdet/models/necks/fpn.py, dense_heads/rpn_head.py."""
    shapes: Shapes = {}
    for level, width in enumerate(widths):
        shapes |= affine(f"neck.lateral_convs.{level}.conv", 256, width, 1, 1)
        shapes |= affine(f"neck.fpn_convs.{level}.conv", 256, 256, 3, 3)
    shapes |= affine("rpn_head.rpn_conv", 256, 256, 3, 3)
    return shapes | affine("rpn_head.rpn_cls", 3, 256, 1, 1) | affine("rpn_head.rpn_reg", 12, 256, 1, 1)


def mmdet_mask_head(stage: str = "", classes: int = COCO) -> Shapes:
    """mmdet/models/roi_heads/mask_heads/fcn_mask_head.py."""
    head = f"roi_head.mask_head{stage}"
    shapes: Shapes = {}
    for index in range(4):
        shapes |= affine(f"{head}.convs.{index}.conv", 256, 256, 3, 3)
    return shapes | transposed(f"{head}.upsample", 256) | affine(f"{head}.conv_logits", classes, 256, 1, 1)


def mmdet_heads(widths: Sequence[int], classes: int = COCO) -> Shapes:
    """Mask R-CNN: mmdet/models/roi_heads/bbox_heads/convfc_bbox_head.py (Shared2FCBBoxHead)."""
    head = "roi_head.bbox_head"
    shapes = mmdet_neck(widths) | affine(f"{head}.fc_cls", classes + 1, 1024)
    shapes |= affine(f"{head}.fc_reg", 4 * classes, 1024)
    shapes |= affine(f"{head}.shared_fcs.0", 1024, 256 * 49) | affine(f"{head}.shared_fcs.1", 1024, 1024)
    return shapes | mmdet_mask_head(classes=classes)


def mmdet_cascade(widths: Sequence[int], classes: int = COCO) -> Shapes:
    """Cascade Mask R-CNN: three stages, each with four convolutions with SyncBN, one layer, and masks."""
    shapes = mmdet_neck(widths)
    for stage in range(3):
        head = f"roi_head.bbox_head.{stage}"
        for index in range(4):
            shapes[f"{head}.shared_convs.{index}.conv.weight"] = (256, 256, 3, 3)
            shapes |= batch_norm(f"{head}.shared_convs.{index}.bn", 256)
        shapes |= affine(f"{head}.shared_fcs.0", 1024, 256 * 49)
        shapes |= affine(f"{head}.fc_cls", classes + 1, 1024) | affine(f"{head}.fc_reg", 4 * classes, 1024)
        shapes |= mmdet_mask_head(f".{stage}", classes)
    return shapes


def plain_vit(prefix: str, width: int, depth: int, positions: int) -> Shapes:
    """Patch embedding, position embeddings and blocks of a plain vision transformer."""
    shapes = {f"{prefix}pos_embed": (1, positions, width)}
    shapes |= affine(f"{prefix}patch_embed.proj", width, 3, 16, 16)
    for index in range(depth):
        shapes |= attention(f"{prefix}blocks.{index}", width) | transformer_mlp(
            f"{prefix}blocks.{index}", width
        )
    return shapes


def mae(width: int = 768, depth: int = 12) -> Shapes:
    """The encoder that https://github.com/facebookresearch/mae publishes for fine-tuning."""
    return {
        "cls_token": (1, 1, width),
        **plain_vit("", width, depth, 197),
        **affine("norm", width),
    }


def vitdet(
    width: int = 768,
    depth: int = 12,
    head_width: int = 64,
    sides: tuple[int, int] = (64, 14),
    everywhere: Sequence[int] = (2, 5, 8, 11),
) -> Shapes:
    """configs/common/models/mask_rcnn_vitdet.py: ViT-B, simple feature pyramid, heads with norms.

    Args:
        width: channels.
        depth: blocks.
        head_width: channels of an attention head.
        sides: cells per side of the image and of a window.
        everywhere: indices of the blocks with global attention.
    """
    shapes = plain_vit("backbone.net.", width, depth, 197)
    for index in range(depth):
        rows = 2 * sides[index not in everywhere] - 1
        shapes |= {f"backbone.net.blocks.{index}.attn.rel_pos_{axis}": (rows, head_width) for axis in "hw"}
    # level: number of layers before the convolutions, channels
    pyramid = {2: (3, width // 4), 3: (1, width // 2), 4: (0, width), 5: (1, width)}
    shapes |= affine("backbone.simfp_2.0", width, width // 2, 2, 2) | affine("backbone.simfp_2.1", width // 2)
    shapes |= affine("backbone.simfp_2.3", width // 2, width // 4, 2, 2)
    shapes |= affine("backbone.simfp_3.0", width, width // 2, 2, 2)
    for name, channels in (("2.0", width // 2), ("2.3", width // 4), ("3.0", width // 2)):
        # a transposed convolution has a bias for each column of its weight
        shapes[f"backbone.simfp_{name}.bias"] = (channels,)
    for level, (layers, channels) in pyramid.items():
        first = layers + (1 if level == 2 else 0)
        for index, (before, side) in enumerate(((channels, 1), (256, 3))):
            name = f"backbone.simfp_{level}.{first + index}"
            shapes[f"{name}.weight"] = (256, before, side, side)
            shapes |= affine(f"{name}.norm", 256)
    for index in range(2):
        shapes |= affine(f"proposal_generator.rpn_head.conv.conv{index}", 256, 256, 3, 3)
    shapes |= rpn_and_predictors()
    for index in range(1, 5):
        for name in (f"roi_heads.box_head.conv{index}", f"roi_heads.mask_head.mask_fcn{index}"):
            shapes[f"{name}.weight"] = (256, 256, 3, 3)
            shapes |= affine(f"{name}.norm", 256)
    return shapes | affine("roi_heads.box_head.fc1", 1024, 256 * 49)


def rpn_and_predictors() -> Shapes:
    """RPN, predictors and deconvolution, as in all of detectron2's Mask R-CNNs with FPN."""
    return {
        **affine("proposal_generator.rpn_head.objectness_logits", 3, 256, 1, 1),
        **affine("proposal_generator.rpn_head.anchor_deltas", 12, 256, 1, 1),
        **affine("roi_heads.box_predictor.cls_score", COCO + 1, 1024),
        **affine("roi_heads.box_predictor.bbox_pred", 4 * COCO, 1024),
        **transposed("roi_heads.mask_head.deconv", 256),
        **affine("roi_heads.mask_head.predictor", COCO, 256, 1, 1),
    }


def resnet50(prefix: str = "backbone.bottom_up.") -> Shapes:
    """detectron2/modeling/backbone/resnet.py with frozen batch norms."""
    shapes: Shapes = {}

    def convolution(name: str, *shape: int) -> None:
        shapes[f"{prefix}{name}.weight"] = shape
        shapes.update(batch_norm(f"{prefix}{name}.norm", shape[0], counter=False))

    convolution("stem.conv1", 64, 3, 7, 7)
    before = 64
    for stage, depth in enumerate((3, 4, 6, 3)):
        inner, outer = 64 * 2**stage, 256 * 2**stage
        for index in range(depth):
            block = f"res{stage + 2}.{index}"
            if not index:
                convolution(f"{block}.shortcut", outer, before, 1, 1)
            convolution(f"{block}.conv1", inner, before, 1, 1)
            convolution(f"{block}.conv2", inner, inner, 3, 3)
            convolution(f"{block}.conv3", outer, inner, 1, 1)
            before = outer
    return shapes


def zoo_fpn(levels: Sequence[int]) -> Shapes:
    """detectron2's FPN on some stages of a ResNet-50."""
    shapes: Shapes = {}
    for level in levels:
        shapes |= affine(f"backbone.fpn_lateral{level}", 256, 64 * 2**level, 1, 1)
        shapes |= affine(f"backbone.fpn_output{level}", 256, 256, 3, 3)
    return shapes


def zoo_mask_rcnn() -> Shapes:
    """COCO-InstanceSegmentation/mask_rcnn_R_50_FPN: heads with two layers, and the buffers of early files."""
    shapes = resnet50() | zoo_fpn((2, 3, 4, 5)) | affine("proposal_generator.rpn_head.conv", 256, 256, 3, 3)
    shapes |= rpn_and_predictors() | affine("roi_heads.box_head.fc1", 1024, 256 * 49)
    shapes |= affine("roi_heads.box_head.fc2", 1024, 1024)
    for index in range(1, 5):
        shapes |= affine(f"roi_heads.mask_head.mask_fcn{index}", 256, 256, 3, 3)
    anchors = "proposal_generator.anchor_generator.cell_anchors"
    return shapes | {f"{anchors}.{level}": (3, 4) for level in range(5)}


def zoo_retinanet() -> Shapes:
    """COCO-Detection/retinanet_R_50_FPN: p6 from res5, towers of four convolutions, nine anchors per cell."""
    shapes = resnet50() | zoo_fpn((3, 4, 5))
    shapes |= affine("backbone.top_block.p6", 256, 2048, 3, 3) | affine(
        "backbone.top_block.p7", 256, 256, 3, 3
    )
    for tower in ("cls_subnet", "bbox_subnet"):
        for index in range(4):
            shapes |= affine(f"head.{tower}.{2 * index}", 256, 256, 3, 3)
    return shapes | affine("head.cls_score", 9 * COCO, 256, 3, 3) | affine("head.bbox_pred", 36, 256, 3, 3)


def zeros(shapes: Shapes) -> dict[str, Tensor]:
    """Weights that take no memory."""
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


def numbers(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Random weights that keep the features of a tiny model around 1."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        if name.endswith(("relative_position_index", "num_batches_tracked")):
            weights[name] = torch.zeros(shape, dtype=torch.long)
        elif len(shape) == 1 and not name.endswith(("bias", "running_mean")):
            weights[name] = torch.rand(shape, generator=generator) + 0.5  # scales and variances
        else:
            weights[name] = torch.randn(shape, generator=generator) * 0.1
    return weights
