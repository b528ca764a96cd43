# Your own folder with Label Studio's JSON or JSON-MIN export: data.root
from .auto import data, dataloader

data.name = "label_studio"
