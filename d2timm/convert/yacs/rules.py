"""What becomes of old keys: the table of those that are converted, and reasons for those that are not."""

from __future__ import annotations

from .detector_rules import DETECTOR
from .training_rules import TRAINING

__all__ = ["LOST", "NEEDLESS", "RULES"]

#: Read from top to bottom
RULES = DETECTOR + TRAINING

#: Patterns of keys that are not needed -> why
NEEDLESS = {
    "VERSION": "of the old format",
    "GLOBAL.HACK": "of no effect",
    "MODEL.BACKBONE.CONFIG.REMOVE_LAYERS": "what the features do not need is not made",
    "MODEL.RESNETS.*": "of detectron2's own ResNet",
    "MODEL.ANCHOR_GENERATOR.ANGLES": "of rotated boxes",
    "MODEL.PANOPTIC_FPN.COMBINE.ENABLED": "of no effect in detectron2 either",
}
#: Patterns of keys that are not converted -> what stands in, or can be done
LOST = {
    "MODEL.BACKBONE.CONFIG.REPLACE_LAYERS": "timm's own layers; timm_kwargs has what a model lets one choose",
    "MODEL.WEIGHTS": "parameters have other names here",
    "INPUT.CROP.*": "put a RandomCrop into dataloader.train.mapper.augmentations",
    "SOLVER.REFERENCE_WORLD_SIZE": "train.reference_batch_size scales the learning rate with the batch",
    "SOLVER.CLIP_GRADIENTS.*": "optimizer.clip_norm is of all gradients together",
    "TEST.AUG.MAX_SIZE": "max_size is scaled as the short side is",
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": "images without objects are left out",
    "DATALOADER.ASPECT_RATIO_GROUPING": "wide and tall images are not mixed in a batch",
}
