# Your own folder with CVAT for images 1.1: data.root
from .auto import data, dataloader

data.name = "cvat"
