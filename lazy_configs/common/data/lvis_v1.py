# LVIS v1: lvis/lvis_v1_{train,val}.json and COCO 2017's images, below $DETECTRON2_DATASETS or ./datasets
from .auto import data, dataloader

data.name = "lvis_v1"
