# COCO 2017 with its panoptic maps, as published, under $DETECTRON2_DATASETS, or else ./datasets
from .auto import data, dataloader

data.name = "coco_2017_panoptic"
