# Your own folder with COCO files and their images: data.root
from .auto import data, dataloader

data.name = "coco_folder"
