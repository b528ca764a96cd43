# Your own folder in the layout of Pascal VOC: data.root
from .auto import data, dataloader

data.name = "voc_folder"
