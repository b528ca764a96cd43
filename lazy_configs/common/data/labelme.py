# Your own folder with labelme's JSON files: data.root
from .auto import data, dataloader

data.name = "labelme"
