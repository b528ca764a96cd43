# Resize, and with probability 0.5 crop before that: the augmentation of DETR (https://arxiv.org/abs/2005.12872),
# Swin and later detectors
import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from omegaconf import ListConfig

augmentation = ListConfig(
    [
        L(T.RandomFlip)(horizontal=True),
        L(T.RandomApply)(
            tfm_or_aug=L(T.AugmentationList)(
                augs=[
                    # fixed sides before the crop: they determine how much of the image a crop shows
                    L(T.ResizeShortestEdge)(
                        short_edge_length=[400, 500, 600], max_size=1333, sample_style="choice"
                    ),
                    L(T.RandomCrop)(crop_type="absolute_range", crop_size=[384, 600]),
                ]
            ),
            prob=0.5,
        ),
        L(T.ResizeShortestEdge)(
            short_edge_length="${data.settings.${data.name}.train_short_edges}",
            max_size="${data.settings.${data.name}.max_size}",
            sample_style="choice",
        ),
    ],
    flags={"allow_objects": True},
)
