# A folder of your own in the layout of YOLO: data.root, with a data.yaml
from .auto import data, dataloader

data.name = "yolo"
