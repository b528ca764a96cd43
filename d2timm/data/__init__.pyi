from .catalog import (
    class_names as class_names,
)
from .catalog import (
    dataset_dicts as dataset_dicts,
)
from .catalog import (
    evaluators as evaluators,
)
from .catalog import (
    get_dataset as get_dataset,
)
from .catalog import (
    keypoint_names as keypoint_names,
)
from .catalog import (
    num_classes as num_classes,
)
from .catalog import (
    num_keypoints as num_keypoints,
)
from .catalog import (
    num_semantic_classes as num_semantic_classes,
)
from .loader import build_test_loader as build_test_loader
from .loader import build_train_loader as build_train_loader
from .mapper import Mapper as Mapper
from .mapper import mask_format as mask_format
