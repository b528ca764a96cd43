"""Overrides that make the recipe of Mask R-CNN small: a step takes about 0.2 s on one core."""

TINY = [
    "model.backbone.out_channels=16",
    "model.proposal_generator.pre_nms_topk=[50,50]",
    "model.proposal_generator.post_nms_topk=[20,20]",
    "model.roi_heads.box_head.fc_dims=[16,16]",
    "data.settings.shapes.train_short_edges=[64]",
    "data.settings.shapes.test_short_edge=64",
    "data.settings.shapes.max_size=64",
    "train.device=cpu",
    "train.amp.enabled=False",
]
