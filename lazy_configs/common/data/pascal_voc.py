# Pascal VOC: VOC2007 and VOC2012 below $DETECTRON2_DATASETS or ./datasets; training on the trainval splits of
# both years, evaluation on the test split of 2007
from .auto import data, dataloader

data.name = "pascal_voc"
