from .cityscapes import (
    CityscapesMaskEvaluator as CityscapesMaskEvaluator,
)
from .cityscapes import (
    CityscapesSemanticEvaluator as CityscapesSemanticEvaluator,
)
from .coco import (
    CocoEvaluator as CocoEvaluator,
)
from .coco import (
    LvisEvaluator as LvisEvaluator,
)
from .coco import (
    SemanticEvaluator as SemanticEvaluator,
)
from .panoptic import PanopticEvaluator as PanopticEvaluator
from .speed import Speed as Speed
