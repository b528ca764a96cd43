# Your own files in COCO format: data.train_json, train_images, val_json and val_images
from .auto import data, dataloader

data.name = "custom"
