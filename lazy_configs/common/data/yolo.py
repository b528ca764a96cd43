# Your own folder in the layout of YOLO, with a data.yaml: data.root
from .auto import data, dataloader

data.name = "yolo"
