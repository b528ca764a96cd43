# Your own folder with boxes of Open Images, in CSV files: data.root
from .auto import data, dataloader

data.name = "open_images"
