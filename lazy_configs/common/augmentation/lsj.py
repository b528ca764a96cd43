# Large-scale jitter (https://arxiv.org/abs/2012.07177): scale by 0.1 to 2, then crop or pad to a square
import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from omegaconf import ListConfig

_side = "${data.settings.${data.name}.crop_size}"

augmentation = ListConfig(
    [
        L(T.ResizeScale)(min_scale=0.1, max_scale=2.0, target_height=_side, target_width=_side),
        L(T.FixedSizeCrop)(crop_size=[_side, _side], pad=True),
        L(T.RandomFlip)(horizontal=True),
    ],
    flags={"allow_objects": True},
)
