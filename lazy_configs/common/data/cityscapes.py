# Cityscapes with fine annotations: cityscapes/{leftImg8bit,gtFine} below $DETECTRON2_DATASETS or ./datasets
from .auto import data, dataloader

data.name = "cityscapes"
