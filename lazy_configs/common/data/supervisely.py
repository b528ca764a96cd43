# Your own folder with a project of Supervisely: data.root
from .auto import data, dataloader

data.name = "supervisely"
