"""Published settings of training, for kinds of backbones: the starting points of ``train.recipe=auto``.

The first prior whose ``when`` fits is taken; a kind is described by what timm says of a model and by what
the model computes (d2timm.engine.family). ``values`` are keys of a config, and ``pretrained`` are further
ones for a backbone with pretrained weights. A list of pairs ``[millions, value]`` is a choice by the
parameters of the backbone: the first pair that has at least as many; None: any number. A backbone that
``starts_slowly`` is better than others only after many epochs (ViTDet-B is behind Swin-B after 12 epochs and
ahead after 50), so that a short training decides little. Learning rates are for
``train.reference_batch_size`` images per step and are scaled from there. Overrides come on top.
"""

_lr, _opt, _decay = "optimizer.lr", "optimizer.opt", "optimizer.weight_decay"
_images = "train.reference_batch_size"
_layer_decay, _num_layers = "optimizer.params.layer_decay", "optimizer.params.num_layers"
_backbone_factor = "optimizer.params.backbone_factor"
_drop_path = "model.backbone.bottom_up.drop_path_rate"
_norm, _freeze_at = "model.backbone.bottom_up.norm", "model.backbone.bottom_up.freeze_at"

priors = dict(
    small_vit_without_labels=dict(
        when=dict(kind="one stride", attention=True, labels=0, parameters=40),
        values={_opt: "adamw", _lr: 1e-4, _images: 16, _decay: 1e-4, _backbone_factor: 1.5},
        starts_slowly=True,
        source="RF-DETR's DINOv2-S: https://github.com/roboflow/rf-detr, heads 1e-4, encoder 1.5e-4",
    ),
    vit_without_labels=dict(
        when=dict(kind="one stride", attention=True, labels=0),
        values={
            **{_opt: "adamw", _lr: 1e-4, _images: 64, _decay: 0.1},
            _layer_decay: [[150, 0.7], [400, 0.8], [None, 0.9]],
            _drop_path: [[150, 0.1], [400, 0.4], [None, 0.5]],
        },
        starts_slowly=True,
        source="ViTDet-B, L and H with MAE's weights: https://arxiv.org/abs/2203.16527, "
        "detectron2/projects/ViTDet/configs/COCO",
    ),
    vit=dict(
        when=dict(kind="one stride", attention=True),
        values={
            **{_opt: "adamw", _lr: 1e-4, _images: 16, _decay: 0.05},
            _drop_path: [[40, 0.05], [None, 0.1]],
        },
        source="XCiT-S: https://arxiv.org/abs/2106.09681, detection/configs/xcit; for a ViT with labels, "
        "rates by layer are of no use (https://arxiv.org/abs/2203.16527, appendix)",
    ),
    attention_pyramid=dict(
        when=dict(norm="other", attention=True, parameters=60),
        values={
            **{_opt: "adamw", _lr: 1e-4, _images: 16, _decay: 0.05},
            _drop_path: [[40, 0.1], [None, 0.2]],
        },
        source="Swin-T and S: https://arxiv.org/abs/2103.14030, "
        "Swin-Transformer-Object-Detection/configs/swin",
    ),
    large_attention_pyramid=dict(
        when=dict(norm="other", attention=True),
        values={_opt: "adamw", _lr: 4e-5, _images: 64, _decay: 0.05, _drop_path: 0.4},
        source="Swin-B and L: detectron2/projects/ViTDet/configs/COCO/cascade_mask_rcnn_swin_b_in21k_50ep.py",
    ),
    convolution_pyramid=dict(
        when=dict(norm="other", attention=False, parameters=40),
        values={
            **{_opt: "adamw", _lr: 1e-4, _images: 16, _decay: 0.05},
            **{_layer_decay: 0.95, _num_layers: 6, _drop_path: 0.4},
        },
        source="ConvNeXt-T: https://arxiv.org/abs/2201.03545, object_detection/configs/convnext/"
        "mask_rcnn_convnext_tiny_…_3x_coco_in1k.py",
    ),
    large_convolution_pyramid=dict(
        when=dict(norm="other", attention=False),
        values={
            **{_opt: "adamw", _lr: [[60, 2e-4], [None, 1e-4]], _images: 16, _decay: 0.05},
            **{_layer_decay: [[60, 0.7], [150, 0.8], [None, 0.7]], _num_layers: 12},
            _drop_path: [[150, 0.6], [300, 0.7], [None, 0.8]],
        },
        source="ConvNeXt-S, B, L and XL: object_detection/configs/convnext/cascade_mask_rcnn_convnext_…",
    ),
    batch_norms=dict(
        when=dict(norm="batch"),
        values={_opt: "adamw", _lr: 2e-4, _images: 16, _decay: 0.05},
        pretrained={_norm: "FrozenBN", _freeze_at: 2},
        source="frozen norms and stages: detectron2/configs/common/models/mask_rcnn_fpn.py; AdamW at 1e-4 to "
        "3e-4 instead of SGD at 0.02, because it needs fewer steps",
    ),
    others=dict(
        when=dict(),
        values={_opt: "adamw", _lr: 1e-4, _images: 16, _decay: 0.05},
        source="as most priors above",
    ),
)
