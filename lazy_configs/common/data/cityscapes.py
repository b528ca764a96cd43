# Cityscapes' fine annotations, cityscapes/leftImg8bit and gtFine below $DETECTRON2_DATASETS or ./datasets
from .auto import data, dataloader

data.name = "cityscapes"
