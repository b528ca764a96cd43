# Your own folder with a project or an export of VGG Image Annotator 2: data.root
from .auto import data, dataloader

data.name = "via"
