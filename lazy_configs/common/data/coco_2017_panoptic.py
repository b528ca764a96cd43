# COCO 2017 with its panoptic maps, below $DETECTRON2_DATASETS or ./datasets
from .auto import data, dataloader

data.name = "coco_2017_panoptic"
