from . import levels as levels
from .bifpn import BiFPN as BiFPN
from .detectron2_traits import detector_tasks as detector_tasks
from .detectron2_traits import takes_partial_masks as takes_partial_masks
from .meta_arch import FCOS as FCOS
from .meta_arch import SemanticSegmentor as SemanticSegmentor
from .necks import (
    PAFPN as PAFPN,
)
from .necks import (
    SingleLevel as SingleLevel,
)
from .necks import (
    level_shapes as level_shapes,
)
from .necks import (
    named_shapes as named_shapes,
)
from .partial_masks import CascadeROIHeads as CascadeROIHeads
from .partial_masks import StandardROIHeads as StandardROIHeads
from .roi_heads import (
    CascadeMaskROIHeads as CascadeMaskROIHeads,
)
from .roi_heads import (
    point_rend_mask_head as point_rend_mask_head,
)
from .simple_feature_pyramid import SimpleFeaturePyramid as SimpleFeaturePyramid
from .traits import TopBlock as TopBlock
from .traits import Traits as Traits
