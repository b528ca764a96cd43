# COCO 2017's persons with keypoints, below $DETECTRON2_DATASETS or ./datasets
from .auto import data, dataloader

data.name = "coco_2017_keypoints"
