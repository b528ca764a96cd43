# People and their keypoints: COCO 2017 under $DETECTRON2_DATASETS, or else ./datasets
from .auto import data, dataloader

data.name = "coco_2017_keypoints"
