# Pascal VOC, VOC2007 and VOC2012 below $DETECTRON2_DATASETS or ./datasets: trained on the trainval sets of
# both years, evaluated on the test set of 2007
from .auto import data, dataloader

data.name = "pascal_voc"
